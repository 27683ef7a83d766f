"""``TaskGroup``: tasks that end together, by the rules of ``asyncio.TaskGroup``."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..errors import TaskCancelledError
from ..proxies.methods import RemoteMethod
from ..proxies.task import TaskProxy
from .function import Task
from .marking import task

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

P = ParamSpec("P")
R = TypeVar("R")


class TaskGroup:
    """``async with mosaic.TaskGroup() as group``: at its end all its tasks have ended.

    The first task that fails cancels the others, and the body of the ``async with`` if
    that still runs; leaving it by an error cancels all. Then an ExceptionGroup has the
    errors; a task that was cancelled is none.

    >>> import mosaic_like as mosaic
    >>> @mosaic.task
    ... def double(x): return 2 * x
    >>> async def main():
    ...     async with mosaic.TaskGroup() as group:
    ...         left, right = group.submit(double, 1), group.submit(double, 2)
    ...     return await mosaic.gather(left, right)
    >>> mosaic.run(main, num_workers=1)
    [2, 4]
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._proxies: list[TaskProxy[Any]] = []

    async def __aenter__(self) -> TaskGroup:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._group.__aexit__(kind, error, traceback)
        finally:
            for proxy in self._proxies:  # those that were cancelled end, too
                await proxy.exception()

    def submit(
        self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskProxy[Any]:
        """Submit a call that belongs to the group.

        Args:
            fn: a task, a method of a tessera, or any function.
            args, kwargs: of the call.

        Raises:
            RuntimeError: the group was not entered, or has ended.
        """
        made: TaskProxy[Any]
        if isinstance(fn, Task):
            made = fn.submit(*args, **kwargs)
        elif isinstance(fn, RemoteMethod):
            made = fn(*args, **kwargs)
        else:
            made = task(fn).submit(*args, **kwargs)
        return self.add(made)

    def add(self, proxy: TaskProxy[Any]) -> TaskProxy[Any]:
        """Let a task that was made elsewhere belong to the group.

        Raises:
            TypeError: not a task.
            RuntimeError: the group was not entered, or has ended.
        """
        if not isinstance(proxy, TaskProxy):
            raise TypeError(f"a TaskGroup takes tasks, not {proxy!r}")
        following = _follow(proxy)
        try:
            follower = self._group.create_task(following)
        except RuntimeError:
            following.close()
            proxy.cancel("its TaskGroup has ended")
            raise

        def ended(follower: asyncio.Task[None]) -> None:
            if follower.cancelled():  # perhaps before it began
                proxy.cancel("its TaskGroup ends")

        follower.add_done_callback(ended)
        self._proxies.append(proxy)
        return proxy


async def _follow(proxy: TaskProxy[Any]) -> None:
    """End as a task does; one that was cancelled is no error of the group."""
    with contextlib.suppress(TaskCancelledError):
        await proxy
