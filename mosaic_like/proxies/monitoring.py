"""``mosaic.monitor``: what becomes of a tessera, as events to be iterated over.

Who puts them in is the runtime; here they wait, not more than ``MOST`` of them, for who
reads them, on whatever loop that runs.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from .restarts import handle_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tessera import TesseraProxy

MOST = 1000  # events that nobody has read; the oldest go


class TesseraChange(enum.StrEnum):
    """What has happened to a tessera."""

    UP = "up"  # it is built
    DOWN = "down"  # its worker is lost, or it has failed for good
    RESTARTED = "restarted"  # it was built again


class TesseraEvent(NamedTuple):
    """One change, as it was heard of here."""

    change: TesseraChange
    runtime_id: str  # where it is, or was
    cause: str  # how the worker ended, or why it has failed
    restarts: int  # how often it had been built again


class Monitor:
    """An asynchronous iterator of ``TesseraEvent``; it ends with the tessera.

    ``dropped`` counts the events that were not read in time.
    """

    def __init__(self, proxy: TesseraProxy[Any]) -> None:
        self._proxy = proxy  # it is held while it is watched
        self._events: deque[TesseraEvent] = deque()
        self._over = False
        self._wake: Callable[[], object] | None = None
        self.dropped = 0

    def put(
        self, change: TesseraChange, runtime_id: str, cause: str, restarts: int
    ) -> None:
        """It has changed; on the runtime's loop."""
        if len(self._events) >= MOST:
            self._events.popleft()
            self.dropped += 1
        self._events.append(TesseraEvent(change, runtime_id, cause, restarts))
        self._woken()

    def end(self) -> None:
        """Nothing more will happen to it; on the runtime's loop."""
        self._over = True
        self._woken()

    def _woken(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TesseraEvent:
        loop = asyncio.get_running_loop()
        while not self._events:
            if self._over:
                raise StopAsyncIteration
            future: asyncio.Future[None] = loop.create_future()

            def set_result(future: asyncio.Future[None] = future) -> None:
                if not future.done():
                    future.set_result(None)

            def wake() -> None:
                loop.call_soon_threadsafe(set_result)

            self._wake = wake
            if not self._events and not self._over:  # put meanwhile, by another thread
                await future
        return self._events.popleft()


def monitor(proxy: TesseraProxy[Any]) -> Monitor:
    """What becomes of a tessera, as an asynchronous iterator.

    Gives ``TesseraEvent``: ``change`` (up, down or restarted), ``runtime_id``,
    ``cause`` and ``restarts``, as this process hears of them; the first one is ``up``
    where it is built already. Not read, the last 1,000 are kept. With ``max_restarts``
    each loss of its worker is ``down``, and then it is ``restarted``; it ends when the
    tessera was closed, could not be built, or has no restarts left. Without, ``down``
    is the last one: its worker is lost or was drained, its constructor has raised, or
    it was killed, as ``cause`` says; when it was closed there is none. It holds the
    tessera.

    Args:
        proxy: of one tessera.

    Raises:
        TypeError: it is no proxy of one.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera(max_restarts=1)
    ... class Counter:
    ...     pass
    >>> async def main():
    ...     async for event in mosaic.monitor(Counter.remote()):
    ...         return event.change, event.runtime_id
    >>> mosaic.run(main, num_workers=1)
    (<TesseraChange.UP: 'up'>, 'worker:0:0')
    """
    handle = handle_of(proxy, "monitor")
    watching = Monitor(proxy)
    runtime: Any = handle.runtime
    runtime.post(runtime.watching.watch, handle, watching)
    return watching
