"""What a warehouse takes over from those that leave: values, and who holds them.

See ``core.leaving``. A value is kept as it came, as those are that were put here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.exceptions import dump_error
from ..core.payloads import Arrived
from ..core.task import Task
from ..errors import ProtocolError, RuntimeDisconnectedError
from ..ids import maker

if TYPE_CHECKING:
    from .warehouse import Warehouse


class Inheriting:
    """See the module; one for each warehouse, which has joined."""

    def __init__(self, runtime: Warehouse) -> None:
        self._runtime = runtime
        self._coming: dict[int, int] = {}  # values still in chunks, by who leaves
        self._told_all: set[int] = set()  # who have said that that was all
        # What came from those that are still here: if one dies now, nobody knows that
        # its tasks are to be found here.
        self._given: dict[int, list[int]] = {}
        runtime.handlers.update(
            {wire.Inherit: self._on_inherit, wire.HeldBy: self._on_held_by}
        )

    @property
    def is_under_way(self) -> bool:
        """Somebody hands on to this one, and has not left yet."""
        return bool(self._given)

    def _on_inherit(self, message: wire.Inherit, buffers: Any, sender: int) -> None:
        runtime = self._runtime
        worker = runtime.worker
        uid = message.uid
        self._check(sender)
        if worker.find(uid) or uid in worker.kept or uid in worker.tesserae:
            raise ProtocolError(f"{uid} is here already")
        failed = message.reason != wire.NO_FAILURE
        if failed and (message.extra or not 0 <= message.reason < len(wire.REASONS)):
            raise ProtocolError(f"{uid} cannot have failed so")
        task = Task(uid, maker(uid), runtime.shelf, "put", b"")
        value = runtime.stored(message, buffers, sender)
        task.shared = True  # until it is known who holds it
        worker.tasks[uid] = task
        self._given.setdefault(sender, []).append(uid)
        if type(value) is not Arrived:
            worker.given.inherit(task, value, message.reason)
            return
        self._coming[sender] = self._coming.get(sender, 0) + 1
        task.buffers = value
        runtime.locate(value, lambda: self._landed(task, value, sender))

    def _landed(self, task: Task, value: Arrived, sender: int) -> None:
        """The last chunk has come, or none will."""
        worker = self._runtime.worker
        task.buffers = None
        if value.size:
            error = RuntimeDisconnectedError(f"its value is lost: {value.shared.why}")
            data = dump_error(error, self._runtime.serializer)
            worker.given.inherit(task, data, wire.LOST)
        else:
            worker.given.inherit(task, value.buffers)
        if sender in self._coming:  # it is there to hear it
            self._coming[sender] -= 1
            self._answer(sender)

    def _on_held_by(self, message: wire.HeldBy, buffers: Any, sender: int) -> None:
        self._check(sender)
        self._given.setdefault(sender, [])
        for lost in message.lost:
            self._runtime.handling.check_loss(lost)
        for uid, counts in message.counts:
            self._runtime.worker.holders.inherit(uid, counts, sender, message.lost)
        if not message.counts:
            self._told_all.add(sender)
            self._answer(sender)

    def _answer(self, sender: int) -> None:
        if sender in self._told_all and not self._coming.get(sender):
            self._told_all.discard(sender)
            outbox = self._runtime.outbox(sender)
            if outbox is not None:
                outbox.send(wire.Inherited())

    def lost(self, incarnation: int) -> None:
        """It is lost: what it has given stays if it had come so far as to leave."""
        self._coming.pop(incarnation, None)
        self._told_all.discard(incarnation)
        given = self._given.pop(incarnation, ())
        if incarnation not in self._runtime.leavers.left:
            worker = self._runtime.worker
            for uid in given:
                worker.tasks.pop(uid, None)
                worker.holders.forget(uid)

    def _check(self, sender: int) -> None:
        if sender not in self._runtime.leavers.leaving:
            raise ProtocolError("it does not leave")
