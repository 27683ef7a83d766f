"""Calls on tesserae that are built again: those that had not ended are sent once more.

Every runtime with a proxy follows the tessera: its calls that had not started when the
worker died go to the next life in their order, those that may have run by the rule of
``idempotent`` and ``retry_on``, and what has killed two workers goes nowhere. Where the
tessera is, and in which order that is heard, is decided in ``core.restarts``.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec

from .. import ids
from ..comms import messages as wire
from ..comms.exceptions import dump_error
from ..core.call import CALL_CREDIT, Call, Stream, rare
from ..core.retries import ON, FailedAttempt, RetryPolicy
from ..core.task import CONSTRUCTOR, DONE
from ..errors import PoisonedCall, Verdict
from ..proxies.restarts import CHECKPOINT
from ..proxies.retries import ask_here, load_retries
from ..proxies.tessera import READY
from .judging import Died, Ended
from .kept import Kept
from .seeking import Seeking

if TYPE_CHECKING:
    from .actor import ActorRuntime
    from .kept import Followed
    from .peer import Peer

_MOST_DEATHS = 2  # of workers that ran a call
_LOST = wire.REASONS[wire.LOST]
# What does no harm where it is done twice.
_HARMLESS = frozenset((wire.GET_ATTRIBUTE, wire.CLOSE, wire.KILL))
_OURS = frozenset((CHECKPOINT, READY))


class Following:
    """What a runtime does with its calls when a tessera that it follows moves."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self.seeking = Seeking(runtime)  # for those who wait for these calls
        # Handles are made on the thread that unpickles, too.
        self.meeting = threading.Lock()

    def place(self, followed: Followed, stream: Stream, peer: Peer) -> None:
        """A life has its place: what goes there is kept."""
        calls = self._runtime.caller.calls
        idempotent = followed.idempotent
        kept = Kept(peer, stream, calls, followed.handles, idempotent=idempotent)
        self._release_moved(followed, peer.incarnation)
        self._runtime.caller.placed(stream, kept)
        self.seeking.placed(stream)

    def _release_moved(self, followed: Followed, now_at: int) -> None:
        """Tell who had calls that they are not its own; unless they come back there."""
        owner, uids = followed.moved
        followed.moved = 0, []
        outbox = self._runtime.outbox(owner) if uids and owner != now_at else None
        if outbox is not None:
            outbox.send(wire.Release(uids))

    def pause(self, followed: Followed) -> None:
        """The worker of this life is about to leave: what is not sent waits here."""
        if followed.leaving is None:
            followed.leaving = followed.stream
            held = self._runtime.caller.held.take(followed.stream)
            self._runtime.caller.held.hold_again(self._renew(followed), held)

    def detach(self, followed: Followed, cause: tuple[wire.Member, str]) -> None:
        """The worker of this life is lost: take back what is to go to the next."""
        self.pause(followed)
        old = followed.leaving
        assert old is not None, "set by pause"
        self._take_back(followed, Died(self._runtime, cause))
        self._runtime.caller.stream_failed(old, cause)

    def leave(self, followed: Followed, at: wire.Member, why: str) -> None:
        """This life is to end and to be built again with others: nothing more goes.

        What was sent waits to hear what had started, but for remote generators.
        """
        self.pause(followed)
        followed.ending = why
        old = followed.leaving
        assert old is not None, "set by pause"
        sent = old.outbox.sent if isinstance(old.outbox, Kept) else ()
        judge = Ended(self._runtime, old, at, why, b"")
        self._lose_streams(old, {message.uid for message, _ in sent}, judge)

    def left(self, followed: Followed, remains: bytes) -> None:
        """It has ended; ``remains``: which calls had started, if that is known."""
        runtime = self._runtime
        self.pause(followed)
        old, why = followed.leaving, followed.ending
        assert old is not None, "set by pause"
        at = runtime.members.get(old.owner, runtime.me)
        judge = Ended(runtime, old, at, why, remains)
        for call in runtime.limiting.ending_at(old.owner):
            if call.stream is old:
                self.seeking.remember(call, at)
                runtime.limiting.lost(call, judge.error(call, ""))
        moved = self._take_back(followed, judge)
        # Nothing goes over it any more, but what is not needed there is still told.
        old.credit = -CALL_CREDIT
        followed.moved = old.owner, moved
        self.seeking.forget_soon(old.owner)

    def _take_back(self, followed: Followed, judge: Died | Ended) -> list[int]:
        """Hold again what is to go to the next life: uids of what had gone to the last.

        Args:
            followed: that leaves a life.
            judge: of the calls that were sent there.
        """
        caller = self._runtime.caller
        old, followed.leaving, followed.ending = followed.leaving, None, ""
        assert old is not None, "set by pause"
        again = []
        kept = old.outbox
        if isinstance(kept, Kept):
            anchor = next(iter(followed.handles), None)
            sent = kept.take()
            taken = {message.uid for message, _ in sent}
            for message, payload in sent:
                call = caller.calls.get(message.uid)
                extra = message.extra
                if call is not None and self._goes(followed, call, extra, judge):
                    data = message.data if payload is None else payload
                    extra = _for_next(followed, call, extra)
                    again.append((call, data, extra, anchor))
            self._lose_streams(old, taken, judge)
        moved = [call.uid for call, *_ in again]
        again += caller.held.take(followed.stream)
        for call, *_ in again:
            if call.state < DONE:
                self.seeking.remember(call, judge.at)
                item = rare(call)
                item.reason, item.running_s = _LOST, None
                item.lost_s = caller.now_s
                if item.watched is not None:
                    item.watched.look(call)
        caller.held.hold_again(followed.stream, again)
        return moved

    def _lose_streams(self, old: Stream, others: set[int], judge: Died | Ended) -> None:
        """Remote generators go nowhere; ``others`` are calls that may."""
        caller = self._runtime.caller
        for call in [c for c in caller.calls.values() if c.stream is old]:
            if call.uid not in others and call.method != CONSTRUCTOR:
                caller.lose(call, judge.error(call))

    def _renew(self, followed: Followed) -> Stream:
        """Another stream, without a place, takes the place of that of a life."""
        runtime, old = self._runtime, followed.stream
        new = Stream(0, old.label)
        new.options = old.options
        runtime.silence_as(old, new)
        look = old.outbox.look if isinstance(old.outbox, Kept) else None
        new.watchers = [w for w in old.watchers if w != look]
        old.watchers = [w for w in old.watchers if w == look]
        with self.meeting:
            followed.stream = new
            for handle in followed.handles:
                handle.stream = new
        runtime.placing.streams[followed.uid] = new
        return new

    def _goes(
        self,
        followed: Followed,
        call: Call,
        extra: wire.Extra | None,
        judge: Died | Ended,
    ) -> bool:
        """Whether a call that was sent goes again; else it has ended."""
        runtime = self._runtime
        if judge.verdict(call) is Verdict.NOT_STARTED:
            return True
        error = judge.error(call)
        item = rare(call)
        if judge.killed_by(call):
            where = ids.short(error.runtime_id)
            item.deaths = (*item.deaths, f"{where} ({error.cause})")
        if not self._may_run_again(followed, call, extra, error):
            if type(judge) is Ended:  # who waits there is to ask here
                self.seeking.remember(call, judge.at)
            runtime.caller.lose(call, error)
            return False
        if len(item.deaths) >= _MOST_DEATHS:
            self.seeking.remember(call, judge.at)
            runtime.caller.lose(call, _poisoned(call, error))
            return False
        item.attempt += 1
        followed.ran[call.uid] = dump_error(error, runtime.serializer)
        return True

    def _may_run_again(
        self,
        followed: Followed,
        call: Call,
        extra: wire.Extra | None,
        error: BaseException,
    ) -> bool:
        """The rule for what may have run: at most once, unless its options say more."""
        item = rare(call)
        if followed.idempotent or item.idempotent or call.method in _OURS:
            return True
        retries, own = followed.max_retries, b""
        if extra is not None:
            if extra.kind in _HARMLESS:
                return True
            if extra.kind != wire.CALL:
                return False
            own = extra.retry
            if extra.max_retries is not None:
                retries = extra.max_retries
        if item.attempt > retries:
            return False
        layers = load_retries(followed.retry), load_retries(own)
        # Exception, where nothing is said, stands for what the method raises.
        named = any(ON in layer for layer in layers)
        policy = RetryPolicy(*layers)
        if not (named and policy.concerns(error)):
            return False
        uid = ids.task_name(call.uid)
        failed = FailedAttempt(uid, call.name, item.attempt, retries)
        return ask_here(policy, error, failed)

    def forget_ended(self, followed: Followed) -> None:
        """Another life is up; that a call ran before counts until it has ended."""
        calls = self._runtime.caller.calls
        followed.ran = {uid: e for uid, e in followed.ran.items() if uid in calls}

    def end(self, followed: Followed, error: bytes, owner: int) -> None:
        """There is no further life: what waits ends.

        Args:
            error: as bytes.
            owner: of the last life, for who mentions what has ended.
        """
        caller, stream = self._runtime.caller, followed.stream
        self._release_moved(followed, 0)
        stream.owner = stream.owner or owner
        for call, *_ in list(stream.held):
            ran = followed.ran.get(call.uid)
            if ran is not None:
                caller.lose(call, ran)
        followed.ran.clear()
        caller.stream_failed(stream, error)


def _for_next(
    followed: Followed, call: Call, extra: wire.Extra | None
) -> wire.Extra | None:
    """What goes with a call to the next life: there it is known that it has begun.

    What it may do because it is idempotent takes no retry.
    """
    attempt: int = 1 if call.rare is None else call.rare.attempt
    if attempt == (1 if extra is None else extra.attempt):
        return extra
    extra = msgspec.structs.replace(extra or wire.Extra(), attempt=attempt)
    if followed.idempotent or call.rare.idempotent:
        retries = extra.max_retries
        extra.max_retries = (followed.max_retries if retries is None else retries) + 1
    return extra


def advice(call: Call) -> str:
    """What to do about a call that is lost with its worker."""
    kept = call.stream.outbox
    if isinstance(kept, Kept):
        is_said = kept.idempotent or (call.rare is not None and call.rare.idempotent)
        return (
            f"{call.stream.label} is built again while it has restarts left, but this "
            "call is not made again: make it again if that does no harm"
            f"{'' if is_said else ', or let idempotent=True do so'}"
        )
    if call.stream.queue is not None:
        return "Run it again: by task.retry(), max_retries=, or submit it once more"
    return "Its tesserae are gone: make them again"


def _poisoned(call: Call, last: BaseException) -> PoisonedCall:
    error = PoisonedCall(
        f"{call.stream.label}.{call.method} ran on two workers when they ended: "
        f"{' and '.join(call.rare.deaths)}; it is not run a third time: see what it "
        "does with its arguments, call it where it can do no harm, or make the tessera "
        "without idempotent=True",
        ids.task_name(call.uid),
    )
    for note in getattr(last, "__notes__", ()):
        error.add_note(note)
    return error
