"""Published values: each warehouse has a copy, and reads of its host go to that.

The warehouse where a value was put is its owner still: it counts who holds it, sends
the copies, also to warehouses that come later, and has them forgotten when it is freed.
Who has a copy says so to the runtimes of its host. A runtime that takes a published
value for an argument asks its own warehouse if that has said so, else the owner; which
of them it asks makes no difference to what is held.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.payloads import Arrived
from ..core.reach import is_near
from ..core.senders import USER, kind_of
from ..core.task import FINISH, Task, received

if TYPE_CHECKING:
    from .warehouse import Warehouse

# Of copies that are forgotten, for how many this is known: who asks for one then, since
# it had not heard of that, is told instead of left waiting.
_REMEMBERED = 10_000


class Copies:
    """Both sides of a warehouse: what it has published, and what it has copies of.

    Args:
        warehouse: that has joined; its handlers of these messages are set here.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._published: dict[int, Task] = {}
        self._owners: dict[int, int] = {}  # of the copies, by uid
        self._coming: dict[int, Arrived] = {}  # of which chunks are still to come
        self._forgotten: deque[int] = deque()
        self._sweep = False
        handlers = warehouse.handlers
        handlers[wire.Copy] = self._on_copy
        handlers[wire.Uncopy] = lambda m, b, s: self._forget(m.uids)
        for kind in (
            *(wire.Release, wire.ReleaseGrants),
            *(wire.LossSeen, wire.SeenBy, wire.Lost),
        ):
            handlers[kind] = self._sweeping(handlers[kind])

    # -- the owner ---------------------------------------------------------------------

    def publish(self, task: Task) -> None:
        """Give all warehouses a copy of what is kept here."""
        self._published[task.uid] = task
        for member in self._warehouse.of_kind("warehouse"):
            self._send(member.incarnation, task)

    def _send(self, to: int, task: Task) -> None:
        outbox = self._warehouse.outbox(to)
        outcome = task.outcome
        if outbox is not None and to != self._warehouse.incarnation:
            outbox.send(wire.Copy(task.uid, outcome.data, outcome.extra), task.result)

    def _sweeping(self, handler: Any) -> Any:
        """After these something may have been freed."""

        def handle(message: Any, buffers: Any, sender: int) -> None:
            handler(message, buffers, sender)
            self._sweep = True

        return handle

    def sweep(self) -> None:
        """Have the copies forgotten of what was freed."""
        if not self._sweep:
            return
        self._sweep = False
        tasks = self._warehouse.worker.tasks
        freed = [uid for uid in self._published if uid not in tasks]
        if freed:
            self.unpublish(freed)

    def unpublish(self, uids: list[int]) -> None:
        """These are gone; those that are not published do not matter."""
        known = [uid for uid in uids if self._published.pop(uid, None) is not None]
        for member in self._warehouse.of_kind("warehouse") if known else ():
            outbox = self._warehouse.outbox(member.incarnation)
            if outbox is not None and member.incarnation != self._warehouse.incarnation:
                outbox.send(wire.Uncopy(known))

    # -- who has a copy ----------------------------------------------------------------

    def _on_copy(self, message: wire.Copy, buffers: Any, sender: int) -> None:
        warehouse = self._warehouse
        value = warehouse.stored(message, buffers, sender)
        self._owners[message.uid] = sender
        if type(value) is Arrived:
            self._coming[message.uid] = value
            warehouse.locate(value, lambda: self._landed(message, value, sender))
        else:
            self._keep(message, value, sender)

    def _landed(self, message: wire.Copy, value: Arrived, sender: int) -> None:
        """The last of its chunks has come, or never will."""
        if self._coming.pop(message.uid, None) is not None and not value.size:
            self._keep(message, value.buffers, sender)

    def _keep(self, message: wire.Copy, value: Any, sender: int) -> None:
        warehouse = self._warehouse
        request = wire.Submit(message.uid, 0, 0, "put", b"")
        task = received(request, sender, warehouse.shelf)
        task.move(FINISH)
        warehouse.worker.given.keep_copy(task, value)
        self._say([message.uid], kept=True)

    def _forget(self, uids: list[int]) -> None:
        copies = self._warehouse.worker.given.copies
        found = [uid for uid in uids if self._owners.pop(uid, None) is not None]
        for uid in uids:
            value = self._coming.pop(uid, None)
            if value is not None:
                self._warehouse.unwanted(value)
        found = [uid for uid in found if uid in copies]
        for uid in found:
            self._warehouse.worker.given.discard(
                copies[uid], LookupError("it was dropped")
            )
        self._forgotten += found
        while len(self._forgotten) > _REMEMBERED:
            copies.pop(self._forgotten.popleft(), None)
        if found:
            self._say(found, kept=False)

    def _say(self, uids: list[int], *, kept: bool) -> None:
        for member in self._warehouse.members.values():
            self._say_to(member, uids, kept)

    def _say_to(self, member: wire.Member, uids: list[int], kept: bool) -> None:
        if kind_of(member.uid) & USER:
            outbox = self._warehouse.outbox(member.incarnation)
            if outbox is not None and is_near(member, self._warehouse.me):
                outbox.send(wire.Copied(uids, kept))

    # -- membership --------------------------------------------------------------------

    def member_joined(self, member: wire.Member) -> None:
        if member.uid.startswith("warehouse"):
            for task in self._published.values():
                self._send(member.incarnation, task)
        elif self._owners:
            self._say_to(member, list(self._owners), kept=True)

    def member_lost(self, incarnation: int) -> None:
        """Who owned them counts no more who holds them: they go with it."""
        self._forget([u for u, owner in self._owners.items() if owner == incarnation])
