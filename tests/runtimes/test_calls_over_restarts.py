"""What becomes of calls while tesserae are built again, in many orders of events.

Two runtimes make calls on three tesserae; each is the home of some, lets go of the
proxies of some calls and gives others to the other one, which waits for them. All that
decides about them is real (homes, followers, groups, callers, verdicts, seeking, the
texts of errors);
the links, the monitor and the workers are imitated: these run one call at a time, keep
a journal, and are drained, or die at any moment with whatever they had not sent.
"""

from __future__ import annotations

import enum
import random
from collections import Counter, deque
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like import ids
from mosaic_like.comms import messages as wire
from mosaic_like.comms.exceptions import dump_error, load_error
from mosaic_like.comms.messages import Member
from mosaic_like.comms.serialization import Serializer
from mosaic_like.core.asking import Asking
from mosaic_like.core.call import DROPPED, FOREIGN, HELD, Call, Stream, rare
from mosaic_like.core.caller import CallerState
from mosaic_like.core.groups import Restart
from mosaic_like.core.held import HeldCalls
from mosaic_like.core.losses import Losses
from mosaic_like.core.restarts import Intensity
from mosaic_like.core.task import CANCELLED, CONSTRUCTOR, DONE
from mosaic_like.core.verdicts import Mark, Remains, decode, encode, of_leaver
from mosaic_like.errors import (
    PoisonedCall,
    RuntimeDisconnectedError,
    TaskCancelledError,
    Verdict,
)
from mosaic_like.runtimes.deaths import Deaths
from mosaic_like.runtimes.dropping import Dropping
from mosaic_like.runtimes.failures import Failures
from mosaic_like.runtimes.restarting import Restarts
from mosaic_like.runtimes.seeking import Seeking

CALLERS = (2, 3)
HOMES = (2, 2, 3)  # of the tesserae
SOON_S = 4.0  # later timers are for what never ends here, or has gone far away
SERIALIZER = Serializer()


def nothing(*args: Any, **options: Any) -> None:
    """What has no part in this."""


class News(enum.Enum):
    """Of the monitor, about a worker."""

    JOINED = enum.auto()
    LEAVING = enum.auto()
    LEFT = enum.auto()  # in order
    LOST = enum.auto()


class Given(NamedTuple):
    """A proxy of a call, as it comes to another runtime."""

    uid: int
    owner: int


class Box:
    """The outbox of one runtime to another."""

    shares_memory = False
    bytes_out = 0

    def __init__(self, world: World, me: int, to: int) -> None:
        self.incarnation = to
        self.releases: list[int] = []
        self._world = world
        self._link = me, to

    def send(self, message: Any, payload: Any = None) -> None:
        world, (me, to) = self._world, self._link
        for handle in () if payload is None else payload.handles:
            if handle.owner != to:  # as `ActorRuntime.before`
                world.runtimes[me].box(handle.owner).send(wire.Retain(handle.uid, to))
        if to not in world.dead:
            world.links[self._link].append(message)

    def tell_released(self) -> None:
        uids, self.releases[:] = list(self.releases), []
        self.send(wire.Release(uids))


class Timers:
    """The loop, as far as it is asked for something here."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Any, ...]] = []

    def time(self) -> float:
        return 0.0

    def call_later(self, delay_s: float, *what: Any, context: Any) -> Any:
        timer = delay_s, *what
        self.waiting.append(timer)
        return SimpleNamespace(cancel=partial(self._cancel, timer))

    def _cancel(self, timer: tuple[Any, ...]) -> None:
        if timer in self.waiting:
            self.waiting.remove(timer)


class Runtime:
    """One that makes calls, with what its parts ask it for."""

    cluster_lost = ""
    stopping = False
    on_loop = True
    context = None
    credit_spent = unheard = silence_as = staticmethod(nothing)

    def __init__(self, world: World, incarnation: int) -> None:
        self.world = world
        self.incarnation = incarnation
        self.uid = f"worker:0:{incarnation}"
        self.me = Member(incarnation, self.uid, b"", "", "here", incarnation)
        self.uids = ids.uids(incarnation)
        self.members: dict[int, Member] = {}
        self.causes: dict[int, Any] = {}
        self.handlers: dict[type, Any] = {}
        self.serializer = SERIALIZER
        self.loop = Timers()
        self.asked: set[int] = set()
        self.news: deque[Any] = deque()  # from the monitor
        self.dropped: list[Any] = []  # handles
        self.boxes: dict[int, Box] = {}
        self.foreign_streams: dict[int, Stream] = {}
        self.losses = Losses()
        self.unplaced: list[Any] = []
        self.caller = CallerState(self)  # type: ignore[arg-type]  # as far as it is asked
        self.placing = SimpleNamespace(
            streams={},
            place=self.place,
            later=self.later,
            place_waiting=self.again,
            foreign=self.foreign,
        )
        settled = self.losses.is_settled
        holders = SimpleNamespace(add=nothing, grant=nothing, is_settled=settled)
        self.worker = SimpleNamespace(kept={}, holders=holders, tesserae={})
        self.leavers = SimpleNamespace(left=set(), leaving=set(), open=list)
        self.executor = SimpleNamespace(main=SimpleNamespace(stack=[]))
        self.config = SimpleNamespace(checkpoint_directory=None)
        self.limiting = SimpleNamespace(
            is_ending=self.is_ending, ending_at=self.ending_at, lost=self.lost_ending
        )
        self.names = SimpleNamespace(owned=nothing, ended=nothing)
        self.linking = SimpleNamespace(failed=nothing, closed=nothing)
        self.grants = SimpleNamespace(
            made=lambda uid, owner: uid, delivered=lambda references, by: references
        )
        self.peers = SimpleNamespace(ticking=True, tick_soon=nothing)
        self.deaths = Deaths(self)  # type: ignore[arg-type]  # the same
        self.failures = Failures(self)  # type: ignore[arg-type]  # the same
        self.lost_error = self.failures.lost
        self.cancelled_error = self.failures.cancelled_here
        unheard: Any = SimpleNamespace(complain=nothing)
        self.dropping = Dropping(self, self.peers, unheard)  # type: ignore[arg-type]  # the same
        self.release = self.dropping.release
        self.restarts = Restarts(self)  # type: ignore[arg-type]  # the same
        self.restarts.joined()
        self.handlers[Given] = self.given
        self.handlers[wire.LossSeen] = self.loss_seen
        self.handlers[wire.Done] = self.caller.done
        self.handlers[wire.Failed] = self.caller.failed

    def outbox(self, incarnation: int) -> Box | None:
        if incarnation in self.members or incarnation in CALLERS:
            return self.box(incarnation)
        return None

    def box(self, incarnation: int) -> Box:
        if incarnation not in self.boxes:
            box = Box(self.world, self.incarnation, incarnation)
            self.boxes[incarnation] = box
        return self.boxes[incarnation]

    def is_lost(self, incarnation: int) -> bool:
        return incarnation in self.causes

    def of_kind(self, kind: str) -> list[Member]:
        return list(self.members.values())

    def uid_of(self, incarnation: int) -> str:
        return f"worker:0:{incarnation}"

    def post(self, function: Any, *args: Any) -> None:
        function(*args)

    def watch(self, call: Call, then: Any) -> None:
        if call.state >= DONE:
            then()
        else:
            call.waiters = [*(call.waiters or ()), then]

    def settled(self, call: Call) -> None:
        waiters, call.waiters = call.waiters, None
        for then in waiters:
            then()

    # -- placing -----------------------------------------------------------------------

    def later(self, attempt: Any) -> None:
        self.unplaced.append(attempt)

    def again(self) -> None:
        waiting, self.unplaced = self.unplaced, []
        self.unplaced += [attempt for attempt in waiting if not attempt()]

    def place(
        self,
        inner: Any,
        cls: Any,
        payload: Any,
        options: wire.Options,
        where: Any,
        extra: Any,
        placed: Any,
    ) -> None:
        def try_now() -> bool:
            open_ones = self.members.keys() - self.leavers.leaving
            if not open_ones:
                return False
            worker = self.world.rng.choice(sorted(open_ones))
            placed(inner.stream, self.outbox(worker), options)
            self.caller.create(inner.call, b"class", b"arguments", options, extra)
            self.caller.held.release(inner.stream)
            return True

        if not try_now():
            self.unplaced.append(try_now)

    def foreign(self, owner: int) -> Stream:
        stream = self.foreign_streams.get(owner)
        if stream is None:
            stream = self.foreign_streams[owner] = Stream(0, FOREIGN)
            stream.owner = owner
            if not self.aim(stream):
                self.unplaced.append(partial(self.aim, stream))
        return stream

    def aim(self, stream: Stream) -> bool:
        lost = self.causes.get(stream.owner)
        box = self.outbox(stream.owner)
        if lost is not None:
            self.caller.stream_failed(stream, lost)
        elif box is not None:
            self.caller.placed(stream, box)  # type: ignore[arg-type]  # the same
        return lost is not None or box is not None

    # -- what happens ------------------------------------------------------------------

    def hear(self) -> None:
        """The monitor says what has become of somebody."""
        what, member, remains = self.news.popleft()
        incarnation = member.incarnation
        if what is News.JOINED:
            self.members[incarnation] = member
            self.again()
            return
        if what is News.LEAVING:
            self.leavers.leaving.add(incarnation)
            self.restarts.leaving(incarnation)
            return
        if what is News.LEFT:
            self.leavers.left.add(incarnation)
        cause = "it was drained" if what is News.LEFT else "killed by SIGKILL"
        self.world.links[incarnation, self.incarnation].clear()
        self.deaths.left(member, remains)
        del self.members[incarnation]
        self.causes[incarnation] = member, cause
        self.deaths.begin(member)
        self.deaths.end_asked(member, cause)
        self.restarts.lost(member, cause)
        others = [other for other in CALLERS if other != self.incarnation]
        for other in others:
            self.box(other).send(wire.LossSeen(incarnation))
        self.settle(self.losses.lose(incarnation, others))
        streams = [*self.placing.streams.values(), *self.foreign_streams.values()]
        for stream in streams:
            if stream.owner == incarnation and stream.error is None:
                self.caller.stream_failed(stream, (member, cause))
        self.caller.lost(incarnation, (member, cause))
        self.deaths.end(member)

    def loss_seen(self, message: wire.LossSeen, buffers: Any, sender: int) -> None:
        self.settle(self.losses.see(sender, message.incarnation))

    def settle(self, settled: list[Any]) -> None:
        for lost, _ in settled:
            self.worker.holders.settled(lost)

    def make(self) -> Any:
        """A tessera; its handle."""
        stream = Stream(next(self.uids), f"Counter#{self.incarnation}")
        call = Call(next(self.uids), stream, CONSTRUCTOR, None, 0, 0.0)
        call.hold = DROPPED
        options = wire.Options(stream.label, supervised=wire.Supervised(0, most=3))
        handle = self.restarts.new_handle(stream, call, options)
        self.restarts.homes.place(handle, b"", b"", options, None, None)
        return handle

    def call(self, handle: Any, *, idempotent: bool) -> Call:
        call = Call(next(self.uids), handle.stream, "add", None, 0, 0.0)
        if idempotent:
            rare(call).idempotent = True
        self.watch(call, lambda: self.world.ends.update((call.uid,)))
        self.caller.submit(call, b"data", None, handle)
        return call

    def drop(self, call: Call) -> None:
        self.dropping.dropped.append(call)
        self.dropping.drain()

    def give(self, call: Call, to: int) -> None:
        call.mentioned = True
        self.box(call.owner).send(wire.Retain(call.uid, to))
        self.box(to).send(Given(call.uid, call.owner))

    def given(self, message: Given, buffers: Any, sender: int) -> None:
        """Somebody here waits for a call of the other one."""
        call = Call(message.uid, self.foreign(message.owner), "", None, 0, 0.0)
        rare(call).grant = message
        self.world.waiting.append(call)
        self.caller.asking.subscribe(call)

    def cancel(self, call: Call) -> None:
        self.asked.add(call.uid)
        self.caller.cancel(call, "")

    def is_ending(self, call: Call) -> bool:
        return call.uid in self.asked

    def ending_at(self, owner: int) -> list[Call]:
        calls = self.caller.calls.values()
        return [c for c in calls if c.uid in self.asked and c.owner == owner]

    def lost_ending(self, call: Call, error: Any) -> None:
        if call.owner in self.causes:
            self.world.ended_at_loss.add(call.uid)
        data = self.failures.lost_ending(call, "", error)
        self.caller.give_up(call, CANCELLED, wire.CANCELLED, data)


class Life:
    """A tessera in a worker."""

    def __init__(self, message: wire.Create) -> None:
        self.construction: int | None = message.uid
        assert message.options.supervised is not None
        self.supervised = message.options.supervised
        self.queue: deque[tuple[int, wire.Submit]] = deque()
        self.running: tuple[int, wire.Submit] | None = None
        self.why = ""  # it is to end
        self.again = False  # and to be built again
        self.over = False
        # By caller: started, finished, irregular, settled.
        self.marks: dict[int, list[int]] = {}


class Worker:
    """Runs calls one at a time, and notes that."""

    def __init__(self, world: World, incarnation: int) -> None:
        self.world = world
        self.incarnation = incarnation
        self.lives: dict[int, Life] = {}
        self.early: list[tuple[int, wire.Submit]] = []  # before their tessera
        self.ends: dict[int, Any] = {}  # of calls that somebody holds
        self.holders: dict[int, set[int]] = {}  # of calls
        self.subscribers: dict[int, set[int]] = {}

    def send(self, to: int, message: Any) -> None:
        self.world.links[self.incarnation, to].append(message)

    def end(
        self, caller: int, message: wire.Done | wire.Failed, *, told: bool = True
    ) -> None:
        """A call has ended; ``told``: its caller is, whom others are to ask if not."""
        if not told:
            assert isinstance(message, wire.Failed)
            message.reason = wire.MOVED
        self.ends[message.uid] = message
        if told:
            self.send(caller, message)
        for subscriber in self.subscribers.pop(message.uid, ()):
            self.send(subscriber, message)
        self.free(message.uid)

    def free(self, uid: int) -> None:
        if uid in self.ends and not self.holders.get(uid):
            del self.ends[uid]

    def receive(self, message: Any, sender: int) -> None:
        if isinstance(message, wire.Create):
            self.lives[message.tessera] = built = Life(message)
            built.marks[sender] = [message.uid, 0, 0, 0]
            early, self.early = self.early, []
            for caller, submit in early:
                self.receive(submit, caller)
        elif isinstance(message, wire.Submit):
            self.holders.setdefault(message.uid, set()).add(sender)
            life = self.lives.get(message.tessera)
            if life is None:
                self.early.append((sender, message))
            elif life.why:
                error = LookupError("it was closed")
                self.fail(sender, message, wire.GONE, error, told=not life.again)
            else:
                life.queue.append((sender, message))
        elif isinstance(message, wire.Retire):
            life = self.lives[message.tessera]
            life.why, life.again = message.why, message.again
            while life.queue:
                self.cancel(life, life.queue[0], told=not life.again)
            if life.running is not None and self.world.rng.random() < 0.5:
                self.stop(life, told=not life.again)
            self.close(life)
        elif isinstance(message, wire.Cancel):
            for life in self.lives.values():
                for one in [o for o in life.queue if o[1].uid == message.uid]:
                    self.cancel(life, one)
                if life.running is not None and life.running[1].uid == message.uid:
                    self.stop(life)
        elif isinstance(message, wire.Retain):
            self.holders.setdefault(message.uid, set()).add(message.holder)
        elif isinstance(message, wire.Release):
            for uid in message.uids:
                self.holders.get(uid, set()).discard(sender)
                self.free(uid)
        elif isinstance(message, wire.Subscribe):
            end = self.ends.get(message.uid)
            if end is None:
                self.subscribers.setdefault(message.uid, set()).add(sender)
            else:
                self.send(sender, end)

    def cancel(
        self, life: Life, one: tuple[int, wire.Submit], *, told: bool = True
    ) -> None:
        """One that is queued: as `Failures` has it."""
        life.queue.remove(one)
        caller, message = one
        life.marks.setdefault(caller, [0, 0, 0, 0])[2] = 1
        began = message.extra is not None and message.extra.attempt > 1
        verdict = Verdict.MAYBE_RAN if began else Verdict.NOT_STARTED
        error = TaskCancelledError("cancelled", "", verdict)
        self.fail(caller, message, wire.CANCELLED, error, told=told)

    def stop(self, life: Life, *, told: bool = True) -> None:
        assert life.running is not None
        caller, message = life.running
        error = TaskCancelledError("cancelled", "", Verdict.MAYBE_RAN)
        self.fail(caller, message, wire.CANCELLED, error, told=told)
        mark = life.marks[caller]
        mark[1:] = [message.uid, mark[2], 0] if told else [0, 1, mark[0]]
        life.running = None
        self.close(life)

    def fail(
        self,
        caller: int,
        message: wire.Submit,
        reason: int,
        error: BaseException,
        *,
        told: bool = True,
    ) -> None:
        data = dump_error(error, SERIALIZER)
        self.end(caller, wire.Failed(message.uid, reason, data), told=told)

    def close(self, life: Life) -> None:
        if life.why and life.running is None and not life.over:
            life.over = True
            supervised = life.supervised
            (uid,) = [uid for uid, each in self.lives.items() if each is life]
            marks = [] if life.construction else self.marks(uid)
            remains = of_leaver(Remains(marks, complete=True))
            closed = wire.Closed(
                supervised.uid, supervised.life, life.why, encode(remains)
            )
            self.send(ids.maker(supervised.uid), closed)

    def steps(self) -> list[Life]:
        """Those of which something can go on."""
        return [
            life
            for life in self.lives.values()
            if not life.over and (life.construction or life.running or life.queue)
        ]

    def step(self, life: Life) -> None:
        world = self.world
        if life.construction is not None:
            home = ids.maker(life.supervised.uid)
            self.send(home, wire.Done(life.construction, b"N"))
            if life.supervised.life:  # as `Journal.built_again`
                life.marks[home][0] = 0
            life.marks[home][1] = life.construction
            life.construction = None
        elif life.running is not None:
            caller, message = life.running
            life.marks[caller][1] = message.uid
            world.finished.add(message.uid)
            self.end(caller, wire.Done(message.uid, b"value"))
            life.running = None
            self.close(life)
        else:
            life.running = caller, message = life.queue.popleft()
            mark = life.marks.setdefault(caller, [0, 0, 0, 0])
            assert message.uid > mark[0], "it starts behind a later call"
            mark[0] = message.uid
            world.starts.append((life.supervised.uid, caller, message.uid))

    def marks(self, uid: int) -> list[Mark]:
        return [
            Mark(uid, caller, started, finished, bool(irregular), "Counter", settled)
            for caller, (started, finished, irregular, settled) in self.lives[
                uid
            ].marks.items()
        ]

    def remains(self) -> bytes:
        marks = [mark for uid in self.lives for mark in self.marks(uid)]
        return encode(Remains(marks, complete=True))


class World:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.links: dict[tuple[int, int], deque[Any]] = {}
        self.dead: set[int] = set()
        self.starts: list[tuple[int, int, int]] = []  # tessera, caller, call
        self.finished: set[int] = set()
        self.deaths: Counter[int] = Counter()  # at which a call ran
        self.ends: Counter[int] = Counter()
        self.calls: list[Call] = []
        self.waiting: list[Call] = []  # for calls of the other one
        self.draining: list[int] = []
        self.ended_at_loss: set[int] = set()  # calls that were asked to end before it
        self.workers: dict[int, Worker] = {}
        self.newest = 9
        for a in CALLERS:
            self.links |= {(a, b): deque() for b in CALLERS}
        self.runtimes = {i: Runtime(self, i) for i in CALLERS}
        for _ in range(2):
            self.join()
        for runtime in self.runtimes.values():
            while runtime.news:
                runtime.hear()
        made = [self.runtimes[home].make() for home in HOMES]
        self.handles = {
            me: [
                handle if handle.runtime is runtime else self.met(runtime, handle)
                for handle in made
            ]
            for me, runtime in self.runtimes.items()
        }
        if self.rng.random() < 0.5:
            restart = self.rng.choice(list(Restart))
            supervising = self.runtimes[2].restarts.homes.supervising
            uids = [handle.uid for handle in made[:2]]
            supervising.supervise(uids, restart, Intensity(None, None))

    @staticmethod
    def met(runtime: Runtime, handle: Any) -> Any:
        grant: Any = SimpleNamespace(uid=handle.uid)
        policy = handle.followed.policy
        return runtime.restarts.met(grant, handle.stream.label, None, policy)

    def join(self) -> None:
        self.newest += 1
        me = self.newest
        self.workers[me] = Worker(self, me)
        for caller in CALLERS:
            self.links[me, caller], self.links[caller, me] = deque(), deque()
            member = Member(me, f"worker:0:{me}", b"", "", "here", me)
            self.runtimes[caller].news.append((News.JOINED, member, b""))

    def drain(self, worker: int) -> None:
        """It is to leave in order; another takes its place."""
        self.draining.append(worker)
        for caller in CALLERS:
            member = Member(worker, f"worker:0:{worker}", b"", "", "here", worker)
            self.runtimes[caller].news.append((News.LEAVING, member, b""))
        self.join()

    def leave(self, worker: int) -> None:
        """All know that it leaves, and have heard how their calls ended."""
        remains = encode(of_leaver(decode(self.workers.pop(worker).remains())))
        self.dead.add(worker)
        self.draining.remove(worker)
        member = Member(worker, f"worker:0:{worker}", b"", "", "here", worker)
        for caller in CALLERS:
            self.runtimes[caller].news.append((News.LEFT, member, remains))

    def may_leave(self, worker: int) -> bool:
        links = [self.links[worker, c] or self.links[c, worker] for c in CALLERS]
        known = [worker in self.runtimes[c].leavers.leaving for c in CALLERS]
        return all(known) and not any(links) and not self.workers[worker].steps()

    def kill(self, worker: int) -> None:
        """It ends, and what it had not sent is lost; another takes its place."""
        ended = self.workers.pop(worker)
        if worker in self.draining:
            self.draining.remove(worker)
        else:
            self.join()
        remains = ended.remains()
        running = [life.running for life in ended.lives.values() if life.running]
        self.deaths.update(message.uid for _, message in running)
        self.dead.add(worker)
        member = Member(worker, f"worker:0:{worker}", b"", "", "here", worker)
        for caller in CALLERS:
            link = self.links[worker, caller]
            for _ in range(self.rng.randint(0, len(link))):
                link.pop()
            self.links[caller, worker].clear()
            self.runtimes[caller].news.append((News.LOST, member, remains))

    def moves(self) -> list[Any]:
        """All that may happen next by itself."""
        moves: list[Any] = [
            partial(self.deliver, a, b)
            for (a, b), link in self.links.items()
            if link and (b in CALLERS or b in self.workers)
        ]
        for runtime in self.runtimes.values():
            if runtime.news:
                moves.append(runtime.hear)
            timers = [timer for timer in runtime.loop.waiting if timer[0] < SOON_S]
            moves += [partial(self.fire, runtime, timer) for timer in timers]
            boxes = runtime.boxes.values()
            moves += [box.tell_released for box in boxes if box.releases]
        leaving = [worker for worker in self.draining if self.may_leave(worker)]
        moves += [partial(self.leave, worker) for worker in leaving]
        for worker in self.workers.values():
            moves += [partial(worker.step, life) for life in worker.steps()]
        return moves

    def deliver(self, sender: int, to: int) -> None:
        message = self.links[sender, to].popleft()
        if to in self.workers:
            self.workers[to].receive(message, sender)
            return
        runtime = self.runtimes[to]
        if sender in runtime.causes:
            return  # it is fenced
        runtime.handlers[type(message)](message, (), sender)
        runtime.caller.held.release_credited()

    @staticmethod
    def fire(runtime: Runtime, timer: tuple[Any, ...]) -> None:
        runtime.loop.waiting.remove(timer)
        _, function, *args = timer
        function(*args)

    def act(self) -> None:
        """What users do, or fate."""
        chance = self.rng.random()
        runtime = self.runtimes[self.rng.choice(CALLERS)]
        mine = [c for c in runtime.caller.calls.values() if c in self.calls]
        if chance < 0.6:
            handle = self.rng.choice(self.handles[runtime.incarnation])
            idempotent = self.rng.random() < 0.5
            self.calls.append(runtime.call(handle, idempotent=idempotent))
        elif chance < 0.83:
            call = self.rng.choice(mine) if mine else None
            if call is None:
                pass
            elif chance < 0.68:
                runtime.cancel(call)
            elif call.hold == HELD and chance < 0.76:
                if call.stream.outbox is not None:
                    runtime.give(call, sum(CALLERS) - runtime.incarnation)
            elif call.hold == HELD:
                runtime.drop(call)
        elif chance < 0.88 and len(self.draining) < len(self.workers):
            self.drain(self.rng.choice(sorted(self.workers.keys() - self.draining)))
        else:
            self.kill(self.rng.choice(sorted(self.workers)))

    def settle(self) -> None:
        for _ in range(20_000):
            moves = self.moves()
            if not moves:
                return
            self.rng.choice(moves)()
        raise AssertionError("it does not come to rest")


def run(seed: int) -> World:
    world = World(seed)
    for _ in range(world.rng.randint(10, 120)):
        moves = world.moves()
        if moves and world.rng.random() < 0.8:
            world.rng.choice(moves)()
        else:
            world.act()
    world.settle()
    return world


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_each_call_ends_once_and_what_is_said_of_it_is_so(seed: int) -> None:
    check(run(seed))


def _nothing_began(call: Call) -> bool:
    return False


def _is_over(asking: Asking, uid: int, error: bytes, sender: int) -> bool:
    return False


def _in_reverse(held: HeldCalls, stream: Stream, calls: list[Any]) -> None:
    for one in reversed(calls):
        _hold_again(held, stream, [one])


_hold_again = HeldCalls.hold_again


@pytest.mark.parametrize(
    ("of", "name", "wrong", "first"),
    [
        (Call, "began_before", property(_nothing_began), 440),  # where it is soon found
        (HeldCalls, "hold_again", _in_reverse, 0),
        (Seeking, "remember", nothing, 0),
        (Asking, "moved_on", _is_over, 400),
    ],
    ids=[
        *("forgets that it began", "turns the order round", "forgets what it is asked"),
        "does not follow",
    ],
)
def test_what_is_wrong_is_found(
    monkeypatch: pytest.MonkeyPatch, of: type, name: str, wrong: Any, first: int
) -> None:
    monkeypatch.setattr(of, name, wrong)
    for seed in range(first, first + 500):
        try:
            check(run(seed))
        except AssertionError:
            return
    raise AssertionError("it was not found")


def check_given(world: World, other: Call) -> None:
    """A call as the one sees it that was given its proxy."""
    (call,) = [call for call in world.calls if call.uid == other.uid]
    assert other.state >= DONE, other
    if other.state == DONE:
        assert other.uid in world.finished
        return
    error = load_error(other.result, SERIALIZER)
    if isinstance(error, TaskCancelledError):
        mine = load_error(call.result, SERIALIZER) if call.state > DONE else None
        assert isinstance(mine, TaskCancelledError), (error, call)
    if isinstance(error, RuntimeDisconnectedError):
        if call.state == DONE:  # its value was lost
            assert call.owner in world.dead, error
        else:
            mine = load_error(call.result, SERIALIZER)
            assert not isinstance(mine, PoisonedCall), error
            assert call.uid not in world.ended_at_loss, (error, mine)


def check(world: World) -> None:
    started = Counter(uid for *_, uid in world.starts)
    for call in world.calls:
        assert world.ends[call.uid] == 1, call
        if call.state == DONE:
            assert call.uid in world.finished
            continue
        error = load_error(call.result, SERIALIZER)
        verdict = getattr(error, "verdict", None)
        if verdict is Verdict.NOT_STARTED:
            assert not started[call.uid], error
        elif verdict is Verdict.RAN_RESULT_LOST:
            assert call.uid in world.finished, error
        elif isinstance(error, PoisonedCall):
            assert world.deaths[call.uid] == 2
        if call.uid in world.runtimes[ids.maker(call.uid)].asked:
            assert not isinstance(error, RuntimeDisconnectedError), error
        elif "built again with" in str(error):
            # It moves unless it had begun, while there is a life to come.
            handles = world.handles[ids.maker(call.uid)]
            has_end = any(h.followed.follower.error is not None for h in handles)
            assert started[call.uid] or has_end, error
    for other in world.waiting:
        check_given(world, other)
    for call in world.calls:
        if not (call.rare and call.rare.idempotent):
            assert started[call.uid] <= 1
    assert max(world.deaths.values(), default=0) <= 2
    # The first time; what runs again is in its place by then.
    first: dict[tuple[int, int], list[int]] = {}
    for tessera, caller, uid in world.starts:
        line = first.setdefault((tessera, caller), [])
        if uid not in line:
            line.append(uid)
    assert all(line == sorted(line) for line in first.values())
