"""Function tasks that their submitter wants back from a worker, to run elsewhere.

Only what has not started, and what nobody else has heard of, is given back: who waits
here for a task would wait for ever. The thread that runs calls may take one up at the
very moment; then it is seen only later which of the two was first.

    it is in the mailbox             taken, at once
    it is in the queue of a thread   marked; its thread leaves marked ones alone: taken
    its thread has taken it up       too late, unless it had seen the mark: taken, later
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..comms import messages as wire
from .task import CANCEL_EVENT, RUNNING, Task

if TYPE_CHECKING:
    from .worker import WorkerState


_MANY = 10_000


class GivenBack(str):
    """Why a task does not run here: it is to run elsewhere."""

    __slots__ = ()


class Recalls:
    """Those of one runtime."""

    def __init__(self, worker: WorkerState) -> None:
        self._worker = worker
        self._racing: dict[int, Task] = {}  # taken up when they were marked
        # Arguments of calls behind them on the same thread: how many of these.
        self._taken_up: dict[int, int] = {}

    def may_hand_back(self, task: Task) -> bool:
        """Nobody but the submitter of a function task has heard that it is here."""
        return (
            task.tessera.options.stateless
            and task.outcome is None
            and not task.shared
            and not self._worker.telling.is_awaited(task.uid)
        )

    def asked(self, uids: list[int], sender: int) -> None:
        """The submitter of function tasks wants back what has not started."""
        taken = self.give_back(uids, sender)
        self._worker.telling.tell(sender, wire.Recalled(uids, taken), None)

    def give_back(self, uids: list[int], sender: int) -> list[int]:
        """Give back what has not started.

        Args:
            uids: of calls that the sender has made.
            sender: incarnation of their submitter.

        Returns:
            Those that do not run here, and never will.
        """
        for uid in [u for u, racing in self._racing.items() if racing.settled]:
            del self._racing[uid]
        self._tidy()
        tasks = self._worker.tasks
        taken = []
        # The last first: what it takes may be before it, and is then free of it.
        for uid in reversed(uids):
            task = tasks.get(uid)
            if task is not None and task.caller == sender and self._give_back(task):
                del tasks[uid]
                taken.append(uid)
        return taken

    def taken_up(self, uid: int) -> None:
        """A call has it among its arguments, and does not ask again whether it ends."""
        if len(self._taken_up) >= _MANY:
            self._tidy()
        self._taken_up[uid] = self._taken_up.get(uid, 0) + 1

    def _tidy(self) -> None:
        tasks = self._worker.tasks
        for uid in [u for u in self._taken_up if u not in tasks or tasks[u].settled]:
            del self._taken_up[uid]

    def let_go(self, uid: int) -> None:
        """Such a call has ended, or was given back."""
        count = self._taken_up.pop(uid, 0)
        if count > 1:
            self._taken_up[uid] = count - 1

    def _give_back(self, task: Task) -> bool:
        if task.uid in self._taken_up or not self.may_hand_back(task):
            return False
        why = GivenBack("it runs elsewhere")
        if task.tessera.waits(task):
            task.tessera.remove(task)
            self._end(task, why)
            return True
        if not task.handed or task.cancelled is not None:
            return False
        task.cancelled = why  # first: see Task
        if task.state == RUNNING:
            self._racing[task.uid] = task
            task.cancelled = None
            return False
        self._end(task, why)
        return True

    def _end(self, task: Task, why: str) -> None:
        """It ends here, and nobody is told that it has."""
        task.outcome = wire.Failed(task.uid, wire.CANCELLED, why.encode())
        task.move(CANCEL_EVENT)
        self._worker.arguments.forget(task)

    def left_alone(self, task: Task) -> bool:
        """A thread has ended a task without running it; True: it saw the mark."""
        if self._racing.pop(task.uid, None) is None or task.raw is not None:
            return False
        task.outcome = wire.Failed(task.uid, wire.CANCELLED, b"")
        self._worker.tasks.pop(task.uid, None)
        return True
