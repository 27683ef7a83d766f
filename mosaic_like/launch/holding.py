"""How a head came to its cluster, and so how it ends: once, in order, from any loop."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from .. import session
from .cluster import Cluster, end

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..runtimes.directory import RunDirectory
    from ..runtimes.head import Head


class Hold:
    """How a head came to its cluster, and so how it ends.

    Args:
        head: the runtime.
        cluster: that it owns; None if it joined one.
        directory: of the cluster that it joined, or its own if that is elsewhere.
        is_own: it is to be removed.
    """

    def __init__(
        self,
        head: Head,
        cluster: Cluster | None,
        directory: RunDirectory | None = None,
        *,
        is_own: bool = False,
    ) -> None:
        self.head = head
        self.cluster = cluster
        self.directory = directory
        self._is_own = is_own
        self.maker = os.getpid()
        # Of the thread that runs the head's loop, if it is the head's alone.
        self.on_end: Callable[[], object] = lambda: None
        # Takes what is to be called at the program's deadline, if signals tell of it.
        self.on_deadline: Callable[[Callable[[], Any]], object] | None = None
        self.join: Callable[[], object] = lambda: None
        self.ending: asyncio.Task[None] | None = None

    def stop(self) -> Stopping:
        """End it; soon, and for sure when what this gives is awaited."""
        return Stopping(self)

    async def end(self) -> None:
        """On the head's loop, from any number of tasks: end it once, in order."""
        if os.getpid() != self.maker:
            return  # a fork of the program's: the cluster is not its own
        if self.ending is None:
            session.forget(self.head)
            self.ending = asyncio.ensure_future(self._end())
        await asyncio.shield(self.ending)

    async def _end(self) -> None:
        try:
            if self.cluster is not None:
                await end(self.head, self.cluster)
            else:
                await self._leave()
        finally:
            self.on_end()

    async def _leave(self) -> None:
        head = self.head
        try:
            await head.leave()
        finally:
            head.stopping = True
            head.close()
            if self.directory is not None:
                let_go(self.directory, is_own=self._is_own)


def let_go(directory: RunDirectory, *, is_own: bool) -> None:
    """Of a cluster that was joined, or one's own in a cluster that is elsewhere."""
    if is_own:
        directory.remove()
    else:
        directory.release()


class Stopping:
    """What stopping gives: to be awaited on any loop, or waited for in a thread."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._future: Any = None
        loop = hold.head.loop
        if loop.is_closed() or os.getpid() != hold.maker:
            return  # it has ended, or is not that of this process but of its parent
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is loop:
            self._future = asyncio.ensure_future(hold.end())
        else:
            self._future = asyncio.run_coroutine_threadsafe(hold.end(), loop)

    def __await__(self) -> Any:
        return self._wait().__await__()

    async def _wait(self) -> None:
        if isinstance(self._future, asyncio.Future):
            await self._future
        elif self._future is not None:
            await asyncio.wrap_future(self._future)
            self._hold.join()  # its loop has only to be closed

    def wait(self) -> None:
        """Block this thread until it has ended."""
        if isinstance(self._future, asyncio.Future):
            raise RuntimeError("this is the runtime's own loop: await mosaic.stop()")
        if self._future is not None:
            self._future.result()
            self._hold.join()
