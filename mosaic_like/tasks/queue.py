"""``TaskQueue``: runs the tasks that are put into it, and those alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..core.task import DONE, PREPARE
from ..proxies.task import TaskProxy
from ..proxies.waiting import watch_all
from .graph import Graph

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class TaskQueue:
    """Sends its tasks as they become ready, and gives each when it has ended.

    Unlike ``make`` it sends nothing that was not put into it: a task that waits for one
    outside stays, and ``stuck()`` tells of it when nothing else can run.

    Args:
        tasks: to run; more by ``add``, at any time.
        run_dependents: add also what waits for a task, when that has ended.

    Raises:
        TypeError: not a task.

    >>> import mosaic_like as mosaic
    >>> @mosaic.task
    ... def double(x): return 2 * x
    >>> async def main():
    ...     first = double.task(1)
    ...     last = first.then(double)
    ...     queue = mosaic.TaskQueue(last)
    ...     assert await queue.get() is None and queue.stuck() == [last]
    ...     queue.add(first)
    ...     return [await task.result() async for task in queue]
    >>> mosaic.run(main, num_workers=1)
    [2, 4]
    """

    def __init__(self, *tasks: TaskProxy[Any], run_dependents: bool = False) -> None:
        self._run_dependents = run_dependents
        self._tasks: dict[TaskProxy[Any], None] = {}
        self._left: dict[TaskProxy[Any], None] = {}  # not given yet
        self._watched: set[TaskProxy[Any]] = set()  # those outside, too
        self._ended: asyncio.Queue[TaskProxy[Any]] = asyncio.Queue()
        self._unseen: list[TaskProxy[Any]] = []  # since something has changed for them
        for task in tasks:
            self.add(task)

    def add(self, task: TaskProxy[Any]) -> None:
        """Put a task in; nothing happens if it is in it already.

        Raises:
            TypeError: not a task.
        """
        if not isinstance(task, TaskProxy):
            raise TypeError(f"a TaskQueue takes tasks, not {task!r}")
        if task not in self._tasks:
            self._tasks[task] = self._left[task] = None
            self._unseen.append(task)

    async def get(self) -> TaskProxy[Any] | None:
        """The next task that has ended; None if none is left that can.

        What may still come then depends on others: see ``stuck``.
        """
        while self._left:
            self._advance()
            if not self._watched:
                return None
            task = await self._ended.get()
            self._watched.discard(task)
            dependents = task.blocking
            self._unseen += [other for other in dependents if other in self._left]
            if task in self._left:
                del self._left[task]
                if self._run_dependents:
                    for other in dependents:
                        self.add(other)
                return task
        return None

    async def __aiter__(self) -> AsyncIterator[TaskProxy[Any]]:
        while (task := await self.get()) is not None:
            yield task

    def stuck(self) -> list[TaskProxy[Any]]:
        """Those that wait, directly or not, for a task that nobody has sent."""
        found: dict[TaskProxy[Any], None] = {}
        before = -1
        while len(found) > before:  # until no more follow from those found
            before = len(found)
            for task in self._left:
                if task._call.state == PREPARE and any(
                    blocker in found
                    or (blocker._call.state == PREPARE and blocker not in self._left)
                    for blocker in task.blockers()
                ):
                    found[task] = None
        return [task for task in self._left if task in found]

    def as_dot(self) -> str:
        """Its tasks in the language of Graphviz."""
        return Graph.of(*self._tasks).dot()

    def _advance(self) -> None:
        """Send what nothing blocks; watch what is on its way, and what blocks."""
        unseen, self._unseen = self._unseen, []
        for task in unseen:
            wanted = [task]
            if task._call.state == PREPARE:
                open_ones = [b for b in task.blockers() if b._call.state < DONE]
                if open_ones:
                    wanted = [b for b in open_ones if b._call.state != PREPARE]
                else:
                    task.submit()  # if a blocker has failed, it ends with that
            new = [task for task in wanted if task not in self._watched]
            self._watched.update(new)
            watch_all(new, self._ended)
