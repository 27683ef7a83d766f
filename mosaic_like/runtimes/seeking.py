"""Tasks that went elsewhere when the worker that had them was lost.

Who waits for a task of another runtime asks its owner. When that is lost, the caller of
the task may have sent it again: so it is asked, before the task is taken for lost too.

    waits     Seek ->caller     your task was at one that is lost; where is it now?
    caller    Resent ->waits    it is there, and you hold it; or: it is nowhere
              Done, Failed      it has ended; a Resent follows
    holds     Keep ->caller     I may ask that; or: not any more

A caller that has not heard of the loss answers when it has, and tells who has asked
once also of what comes after: another place, and the end. A call that went again, or
that ended otherwise than by the loss alone, may have ended before it is asked for: the
caller remembers it, and holds it, as long as anybody holds what the lost one had, and a
little longer for who was about to hear of the call. All have said so when they have
heard of the loss. Which calls go again is decided in ``following`` and ``tasks``.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from .. import ids
from ..comms import messages as wire
from ..comms.checks import check_extra
from ..comms.serialization import Payload
from ..core.call import DROPPED, Call, Stream, rare
from ..core.senders import Kind, kind_of
from ..core.task import CANCELLED, DONE
from ..errors import ProtocolError
from .leavers import is_owner

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .actor import ActorRuntime

_LATE_S = 5.0  # that a payload may be on its way to who has heard of the loss


class _Mention:
    """A task of this runtime, as a payload has it."""

    __slots__ = ("owner", "uid")
    kind = wire.TASK

    def __init__(self, call: Call) -> None:
        self.uid = call.uid
        self.owner = call.owner


class _Sought:
    """A task whose owner is lost, while its caller is asked for it."""

    __slots__ = ("asked", "cause", "lost", "streams", "waiting")

    def __init__(self, asked: int, lost: int, cause: Any, waiting: Any = None) -> None:
        self.asked = asked
        self.lost = lost
        self.cause = cause
        self.waiting = waiting  # the line of those for whom it is asked
        self.streams: list[Stream] = []  # of those who wait: they lead nowhere

    def answered(self) -> None:
        """What ended meanwhile belongs to who is lost: it can be mentioned again."""
        for stream in self.streams:
            stream.owner = self.lost


class Seeking:
    """Both sides of it in one runtime; on its loop."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._sought: dict[int, _Sought] = {}  # by uid of the task
        self._asked: dict[int, set[int]] = {}  # own calls, and who has asked for them
        # Own calls that were at one that is lost, by that, and who holds them.
        self._remembered: dict[int, dict[int, Call]] = {}
        self._kept: dict[int, dict[int, set[int]]] = {}

    def joined(self) -> None:
        """The runtime is a member: messages may come."""
        self._runtime.handlers.update(
            {
                wire.Seek: self._on_seek,
                wire.Keep: self._on_keep,
                wire.Resent: self._on_resent,
            }
        )
        self._runtime.caller.asking.seek = self.seek
        self._runtime.worker.holders.settled = self._settled

    # -- who waits ---------------------------------------------------------------------

    def seek(self, call: Call, cause: Any) -> bool:
        """Ask the caller of a task that is awaited here; False: that is of no use.

        Args:
            call: whose owner is lost.
            cause: of that.
        """
        runtime = self._runtime
        lost, caller = call.owner, ids.maker(call.uid)
        waiting = runtime.caller.asking.awaited.get(call.uid)
        sought = self._sought.get(call.uid)
        if sought is not None and sought.waiting is not waiting:
            sought.answered()  # those for whom it was asked know
            sought = None
        elif sought is not None and call.stream in sought.streams:
            return True
        if caller == runtime.incarnation:
            own = runtime.caller.calls.get(call.uid)
            if own is not None and own.owner == lost and runtime.is_lost(lost):
                return False
            if own is not None and own.owner != lost:
                call.stream = own.stream  # the end of that one is told to both
                return True
        outbox = runtime.outbox(caller)
        is_user = kind_of(runtime.uid_of(caller)) & (Kind.HEAD | Kind.WORKER)
        if outbox is None or not lost or not is_user:
            return False
        if sought is None:
            sought = self._sought[call.uid] = _Sought(caller, lost, cause, waiting)
            outbox.send(wire.Seek(call.uid, lost))
        call.stream = Stream(0, call.stream.label)
        sought.streams.append(call.stream)
        return True

    def lost(self, incarnation: int, cause: Any) -> None:
        """A runtime is lost; before its calls are."""
        caller = self._runtime.caller
        for uid, sought in list(self._sought.items()):
            if sought.asked == incarnation:
                del self._sought[uid]
                self._lose(uid, sought)
        for waiting in list(caller.asking.awaited.values()):
            for call in waiting:
                if call.owner == incarnation and incarnation not in caller.asking.heirs:
                    self.seek(call, cause)
        for askers in self._asked.values():
            askers.discard(incarnation)

    def _lose(self, uid: int, sought: _Sought) -> None:
        sought.answered()
        for call in list(self._runtime.caller.asking.awaited.get(uid, ())):
            self._runtime.caller.lose(call, sought.cause)

    def _on_resent(self, message: wire.Resent, buffers: Any, sender: int) -> None:
        runtime = self._runtime
        if sender != ids.maker(message.uid):
            raise ProtocolError("it tells of a task that another has made")
        grant = None
        if message.extra is not None:
            check_extra(message.extra, len(buffers))
            references = message.extra.references
            if [(r.kind, r.uid) for r in references] != [(wire.TASK, message.uid)]:
                raise ProtocolError(f"it is not at {references}")
            (grant,) = runtime.grants.delivered(references, sender)
        waiting = runtime.caller.asking.awaited.get(message.uid)
        sought = self._sought.get(message.uid)
        if message.ended:
            # Else they have come since then, and it is asked again for them.
            if sought is not None and sought.waiting is not waiting:
                del self._sought[message.uid]
                sought.answered()
            return
        self._sought.pop(message.uid, None)
        if grant is None or not waiting:
            if sought is not None:
                self._lose(message.uid, sought)
            return
        stream = runtime.placing.foreign(grant.owner)
        for call in waiting:
            call.stream = stream
            rare(call).grant = grant
        if stream.outbox is not None:
            stream.outbox.send(wire.Subscribe(message.uid))
        elif stream.error is not None and not self.seek(waiting[0], stream.error):
            self._lose(message.uid, _Sought(sender, grant.owner, stream.error))

    # -- the caller --------------------------------------------------------------------

    def remember(self, call: Call, lost: wire.Member) -> None:
        """It goes again, or ends now: others may ask for it until all know the loss."""
        if not is_owner(lost.uid):
            return  # which is no loss to be settled
        remembered = self._remembered.setdefault(lost.incarnation, {})
        if call.uid not in remembered:
            remembered[call.uid] = call
            rare(call).sought += 1

    def _on_keep(self, message: wire.Keep, buffers: Any, sender: int) -> None:
        me = self._runtime.incarnation
        if any(ids.maker(uid) != me for uid in message.uids):
            raise ProtocolError("it keeps a task that was not made here")
        lost, uids = message.lost, message.uids
        if message.dropped:
            self._drop(lost, sender, uids)
            return
        remembered = self._remembered.get(lost, {})
        calls = self._runtime.caller.calls
        known = [uid for uid in uids if uid in remembered or uid in calls]
        if known:
            kept = self._kept.setdefault(lost, {})
            for uid in known:
                kept.setdefault(uid, set()).add(sender)

    def _drop(self, lost: int, holder: int, uids: Iterable[int]) -> None:
        """One holds these no longer."""
        kept = self._kept.get(lost, {})
        free = []
        for uid in uids:
            holders = kept.get(uid, set())
            holders.discard(holder)
            if not holders and kept.pop(uid, None) is not None:
                free.append(uid)
        if free:
            self.forget_soon(lost, free)

    def _settled(self, lost: int) -> None:
        """All have heard of a loss, and have said what they hold."""
        for other, kept in self._kept.items():
            self._drop(other, lost, [*kept])
        if lost in self._remembered or lost in self._kept:
            self.forget_soon(lost)

    def forget_soon(self, lost: int, uids: list[int] | None = None) -> None:
        """Forget these, or all, unless somebody gets to hold them meanwhile."""
        runtime = self._runtime
        runtime.loop.call_later(
            _LATE_S, self._forget_free, lost, uids, context=runtime.context
        )

    def _forget_free(self, lost: int, uids: list[int] | None) -> None:
        runtime = self._runtime
        if runtime.is_lost(lost) and not runtime.worker.holders.is_settled(lost):
            return  # until all have heard of it
        remembered = self._remembered.get(lost, {})
        kept = self._kept.get(lost, {})
        for uid in list(remembered) if uids is None else uids:
            if uid not in kept and uid in remembered:
                self._forget(remembered.pop(uid))
        calls = runtime.caller.calls
        for uid in [u for u in kept if u not in remembered and u not in calls]:
            del kept[uid]  # it was lost with who had it
        if not remembered:
            self._remembered.pop(lost, None)
        if not kept:
            self._kept.pop(lost, None)

    def _forget(self, call: Call) -> None:
        """There is a reason less to hold it for others."""
        call.rare.sought -= 1
        if not call.rare.sought and call.state >= DONE and call.hold == DROPPED:
            self._runtime.release(call)

    def _on_seek(self, message: wire.Seek, buffers: Any, sender: int) -> None:
        runtime, uid = self._runtime, message.uid
        if ids.maker(uid) != runtime.incarnation:
            raise ProtocolError("it seeks a task that was not made here")
        call = runtime.caller.calls.get(uid)
        if call is None:
            call = self._remembered.get(message.lost, {}).get(uid)
            if call is None:
                self._send(sender, wire.Resent(uid))
            else:
                self._tell_end(call, sender)
            return
        if uid not in self._asked:
            self._asked[uid] = set()
            rare(call).sought += 1
            runtime.watch(call, functools.partial(self._ended, call))
        self._asked[uid].add(sender)
        if call.stream.outbox is not None and call.owner != message.lost:
            self._redirect(call, sender)

    def placed(self, stream: Stream) -> None:
        """A life has its place: so have the calls that wait for it."""
        for uid, askers in self._asked.items():
            call = self._runtime.caller.calls.get(uid)
            if call is not None and call.stream is stream:
                for asker in askers:
                    self._redirect(call, asker)

    def _redirect(self, call: Call, asker: int) -> None:
        mention = _Mention(call)
        reference = wire.Reference(wire.TASK, call.uid, call.owner)
        message = wire.Resent(call.uid, wire.Extra(references=[reference]))
        outbox = self._runtime.outbox(asker)
        if outbox is not None:
            outbox.send(message, Payload(b"", (mention,)))

    def _ended(self, call: Call) -> None:
        for asker in self._asked.pop(call.uid, ()):
            self._tell_end(call, asker)
        self._forget(call)

    def _tell_end(self, call: Call, asker: int) -> None:
        if call.state > DONE:
            reason = wire.REASONS.index(rare(call).reason or wire.REASONS[wire.LOST])
            if call.state == CANCELLED:
                reason = wire.CANCELLED
            self._send(asker, wire.Failed(call.uid, reason, call.result))
        elif type(call.result) is bytes:
            self._send(asker, wire.Done(call.uid, call.result))
        elif call.stream.outbox is not None:
            self._redirect(call, asker)  # its owner tells it, with the value
            return
        self._send(asker, wire.Resent(call.uid, ended=True))

    def _send(self, to: int, message: Any) -> None:
        outbox = self._runtime.outbox(to)
        if outbox is not None:
            outbox.send(message)
