"""Which run of a call this is, and whether there is another.

How long the next one waits is decided in ``retrying.py``; who runs it, by the executor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..comms import messages as wire
from ..core.limits import Late
from ..core.task import CLOSE_METHOD, CONSTRUCTOR
from . import timing
from .port import Port, Retrying

if TYPE_CHECKING:
    from ..core.task import Task
    from .retrying import Later, Retries


class Attempts:
    """Those of the calls of one runtime.

    Args:
        port: told that the next one begins, and of those whose caller wants to know.
        retries: decides for the calls that have a policy of their own.
    """

    def __init__(self, port: Port, retries: Retries) -> None:
        self._port = port
        self._retries = retries
        self._begun: dict[int, int] = {}  # of calls that run again, by uid

    def of(self, task: Task | None) -> int:
        """Which run of a call this is, from 1."""
        if task is None:
            return 1
        first = 1 if task.extra is None else max(task.extra.attempt, 1)
        return self._begun.get(task.uid, first)

    def shown(self, task: Task) -> int:
        """The same for people, who count on after ``retry()``."""
        return self.of(task) + task.earlier

    def begin(self, task: Task, attempt: int) -> None:
        """It is this one from here on.

        If it is cancelled at this moment, the loop sees it when it hears of this.
        """
        self._begun[task.uid] = attempt
        task.cancelled = None

    def forget(self, task: Task) -> None:
        """It has ended."""
        self._begun.pop(task.uid, None)

    def again(self, task: Task, error: BaseException) -> bool | Later:
        """Whether to run it again, which is counted: at once, or later."""
        again: bool | Later = False
        extra = task.extra
        retries = task.tessera.options.max_retries
        if extra is not None:
            if extra.kind != wire.CALL:
                return False
            if extra.max_retries is not None:
                retries = extra.max_retries
        attempt = self.of(task)
        why = task.cancelled
        if (
            attempt > retries
            or not (isinstance(error, Exception) or type(why) is Late)
            or (why is not None and (type(why) is not Late or why.final))
            or task.outcome is not None  # given up meanwhile
            or task.method in (CONSTRUCTOR, CLOSE_METHOD)
        ):
            return False
        again = True
        if task.tessera.options.retry or (extra is not None and extra.retry):
            again = self._retries.decide(task, error, attempt, retries)
            if again is False or (again is not True and again.question is not None):
                return again
        self.begin(task, attempt + 1)
        if again is True:
            self._port.completed(task, Retrying(attempt + 1))
        return again

    # -- of calls whose caller wants to know when they run, and how long ---------------

    def tell_begun(self, task: Task) -> timing.Clock:
        """The clock for it."""
        clock = timing.Clock()
        self._port.tell(task, wire.Running(task.uid, 0.0, self.of(task)))
        return clock

    def tell_ended(self, task: Task, clock: timing.Clock) -> None:
        """How long its parts took."""
        message = timing.ran(task.uid, self.of(task), clock.end())
        self._port.tell(task, message)
