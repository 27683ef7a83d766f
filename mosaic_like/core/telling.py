"""Who hears of the end of a task: its caller, those who subscribed, and calls here.

    the caller     with the Done or Failed itself
    subscribers    holders at other runtimes, who asked before it had ended
    dependents     calls of this runtime that have it among their arguments

A large value does not travel with the news, unless it stands in memory that the other
one can open: it stays until it is fetched. How a task comes to its end is in
``completion``; what a call does with its arguments is in ``arguments``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..ids import maker

if TYPE_CHECKING:
    from .task import Task
    from .worker import WorkerState

# Results up to this many bytes travel with Done; larger ones wait until they are asked
# for.
TRAVELLING_BYTES = 64 << 10


class Telling:
    """Those who wait for the tasks of one runtime."""

    def __init__(self, worker: WorkerState) -> None:
        self._worker = worker
        self._port = worker.port
        # Of arguments, by uid: the calls that lack them, and at which index.
        self.dependents: dict[int, list[tuple[Task, int]]] = {}
        self.subscribers: dict[int, list[int]] = {}
        self._ended: deque[Task] = deque()  # of which others are still to be told
        self._telling = False

    def is_awaited(self, uid: int) -> bool:
        """Somebody waits for its end, beside its caller."""
        return uid in self.dependents or uid in self.subscribers

    # -- who asks ----------------------------------------------------------------------

    def depend(self, uid: int, task: Task, index: int) -> None:
        """A call of this runtime lacks a task that lives here."""
        self.dependents.setdefault(uid, []).append((task, index))

    def forget(self, uid: int, task: Task) -> None:
        """Such a call lacks it no longer: it has ended itself."""
        line = self.dependents.get(uid)
        if line is not None:
            line[:] = [one for one in line if one[0] is not task]
            if not line:
                del self.dependents[uid]

    def subscribe(self, uid: int, sender: int) -> None:
        """A holder wants to learn the end of a task."""
        worker = self._worker
        task = worker.find(uid) or worker.given.copies.get(uid)
        if task is None and worker.cannot_come(uid):
            task = worker.given.never(uid)
        if task is not None and task.settled:
            self.tell_end(sender, task)
        else:
            subscribers = self.subscribers.setdefault(uid, [])
            if sender not in subscribers:
                subscribers.append(sender)

    def fetch(self, uid: int, sender: int) -> None:
        """A holder wants the value that stayed here."""
        worker = self._worker
        task = worker.find(uid) or worker.given.copies.get(uid)
        if task is None or not isinstance(task.outcome, wire.Done):
            # Only a peer that released it can ask so, or whose value was dropped.
            gone = task is not None and isinstance(task.outcome, wire.Failed)
            why = task.outcome.data if task is not None and gone else b""
            self.tell(sender, wire.Failed(uid, wire.GONE, why), None)
            return
        outcome = task.outcome
        message = wire.Value(uid, outcome.data, outcome.extra)
        self.tell(sender, message, task.result)

    def lost(self, incarnation: int) -> None:
        """A runtime is gone: it hears of nothing, and what it made may never come."""
        worker = self._worker
        for uid, subscribers in list(self.subscribers.items()):
            self.subscribers[uid] = [s for s in subscribers if s != incarnation]
            if not self.subscribers[uid]:
                del self.subscribers[uid]
        for uid in [*self.dependents, *self.subscribers]:
            if uid not in worker.tasks and worker.never(maker(uid)):
                worker.given.never(uid)

    # -- who is told -------------------------------------------------------------------

    def tell(self, to: int, message: Any, payload: Any) -> None:
        """Send what concerns one call, if who it is for lives."""
        outbox = self._port.outbox(to)
        if outbox is not None:
            outbox.send(message, payload)

    def tell_end(self, to: int, task: Task) -> None:
        """Of a task that has ended, with its value if that travels."""
        if task.size > TRAVELLING_BYTES and not self._travels(to, task):
            self.tell(to, wire.Done(task.uid, b"", wire.Extra(size=task.size)), None)
        else:
            self.tell(to, task.outcome, task.result)

    def _travels(self, to: int, task: Task) -> bool:
        """What is large of it stands in shared memory that this runtime can open."""
        if task.result is None or task.result.shared is None:
            return False
        outbox = self._port.outbox(to)
        return (
            outbox is not None
            and outbox.shares_memory
            and len(task.result.data) <= TRAVELLING_BYTES
        )

    def tell_others(self, task: Task) -> None:
        """Go on with those that wait for it: a loop, since chains of them are long."""
        ended = self._ended
        ended.append(task)
        if self._telling:
            return
        self._telling = True
        arguments = self._worker.arguments
        try:
            while ended:
                task = ended.popleft()
                for other, index in self.dependents.pop(task.uid, ()):
                    arguments.here(other, index, task)
                for holder in self.subscribers.pop(task.uid, ()):
                    self.tell_end(holder, task)
        finally:
            self._telling = False
