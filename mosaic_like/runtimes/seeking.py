"""Tasks that went elsewhere when the worker that had them was lost.

Who waits for a task of another runtime asks its owner. When that is lost, the caller of
the task may have sent it again: so it is asked, before the task is taken for lost too.

    waits     Seek ->caller     your task was at one that is lost; where is it now?
    caller    Resent ->waits    it is there, and you hold it; or: it is nowhere
              Done, Failed      it has ended; a Resent follows

A caller that has not heard of the loss answers when it has, and tells who has asked
once also of what comes after: another place, and the end. A call that went again, or
that ended otherwise than by the loss alone, may have ended before it is asked for: the
caller remembers it, and holds it, until all have heard of the loss, and a little longer
for who was about to hear of the call. Which calls go again is decided in ``following``.
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

    __slots__ = ("asked", "cause", "lost", "streams")

    def __init__(self, asked: int, lost: int, cause: Any) -> None:
        self.asked = asked
        self.lost = lost
        self.cause = cause
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
        # Own calls that were at one that is lost, by its incarnation.
        self._remembered: dict[int, dict[int, Call]] = {}

    def joined(self) -> None:
        """The runtime is a member: messages may come."""
        self._runtime.handlers.update(
            {wire.Seek: self._on_seek, wire.Resent: self._on_resent}
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
        if caller == runtime.incarnation:
            own = runtime.caller.calls.get(call.uid)
            if own is None or own.owner == lost:
                return False
            call.stream = own.stream  # the end of that one is told to both
            return True
        outbox = runtime.outbox(caller)
        is_user = kind_of(runtime.uid_of(caller)) & (Kind.HEAD | Kind.WORKER)
        if outbox is None or not lost or not is_user:
            return False
        sought = self._sought.get(call.uid)
        if sought is None:
            sought = self._sought[call.uid] = _Sought(caller, lost, cause)
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
        sought = self._sought.pop(message.uid, None)
        waiting = runtime.caller.asking.awaited.get(message.uid)
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

    def _settled(self, lost: int) -> None:
        """All have heard of a loss, and have asked; soon nothing else will come."""
        if lost in self._remembered:
            runtime = self._runtime
            runtime.loop.call_later(
                _LATE_S, self._forget_all, lost, context=runtime.context
            )

    def _forget_all(self, lost: int) -> None:
        for call in self._remembered.pop(lost).values():
            self._forget(call)

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
        self._send(asker, wire.Resent(call.uid))

    def _send(self, to: int, message: Any) -> None:
        outbox = self._runtime.outbox(to)
        if outbox is not None:
            outbox.send(message)
