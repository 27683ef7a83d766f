"""``mosaic.local``: all runs in this process, for unit tests and for debuggers.

What makes it so is in ``runtimes/solo.py``; here it becomes the current runtime and
ends: at the end of a block, or where ``MOSAIC_LOCAL`` says so instead of a cluster.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from .. import session
from ..config import Config
from ..environment import LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ..runtimes.solo import Solo


def is_wanted() -> bool:
    """The environment wants no cluster to be started."""
    return os.environ.get(LOCAL, "").lower() in ("1", "true", "yes", "on")


def local() -> Local:
    """Run all calls in this process, at once: no cluster, no other processes.

    Inside the block ``submit``, ``map``, ``Klass.remote`` and its methods, ``Executor``
    and the rest run where they are called; when the line is over they have ended. What
    waits for time, as a coroutine that sleeps or a retry with a delay, goes on when
    somebody waits for it, or the loop around it has time. Arguments and values are
    pickled, and states, errors, retries, order and hooks are those of a cluster; there
    is one worker, and what is printed is not labelled. A plain function cannot be
    interrupted, so a ``timeout`` counts for coroutine functions alone.

    ``with`` also where a loop runs, or ``async with``. With ``MOSAIC_LOCAL=1`` in the
    environment ``mosaic.run``, ``init``, ``interactive`` and ``Executor`` do the same
    instead of starting a cluster.

    >>> import mosaic_like as mosaic
    >>> @mosaic.task
    ... def words(text): return len(text.split())
    >>> with mosaic.local():
    ...     task = words.submit("to be")
    ...     task.state, task.get(), words.map(["a", "b c"])[1].get()
    (<TaskState.DONE: 'done'>, 2, 2)
    """
    return Local()


class Local:
    """What ``local`` gives: a context manager, once."""

    def __init__(self) -> None:
        self._solo: Solo | None = None
        self._before: Any = None

    def __enter__(self) -> Solo:
        from ..runtimes.solo import Solo  # as heavy as a head

        if self._solo is not None:
            raise RuntimeError("this block was entered before: call mosaic.local()")
        self._before = session.replace(None)
        try:
            self._solo = Solo.begin(Config.make(num_workers=1))
        finally:
            session.replace(self._before if self._solo is None else self._solo)
        return self._solo

    def __exit__(self, *_: object) -> None:
        assert self._solo is not None, "it was entered"
        try:
            self._solo.end()
        finally:
            session.replace(self._before)

    async def __aenter__(self) -> Solo:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


async def begin(config: Config) -> Solo:
    """Instead of a cluster; on the loop that would be its head's."""
    from ..runtimes.solo import Solo

    solo = Solo.begin(config)
    solo.hold = SoloHold(solo)
    return solo


class SoloHold:
    """How it ends; see ``local.Hold``."""

    cluster = None

    def __init__(self, head: Solo) -> None:
        self.head = head
        self.maker = os.getpid()
        self.ending: asyncio.Task[None] | None = None  # it needs no task
        self.on_end: Callable[[], object] = lambda: None
        self.join: Callable[[], object] = lambda: None
        self._host = asyncio.get_running_loop()

    def stop(self) -> SoloHold:
        """End it now."""
        if not self.head.peers.closed:
            session.forget(self.head)
            self.head.end()
            self._host.call_soon_threadsafe(self.on_end)
        return self

    async def end(self) -> None:
        self.stop()

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()

    def wait(self) -> None:
        """It has ended; its loop's thread, if there is one, has too."""
        self.join()
