"""``make``: run tasks with all that they wait for, and see each one end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..core.task import DONE, PREPARE
from ..proxies.task import TaskProxy
from ..proxies.waiting import watch_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator


class Make:
    """What ``make`` gives: to be awaited, or iterated over by ``async for``."""

    def __init__(self, tasks: tuple[TaskProxy[Any], ...], fail_fast: bool) -> None:
        self._tasks = tasks
        self._fail_fast = fail_fast

    def __await__(self) -> Generator[Any, None, list[TaskProxy[Any]]]:
        return self._all().__await__()

    async def _all(self) -> list[TaskProxy[Any]]:
        return [task async for task in self]

    async def __aiter__(self) -> AsyncIterator[TaskProxy[Any]]:
        if not self._tasks:
            return
        runtime = self._tasks[0]._runtime
        connections = runtime.connections
        calls = [task._call for task in self._tasks]
        wanted = runtime.at_once(connections.unfinished, calls)
        started = [task for task in wanted if task._call.state == PREPARE]
        ended: asyncio.Queue[TaskProxy[Any]] = asyncio.Queue()
        watch_all(wanted, ended)
        for task in self._tasks:
            if task._call.state == PREPARE:
                runtime.want(task._call)
        for _ in wanted:
            task = await ended.get()
            yield task
            if self._fail_fast and task._call.state != DONE:
                for other in started:
                    other.cancel(f"{task.name} has failed")
                return


def make(*tasks: TaskProxy[Any], fail_fast: bool = False) -> Make:
    """Run tasks and all that they wait for.

    A task that is only prepared is sent, one that is on its way is waited for. What
    needs one that fails ends at once, with the reason ``upstream``; nothing is raised.

    Args:
        tasks: to be made.
        fail_fast: stop at the first that has no value, and cancel what this has sent.

    Returns:
        By ``async for`` each task when it has ended, those that were only needed too;
        by ``await`` the list of them.

    Raises:
        TypeError: not a task.

    >>> import mosaic_like as mosaic
    >>> @mosaic.task
    ... def double(x): return 2 * x
    >>> async def main():
    ...     first = double.task(1)
    ...     last = first.then(double)
    ...     return [(t.state.value, await t.result()) for t in await mosaic.make(last)]
    >>> mosaic.run(main, num_workers=1)
    [('done', 2), ('done', 4)]
    """
    for task in tasks:
        if not isinstance(task, TaskProxy):
            raise TypeError(
                f"make() takes tasks, such as f.task(...) gives, not {task!r}"
            )
    return Make(tasks, fail_fast)
