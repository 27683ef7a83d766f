"""A loop that turns only while somebody waits for it, in that thread.

For ``mosaic.local``: all of its cluster is on one of these, and has no thread. Where
another loop runs in the thread, that one turns it too, so that timers and sockets
of coroutines go on between.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from typing import TYPE_CHECKING, Any

from .loops import SLOW_S

if TYPE_CHECKING:
    from collections.abc import Callable


class SteppedLoop(asyncio.SelectorEventLoop):
    """See the module; ``on_turn`` is told before and after each turn."""

    def __init__(self) -> None:
        self._selector_here = selectors.DefaultSelector()
        self._asked = 0  # callbacks, ever
        self._due: list[float] = []  # timers that the host does not know yet
        self.bound: dict[str, Any] = {}  # see comms.within
        self._host: asyncio.AbstractEventLoop | None = None
        self.on_turn: Callable[[bool], object] = lambda begins: None
        self.turned: Callable[[], object] = lambda: None  # what the host calls
        super().__init__(self._selector_here)
        self.slow_callback_duration = SLOW_S

    # -- what is scheduled -------------------------------------------------------------

    def call_soon(self, callback: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # as it is
        self._asked += 1
        return super().call_soon(callback, *args, **kwargs)

    def call_soon_threadsafe(self, callback: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # as it is
        self._asked += 1
        return super().call_soon_threadsafe(callback, *args, **kwargs)

    def call_at(self, when: float, callback: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # as it is
        self._due.append(when)
        return super().call_at(when, callback, *args, **kwargs)

    # -- turning it --------------------------------------------------------------------

    def settle(self) -> None:
        """Turn it until nothing is left that can be done without waiting."""
        before = -1
        while before != self._asked:
            before = self._asked
            super().call_soon(self.stop)
            self._turn()

    def wait(self, timeout_s: float | None) -> None:
        """Turn it until ``stop``, or for so long."""
        timer = None if timeout_s is None else super().call_later(timeout_s, self.stop)
        self._turn()
        if timer is not None:
            timer.cancel()

    def stop_soon(self) -> None:
        """Let ``wait`` return; from any thread."""
        with contextlib.suppress(RuntimeError):  # it has closed
            super().call_soon_threadsafe(self.stop)

    def _turn(self) -> None:
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        self.on_turn(True)
        try:
            self.run_forever()
        finally:
            self.on_turn(False)
            asyncio._set_running_loop(outer)

    # -- the loop around it ------------------------------------------------------------

    def attach(self, host: asyncio.AbstractEventLoop) -> None:
        """Let the loop that runs in this thread turn it when something is due."""
        if self.is_closed():
            return
        if host is not self._host:
            self.detach()
            self._host = host
            host.add_reader(self._selector_here.fileno(), self.turned)
        now, due = self.time(), self._due
        self._due = []
        for when in due:
            host.call_later(max(when - now, 0.0), self.turned)

    def detach(self) -> None:
        """The loop around it has it no more."""
        host, self._host = self._host, None
        if host is not None and not host.is_closed():
            host.remove_reader(self._selector_here.fileno())
