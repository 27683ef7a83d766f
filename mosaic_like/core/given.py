"""Tasks that have an end here which no code that ran here gave them.

    kept         a warehouse has what it was asked for
    copied       the value of a task that lives elsewhere, for those who ask here
    inherited    from a runtime that leaves in order
    given        this runtime's own, and never sent: its value is known without a run
    never        of a lost maker: it will not come, and so has failed
    discarded    its value is dropped before it is released

Which of these a task meets is decided by who calls. How calls end that do run is in
``completion``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..ids import maker
from .task import CANCEL_EVENT, ERROR_EVENT, FINISH, Task, received

if TYPE_CHECKING:
    from .tessera import Tessera
    from .worker import WorkerState


class Given:
    """Those of one runtime.

    Args:
        worker: whose tasks they are.
        results: the tessera of tasks that are on none.
    """

    def __init__(self, worker: WorkerState, results: Tessera) -> None:
        self._worker = worker
        self._results = results
        self.copies: dict[int, Task] = {}  # of tasks that another warehouse owns

    # -- values ------------------------------------------------------------------------

    def keep(self, task: Task, value: Any, *, send: bool = False) -> None:
        """A task that was not run has a value that came from elsewhere.

        Args:
            task: pending.
            value: bytes or a payload.
            send: its caller wants the value, not only the news.
        """
        worker = self._worker
        task.move(FINISH)
        worker.keep(task, value)
        task.buffers = task.arguments = task.raw = None
        if send:
            worker.telling.tell_end(task.caller, task)
        else:
            there = wire.Extra(size=max(task.size, 1))
            worker.telling.tell(task.caller, wire.Done(task.uid, b"", there), None)
        if task.released:
            worker.tasks.pop(task.uid, None)
        worker.telling.tell_others(task)

    def keep_copy(self, task: Task, value: Any) -> None:
        """The value of a task that lives elsewhere, for those who ask here."""
        worker = self._worker
        worker.keep(task, value)
        self.copies[task.uid] = task
        worker.telling.tell_others(task)

    def inherit(self, task: Task, value: Any, reason: int = wire.NO_FAILURE) -> None:
        """A task that has ended at a runtime that leaves is to be found here.

        Args:
            task: pending.
            value: bytes or a payload; of one that failed its error as bytes.
            reason: of the failure.
        """
        worker = self._worker
        if reason == wire.NO_FAILURE:
            task.move(FINISH)
            worker.keep(task, value)
        else:
            task.outcome = wire.Failed(task.uid, reason, value)
            task.move(_event_of(reason))
        worker.telling.tell_others(task)
        if task.released:  # while its value was on its way
            worker.tasks.pop(task.uid, None)

    def discard(self, task: Task, error: Exception) -> None:
        """The value of a task that is done goes, whoever holds it."""
        why = self._worker.port.failure(task, wire.GONE, error)
        task.outcome = wire.Failed(task.uid, wire.GONE, why)
        task.result = task.counted = None
        task.size = 0

    # -- tasks that have not come, or never will ---------------------------------------

    def here(self, uid: int, value: Any) -> None:
        """A task of this runtime's own that was never sent has a value: it is here."""
        task = self._own(uid)
        task.move(FINISH)
        self._worker.keep(task, value)
        self._worker.telling.tell_end(task.caller, task)

    def refuse(self, uid: int, reason: int, error: bytes) -> None:
        """The same, without a value; its caller knows."""
        task = self._own(uid)
        task.outcome = wire.Failed(uid, reason, error)
        task.move(_event_of(reason))

    def _own(self, uid: int) -> Task:
        return self.ghost(uid, self._worker.port.incarnation)

    def never(self, uid: int) -> Task:
        """A task that will never come, since its caller is lost: it has failed."""
        task = self._bare(uid, maker(uid))
        self._worker.fail(task, wire.LOST, "its caller was lost before it was sent")
        return task

    def ghost(self, uid: int, caller: int) -> Task:
        """What stands for a task that was not sent, for those who ask for it."""
        task = self._worker.tasks[uid] = self._bare(uid, caller)
        self._worker.holders.add(uid)
        return task

    def _bare(self, uid: int, caller: int) -> Task:
        submit = wire.Submit(uid, 0, 0, "call", b"")
        return received(submit, caller, self._results)


def _event_of(reason: int) -> int:
    return CANCEL_EVENT if reason == wire.CANCELLED else ERROR_EVENT
