"""``TaskQueue``: runs the tasks that are put into it, and those alone."""

from __future__ import annotations

import asyncio
from collections import deque
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
        self._given: deque[TaskProxy[Any]] = deque()
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

    async def get(self) -> TaskProxy[Any] | None:
        """The next task that has ended; None if none is left that can.

        What may still come then depends on others: see ``stuck``.
        """
        while self._left:
            self._advance()
            while not self._ended.empty():
                self._watched.discard(task := self._ended.get_nowait())
                if task in self._left:
                    return self._give(task)
            if not self._watched:
                return None
            task = await self._ended.get()
            self._watched.discard(task)
            if task in self._left and task._call.settled:
                return self._give(task)
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
        for task in list(self._left):
            if task in self._watched:
                continue
            if task._call.state == PREPARE:
                blockers = task.blockers()
                running = [b for b in blockers if b._call.state < DONE]
                if running:
                    self._watch(b for b in running if b._call.state != PREPARE)
                    continue
                task.submit()  # if a blocker has failed, it ends with that
            self._watch([task])

    def _watch(self, tasks: Any) -> None:
        new = [task for task in tasks if task not in self._watched]
        self._watched.update(new)
        watch_all(new, self._ended)

    def _give(self, task: TaskProxy[Any]) -> TaskProxy[Any]:
        del self._left[task]
        if self._run_dependents:
            for other in task.blocking:
                self.add(other)
        return task
