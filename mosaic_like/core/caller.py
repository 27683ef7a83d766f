"""The calls that this runtime has made, until they end.

A ``Stream`` is what one caller sends to one tessera: it numbers the calls and counts
its credit. Calls past the credit, or to a tessera whose place is not known yet, are
held here and keep their order. ``submit`` and ``done`` are the hot path: they do their
work on the outbox of the peer directly instead of returning effects.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ..comms.messages import CANCELLED as CANCELLED_REASON
from ..comms.messages import ERROR as ERROR_REASON
from ..comms.messages import (
    REASONS,
    Cancel,
    Create,
    Done,
    Extra,
    Failed,
    Fetch,
    Options,
    Reference,
    Submit,
    Subscribe,
)
from ..comms.messages import TIMEOUT as TIMEOUT_REASON
from ..ids import task_name
from .task import CANCELLED, DONE, FAILED, PENDING, RUNNING, function_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from .dispatch import FunctionQueue

FOREIGN = "task"  # label of the streams to ask others of tasks that they made

CALL_CREDIT = 10_000  # calls of one stream that are on their way or not finished
BYTE_CREDIT = 256 << 20  # of arguments on their way to one runtime
LOOK_EVERY = 256  # calls held, for what gives credit back
# Smaller ones are not counted: the calls' own credit bounds them.
COUNTED_BYTES = 4096


# Whether the owner is still to be told that the proxy is gone.
HELD, DROPPED, RELEASED = range(3)


class Call(msgspec.Struct, gc=False, eq=False):
    """One task as a holder of its proxy sees it.

    A Struct, and unknown to the garbage collector, because one is made for each call:
    a hundred thousand that are outstanding would be walked again and again. Nothing
    that it refers to leads back to it once it has settled.
    """

    uid: int
    stream: Stream
    method: str
    code: Any  # where it was called: turned into a line when printed
    instruction: int
    submitted_s: float
    state: int = PENDING
    # Once settled: plain bytes, an Arrived payload, or an error as bytes.
    result: Any = None
    waiters: Any = None  # None, or a list of callables
    hold: int = HELD
    settled_s: float = 0.0
    rare: Any = None  # a Rare, made when needed
    inside: list[int] | None = None  # the calls in which it was made, outermost first

    @property
    def root(self) -> int:
        """The outermost call inside which it was made; 0: inside none."""
        return 0 if self.inside is None else self.inside[0]

    @property
    def parent(self) -> int:
        """The innermost."""
        return 0 if self.inside is None else self.inside[-1]

    @property
    def owner(self) -> int:
        """Incarnation of the runtime where the task is; 0 while that is not known."""
        return self.stream.owner

    @property
    def settled(self) -> bool:
        return self.state >= DONE

    @property
    def first_uid(self) -> int:
        """The uid that people know: another is used after each ``retry()``."""
        rare = self.rare
        return self.uid if rare is None else rare.first_uid or self.uid

    @property
    def reason(self) -> str | None:
        """Why it is in its state, as far as it is known here."""
        rare = self.rare
        if rare is None:
            return None
        if rare.told is not None and rare.told[0] == self.state:
            return str(rare.told[1])
        found: str | None = rare.reason
        return found

    @property
    def shown_state(self) -> int:
        """Its state, or RUNNING where its owner has said so."""
        is_running = self.state == PENDING and self.rare is not None
        return RUNNING if is_running and self.rare.running_s else self.state

    @property
    def name(self) -> str:
        """Tessera and method, or function; of others' tasks, what is known here."""
        about = None if self.rare is None else self.rare.about
        if about is not None and about.run_name is not None:
            return str(about.run_name)
        stream = self.stream
        if stream.queue is not None or (self.rare is not None and self.rare.connected):
            return function_name(self.method)
        if stream.label == FOREIGN:
            return f"{self.method or FOREIGN} {task_name(self.uid)}"
        return f"{stream.label}.{self.method}"


class Rare:
    """What few calls have."""

    __slots__ = (
        "about",
        "attempt",
        "cached",
        "connected",
        "copy",
        "deaths",
        "earlier",
        "error",
        "fetched",
        "first_uid",
        "grant",
        "guard",
        "heir",
        "idempotent",
        "interrupt",
        "items",
        "lost_s",
        "nbytes",
        "origin",
        "pending_fetch",
        "proxies",
        "reason",
        "running_s",
        "told",
        "unheard",
        "value",
        "watched",
    )

    def __init__(self) -> None:
        self.grant: Any = None  # of a task that another runtime made
        self.nbytes = 0  # of its arguments, while they count
        self.reason: str | None = None
        self.running_s: float | None = None  # last reported by the worker
        self.told: tuple[int, str] | None = None  # a state, and the reason if it is so
        self.about: Any = None  # what a task's policy says of it: proxies.records.About
        self.origin = 0  # uid of the call that made its value, if that is another's
        self.guard: Any = None  # of a function task: asked before each further attempt
        self.watched: Any = None  # what keeps all that is heard of it, if anything does
        self.error: BaseException | None = None  # rebuilt
        self.cached = False
        self.value: Any = None  # unpickled
        self.items: Any = None  # of a remote stream
        self.fetched = False
        self.pending_fetch = False
        self.unheard = False  # failed and nobody has asked
        self.attempt = 1  # last reported by the worker
        self.interrupt: int | None = None  # how it is stopped, if it says so
        self.copy: Any = None  # memory for its value, which a call here takes
        self.heir: Any = None  # has its value, since the runtime that had it is lost
        self.idempotent = False  # it may run again when its worker was lost
        self.deaths: tuple[str, ...] = ()  # of workers that ran it
        self.lost_s = 0.0  # when its worker was lost, and it was to go to another
        self.connected = False  # it waits for others, or others wait for it
        self.first_uid = 0  # before it was retried
        self.earlier = 0  # attempts before it was retried
        self.proxies = 0  # further ones, beside the first


def rare(call: Call) -> Rare:
    """The rare part of a call, made when first needed."""
    if call.rare is None:
        call.rare = Rare()
    return call.rare  # type: ignore[no-any-return]


class Arrived:
    """A payload that came with a message and is not plain bytes."""

    __slots__ = ("buffers", "data", "grants", "shared", "size")

    def __init__(
        self, data: bytes, buffers: Any = (), grants: Any = (), size: int = 0
    ) -> None:
        self.data = data
        self.buffers = buffers
        self.grants = grants  # by index of reference; kept as long as the payload
        self.size = size  # of a value that stayed where it was made
        # Its segments, or its chunks: while ``size`` is not zero some are not here.
        self.shared: Any = None


class Outbox(Protocol):
    """Where messages to one peer are gathered until the end of the tick."""

    bytes_out: int  # counted arguments that are on their way

    @property
    def incarnation(self) -> int: ...

    @property
    def shares_memory(self) -> bool:
        """It is on this host, and opens what this runtime shares."""

    @property
    def releases(self) -> list[int]:
        """Uids that it will be told of as dropped; to be appended to."""

    def send(self, message: Any, payload: Any = None) -> None: ...

    def send_ends(self, messages: list[Any]) -> None: ...


# An empty deque takes 600 bytes, and few streams hold anything. Nothing is put into it.
_NONE_HELD: deque[tuple[Call, Any, Any, Any]] = deque()


class Stream:
    """What this runtime sends to one tessera."""

    __slots__ = (
        "__weakref__",
        "credit",
        "error",
        "held",
        "label",
        "methods",
        "number",
        "options",
        "outbox",
        "owner",
        "queue",
        "tessera",
        "watchers",
    )

    def __init__(self, tessera: int, label: str) -> None:
        self.tessera = tessera
        self.label = label  # for people, such as Counter#1
        self.owner = 0
        self.outbox: Outbox | None = None
        self.number = 0
        self.credit = CALL_CREDIT
        # The last of each is the handle of the tessera: a held call holds its target.
        self.held = _NONE_HELD
        self.error: Any = None  # of the construction or the loss
        self.watchers: Sequence[Callable[[], None]] = ()  # waiting for credit
        # Of all calls that have none of their own: timeout, interrupt.
        self.options: dict[str, Any] | None = None
        # Of function tasks: decides which of them go over this stream, and when.
        self.queue: FunctionQueue | None = None


class Caller(Protocol):
    """What the runtime does for CallerState."""

    def settled(self, call: Call) -> None:
        """A call that somebody waits for has ended."""

    def credit_spent(self) -> None:
        """Many calls are held: a good moment to see what has ended."""

    def unheard(self, call: Call) -> None:
        """A call has failed and nobody waits for it."""

    def release(self, call: Call) -> None:
        """Nobody here holds the task any more."""

    def arrived(self, message: Any, buffers: Any, sender: int) -> Any:
        """Take the grants of a payload; what stands for it from now on."""

    def locate(self, arrived: Arrived, then: Callable[[], None]) -> None:
        """Have the rest of a payload: unopened segments, chunks that have not come."""

    def unwanted(self, arrived: Arrived) -> None:
        """The rest is not needed any more."""

    def lost_error(self, call: Call, cause: Any) -> bytes: ...

    def outbox(self, incarnation: int) -> Outbox | None:
        """To send to a runtime; None if it is lost."""

    def cancelled_error(self, call: Call, reason: str) -> bytes: ...

    def refuse_here(self, call: Call, kind: int, error: bytes) -> None:
        """It has failed, and this runtime tells those who ask for it."""


class CallerState:
    """All calls of this runtime that have not ended, and those of others it awaits."""

    def __init__(self, port: Caller) -> None:
        self._port = port
        self.calls: dict[int, Call] = {}
        self.awaited: dict[int, list[Call]] = {}  # tasks of others, by uid
        self.fetching: dict[int, list[Call]] = {}
        # Of these, what has come but for segments or chunks.
        self._locating: dict[int, Arrived] = {}
        # Those that ended here because their owner did not end them in time.
        self.given_up: dict[int, Call] = {}
        self._credited: set[Stream] = set()  # by the batch that is being delivered
        # Those whose first held call waits for bytes, or for the place of a tessera.
        self._starved: dict[Stream, None] = {}
        # Asks elsewhere for a task whose owner is lost, if that is of any use.
        self.seek: Callable[[Call, Any], bool] = lambda call, cause: False
        self.now_s = 0.0  # seconds since the epoch, set with each batch
        # Owners that have left in order, and who owns now what they owned.
        self.heirs: dict[int, int] = {}

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
            if self._fits(stream.outbox, payload):
                self._send(call, payload, extra)
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
            if stream.held is _NONE_HELD:
                stream.held = deque()
            stream.held.append((call, payload, extra, target))
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
            self.feed()

    def placed(self, stream: Stream, outbox: Outbox) -> None:
        """The place of a tessera is known."""
        stream.outbox = outbox
        stream.owner = outbox.incarnation
        if not stream.tessera:  # of tasks, some of which may be awaited already
            for uid, waiting in self.awaited.items():
                if waiting[0].stream is stream:
                    outbox.send(Subscribe(uid))

    def move(self, old: Stream, stream: Stream) -> list[tuple[Call, Any, Any, Any]]:
        """What was to go to one tessera goes to another: what is held, for ``resume``.

        Args:
            old: to a tessera that was never made.
            stream: to the one that there is; perhaps the same, with another uid.
        """
        held = list(old.held)
        old.held = _NONE_HELD
        if stream is not old:
            stream.watchers = (*stream.watchers, *old.watchers)
            old.watchers = ()
            # For what is to be made beside it.
            old.owner, old.error = stream.owner, stream.error
        return held

    def take_held(self, stream: Stream) -> list[tuple[Call, Any, Any, Any]]:
        """What is held for a stream is to go elsewhere: see ``hold_again``."""
        held = list(stream.held)
        stream.held = _NONE_HELD
        return held

    def hold_again(
        self, stream: Stream, held: list[tuple[Call, Any, Any, Any]]
    ) -> None:
        """Calls, in order, that wait for the place of a stream that has none."""
        for call, payload, extra, target in held:
            call.stream = stream
            if call.state < DONE:
                self._uncount(call)
                self.submit(call, payload, extra, target)
            elif stream.held is _NONE_HELD:  # it keeps its place in the line
                stream.held = deque(((call, payload, extra, target),))
            else:
                stream.held.append((call, payload, extra, target))

    def resume(self, stream: Stream, held: list[tuple[Call, Any, Any, Any]]) -> None:
        """Submit again, in order, what ``move`` gave."""
        for call, payload, extra, target in held:
            call.stream = stream
            if call.state < DONE:
                self.submit(call, payload, extra, target)
            elif call.hold != RELEASED and stream.outbox is not None:
                stream.outbox.send(Cancel(call.uid, ""))  # as `release_held` does
        self.release_held(stream)

    def feed_starved(self) -> None:
        """A task has its place: see whether a call mentions it."""
        if self._starved:
            self.feed()

    def feed(self) -> None:
        """Bytes are free, or a tessera has its place: see who waited for that."""
        starved, self._starved = self._starved, {}
        for stream in starved:
            self.release_held(stream)

    def release_held(self, stream: Stream) -> None:
        """Send what was held, as far as credit goes."""
        held = stream.held
        outbox = stream.outbox
        while held and outbox is not None and stream.credit > 0:
            call, payload, extra, _ = held[0]
            if call.state >= DONE:  # cancelled before there was a place to say so
                held.popleft()
                if call.hold != RELEASED:
                    late = call.state == FAILED
                    kind = TIMEOUT_REASON if late else CANCELLED_REASON
                    outbox.send(Cancel(call.uid, "", kind))
                continue
            if type(payload) is not bytes and not self._fits(outbox, payload):
                self._starved[stream] = None
                return
            held.popleft()
            self._send(call, payload, extra)
        if stream.watchers and stream.credit > 0 and not held:
            watchers, stream.watchers = stream.watchers, []
            for watcher in watchers:
                watcher()

    def release_credited(self) -> None:
        """At the end of a batch: its credits are used together."""
        credited = self._credited
        while credited:
            self.release_held(credited.pop())

    def _fits(self, outbox: Outbox, payload: Any) -> bool:
        if type(payload) is bytes:
            return True
        for handle in payload.handles:
            if not handle.owner:
                return False  # mentions a tessera that has no place yet
        bytes_out = outbox.bytes_out
        return not bytes_out or bytes_out + payload.nbytes <= BYTE_CREDIT

    def _send(self, call: Call, payload: Any, extra: Extra | None) -> None:
        """Send a call that has credit; ``submit`` does it by itself for plain bytes."""
        stream = call.stream
        outbox = stream.outbox
        assert outbox is not None
        stream.credit -= 1
        number = stream.number
        stream.number = number + 1
        data = payload
        if type(payload) is not bytes:
            data = payload.data
            extra = extra_of(payload, extra)
            size: int = payload.nbytes
            if size > COUNTED_BYTES:
                rare(call).nbytes = size
                outbox.bytes_out += size
        message = Submit(
            call.uid, stream.tessera, number, call.method, data, extra, call.inside
        )
        outbox.send(message, None if type(payload) is bytes else payload)

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
        for index, held in enumerate(stream.held):
            if held[0] is call:
                rare(call).reason = why if state == CANCELLED else REASONS[message.kind]
                self._end(call, state, self._port.cancelled_error(call, why))
                if outbox is None:
                    # Its arguments are not needed, its place in the line is.
                    stream.held[index] = (call, b"", None, None)
                    return True
                # Others may have heard of it: the owner tells those who ask.
                del stream.held[index]
                outbox.send(message)
                self.release_held(stream)
                return True
        return False

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
        self._uncount(call)

    def inside(self, parents: Collection[int]) -> list[Call]:
        """The calls made inside these that have not ended; closing stays as it is."""
        calls = [call for call in self.calls.values() if call.parent in parents]
        return [call for call in calls if call.method != "__close__"]

    def subscribe(self, call: Call) -> None:
        """Learn the end of a task that another runtime made."""
        waiting = self.awaited.get(call.uid)
        if waiting is not None:
            waiting.append(call)
            return
        self.awaited[call.uid] = [call]
        outbox = call.stream.outbox or self._heir_of(call)
        if outbox is not None:
            outbox.send(Subscribe(call.uid))
        elif call.stream.error is not None and not self.seek(call, call.stream.error):
            self.lose(call, call.stream.error)

    def fetch(self, call: Call) -> None:
        """Get a value that stayed where it was made."""
        waiting = self.fetching.setdefault(call.uid, [])
        waiting.append(call)
        if len(waiting) == 1:
            result = call.result
            if type(result) is Arrived and result.size and result.shared is not None:
                self._locate(call.uid, result)
            else:
                self._fetch(call)

    def _fetch(self, call: Call) -> None:
        stream = call.stream
        outbox = stream.outbox if stream.error is None else self._heir_of(call)
        if outbox is None:
            self._value_lost(call.uid, stream.error)
        else:
            outbox.send(Fetch(call.uid))

    def _heir_of(self, call: Call) -> Outbox | None:
        """Who answers for a call whose owner has left in order."""
        heir = self.heirs.get(call.stream.owner)
        return None if heir is None else self._port.outbox(heir)

    def _answers(self, call: Call) -> int:
        """Incarnation of the runtime that is asked about a task."""
        return self.heirs.get(call.stream.owner, call.stream.owner)

    def moved(self, owner: int, outbox: Outbox) -> None:
        """What one owner was asked is asked its heir; it has not answered, and left.

        Args:
            owner: incarnation; ``heirs`` does not have it yet.
            outbox: to its heir.
        """
        for uid, waiting in self.awaited.items():
            if self._answers(waiting[0]) == owner:
                outbox.send(Subscribe(uid))
        for uid, waiting in self.fetching.items():
            if uid not in self._locating and self._answers(waiting[0]) == owner:
                outbox.send(Fetch(uid))

    def _locate(self, uid: int, result: Arrived) -> None:
        """The value has come, but what made its segments is gone, or not all chunks."""
        self._locating[uid] = result
        asked_owner = self.fetching[uid][0].result is not result

        def located() -> None:
            self._locating.pop(uid, None)
            waiting = self.fetching.get(uid, ())
            if not result.size:
                self._fetched_all(uid, result)
            elif asked_owner:
                # If its owner is lost, how that died says more than what broke off.
                lost = waiting[0].stream.error if waiting else None
                self._value_lost(uid, lost or result.shared.why)
            elif waiting:
                self._fetch(waiting[0])  # whoever has the task may have it still

        self._port.locate(result, located)

    # -- in ----------------------------------------------------------------------------

    def done(self, message: Done, buffers: Any, sender: int) -> None:
        """A value has come, or the news that there is one."""
        result: Any = message.data
        if message.extra is not None:
            result = self._port.arrived(message, buffers, sender)
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
                self._uncount(call)
            if call.waiters is not None:
                self._port.settled(call)
            if call.hold == DROPPED:
                self._port.release(call)
        elif self.given_up:
            self._answered_late(message.uid)
        if self.awaited:
            for other in self.awaited.pop(message.uid, ()):
                self._end(other, DONE, result)

    def failed(self, message: Failed, buffers: Any, sender: int) -> None:
        """A call has ended without a value."""
        if not 0 <= message.reason < len(REASONS):
            message.reason = ERROR_REASON
        state = CANCELLED if message.reason == CANCELLED_REASON else FAILED
        call = self.calls.get(message.uid)
        if call is not None:
            rare(call).reason = REASONS[message.reason]
            self._end(call, state, message.data)
            call.stream.credit += 1
            if call.stream.held or call.stream.watchers:
                self.release_held(call.stream)
        elif self.given_up:
            self._answered_late(message.uid)
        if message.uid in self.fetching:
            self._value_lost(message.uid, message.data or "its value is gone")
        for other in self.awaited.pop(message.uid, ()):
            rare(other).reason = REASONS[message.reason]
            self._end(other, state, message.data)

    def unreadable(self, uid: int, error: Exception) -> None:
        """An answer came that contradicts itself: who waits for it waits no longer."""
        call = self.calls.get(uid)
        if call is not None:
            call.stream.credit += 1
            self.lose(call, error)
        for other in self.awaited.pop(uid, ()):
            self.lose(other, error)
        self._value_lost(uid, error)

    def value(self, message: Any, buffers: Any, sender: int) -> None:
        """A value that was fetched."""
        uid = message.uid
        result = message.data
        if message.extra is not None:
            result = self._port.arrived(message, buffers, sender)
            if type(result) is Arrived and result.size:
                if uid in self.fetching:
                    self._locate(uid, result)
                else:
                    self._port.unwanted(result)
                return
        self._fetched_all(uid, result)

    def _fetched_all(self, uid: int, result: Any) -> None:
        for call in self.fetching.pop(uid, ()):
            call.result = result
            self._fetched(call)

    def unfetch(self, call: Call) -> None:
        """Nobody has the proxy of a call any more whose value is on its way."""
        waiting = self.fetching.get(call.uid, ())
        if len(waiting) != 1 or waiting[0] is not call:
            return
        arrived = self._locating.get(call.uid)
        self._value_lost(call.uid, "nobody held it any more")
        if arrived is not None:
            self._port.unwanted(arrived)

    def lost(self, incarnation: int, cause: Any) -> None:
        """A runtime is gone: what it had to answer is lost."""
        for call in [
            c for c in self.given_up.values() if c.stream.owner == incarnation
        ]:
            del self.given_up[call.uid]
        for call in [c for c in self.calls.values() if c.stream.owner == incarnation]:
            self._drop_stream(call.stream, cause)
            self.lose(call, cause)
        for waiting in list(self.awaited.values()):
            for call in [c for c in waiting if self._answers(c) == incarnation]:
                self._drop_stream(call.stream, cause)
                self.lose(call, cause)
        for uid, waiting in list(self.fetching.items()):
            if uid in self._locating:
                continue  # the warehouse has outlived it
            if waiting and self._answers(waiting[0]) == incarnation:
                self._value_lost(uid, cause)

    def stream_failed(self, stream: Stream, error: Any) -> None:
        """Nothing can be called over it any more; what is held ends now."""
        self._drop_stream(stream, error)

    def _drop_stream(self, stream: Stream, cause: Any) -> None:
        stream.error = cause
        stream.outbox = None
        while stream.held:
            call = stream.held.popleft()[0]
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
        for other in self.awaited.pop(call.uid, ()):
            if other is not call:
                self.lose(other, cause)
        rare(call).reason = REASONS[4]
        self._end(call, FAILED, self._port.lost_error(call, cause))

    def _value_lost(self, uid: int, cause: Any) -> None:
        for call in self.fetching.pop(uid, ()):
            call.state = FAILED
            told = type(cause) is bytes  # an error of its owner
            call.result = cause if told else self._port.lost_error(call, cause)
            rare(call).reason = REASONS[4]
            self._fetched(call)

    def _fetched(self, call: Call) -> None:
        item = rare(call)
        item.pending_fetch = False
        item.fetched = True
        if call.waiters is not None:
            self._port.settled(call)

    def _end(self, call: Call, state: int, result: Any) -> None:
        self.calls.pop(call.uid, None)
        call.state = state
        call.result = result
        call.settled_s = self.now_s
        self._uncount(call)
        if state != DONE and (call.waiters is None or call.hold == HELD):
            # Who waits may look no further than that it has ended.
            self._port.unheard(call)
        if call.waiters is not None:
            self._port.settled(call)
        if call.hold == DROPPED:
            self._port.release(call)

    def _uncount(self, call: Call) -> None:
        item = call.rare
        if item is not None and item.nbytes:
            if call.stream.outbox is not None:
                call.stream.outbox.bytes_out -= item.nbytes
            item.nbytes = 0
            if self._starved:
                self.feed()


def references(payload: Any) -> list[Reference]:
    """What a payload mentions, as it goes over the wire."""
    return [Reference(h.kind, h.uid, h.owner) for h in payload.handles]


def extra_of(payload: Any, extra: Extra | None) -> Extra:
    """What a message must say of a payload that is not plain."""
    extra = Extra() if extra is None else extra
    extra.references = references(payload)
    if payload.definitions:
        extra.definitions = list(payload.definitions)
    if payload.outputs:
        extra.outputs = payload.outputs
    if payload.buffers:
        extra.buffers = len(payload.buffers)
    elif payload.shared is not None:
        extra.shared = payload.shared.wire
    return extra
