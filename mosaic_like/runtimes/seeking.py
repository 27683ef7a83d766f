"""Tasks that went elsewhere when the worker that had them was lost.

Who waits for a task of another runtime asks its owner. When that is lost, the caller of
the task may have sent it again: so it is asked, before the task is taken for lost too.

    waits     Seek ->caller     your task was at one that is lost; where is it now?
    caller    Resent ->waits    it is there, and you hold it; or: it is nowhere
              Done, Failed      it has ended meanwhile; a Resent follows

A caller that has not heard of the loss answers when it has. Which calls go again is
decided in ``following``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import ids
from ..comms import messages as wire
from ..comms.checks import check_extra
from ..comms.serialization import Payload
from ..core.call import Call, Stream, rare
from ..core.senders import Kind, kind_of
from ..core.task import CANCELLED, DONE
from ..errors import ProtocolError

if TYPE_CHECKING:
    from .actor import ActorRuntime


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

    def joined(self) -> None:
        """The runtime is a member: messages may come."""
        self._runtime.handlers.update(
            {wire.Seek: self._on_seek, wire.Resent: self._on_resent}
        )
        self._runtime.caller.asking.seek = self.seek

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
        sought = self._sought.pop(message.uid, None)
        if sought is None:
            raise ProtocolError("it tells of a task that was not sought")
        waiting = runtime.caller.asking.awaited.get(message.uid)
        if message.extra is None or not waiting:
            self._lose(message.uid, sought)
            return
        check_extra(message.extra, len(buffers))
        references = message.extra.references
        if [(r.kind, r.uid) for r in references] != [(wire.TASK, message.uid)]:
            raise ProtocolError(f"it is not at {references}")
        (grant,) = runtime.grants.delivered(references, sender)
        stream = runtime.placing.foreign(grant.owner)
        for call in waiting:
            call.stream = stream
            rare(call).grant = grant
        if stream.outbox is not None:
            stream.outbox.send(wire.Subscribe(message.uid))
        elif stream.error is not None and not self.seek(waiting[0], stream.error):
            self._lose(message.uid, _Sought(sender, grant.owner, stream.error))

    # -- the caller --------------------------------------------------------------------

    def _on_seek(self, message: wire.Seek, buffers: Any, sender: int) -> None:
        runtime, uid = self._runtime, message.uid
        if ids.maker(uid) != runtime.incarnation:
            raise ProtocolError("it seeks a task that was not made here")
        call = runtime.caller.calls.get(uid)
        if call is None:
            self._send(sender, wire.Resent(uid))
        elif call.stream.outbox is not None and call.owner != message.lost:
            self._redirect(call, sender)
        elif uid in self._asked:
            self._asked[uid].add(sender)
        else:
            self._asked[uid] = {sender}
            runtime.watch(call, lambda: self._ended(call))

    def placed(self, stream: Stream) -> None:
        """A life has its place: so have the calls that wait for it."""
        for uid in list(self._asked):
            call = self._runtime.caller.calls.get(uid)
            if call is not None and call.stream is stream:
                for asker in self._asked.pop(uid):
                    self._redirect(call, asker)

    def _redirect(self, call: Call, asker: int) -> None:
        mention = _Mention(call)
        reference = wire.Reference(wire.TASK, call.uid, call.owner)
        message = wire.Resent(call.uid, wire.Extra(references=[reference]))
        outbox = self._runtime.outbox(asker)
        if outbox is not None:
            outbox.send(message, Payload(b"", (mention,)))

    def _ended(self, call: Call) -> None:
        message: Any = None
        if call.state == DONE and type(call.result) is bytes:
            message = wire.Done(call.uid, call.result)
        elif call.state > DONE:
            reason = wire.REASONS.index(rare(call).reason or wire.REASONS[wire.LOST])
            if call.state == CANCELLED:
                reason = wire.CANCELLED
            message = wire.Failed(call.uid, reason, call.result)
        for asker in self._asked.pop(call.uid, ()):
            if message is not None:
                self._send(asker, message)
            self._send(asker, wire.Resent(call.uid))

    def _send(self, to: int, message: Any) -> None:
        outbox = self._runtime.outbox(to)
        if outbox is not None:
            outbox.send(message)
