"""The calls that this runtime has made, until they end.

A ``Stream`` is what one caller sends to one tessera: it numbers the calls and counts
its credit. Calls past the credit, or to a tessera whose place is not known yet, are
held here and keep their order (``held``). What is asked of others about tasks that they
own is in ``asking``. ``submit`` and ``done`` are the hot path: they do their work on
the outbox of the peer directly instead of returning effects.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ..comms.messages import CANCELLED as CANCELLED_REASON
from ..comms.messages import ERROR as ERROR_REASON
from ..comms.messages import (
    KILL,
    MOVED,
    REASONS,
    Cancel,
    Create,
    Done,
    Extra,
    Failed,
    Options,
    Submit,
)
from ..comms.messages import TIMEOUT as TIMEOUT_REASON
from .asking import Asking
from .call import (
    DROPPED,
    HELD,
    IN_LINE,
    KILLED,
    NEVER_IN_LINE,
    NONE_HELD,
    OUT_OF_LINE,
    RELEASED,
    Call,
    Stream,
    rare,
)
from .held import LOOK_EVERY, HeldCalls, place_in_line
from .payloads import extra_of
from .sending import fits, send
from .task import CANCELLED, CLOSE_METHOD, DONE, FAILED

if TYPE_CHECKING:
    from collections.abc import Collection

    from .calling import Caller
    from .outbox import Outbox


class CallerState:
    """All calls of this runtime that have not ended, and those of others it awaits."""

    def __init__(self, port: Caller) -> None:
        self._port = port
        self.calls: dict[int, Call] = {}
        self.asking = Asking(self, port)
        self.held = HeldCalls(self)
        # Those that ended here because their owner did not end them in time.
        self.given_up: dict[int, Call] = {}
        self.now_s = 0.0  # seconds since the epoch, set with each batch
        # Of the parts, what each call looks at.
        self._awaited = self.asking.awaited
        self._credited = self.held.credited
        self._starved = self.held.starved

    # -- out ---------------------------------------------------------------------------

    def submit(
        self, call: Call, payload: Any, extra: Extra | None, target: Any
    ) -> None:
        """Send a call, or hold it until its tessera has a place and credit."""
        uid = call.uid
        self.calls[uid] = call
        stream = call.stream
        if stream.credit > 0 and stream.outbox is not None and not stream.held:
            if type(payload) is bytes:
                stream.credit -= 1
                number = stream.number
                stream.number = number + 1
                stream.outbox.send(
                    Submit(
                        uid,
                        stream.tessera,
                        number,
                        call.method,
                        payload,
                        extra,
                        call.inside,
                    )
                )
                return
            if fits(stream.outbox, payload):
                send(call, payload, extra)
                return
        elif stream.queue is not None and stream.outbox is None:
            stream.queue.submit(call, payload, extra)
            return
        if target is not None and target.stream is not stream:
            # Between the call and now its tessera was found under its name.
            call.stream = target.stream
            self.submit(call, payload, extra, target)
            return
        if stream.error is not None:
            stream.number += 1  # it has been called: this call says what is wrong
            call.hold = RELEASED
            self.lose(call, stream.error)
        else:
            if extra is not None and extra.kind == KILL:
                for held in list(stream.held):
                    self.cancel(held[0], KILLED)
                if stream.outbox is not None:
                    send(call, payload, extra)  # whatever credit there is
                    return
            if stream.held is NONE_HELD:
                stream.held = deque()
            stream.held.append((call, payload, extra, target))
            call.line = IN_LINE
            if not len(stream.held) % LOOK_EVERY:
                self._port.credit_spent()
            if type(payload) is not bytes:
                self._starved[stream] = None

    def create(
        self,
        call: Call,
        cls: bytes,
        payload: Any,
        options: Options,
        extra: Extra | None,
    ) -> None:
        """Send the construction: the first that goes over its stream."""
        self.calls[call.uid] = call
        stream = call.stream
        outbox = stream.outbox
        assert outbox is not None, "placed before it is created"
        data = payload if type(payload) is bytes else payload.data
        if type(payload) is not bytes:
            extra = extra_of(payload, extra)
        stream.credit -= 1  # its end gives it back, as that of any call
        message = Create(
            call.uid, stream.tessera, cls, data, options, extra, call.inside
        )
        outbox.send(message, None if type(payload) is bytes else payload)
        if self._starved:
            self.held.feed()

    def placed(self, stream: Stream, outbox: Outbox) -> None:
        """The place of a tessera is known."""
        stream.outbox = outbox
        stream.owner = outbox.incarnation
        if not stream.tessera:  # of tasks, some of which may be awaited already
            self.asking.placed(stream, outbox)

    def cancel(self, call: Call, reason: str) -> bool:
        """Ask that a call ends; False if it has ended."""
        if call.state >= DONE:
            return False
        outbox = call.stream.outbox
        if self._held_ends(call, CANCELLED, reason, Cancel(call.uid, reason)):
            return True
        if outbox is not None:
            outbox.send(Cancel(call.uid, reason))
        return True

    def late(self, call: Call, why: str, attempt: int) -> None:
        """The time of a call is over: it ends here if it is held, else at its owner.

        Args:
            call: that has not ended.
            why: a ``Late``.
            attempt: whose time is over; 0: of all that there may be.
        """
        message = Cancel(call.uid, str(why), TIMEOUT_REASON, attempt)
        outbox = call.stream.outbox
        if not self._held_ends(call, FAILED, why, message) and outbox is not None:
            outbox.send(message)

    def _held_ends(self, call: Call, state: int, why: str, message: Cancel) -> bool:
        """End a call that was not sent; False: it was."""
        stream = call.stream
        outbox = stream.outbox
        if stream.queue is not None and stream.queue.withdraw(call):
            rare(call).reason = why if state == CANCELLED else REASONS[message.kind]
            error = self._port.cancelled_error(call, why)
            self.end_unsent(call, state, message.kind, error)
            return True
        if call.line != IN_LINE:
            return False
        index = place_in_line(call)
        if outbox is None:
            # Its arguments are not needed, its place in the line is.
            stream.held[index] = (call, b"", None, None)
        else:
            del stream.held[index]
        unknown = outbox is not None and not call.mentioned
        if unknown:
            call.line = OUT_OF_LINE
            if call.hold == DROPPED:
                call.hold = RELEASED
        rare(call).reason = why if state == CANCELLED else REASONS[message.kind]
        self._end(call, state, self._port.cancelled_error(call, why))
        if outbox is None:
            return True
        if not unknown:
            outbox.send(message)  # the owner tells those who ask
        elif call.line == OUT_OF_LINE:
            call.hold = RELEASED
            if call.mentioned:  # meanwhile, by another thread
                self.mentioned(call)
        self.held.release(stream)
        return True

    def mentioned(self, call: Call) -> None:
        """What ended before anybody had heard of it goes into a payload.

        It belongs to this runtime from now on, which tells those who ask.
        """
        if call.line == OUT_OF_LINE:
            call.line = NEVER_IN_LINE
            call.hold = HELD
            kind = CANCELLED_REASON if call.state == CANCELLED else TIMEOUT_REASON
            self._port.refuse_here(call, kind, call.result)

    def give_up(self, call: Call, state: int, reason: int, error: bytes) -> None:
        """Its owner was asked to end it and says nothing: it ends here."""
        rare(call).reason = REASONS[reason]
        self.given_up[call.uid] = call
        self._end(call, state, error)

    def _answered_late(self, uid: int) -> None:
        """The owner has ended one that had been given up, or another's call."""
        call = self.given_up.pop(uid, None)
        if call is not None:
            call.stream.credit += 1
            if call.stream.held or call.stream.watchers:
                self._credited.add(call.stream)

    def look(self) -> None:
        """Many calls wait: a good moment to see what has ended."""
        self._port.credit_spent()

    def end_unsent(self, call: Call, state: int, kind: int, error: bytes) -> None:
        """A call that no runtime has ends without a value.

        Args:
            call: which.
            state: in which it ends.
            kind: of its failure, as of Failed.
            error: as bytes.
        """
        self._port.refuse_here(call, kind, error)
        self._end(call, state, error)

    def take_back(self, call: Call) -> None:
        """A call that was sent, and that its owner has given back, is to go again."""
        call.stream.credit += 1
        self.uncount(call)

    def inside(self, parents: Collection[int]) -> list[Call]:
        """The calls made inside these that have not ended; closing stays as it is."""
        calls = [call for call in self.calls.values() if call.parent in parents]
        return [call for call in calls if call.method != CLOSE_METHOD]

    # -- in ----------------------------------------------------------------------------

    def done(self, message: Done, buffers: Any, sender: int) -> None:
        """A value has come, or the news that there is one."""
        result: Any = message.data
        if message.extra is not None:
            result = self._port.arrived(message, buffers, sender)
            if message.extra.size:
                self._port.stayed(message.uid)
        call = self.calls.pop(message.uid, None)
        if call is not None:
            stream = call.stream
            stream.credit += 1
            call.state = DONE
            call.result = result
            call.settled_s = self.now_s
            if stream.held or stream.watchers:
                self._credited.add(stream)
            if call.rare is not None:
                self.uncount(call)
            if call.waiters is not None:
                self._port.settled(call)
            if call.hold == DROPPED:
                self._port.release(call)
        elif self.given_up:
            self._answered_late(message.uid)
        if self._awaited:
            for other in self._awaited.pop(message.uid, ()):
                self._end(other, DONE, result)

    def failed(self, message: Failed, buffers: Any, sender: int) -> None:
        """A call has ended without a value."""
        reason = message.reason  # the message may be what its owner, here, keeps
        if reason == MOVED:
            if self.asking.moved_on(message.uid, message.data, sender):
                return
            reason = CANCELLED_REASON
        if not 0 <= reason < len(REASONS):
            reason = ERROR_REASON
        state = CANCELLED if reason == CANCELLED_REASON else FAILED
        call = self.calls.get(message.uid)
        if call is not None:
            rare(call).reason = REASONS[reason]
            self._end(call, state, message.data)
            call.stream.credit += 1
            if call.stream.held or call.stream.watchers:
                self.held.release(call.stream)
        elif self.given_up:
            self._answered_late(message.uid)
        self.asking.value_lost(message.uid, message.data or "its value is gone")
        for other in self._awaited.pop(message.uid, ()):
            rare(other).reason = REASONS[reason]
            self._end(other, state, message.data)

    def unreadable(self, uid: int, error: Exception) -> None:
        """An answer came that contradicts itself: who waits for it waits no longer."""
        call = self.calls.get(uid)
        if call is not None:
            call.stream.credit += 1
            self.lose(call, error)
        for other in self._awaited.pop(uid, ()):
            self.lose(other, error)
        self.asking.value_lost(uid, error)

    def lost(self, incarnation: int, cause: Any) -> None:
        """A runtime is gone: what it had to answer is lost."""
        for call in [
            c for c in self.given_up.values() if c.stream.owner == incarnation
        ]:
            del self.given_up[call.uid]
        for call in [c for c in self.calls.values() if c.stream.owner == incarnation]:
            self._drop_stream(call.stream, cause)
            self.lose(call, cause)
        for waiting in list(self._awaited.values()):
            for call in [c for c in waiting if self.asking.answers(c) == incarnation]:
                self._drop_stream(call.stream, cause)
                self.lose(call, cause)
        self.asking.lost(incarnation, cause)

    def stream_failed(self, stream: Stream, error: Any) -> None:
        """Nothing can be called over it any more; what is held ends now."""
        self._drop_stream(stream, error)

    def _drop_stream(self, stream: Stream, cause: Any) -> None:
        stream.error = cause
        stream.outbox = None
        while stream.held:
            call = stream.held.popleft()[0]
            call.line = NEVER_IN_LINE
            if stream.queue is None or not stream.queue.lost(call, cause):
                call.hold = RELEASED
                self.lose(call, cause)
        for watcher in stream.watchers:
            watcher()
        stream.watchers = []

    def lose(self, call: Call, cause: Any) -> None:
        """What had to answer this call is gone."""
        if call.state >= DONE:
            return
        queue = call.stream.queue
        if queue is not None and queue.lost(call, cause):
            return
        for other in self._awaited.pop(call.uid, ()):
            if other is not call:
                self.lose(other, cause)
        rare(call).reason = REASONS[4]
        self._end(call, FAILED, self._port.lost_error(call, cause))

    def _end(self, call: Call, state: int, result: Any) -> None:
        self.calls.pop(call.uid, None)
        call.state = state
        call.result = result
        call.settled_s = self.now_s
        self.uncount(call)
        if state != DONE and (call.waiters is None or call.hold == HELD):
            # Who waits may look no further than that it has ended.
            self._port.unheard(call)
        if call.waiters is not None:
            self._port.settled(call)
        if call.hold == DROPPED:
            self._port.release(call)

    def uncount(self, call: Call) -> None:
        """Its arguments, if they count, are on their way no longer."""
        item = call.rare
        if item is not None and item.nbytes:
            if call.stream.outbox is not None:
                call.stream.outbox.bytes_out -= item.nbytes
            item.nbytes = 0
            if self._starved:
                self.held.feed()
