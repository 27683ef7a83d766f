"""Waiting for our futures by ``concurrent.futures.wait`` and ``as_completed``.

Those wait for an event of their own, which they put among the waiters of each future. A
plain method that waited so would keep its worker's thread from what it waits for, and
with all workers in such methods nothing would ever end. So the event is replaced by one
that lends the thread, as ``task.get()`` does. On the thread of the loop that brings the
results there is nothing to lend: it is refused.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .task import TaskProxy


def check_blocking(task: TaskProxy[Any], timeout: float | None) -> None:
    """Refuse to wait for a future on the thread whose loop is to bring its result.

    The thread of another loop may wait: that it stands still is the user's to know.

    Args:
        task: of the future.
        timeout: seconds; with 0 it is a look and no wait.

    Raises:
        RuntimeError: it would never end.
    """
    if task._runtime.on_loop and (timeout is None or timeout > 0):
        raise RuntimeError(
            f"{task.name}: to block here would stop the loop that is to bring the "
            "result; write 'await asyncio.wrap_future(future)', or for a task "
            "'await task.result()'"
        )


class LendingEvent(threading.Event):
    """Waiting for it on a worker's main thread runs what is needed meanwhile.

    Args:
        task: one of those that are waited for.
    """

    def __init__(self, task: TaskProxy[Any]) -> None:
        super().__init__()
        self._task = task

    def set(self) -> None:
        """Also wakes the main thread, which may wait for a call instead."""
        super().set()
        self._task._runtime.wake_main()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it was set in time."""
        runtime, call = self._task._runtime, self._task._call
        if self.is_set():
            return True
        if runtime.waits_on_main():
            return bool(runtime.block_until(self.is_set, call, timeout))
        check_blocking(self._task, timeout)
        return super().wait(timeout)


class Waiters(list[Any]):
    """Of one future: in place of the list that ``concurrent.futures`` makes.

    Args:
        task: of the future.
    """

    def __init__(self, task: TaskProxy[Any]) -> None:
        super().__init__()
        self._task = task

    def append(self, waiter: Any) -> None:
        """Somebody waits for the future, and perhaps for others."""
        runtime = self._task._runtime
        is_first = type(waiter.event) is not LendingEvent
        if is_first and (runtime.waits_on_main() or runtime.on_loop):
            # Nobody waits for its event yet, and nothing can have set it.
            waiter.event = LendingEvent(self._task)
        super().append(waiter)
