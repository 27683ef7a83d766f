"""Waiting for several tasks: ``gather``, ``wait``, ``as_completed``."""

from __future__ import annotations

import asyncio
import functools
import queue
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Generic, Literal, TypeVar, overload

from ..comms.frames import PASSED_ON
from ..core.task import DONE, PREPARE
from .attributes import RemoteAttribute
from .settling import fetch_soon, future_of
from .task import TaskProxy

R = TypeVar("R")

FIRST_COMPLETED = "FIRST_COMPLETED"
FIRST_EXCEPTION = "FIRST_EXCEPTION"
ALL_COMPLETED = "ALL_COMPLETED"


def _tasks(proxies: tuple[Any, ...], what: str) -> list[TaskProxy[Any]]:
    """Several arguments, or one iterable of them."""
    if len(proxies) == 1 and not isinstance(proxies[0], TaskProxy):
        (only,) = proxies
        if not isinstance(only, Iterable):
            raise TypeError(f"{what} takes tasks, found {only!r}")
        proxies = tuple(only)
    for proxy in proxies:
        if not isinstance(proxy, TaskProxy):
            if getattr(type(proxy), "__mosaic_drawn__", False):
                continue  # stands for one, in visualize
            hint = ""
            if isinstance(proxy, RemoteAttribute):
                hint = f"; mosaic.get_attr(proxy, {proxy._name!r}) gives a task"
            raise TypeError(f"{what} takes tasks, found {proxy!r}{hint}")
        if proxy._call.state == PREPARE:
            proxy._runtime.want(proxy._call)
    return list(proxies)


@overload
async def gather(
    *proxies: TaskProxy[R], return_exceptions: Literal[False] = False
) -> list[R]: ...
@overload
async def gather(
    proxies: Iterable[TaskProxy[R]], /, *, return_exceptions: Literal[False] = False
) -> list[R]: ...
@overload
async def gather(
    *proxies: TaskProxy[R], return_exceptions: bool
) -> list[R | BaseException]: ...
@overload
async def gather(
    proxies: Iterable[TaskProxy[R]], /, *, return_exceptions: bool
) -> list[R | BaseException]: ...
async def gather(*proxies: Any, return_exceptions: bool = False) -> list[Any]:
    """The values of several tasks, in order.

    Args:
        proxies: tasks, or one iterable of tasks.
        return_exceptions: give errors in the list instead of raising the first.

    Raises:
        Exception: the first failure, as its own type, at once; the others go on.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Squarer:
    ...     def square(self, x): return x * x
    >>> async def main():
    ...     squarer = Squarer.remote()
    ...     return await mosaic.gather(squarer.square(x) for x in range(4))
    >>> mosaic.run(main, num_workers=1)
    [0, 1, 4, 9]
    """
    tasks = _tasks(proxies, "gather")
    if return_exceptions:
        for task in tasks:
            await task.exception()
        _fetch_all(tasks)
        return [await _value_or_error(task) for task in tasks]
    if any(not task._call.settled for task in tasks):
        await _all_or_first_failure(tasks)
    with PASSED_ON:
        for task in tasks:
            if task._call.settled and task._call.state != DONE:
                await task  # raises
        _fetch_all(tasks)
        return [await task.result() for task in tasks]


def _fetch_all(tasks: list[TaskProxy[Any]]) -> None:
    """Before the first is waited for: one after the other took a round trip each."""
    for task in tasks:
        if isinstance(task, TaskProxy):  # else it stands in for one, in a drawing
            fetch_soon(task._runtime, task._call)


async def _value_or_error(task: TaskProxy[Any]) -> Any:
    if task._call.state != DONE:
        return await task.exception()
    try:
        return await task.result()
    except Exception as error:  # the value was lost since, or cannot be rebuilt here
        return error


async def _all_or_first_failure(tasks: list[TaskProxy[Any]]) -> None:
    """Wait until all have ended or one has failed."""
    runtime = tasks[0]._runtime
    left = sum(not task._call.settled for task in tasks)

    def watch(then: Any) -> None:
        for task in tasks:
            call = task._call

            def ended(call: Any = call) -> None:
                nonlocal left
                left -= 1
                if left <= 0 or call.state != DONE:
                    then()

            if not call.settled:
                runtime.when_settled(call, ended)
            elif call.state != DONE:
                then()

    left = sum(not task._call.settled for task in tasks) or 1
    await future_of(runtime, watch)


async def wait(
    proxies: Iterable[TaskProxy[R]],
    timeout: float | None = None,
    return_when: str = ALL_COMPLETED,
) -> tuple[set[TaskProxy[R]], set[TaskProxy[R]]]:
    """Wait for several tasks: those that have ended, and the others.

    Args:
        proxies: tasks.
        timeout: seconds; None waits for ever. When it is over, nothing is raised.
        return_when: ``FIRST_COMPLETED``, ``FIRST_EXCEPTION`` or ``ALL_COMPLETED``.

    Raises:
        ValueError: ``return_when`` is none of these, or there are no tasks.

    >>> import asyncio, mosaic_like as mosaic
    >>> @mosaic.tessera(is_async=True)
    ... class Sleeper:
    ...     async def sleep(self, seconds): await asyncio.sleep(seconds)
    >>> async def main():
    ...     sleeper = Sleeper.remote()
    ...     tasks = [sleeper.sleep(0), sleeper.sleep(60)]
    ...     done, pending = await mosaic.wait(tasks, return_when="FIRST_COMPLETED")
    ...     return done == {tasks[0]}, [task.cancel() for task in pending]
    >>> mosaic.run(main, num_workers=1)
    (True, [True])
    """
    tasks = _tasks((proxies,), "wait")
    if not tasks:
        raise ValueError("wait() was given no tasks")
    if return_when not in (FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED):
        raise ValueError(f"return_when: found {return_when!r}")
    ended: asyncio.Queue[TaskProxy[R]] = asyncio.Queue()
    watch_all(tasks, ended)
    left = len(tasks)
    try:
        async with asyncio.timeout(timeout):
            while left:
                task = await ended.get()
                left -= 1
                failed = task._call.state != DONE
                if return_when == FIRST_COMPLETED or (
                    failed and return_when == FIRST_EXCEPTION
                ):
                    break
    except TimeoutError:
        pass
    done = {task for task in tasks if task._call.settled}
    return done, set(tasks) - done


def watch_all(tasks: list[TaskProxy[Any]], ended: asyncio.Queue[Any]) -> None:
    loop = asyncio.get_running_loop()
    for task in tasks:
        runtime = task._runtime

        def tell(task: TaskProxy[Any] = task) -> None:
            if loop is task._runtime.loop:
                ended.put_nowait(task)
            else:
                task._runtime.on_other_loop(loop, lambda: ended.put_nowait(task))

        runtime.when_settled(task._call, tell)


class as_completed(Generic[R]):  # a function in all but its name
    """Tasks in the order in which they end; for ``async for`` and, in threads, ``for``.

    Args:
        proxies: tasks; with ``window`` also a generator of them.
        timeout: seconds for all together; None waits for ever.
        window: take so many ahead from ``proxies``, and the next when one has ended.

    Raises:
        TimeoutError: by iterating: the time is over; the tasks go on.
        RuntimeError: by iterating with ``for`` on the loop's thread: write
            ``async for``.
        ValueError: ``window`` is less than 1.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Squarer:
    ...     def square(self, x): return x * x
    >>> async def main():
    ...     squarer = Squarer.remote()
    ...     calls = (squarer.square(x) for x in range(1000))  # made as others end
    ...     tasks = mosaic.as_completed(calls, window=8)
    ...     return sum([await task.result() async for task in tasks])
    >>> mosaic.run(main, num_workers=1)
    332833500
    """

    def __init__(
        self,
        proxies: Iterable[TaskProxy[R]],
        timeout: float | None = None,
        window: int | None = None,
    ) -> None:
        if window is not None and window < 1:
            raise ValueError(f"window: found {window}, expected at least 1")
        self._proxies = iter(proxies)
        self._timeout = timeout
        self._window = window

    async def __aiter__(self) -> AsyncIterator[TaskProxy[R]]:
        ended: asyncio.Queue[TaskProxy[R]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        deadline = None if self._timeout is None else loop.time() + self._timeout
        left = self._draw(lambda tasks: watch_all(tasks, ended), self._window)
        while left:
            try:
                async with asyncio.timeout_at(deadline):
                    task = await ended.get()
            except TimeoutError:
                raise self._late(left) from None
            left += self._draw(lambda tasks: watch_all(tasks, ended), 1) - 1
            yield task
            del task

    def __iter__(self) -> Iterator[TaskProxy[R]]:
        ended: queue.SimpleQueue[TaskProxy[R]] = queue.SimpleQueue()
        pending: dict[TaskProxy[Any], None] = {}
        on_main = False  # of a worker: what is waited for may have to run here

        def tell(task: TaskProxy[Any]) -> None:
            ended.put(task)
            if on_main:
                task._runtime.wake_main()

        def watch(tasks: list[TaskProxy[Any]]) -> None:
            nonlocal on_main
            for task in tasks:
                pending[task] = None
                on_main = task._runtime.waits_on_main()
                task._runtime.when_settled(task._call, functools.partial(tell, task))

        deadline = None
        if self._timeout is not None:
            deadline = time.monotonic() + self._timeout
        left = self._draw(watch, self._window)
        while left:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            if ended.empty():
                first = next(iter(pending))
                runtime = first._runtime
                if on_main:
                    runtime.block_until(lambda: not ended.empty(), first._call, left_s)
                    left_s = 0.001
                elif runtime.on_loop:
                    raise RuntimeError(
                        "as_completed: to block here would stop the loop that is to "
                        "bring the results; write 'async for task in ...'"
                    )
                del first
            try:
                task = ended.get(timeout=left_s)
            except queue.Empty:
                raise self._late(left) from None
            pending.pop(task, None)
            left += self._draw(watch, 1) - 1
            yield task
            del task

    def _late(self, left: int) -> TimeoutError:
        tasks, go = "1 task has", "it goes"
        if left > 1:
            tasks, go = f"{left} tasks have", "they go"
        return TimeoutError(f"{tasks} not ended in {self._timeout:g} s; {go} on")

    def _draw(self, watch: Any, count: int | None) -> int:
        """Take further tasks and watch them; how many."""
        if self._window is None and count == 1:
            return 0  # all were taken at first
        tasks = []
        for proxy in self._proxies:
            tasks.append(proxy)
            if count is not None and len(tasks) == count:
                break
        watch(_tasks((tasks,), "as_completed"))
        return len(tasks)
