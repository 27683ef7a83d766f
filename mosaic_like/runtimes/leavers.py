"""Those of the others that leave in order, as one runtime deals with them.

It puts nothing there any more and says so. From then on it keeps for itself who holds
what there, for the heir. When they have left it asks the heir for their values. See
``core.leaving``; what a runtime does that leaves itself is in ``departing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..errors import RuntimeDisconnectedError, Verdict
from ..ids import short

if TYPE_CHECKING:
    from ..comms.messages import Member
    from ..core.call import Call
    from .actor import ActorRuntime

_OWNERS = frozenset({"head", "worker", "helper", "warehouse"})


def is_owner(uid: str) -> bool:
    """A runtime with this uid may hold or own objects."""
    return uid.partition(":")[0] in _OWNERS


class _Withheld(list[int]):
    """Releases that are not to be sent: whoever asks whether there are any moves on."""

    def __bool__(self) -> bool:
        return False


class Leavers:
    """See the module; one for each runtime that calls or holds things."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self.leaving: dict[int, wire.Leaving] = {}
        self.left: dict[int, int] = {}  # how those ended that left in order
        self._kept: dict[int, list[Any]] = {}  # messages for their heirs
        # Who has heard earlier than this runtime itself that it is to leave.
        self._early: dict[int, int] = {}

    # -- while they are here -----------------------------------------------------------

    def on_leaving(self, message: wire.Leaving, buffers: Any, sender: int) -> None:
        """The monitor says that one will leave; said again, that it is in a hurry."""
        runtime = self._runtime
        incarnation = message.incarnation
        is_new = incarnation not in self.leaving
        self.leaving[incarnation] = message
        if incarnation == runtime.incarnation:
            runtime.told_to_leave(message)
            return
        member = runtime.members.get(incarnation)
        outbox = runtime.outbox(incarnation)
        if not is_new or member is None or outbox is None:
            return
        if member.uid.startswith("node"):
            return  # what is on it is announced for itself
        outbox.flush()  # what was dropped until now
        self._kept[incarnation] = []
        outbox.releases = _Withheld()
        runtime.restarts.leaving(incarnation)
        if runtime.functions is not None:
            runtime.functions.leaving(incarnation)
        outbox.send(wire.LeavingSeen(next(runtime.uids)))
        runtime.leaving_changed()

    def on_seen(self, message: wire.LeavingSeen, buffers: Any, sender: int) -> None:
        """This runtime is to leave, and another has heard it."""
        departing = self._runtime.departing
        if departing is None:
            self._early[sender] = message.up_to
        else:
            departing.seen(sender, message.up_to)

    def take_early(self) -> dict[int, int]:
        """Of those that have said so before: their ``up_to``."""
        early, self._early = self._early, {}
        return early

    def open(self, members: list[Member]) -> list[Member]:
        """Those of them where new things may be put."""
        leaving = self.leaving
        if not leaving:
            return members
        return [m for m in members if m.incarnation not in leaving]

    def refusal(self, incarnation: int, name: str) -> RuntimeDisconnectedError | None:
        """Why nothing can be made there; None: it does not leave."""
        if incarnation not in self.leaving:
            return None
        uid = self._runtime.uid_of(incarnation)
        return RuntimeDisconnectedError(
            f"{name} was not made: {short(uid)} is being drained and takes nothing "
            "new; choose another worker, or leave runtime= out",
            uid,
            Verdict.NOT_STARTED,
            "it is being drained",
        )

    def keep(self, owner: int, message: Any) -> bool:
        """Keep a message about who holds what for the heir; False: send it.

        What concerns its own calls is for the one that leaves, while it can be asked.
        """
        kept = self._kept.get(owner)
        if kept is None or type(message) is wire.Keep:
            return False
        kept.append(message)
        return True

    # -- when they have gone -----------------------------------------------------------

    def gone(self, message: wire.Lost) -> None:
        """It is lost: told before anything is done about that."""
        runtime = self._runtime
        owner = message.incarnation
        self.leaving.pop(owner, None)
        self._early.pop(owner, None)
        kept = self._kept.pop(owner, [])
        peer = runtime.outbox(owner)
        if message.left:
            self.left[owner] = message.left
        heir = runtime.outbox(message.heir)
        if heir is None:
            return
        runtime.caller.asking.moved(owner, heir)
        runtime.grants.moved(owner, message.heir)
        here = runtime.incarnation
        for one in kept:
            if message.heir == here:  # before the loss, as it comes from the others
                runtime.handlers[type(one)](one, (), here)
            elif not self.keep(message.heir, one):  # which may leave as well
                heir.send(one)
        if peer is not None:
            heir.releases.extend(peer.releases)
            peer.releases = []
        runtime.peers.tick_soon()

    def release(self, call: Call) -> None:
        """A task is not held here any more, whose owner has left."""
        heir = self._runtime.caller.asking.heirs.get(call.stream.owner)
        outbox = None if heir is None else self._runtime.outbox(heir)
        if outbox is not None:
            outbox.releases.append(call.uid)
            self._runtime.peers.tick_soon()
