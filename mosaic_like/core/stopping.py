"""Calls that are to end before they would: cancelled, late, or of a program that ended.

    it lacks arguments, or is in the mailbox   it ends at once
    in the queue of a thread                   marked: its thread leaves such ones alone
    it runs                                    its code is interrupted, and ends it
    still after a while                        abandoned: its end is told; it goes on

A call whose attempts have times of their own is stopped only for good: an attempt that
was late may be followed by another. When times are over is computed in ``limits``; what
came before its call is in ``strays``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..comms import messages as wire
from ..ids import maker
from .limits import Late, Limit, Limits, reason_of
from .task import (
    CANCEL_EVENT,
    ERROR_EVENT,
    PENDING,
    READY,
    RETRY,
    RUNNING,
    Task,
)
from .tessera import THREAD

if TYPE_CHECKING:
    from .tessera import Runner
    from .worker import WorkerState


class Stopping:
    """Those of one runtime."""

    def __init__(self, worker: WorkerState, runner: Runner) -> None:
        self._worker = worker
        self._port = worker.port
        self._tasks = worker.tasks
        self._runner = runner
        self.limits = Limits(self._is_open)  # of calls that have a time
        self.asked: dict[int, str] = {}  # why those that run were asked to end
        # Whose ends were told before they ended, and that still run.
        self.abandoned: dict[int, Task] = {}
        self._lost_heads: set[int] = set()  # programs

    # -- cancel ------------------------------------------------------------------------

    def on_cancel(self, message: wire.Cancel, attempt: int, sender: int) -> None:
        """The handler of Cancel; ``attempt``: the one that runs."""
        reason = message.reason
        if message.kind == wire.TIMEOUT:
            if message.attempt not in (0, attempt):
                return  # that one has been over for a while
            reason = Late(reason, final=not message.attempt)
        self.cancel(message.uid, reason, sender)

    def cancel(self, uid: int, reason: str, sender: int = 0) -> None:
        """Somebody wants that a call ends; a ``Late``: its time is over."""
        task = self._tasks.get(uid)
        if task is None:
            if uid not in self._worker.archive:
                self._cancel_unknown(uid, reason, sender)
            return
        if task.settled or (task is task.tessera.closing and task.state != RUNNING):
            return  # that it is to be closed is not taken back
        tessera = task.tessera
        if not tessera.waits(task):
            self.cancel_started(task, reason)
            return
        if task.state == PENDING:
            tessera.remove(task)
        self.stopped(task, reason)
        task.data = b""
        tessera.dispatch()  # which passes over a queued one, without a search for it

    def stopped(self, task: Task, why: str) -> None:
        """It is cancelled, or late: that is its end."""
        reason = reason_of(why)
        event = CANCEL_EVENT if reason == wire.CANCELLED else ERROR_EVENT
        self._worker.settle(task, event, reason, why)

    def _cancel_unknown(self, uid: int, reason: str, sender: int) -> None:
        worker = self._worker
        if worker.strays.cancel_parked(uid, reason):
            return
        if sender and maker(uid) == sender:
            # Its caller held it back and will never send it: it ends here, since
            # others may have heard of it and ask.
            self.stopped(worker.given.ghost(uid, sender), reason)
        elif sender and not worker.cannot_come(uid):
            worker.strays.cancel_early(uid, reason, sender)
            worker.look_for_strays()

    def cancel_started(self, task: Task, reason: str) -> None:
        """It is in the queue of a thread, or it runs."""
        before = self.asked.get(task.uid)
        if before is not None and (type(before) is not Late or type(reason) is Late):
            return  # it is being stopped
        self.asked[task.uid] = reason
        self._worker.look_for_asked()
        if self._worker.producers.stop(task.uid, reason_of(reason), reason):
            if before is None:
                self._port.stopping_call(task)
            return
        if task.extra is None:
            task.extra = wire.Extra()  # no call of the common kind any more
        task.cancelled = reason
        if task.state == RUNNING:
            if before is None:
                self._port.cancel_running(task)
                self._port.stopping_call(task)
        elif task.handed or task.lane == THREAD:
            # Its thread will find it so: it has not taken it up, or it would run.
            self.stopped(task, reason)

    def unasked(self, uid: int) -> str | None:
        """It has ended, or goes on with another attempt: why it was asked to end."""
        why = self.asked.pop(uid, None)
        if not self.asked:
            self._worker.look_for_asked()
        return why

    def abandon(self, uid: int) -> Task | None:
        """It was to end a while ago: tell its end although it runs; None: it does not.

        Its tessera stays taken until the call returns.
        """
        why = self.unasked(uid)
        task = self._tasks.get(uid)
        if why is None or task is None or task.settled or task.state != RUNNING:
            return None
        self.abandoned[uid] = task
        self.stopped(task, why)
        return task

    # -- the steps of a stream, which `Producers` starts and stops ---------------------

    def start_now(self, task: Task) -> None:
        self._runner.start(task)

    def interrupt(self, task: Task) -> None:
        self._port.cancel_running(task)

    # -- time --------------------------------------------------------------------------

    def _is_open(self, uid: int) -> bool:
        task = self._tasks.get(uid)
        return task is not None and not task.settled

    def watch(self, task: Task) -> None:
        """A call has come that has a time: end it if that is over already."""
        if not task.settled and not self._port.limited(task):
            self.stopped(task, Late("the time of the call that made it is over"))

    def limit(self, task: Task, now_s: float) -> Limit | None:
        """Begin to watch a call that has come with a time; None: it is over."""
        extra = task.extra
        assert extra is not None
        final_s = None if extra.remaining_s is None else now_s + extra.remaining_s
        limit = Limit(task.uid, extra.timeout_s, final_s, now_s)
        if limit.deadline_s <= now_s:
            return None
        self.limits.add(limit)
        return limit

    def late(self, now_s: float) -> None:
        """End those whose time is over."""
        for limit in self.limits.due(now_s):
            self.cancel(limit.uid, limit.why(now_s))

    # -- attempts ----------------------------------------------------------------------

    def _for_good(self, task: Task) -> str | None:
        """Why no further attempt may follow: that was asked as the last one ended."""
        why = self.asked.get(task.uid)
        return None if type(why) is Late and not why.final else why

    def retrying(self, task: Task, attempt: int, now_s: float) -> None:
        """Another attempt has begun, which has a time of its own."""
        why = self._for_good(task)
        if why is not None:
            task.cancelled = why
            self._port.cancel_running(task)
            self._port.stopping_call(task)
        else:
            self.unasked(task.uid)
            self.limits.again(task.uid, now_s)
        self._tell_attempt(task, attempt)

    def retry_later(self, task: Task, attempt: int, delay_s: float) -> bool:
        """An attempt has failed and the next one waits; False: it is to end instead."""
        if task.outcome is not None:
            return False
        why = self._for_good(task)
        if why is not None:
            task.cancelled = why
            return False
        self.unasked(task.uid)
        self.limits.pause(task.uid)
        self._tell_attempt(task, attempt, delay_s)
        return True

    def retry_now(self, task: Task, attempt: int, now_s: float) -> bool:
        """It has waited long enough; True: run it. Else its tessera starts it."""
        self.limits.again(task.uid, now_s)
        task.move(RETRY)
        task.move(READY)
        self._tell_attempt(task, attempt)
        return task.tessera.resume(task)

    def _tell_attempt(
        self, task: Task, attempt: int, delay_s: float | None = None
    ) -> None:
        message = wire.Running(task.uid, 0.0, attempt, delay_s)
        self._worker.telling.tell(task.caller, message, None)

    # -- programs ----------------------------------------------------------------------

    def lost_head(self, incarnation: int) -> None:
        """The lost one was a program: what it has called ends with it.

        Not what somebody else asks for, nor what runs on a detached tessera. What is
        held by the lost one is told by ``released``, when that is settled.
        """
        self._lost_heads.add(incarnation)
        for task in list(self._tasks.values()):
            if task.released and maker(task.uid) == incarnation:
                self._orphan(task)

    def released(self, task: Task) -> None:
        """Nobody holds a task that has not ended: it ends if its program has."""
        if maker(task.uid) in self._lost_heads:
            self._orphan(task)

    def _orphan(self, task: Task) -> None:
        closes = task is task.tessera.closing or task.kind >= wire.CLOSE
        is_wanted = self._worker.telling.is_awaited(task.uid)
        if not (task.settled or closes or is_wanted or task.tessera.options.detached):
            self.cancel(task.uid, "the program that called it has ended")
