"""Threads that are blocked inside a call until another has ended.

They say so here, for ``cycles.py`` to find circles, and are woken and refused from
here. How a thread waits is not for here.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.call import Call
    from ..core.task import Task
    from ..errors import CycleError


class Wait:
    """A thread is blocked inside a call until another call has ended.

    Args:
        task: the one that waits.
        call: the one that it waits for.
        certain: nothing else ends the wait: it has no time limit.
        stamp: no other wait here has it.
        signal: makes the thread look again.
    """

    __slots__ = (
        *("call", "certain", "error", "outer", "signal", "stamp", "task", "wanted"),
    )

    def __init__(
        self,
        task: Task,
        call: Call,
        certain: bool,
        stamp: int,
        signal: Callable[[], Any],
    ) -> None:
        self.task = task
        self.call = call
        self.certain = certain
        self.stamp = stamp
        self.signal = signal
        self.error: CycleError | None = None  # with which it is to end
        # What the awaited call depends on and only this thread can run.
        self.wanted: list[Task] = []
        self.outer: Wait | None = None  # of the same call, which looks meanwhile

    def refuse(self) -> None:
        """Raise what it is to end with; its traceback must not lead back to here."""
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error


class Waits:
    """Those of one runtime.

    Attributes:
        by_uid: of the call that waits: the innermost one of its waits.
        new_stamp: gives a number that no other wait here has.
    """

    def __init__(self) -> None:
        self.by_uid: dict[int, Wait] = {}
        self.new_stamp = itertools.count(1).__next__

    def blocked(
        self, task: Task, call: Call, certain: bool, signal: Callable[[], Any]
    ) -> Wait:
        """Its thread is about to block; ``unblocked`` follows, whatever happens."""
        wait = Wait(task, call, certain, self.new_stamp(), signal)
        wait.outer = self.by_uid.get(task.uid)
        self.by_uid[task.uid] = wait
        return wait

    def unblocked(self, wait: Wait) -> None:
        """Its thread goes on."""
        if wait.outer is None:
            del self.by_uid[wait.task.uid]
        else:
            self.by_uid[wait.task.uid] = wait.outer

    def refuse(self, uid: int, stamp: int, error: CycleError) -> bool:
        """A wait of a thread ends with an error; False: there is no such wait."""
        wait = self.by_uid.get(uid)
        if wait is None or wait.stamp != stamp:
            return False
        wait.error = error
        wait.signal()
        return True
