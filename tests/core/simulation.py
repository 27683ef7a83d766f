"""A whole cluster in one thread: the real states, joined by queues instead of links.

Each runtime is made of CallerState, WorkerState, HolderTable and Grants as they are;
what is imitated is the glue around them (sockets, pickling, proxies) and the user's
code. Who drives a ``World`` chooses which link delivers next and which call goes on.
Every message is encoded and decoded, so that nothing is shared by accident.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from mosaic_like import ids
from mosaic_like.comms import messages as wire
from mosaic_like.core.call import DROPPED, RELEASED, Call, Stream, rare
from mosaic_like.core.caller import CallerState
from mosaic_like.core.parts import Parts
from mosaic_like.core.payloads import Arrived, references
from mosaic_like.core.references import Grant, Grants
from mosaic_like.core.task import (
    CANCEL_EVENT,
    CONSTRUCTOR,
    DONE,
    ERROR_EVENT,
    RUNNING,
    START,
    Task,
)
from mosaic_like.core.tessera import LOOP, MAIN, Tessera
from mosaic_like.core.worker import WorkerState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LARGE = 200_000  # bytes of a result that stays where it was made
# Keys of its parts.
MISSING = "missing"
LARGE_PART = "large"


class Payload:
    """A value with what it mentions; its size is what it says."""

    definitions: tuple[bytes, ...] = ()
    buffers: tuple[bytes, ...] = ()
    shared = None
    outputs: tuple[tuple[int, int | str], ...] = ()

    def __init__(
        self, data: bytes, handles: Iterable[Any] = (), nbytes: int | None = None
    ) -> None:
        self.data = data
        self.handles = tuple(handles)
        self.nbytes = len(data) if nbytes is None else nbytes


class TaskProxy:
    """A task as user code holds it."""

    kind = wire.TASK

    def __init__(self, runtime: Runtime, call: Call) -> None:
        self.runtime = runtime
        self.call = call

    @property
    def uid(self) -> int:
        return self.call.uid

    @property
    def owner(self) -> int:
        return self.call.stream.owner

    def __del__(self) -> None:
        self.runtime.dropped.append(self.call)


class TesseraProxy:
    """A tessera as user code holds it."""

    kind = wire.TESSERA

    def __init__(
        self, runtime: Runtime, uid: int, stream: Stream, grant: Grant | None
    ) -> None:
        self.runtime = runtime
        self.uid = uid
        self.stream = stream
        self.grant = grant

    @property
    def owner(self) -> int:
        return self.stream.owner

    def __del__(self) -> None:
        if self.grant is None:
            self.runtime.dropped.append((self.uid, self.stream))


Proxy = TaskProxy | TesseraProxy


TOGETHER = 3  # plain calls that a packet may hold


def _is_plain(message: Any) -> bool:
    return type(message) is wire.Submit and message.extra is None


class Box:
    """The outbox of one runtime to another: what is sent is on its way at once."""

    def __init__(self, runtime: Runtime, to: int) -> None:
        self.incarnation = to
        self.bytes_out = 0
        self.shares_memory = False
        self.releases: list[int] = []
        self._runtime = runtime
        self._queue = runtime.world.links[runtime.incarnation, to]

    def send(self, message: Any, payload: Any = None) -> None:
        if payload is not None and payload.handles:
            mentioned = references(payload)
            self._runtime.to_owners(
                self._runtime.grants.sending(mentioned, self.incarnation)
            )
        data = bytes(wire.encode([message]))
        self._queue.append(data)
        self._runtime.world.sent.append((self._runtime.incarnation, data))

    def send_ends(self, messages: list[Any]) -> None:
        for message in messages:
            self.send(message)


@dataclass
class Object:
    """What a tessera of the simulation is."""

    uid: int
    added: int = 0
    finished: int = 0  # of the additions, those that ended with a value
    kept: list[Proxy] = field(default_factory=list)
    seen: dict[int, int] = field(default_factory=dict)  # last ordered call, by caller


class Failure(Exception):
    """What user code of the simulation raises."""


class Runtime:
    """One runtime: the ports that the states ask for, and imitated user code."""

    def __init__(self, world: World, incarnation: int) -> None:
        self.world = world
        self.incarnation = incarnation
        self.boxes: dict[int, Box] = {}
        self.dropped: deque[Any] = deque()
        self.uids = ids.uids(incarnation)
        self.caller = CallerState(self)
        self.worker = WorkerState(self, self, self.caller, self.boxes)
        self.grants = Grants(incarnation, self.worker.holders, lambda: None)
        self.streams: WeakValueDictionary[int, Stream] = WeakValueDictionary()
        self.foreign: dict[int, Stream] = {}
        self.lost_ones: set[int] = set()
        self.made: dict[int, Call] = {}  # all calls ever made here
        self.ends: Counter[int] = Counter()
        self.sequence: Counter[int] = Counter()  # ordered calls made, by tessera
        self.main: deque[Task] = deque()
        self.loop: list[Task] = []
        self.outcomes: dict[
            int, Any
        ] = {}  # of calls that run, by id: not all have a uid
        worker, caller, holders = self.worker, self.caller, self.worker.holders
        self.handlers: dict[type, Callable[[Any, Any, int], Any]] = {
            wire.Create: worker.lifecycle.create,
            wire.Submit: worker.submit,
            wire.Done: caller.done,
            wire.Failed: caller.failed,
            wire.Value: caller.asking.value,
            wire.Release: worker.release,
            wire.Cancel: lambda m, b, s: worker.stopping.cancel(m.uid, m.reason, s),
            wire.Running: lambda m, b, s: None,
            wire.Ending: lambda m, b, s: None,
            wire.Subscribe: lambda m, b, s: worker.telling.subscribe(m.uid, s),
            wire.Fetch: lambda m, b, s: worker.telling.fetch(m.uid, s),
            wire.ReleaseGrants: lambda m, b, s: holders.release_grants(s, m.grants),
            wire.Retain: lambda m, b, s: holders.retain(s, m.uid, m.holder),
            wire.Holding: lambda m, b, s: holders.holding(s, m.uid, m.granter, m.count),
            wire.Keep: lambda m, b, s: None,  # for `Seeking`
            wire.LossSeen: lambda m, b, s: holders.loss_seen(s, m.incarnation),
        }

    # -- what user code does -----------------------------------------------------------

    def create(self, where: int, arguments: Iterable[Proxy] = ()) -> TesseraProxy:
        uid = next(self.uids)
        stream = self.streams[uid] = Stream(uid, "Object")
        call = Call(next(self.uids), stream, CONSTRUCTOR, None, 0, 0.0)
        proxy = TesseraProxy(self, uid, stream, None)
        self._record(call)
        box = self.boxes.get(where)
        if box is None:
            self.caller.calls[call.uid] = call
            call.hold = RELEASED
            stream.owner = where
            self.caller.stream_failed(stream, "lost")
            self.caller.lose(call, "lost")
            return proxy
        self.caller.placed(stream, box)
        payload = Payload(b"{}", arguments)
        is_async = bool(uid & 1)
        options = wire.Options("Object", is_async=is_async)
        self.caller.create(call, b"N", payload, options, None)
        self.caller.held.release(stream)
        # The construction is not waited for: its proxy goes at once.
        self.dropped.append(call)
        return proxy

    def call(
        self,
        target: TesseraProxy,
        method: str,
        op: str,
        arguments: Iterable[Proxy] = (),
        *,
        ordered: bool = True,
        kind: int = wire.CALL,
        nbytes: int | None = None,
        outputs: Iterable[tuple[int, int | str]] = (),
    ) -> TaskProxy:
        call = Call(next(self.uids), target.stream, method, None, 0, 0.0)
        extra = None
        if not ordered or kind != wire.CALL:
            extra = wire.Extra(ordered=ordered, kind=kind)
        sequence = 0
        if ordered and kind == wire.CALL:
            self.sequence[target.uid] += 1
            sequence = self.sequence[target.uid]
        arguments = tuple(arguments)
        data = json.dumps({"op": op, "sequence": sequence}).encode()
        payload: Any = data
        if arguments or nbytes:
            payload = Payload(data, arguments, nbytes)
            payload.outputs = tuple(outputs)
            for argument in arguments:
                if isinstance(argument, TaskProxy):
                    argument.call.mentioned = True
        self._record(call)
        self.caller.submit(call, payload, extra, target)
        return TaskProxy(self, call)

    def cancel(self, proxy: TaskProxy) -> None:
        self.caller.cancel(proxy.call, "cancelled")

    def watch(self, proxy: TaskProxy) -> None:
        """Wait for the end, and then for the value."""
        call = proxy.call
        if call.state == DONE and type(call.result) is Arrived and call.result.size:
            if not rare(call).pending_fetch:
                rare(call).pending_fetch = True
                self._wait(call, lambda: None)
                self.caller.asking.fetch(call)
        elif call.state < DONE:
            self._wait(call, lambda: self.watch(proxy))
            awaited = self.caller.asking.awaited.get(call.uid, ())
            if rare(call).grant is not None and call not in awaited:
                self.caller.asking.subscribe(call)

    def _wait(self, call: Call, then: Callable[[], None]) -> None:
        if call.waiters is None:
            call.waiters = [then]
        else:
            call.waiters.append(then)

    def _record(self, call: Call) -> None:
        self.made[call.uid] = call
        uid = call.uid
        call.waiters = [lambda: self.ends.update((uid,))]

    # -- Caller ------------------------------------------------------------------------

    def settled(self, call: Call) -> None:
        waiters, call.waiters = call.waiters, None
        for then in waiters:
            then()

    def credit_spent(self) -> None: ...

    def unheard(self, call: Call) -> None:
        pass

    def release(self, call: Call) -> None:
        if call.hold == RELEASED:
            return
        call.hold = RELEASED
        if call.rare is not None and call.rare.grant is not None:
            return
        if call.stream.outbox is not None:
            call.stream.outbox.releases.append(call.uid)

    def arrived(self, message: Any, buffers: Any, sender: int) -> Any:
        extra = message.extra
        grants = self.grants.delivered(extra.references, sender)
        if not grants and not extra.size:
            return message.data
        return Arrived(message.data, buffers, grants, extra.size)

    def stayed(self, uid: int) -> None: ...

    def unwanted(self, arrived: Arrived) -> None:
        raise AssertionError("nothing comes in chunks here")

    def locate(self, arrived: Arrived, then: Callable[[], None]) -> None:
        raise AssertionError("nothing here is in shared memory")

    def lost_error(self, call: Call, cause: Any) -> bytes:
        return b"lost"

    def cancelled_error(self, call: Call, reason: str) -> bytes:
        return b"cancelled"

    def refuse_here(self, call: Call, kind: int, error: bytes) -> None:
        raise AssertionError("no function tasks here")

    # -- Owner -------------------------------------------------------------------------

    def outbox(self, incarnation: int) -> Box | None:
        return self.boxes.get(incarnation)

    def awaited_call(self, reference: wire.Reference) -> Call:
        stream = self._foreign_stream(reference.owner)
        call = Call(reference.uid, stream, "", None, 0, 0.0)
        call.hold = RELEASED
        return call

    def parts(self, call: Call, grant: Any, keys: list[int | str]) -> Parts | None:
        part = Call(next(self.uids), call.stream, "outputs", None, 0, 0.0)
        data = json.dumps({"op": "part", "sequence": 0, "keys": keys}).encode()
        return Parts(part, keys, Payload(data, (grant,)), TaskProxy(self, part))

    def failure(self, task: Task, reason: int, why: Any) -> bytes:
        return wire.REASONS[reason].encode()

    def stopping_call(self, task: Task) -> None: ...

    def limited(self, task: Task) -> bool:
        return True

    def cancel_running(self, task: Task) -> None:
        if id(task) in self.outcomes:
            self.outcomes[id(task)] = None

    def put_off_no_more(self, task: Task) -> None: ...

    def untold(self, task: Task) -> None: ...

    def tessera_fails(self, tessera: Tessera) -> None: ...

    def tessera_gone(self, tessera: Tessera) -> None:
        pass

    # -- streams -----------------------------------------------------------------------

    def _foreign_stream(self, owner: int) -> Stream:
        stream = self.foreign.get(owner)
        if stream is None:
            stream = self.foreign[owner] = Stream(0, "task")
        if stream.outbox is None and stream.error is None:
            self._aim(stream, owner)
        return stream

    def _aim(self, stream: Stream, owner: int) -> None:
        box = self.boxes.get(owner)
        if box is not None:
            self.caller.placed(stream, box)
        else:
            stream.owner = owner
            stream.error = "lost"

    def _proxy(self, kind: int, grant: Grant) -> Proxy:
        if kind == wire.TASK:
            stream = self._foreign_stream(grant.owner)
            call = Call(grant.uid, stream, "", None, 0, 0.0)
            rare(call).grant = grant
            return TaskProxy(self, call)
        found = self.streams.get(grant.uid)
        if found is None:
            found = self.streams[grant.uid] = Stream(grant.uid, "Object")
            self._aim(found, grant.owner)
        return TesseraProxy(self, grant.uid, found, grant)

    # -- Runner ------------------------------------------------------------------------

    def lane(self, tessera: Tessera, method: str, /) -> int:
        return MAIN if method == "plain" else LOOP

    def construct(self, task: Task, /) -> None:
        task.lane = task.tessera.lane = MAIN
        self.main.append(task)

    def start_run(self, run: list[Task], /) -> None:
        for task in run:
            self.start(task)

    def start(self, task: Task, /) -> None:
        if task.lane == MAIN:
            task.handed = True
            self.main.append(task)
        else:
            self.loop.append(task)

    @property
    def runnable(self) -> int:
        """How many choices there are to go on with user code."""
        return len(self.loop) + bool(self.main)

    def run(self, choice: int) -> None:
        """Begin or end a call: the first of the main thread, or any of the loop."""
        if choice >= len(self.loop):
            task = self.main[0]
            if self._step(task):
                self.main.popleft()
                self._end(task)
            return
        task = self.loop[choice]
        if task.state != RUNNING:  # the loop begins them in order
            task = next(t for t in self.loop if t.state != RUNNING)
        if self._step(task):
            self.loop.remove(task)
            self._end(task)

    def _step(self, task: Task) -> bool:
        """Begin it; whether it is to end now."""
        if task.state == RUNNING:
            return True
        if task.outcome is not None:  # it was cancelled while it waited for its thread
            self.outcomes[id(task)] = None
            return True
        task.move(START)
        if task.cancelled is not None:
            self.outcomes[id(task)] = None
            return True
        try:
            self.outcomes[id(task)] = self._user_code(task)
        except Failure:
            self.outcomes[id(task)] = Failure()
        return False

    def _user_code(self, task: Task) -> Any:
        tessera = task.tessera
        if task.method == CONSTRUCTOR:
            return Object(tessera.uid)
        if task is tessera.closing:
            return b"{}"
        instance: Object = tessera.instance
        request = json.loads(task.data)
        op = request["op"]
        sequence = request["sequence"]
        if sequence:
            last = instance.seen.get(task.caller, 0)
            assert sequence > last, "calls of a caller run in call order"
            instance.seen[task.caller] = sequence
        arguments = self._arguments(task)
        if op == "add":
            instance.added += 1
            return json.dumps(instance.added).encode()
        if op == "fail":
            raise Failure
        if op == "large":
            return Payload(b"{}", (), LARGE)
        if op == "part":
            if MISSING in request["keys"]:
                raise Failure
            size = LARGE // 2 if LARGE_PART in request["keys"] else 2
            return Payload(b"{}", (), size)
        if op == "keep":
            instance.kept += arguments
        if op == "drop":
            instance.kept.clear()
        if op == "give":
            return Payload(b"{}", instance.kept[-2:])
        if op == "relay":
            targets = [p for p in arguments if isinstance(p, TesseraProxy)]
            tasks = [self.call(t, "plain", "add") for t in targets]
            return Payload(b"{}", tasks)
        if op == "make":
            workers = self.world.workers
            where = workers[instance.uid % len(workers)]
            return Payload(b"{}", (self.create(where),))
        return b"{}"

    def _arguments(self, task: Task) -> list[Proxy]:
        """What the arguments mention: tesserae, and what is in the values of tasks."""
        extra = task.extra
        found: list[Proxy] = []
        if extra is None or type(task.buffers) is not Arrived:
            return found
        for index, reference in enumerate(extra.references):
            if reference.kind == wire.TESSERA:
                found.append(self._proxy(wire.TESSERA, task.buffers.grants[index]))
                continue
            value = task.arguments[index]
            if isinstance(value, Parts):
                value = value.call
            if value.state > DONE:  # cancelled in the thread's queue, ahead of this
                raise Failure
            assert value.state == DONE
            if isinstance(value, Task):
                if value.result is not None:
                    found += value.result.handles
            else:
                found += self._mentioned(value.result)
        return found

    def _mentioned(self, result: Any) -> list[Proxy]:
        if type(result) is not Arrived:
            return []
        assert not result.size, "a value that is used has been fetched"
        # Both kinds have one shape here: what it is shows in who asks.
        return [self._proxy(self.world.kinds[g.uid], g) for g in result.grants]

    def values(self, proxy: TaskProxy) -> list[Proxy]:
        """What the value of a task mentions, if it is here."""
        result = proxy.call.result
        if proxy.call.state != DONE or type(result) is not Arrived or result.size:
            return []
        return self._mentioned(result)

    def _end(self, task: Task) -> None:
        outcome = self.outcomes.pop(id(task))
        worker, tessera = self.worker, task.tessera
        if outcome is None or isinstance(outcome, Failure):
            cancelled = outcome is None
            error = b"cancelled" if cancelled else b"error"
            if task.method == CONSTRUCTOR:
                worker.lifecycle.not_built(task, error)
                return
            reason = wire.CANCELLED if cancelled else wire.ERROR
            event = CANCEL_EVENT if cancelled else ERROR_EVENT
            worker.failed(task, event, reason, error)
        elif isinstance(outcome, Object):
            self.world.objects[outcome.uid] = outcome
            worker.lifecycle.built(task, outcome)
            return
        else:
            if task.data and json.loads(task.data).get("op") == "add":
                tessera.instance.finished += 1
            worker.finished(task, outcome)
        if task is tessera.closing:
            if tessera.instance is not None:
                tessera.instance.kept.clear()
            worker.lifecycle.closed(tessera)

    # -- links -------------------------------------------------------------------------

    def to_owners(self, messages: list[tuple[int, Any]]) -> None:
        for owner, message in messages:
            box = self.boxes.get(owner)
            if box is not None:
                box.send(message)

    def receive(self, sender: int) -> None:
        queue = self.world.links[sender, self.incarnation]
        (message,) = wire.decode(queue.popleft())
        extra = getattr(message, "extra", None)
        for reference in () if extra is None else extra.references:
            self.world.kinds[reference.uid] = reference.kind
        if _is_plain(message):
            batch = [message]
            while queue and len(batch) < TOGETHER:
                (following,) = wire.decode(queue[0])
                if not _is_plain(following):
                    break
                queue.popleft()
                batch.append(following)
            index = 0
            while index < len(batch):
                index = self.worker.submit_run(batch, index, sender)
        else:
            self.handlers[type(message)](message, (), sender)
        self.caller.held.release_credited()

    def tick(self) -> bool:
        """Tell owners what was dropped; whether there was anything."""
        # What it drops of its own objects is counted at once, and must not overtake
        # the calls on them that it has sent to itself.
        while self.world.links[self.incarnation, self.incarnation]:
            self.receive(self.incarnation)
        while self.dropped:
            item = self.dropped.popleft()
            if type(item) is tuple:
                uid, stream = item
                if stream.outbox is not None:
                    stream.outbox.releases.append(uid)
            elif item.state < DONE:
                item.hold = DROPPED
            else:
                self.release(item)
            item = None  # it may be the last that holds a grant
        if self.world.puts_aside:
            for task in list(self.worker.tasks.values()):
                self.worker.archive.put_aside(task)  # as if there were many
        messages = self.grants.drain()
        self.to_owners(messages)
        told = bool(messages)
        for box in self.boxes.values():
            if box.releases:
                releases, box.releases = box.releases, []
                box.send(wire.Release(releases))
                told = True
        # What was freed just now may have held others.
        return told or bool(self.grants._fallen) or bool(self.dropped)

    def lose(self, incarnation: int) -> None:
        """The monitor says that it is lost."""
        self.lost_ones.add(incarnation)
        self.world.links[incarnation, self.incarnation].clear()
        del self.boxes[incarnation]
        live = [i for i in self.boxes if i != self.incarnation]
        self.to_owners(self.grants.lost(incarnation, live))
        self.worker.lost(incarnation)
        self.worker.holders.lost(incarnation, live)
        for stream in list(self.streams.values()):
            if stream.owner == incarnation:
                self.caller.stream_failed(stream, "lost")
        foreign = self.foreign.get(incarnation)
        if foreign is not None:
            self.caller.stream_failed(foreign, "lost")
        self.caller.lost(incarnation, "lost")
        self.caller.held.release_credited()

    def left_over(self) -> dict[str, Any]:
        """All tables that are not empty."""
        worker, caller = self.worker, self.caller
        tables = {
            "calls": caller.calls,
            "awaited": caller.asking.awaited,
            "fetching": caller.asking.fetching,
            "tasks": worker.tasks,
            "archive": worker.archive,
            "tesserae": worker.tesserae,
            "parked": worker.strays.parked,
            "dependents": worker._dependents,
            "subscribers": worker._subscribers,
            "closing": worker.lifecycle._closing,
            "holders": {
                **worker.holders.shared,
                **dict.fromkeys(worker.holders.alone),
            },
            "held": self.grants._held,
            "queue of results": worker.elsewhere.results.queue,
            "outcomes": self.outcomes,
        }
        return {name: table for name, table in tables.items() if table}


class World:
    """All runtimes and what is on its way between them."""

    def __init__(self, heads: int, workers: int) -> None:
        numbers = range(2, 2 + heads + workers)
        self.heads = list(numbers[:heads])
        self.workers = list(numbers[heads:])
        self.kinds: dict[int, int] = {}
        self.sent: list[tuple[int, bytes]] = []  # by whom, all there ever was
        self.puts_aside = True  # what has ended, at each tick: see core/archive.py
        self.objects: dict[int, Object] = {}
        self.links: dict[tuple[int, int], deque[bytes]] = {
            (a, b): deque() for a in numbers for b in numbers
        }
        self.runtimes = {i: Runtime(self, i) for i in numbers}
        for runtime in self.runtimes.values():
            runtime.boxes.update({i: Box(runtime, i) for i in numbers})
        self.news: dict[int, deque[int]] = {i: deque() for i in numbers}
        self.crashed: list[int] = []

    @property
    def live(self) -> list[Runtime]:
        return [r for i, r in self.runtimes.items() if i not in self.crashed]

    def crash(self, incarnation: int) -> None:
        """It stops; what it has sent may still be read until its loss is told."""
        self.crashed.append(incarnation)
        for runtime in self.live:
            self.news[runtime.incarnation].append(incarnation)

    def moves(self) -> list[tuple[str, int, int]]:
        """What can happen next, but for what users do."""
        moves = []
        for runtime in self.live:
            me = runtime.incarnation
            moves += [
                ("receive", me, sender)
                for sender in self.runtimes
                if self.links[sender, me] and sender not in runtime.lost_ones
            ]
            moves += [("run", me, choice) for choice in range(runtime.runnable)]
            if self.news[me]:
                moves.append(("lose", me, 0))
        return moves

    def move(self, move: tuple[str, int, int]) -> None:
        what, me, other = move
        runtime = self.runtimes[me]
        if what == "receive":
            runtime.receive(other)
        elif what == "run":
            runtime.run(other)
        else:
            runtime.lose(self.news[me].popleft())

    def tick_all(self) -> None:
        for runtime in self.live:
            runtime.tick()

    def settle(self, most: int = 200_000) -> None:
        """Let everything that is on its way come to its end."""
        for _ in range(most):
            moves = self.moves()
            if moves:
                self.move(moves[0])
                continue
            told = [runtime.tick() for runtime in self.live]
            if not any(told) and not self.moves():
                return
        raise AssertionError("the cluster does not come to rest")
