"""A runtime that makes calls and owns tesserae: a head or a worker.

It joins the states of ``core`` with the links, the serializer and the executor. What
user code touches may be called from any thread: it pickles there and posts the rest to
the loop's thread, where all states live.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from .. import ids
from ..comms import direct
from ..comms import messages as wire
from ..comms.exceptions import dump_error, load_error
from ..comms.serialization import PLAIN, Payload, Serializer
from ..core.caller import (
    COUNTED_BYTES,
    DROPPED,
    HELD,
    RELEASED,
    Arrived,
    Call,
    CallerState,
    Stream,
    rare,
    references,
)
from ..core.placement import STRATEGIES, RoundRobin, Strategy
from ..core.references import Grant, Grants
from ..core.task import CANCEL_EVENT, DONE, ERROR_EVENT, FAILED, Task
from ..core.worker import WorkerState
from ..errors import (
    MonitorLost,
    MosaicError,
    NodeLost,
    RuntimeDisconnectedError,
    TaskCancelledError,
    UpstreamError,
    Verdict,
    WorkerDied,
)
from ..proxies.outputs import AFTER, TaskOutput
from ..proxies.task import TaskHandle, TaskProxy
from ..proxies.tessera import TesseraHandle, ordered_only, proxy_of
from .base import Base
from .executor import CURRENT, ArgumentFailed, Built, Executor, Handed, Outcome, Raised
from .peers import Peer
from .streams import Intakes, Producing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..config import Config
    from ..core.streams import Producer
    from ..core.tessera import Tessera

logger = logging.getLogger(__name__)

# Looked up for each call.
getframe = sys._getframe
now = time.time
get_ident = threading.get_ident
current_task = CURRENT.get

_DIRECT_KINDS = (PLAIN - {bytes}) | {TaskProxy}
BUILTIN_ERRORS = {wire.ERROR: RuntimeError, wire.GONE: LookupError}


class ActorRuntime(Base):
    """See the module; ``main_thread``: plain methods run on this process's main one."""

    main_thread = False

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config) -> None:
        super().__init__(loop, config)
        self.unused: str | None = None  # see session: only what starts one has a text
        self.serializer = Serializer()
        self.caller = CallerState(self)
        self.streams: WeakValueDictionary[int, Stream] = WeakValueDictionary()
        self.dropped: deque[Call | TesseraHandle] = deque()
        self.peers.dropped = self.dropped
        self.peers.on_dropped = self._drain_dropped
        self.peers.before = self._before
        self.executor = Executor(self, loop, main_thread=self.main_thread)
        self.strategy: Strategy = RoundRobin()
        self._foreign: dict[int, Stream] = {}  # for tasks of others, by owner
        self._unplaced: deque[Callable[[], bool]] = deque()
        self._labels: dict[str, int] = {}
        self._classes: dict[type, bytes | Payload] = {}
        self._inbox: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._completions: deque[tuple[Task, Outcome]] = deque()
        self._awake = False
        self._ident = threading.get_ident()
        self._other_loops: dict[asyncio.AbstractEventLoop, list[Callable[[], Any]]] = {}
        self._causes: dict[int, tuple[wire.Member, str]] = {}
        self._made: dict[int, int] = {}  # tesserae made, by incarnation
        self.cluster_lost = ""  # why nothing can be made any more
        self.intakes = Intakes(self)
        self.printed: Any = ()  # only workers capture what is printed
        # Calls made inside those of runtimes that wait in a barrier, by incarnation.
        self.made_inside: dict[int, int] = {}

    def joined_cluster(self, settings: bytes) -> None:
        self.peers.on_tick = self.on_tick
        self._uids = ids.uids(self.incarnation)
        self.worker = WorkerState(
            self, self.executor, self.caller, self.peers.by_incarnation
        )
        self._producing = Producing(self, self.worker.producers)
        self.grants = Grants(self.incarnation, self.worker.holders, self._wake_tick)
        self.strategy = STRATEGIES[self.config.monitor_strategy]()
        if isinstance(self.strategy, RoundRobin):
            # The first head begins with the first worker; workers with their next.
            self.strategy = RoundRobin(max(0, self.incarnation - 4))
        worker, caller = self.worker, self.caller
        holders = worker.holders
        self.handlers.update(
            {
                wire.Submit: worker.submit,
                wire.Done: caller.done,
                wire.Release: worker.release,
                wire.Create: worker.create,
                wire.Failed: caller.failed,
                wire.Value: caller.value,
                wire.Cancel: lambda m, b, s: worker.cancel(m.uid, m.reason, s),
                wire.Subscribe: lambda m, b, s: worker.subscribe(m.uid, s),
                wire.Fetch: lambda m, b, s: worker.fetch(m.uid, s),
                wire.Item: self.intakes.item,
                wire.Credit: lambda m, b, s: worker.producers.credit(m.uid, m.items),
                wire.Running: self._on_running,
                wire.Waiting: self._on_waiting,
                wire.ReleaseGrants: lambda m, b, s: holders.release_grants(s, m.grants),
                wire.Retain: lambda m, b, s: holders.retain(s, m.uid, m.holder),
                wire.Holding: lambda m, b, s: holders.holding(
                    s, m.uid, m.granter, m.count
                ),
                wire.LossSeen: lambda m, b, s: holders.loss_seen(s, m.incarnation),
                wire.Define: lambda m, b, s: self.serializer.define(m.digest, m.blob),
            }
        )

    # -- threads -----------------------------------------------------------------------

    @property
    def on_loop(self) -> bool:
        """This thread is the loop's."""
        return threading.get_ident() == self._ident

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Have it called soon on the loop's thread, in order; from any thread."""
        self._inbox.append((function, args))
        if not self._awake:
            self._awake = True
            self.loop.call_soon_threadsafe(self._drain, context=self.context)

    def _drain(self) -> None:
        self._awake = False  # first: what comes from now on wakes again
        self.peers.gathering += 1
        completions = self._completions
        printed = self.printed
        while completions:
            task, outcome = completions.popleft()
            if printed:  # before it ended, so this goes first
                self.send_printed()
            if type(outcome) is bytes and task.tessera.closing is None:
                self.worker.finished(task, outcome)
            else:
                self._ended(task, outcome)
        self._drain_inbox()
        self.peers.gathered()

    def _drain_inbox(self) -> None:
        inbox = self._inbox
        while inbox:
            function, args = inbox.popleft()
            try:
                function(*args)
            except Exception:
                logger.exception("%s: %r", self.uid, function)

    def _count_inside(self, root: int) -> None:
        # Threads may lose a count to each other, but never all of them: it changes.
        maker = ids.maker(root)
        if maker in self.made_inside:
            self.made_inside[maker] += 1

    def _wake_tick(self) -> None:
        """Something was dropped, on any thread, perhaps inside a garbage collection."""
        if not self.peers.ticking and not self.peers.closed:
            if self.on_loop:
                self.peers.tick_soon()
            else:
                self.post(self.peers.tick_soon)

    def _deliver(self, peer: Peer, batch: list[Any], buffers: list[Any]) -> None:
        self.caller.now_s = now()  # one reading of the clock for all that it ends
        super()._deliver(peer, batch, buffers)

    def delivered(self) -> None:
        self.caller.release_credited()

    # -- making tesserae ---------------------------------------------------------------

    def create(
        self,
        cls: type,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: wire.Options,
        where: Any = None,
        depth: int = 2,
    ) -> TesseraHandle:
        """Make a tessera; its class and arguments are pickled now, here.

        Args:
            cls: the user's class.
            args, kwargs: of its constructor.
            options: how it runs; its name is filled in.
            where: None for the strategy's choice, a Member, or ``self`` for here.
            depth: of the frame of who asks.
        """
        payload = self.serializer.dumps_call(
            args, kwargs, describe=lambda: (cls.__qualname__, ())
        )
        class_data = self._classes.get(cls)
        if class_data is None:
            class_data = self.serializer.dumps(cls, what=f"class {cls.__qualname__}")
            self._classes[cls] = class_data
        number = self._labels[cls.__name__] = self._labels.get(cls.__name__, 0) + 1
        options.name = f"{cls.__name__}#{number}"
        tessera = next(self._uids)
        stream = Stream(tessera, options.name)
        self.streams[tessera] = stream
        frame = sys._getframe(depth)
        call = Call(
            next(self._uids),
            stream,
            "__init__",
            frame.f_code,
            frame.f_lasti,
            time.time(),
        )
        call.hold = DROPPED  # it has no proxy: its owner may forget it when it ends
        handle = TesseraHandle(self, tessera, stream, call, None)
        task = CURRENT.get()
        extra = None
        if task is not None:
            extra = wire.Extra(ancestors=[*task.ancestors, task.uid])
            call.root = extra.ancestors[0]
            if self.made_inside:
                self._count_inside(call.root)
        if self.on_loop:
            if self._inbox:
                contextvars.Context().run(self._drain)  # not in the user's
            self._place(handle, class_data, payload, options, where, extra)
        else:
            self.post(self._place, handle, class_data, payload, options, where, extra)
        return handle

    def _place(
        self,
        handle: TesseraHandle,
        class_data: Any,
        payload: Any,
        options: wire.Options,
        where: Any,
        extra: wire.Extra | None,
    ) -> None:
        call = handle.call
        assert call is not None  # it was made here

        def try_now() -> bool:
            cause = self._no_place(where)
            if cause is not None:
                # Known by the owner that it would have had, so that calls which
                # mention it go out, and fail as they do for a lost one.
                stream = handle.stream
                stream.owner = stream.owner or self._owner_in(where)
                self.caller.calls[call.uid] = call
                call.hold = RELEASED
                self.caller.stream_failed(stream, cause)
                self.caller.lose(call, cause)
                return True
            outbox = self._choose(where)
            if outbox is None:
                return False
            if type(payload) is not bytes and not all(h.owner for h in payload.handles):
                return False
            stream = handle.stream
            self.caller.placed(stream, outbox)
            self._made[outbox.incarnation] = self._made.get(outbox.incarnation, 0) + 1
            cls = class_data
            if type(cls) is not bytes:
                self._before(outbox, cls)
                cls = cls.data
            self.caller.create(call, cls, payload, options, extra)
            self.caller.release_held(stream)
            return True

        if self._unplaced or not try_now():
            self._unplaced.append(try_now)
            self._place_waiting()

    def resolve_worker(self, where: Any) -> Any:
        raise NotImplementedError  # see UserRuntime

    def _no_place(self, where: Any) -> Any:
        """Why nothing can be made there; None if it can, now or later."""
        if where is self:
            return None
        if self.cluster_lost:
            return MonitorLost(
                f"nothing can be made any more: {self.cluster_lost}; end the program, "
                "or start another runtime after mosaic.stop()",
                "monitor",
                Verdict.NOT_STARTED,
                self.cluster_lost,
            )
        if where is None:
            return None
        if isinstance(where, Stream):
            return where.error
        return self._causes.get(where.incarnation)

    def _owner_in(self, where: Any) -> int:
        if where is None:
            return ids.MONITOR_INCARNATION
        owner: int = where.owner if isinstance(where, Stream) else where.incarnation
        return owner

    def _choose(self, where: Any) -> Peer | None:
        if where is self:
            return self.outbox(self.incarnation)  # type: ignore[no-any-return]
        if isinstance(where, Stream):  # of a tessera: beside it
            return self.outbox(where.owner)
        if where is not None:
            return self.outbox(where.incarnation)
        workers = self.of_kind("worker")
        if not workers:
            return None
        return self.outbox(self.strategy.choose(workers, self._load_at).incarnation)

    def _load_at(self, incarnation: int) -> int:
        return self._made.get(incarnation, 0)

    def _place_waiting(self) -> None:
        for _ in range(len(self._unplaced)):
            attempt = self._unplaced.popleft()
            if not attempt():
                self._unplaced.append(attempt)
        # Calls that mention what has its place now.
        for stream in list(self.streams.values()):
            if stream.held:
                self.caller.release_held(stream)

    def stream_of(self, uid: int, owner: int, label: str) -> Stream:
        """To call a tessera that somebody else made, or that was met before."""
        stream = self.streams.get(uid)
        if stream is None:
            stream = self.streams[uid] = Stream(uid, label)
            self._aim(stream, owner)
        return stream

    def _aim(self, stream: Stream, owner: int) -> None:
        outbox = self.outbox(owner)
        if outbox is not None:
            self.caller.placed(stream, outbox)
            return
        stream.owner = owner
        if self.is_lost(owner):
            stream.error = self._causes.get(owner, (None, "it is gone"))
        else:
            self._unplaced.append(lambda: self._aim_later(stream, owner))

    def _aim_later(self, stream: Stream, owner: int) -> bool:
        """The owner was not announced when a reference to it came."""
        outbox = self.outbox(owner)
        if outbox is not None:
            self.caller.placed(stream, outbox)
            self.caller.release_held(stream)
        return outbox is not None or self.is_lost(owner)
    # -- calls -------------------------------------------------------------------------

    def submit(
        self,
        handle: TesseraHandle,
        method: str,
        payload: bytes | Payload,
        extra: wire.Extra | None = None,
        depth: int = 2,
    ) -> Call:
        """Send a call: the hot path."""
        frame = getframe(depth)
        call = Call(
            next(self._uids), handle.stream, method, frame.f_code, frame.f_lasti, now()
        )
        task = current_task()
        if task is not None:
            if extra is None:
                extra = wire.Extra()
            extra.ancestors = ancestors = [*task.ancestors, task.uid]
            call.root = ancestors[0]
            if self.made_inside:
                self._count_inside(call.root)
        if self.stopping:
            self._refuse(call)
        if get_ident() != self._ident:
            self.post(self.caller.submit, call, payload, extra, handle)
            return call
        if self._inbox:
            contextvars.Context().run(self._drain)  # not in the user's
        self.caller.submit(call, payload, extra, handle)
        return call

    def dump_call(
        self, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bytes | Payload:
        """The arguments of a call, as they are now."""
        kinds = set(map(type, args))
        if not kwargs and TaskProxy in kinds and _DIRECT_KINDS.issuperset(kinds):
            return direct.dump(args)
        payload = self.serializer.dumps_call(
            ordered_only(args), kwargs, describe=method.describe
        )
        if type(payload) is bytes and len(payload) > COUNTED_BYTES:
            return Payload(payload)  # which counts for the credit
        return payload

    def submit_to_result(
        self,
        handle: Any,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        extra: wire.Extra,
    ) -> Call:
        """Call a method of the value of a task, where the value is."""
        # The task goes first among the references: its value is what is called.
        task = handle.proxy
        payload = self.serializer.dumps_call((task, *args), kwargs)
        owner = task._call.stream.owner
        stream = self._foreign_stream(owner)
        extra.kind = wire.RESULT_CALL
        target = TesseraHandle(self, 0, stream, None, handle)
        call = self.submit(target, method, payload, extra, 3)
        return call

    def on_other_loop(
        self, loop: asyncio.AbstractEventLoop, then: Callable[[], Any]
    ) -> None:
        """Call it on another loop of this process; many at once in one wake-up."""
        waiting = self._other_loops.get(loop)
        if waiting is None:
            waiting = self._other_loops[loop] = []
            self.loop.call_soon(self._tell_other_loop, loop, context=self.context)
        waiting.append(then)

    def _tell_other_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting = self._other_loops.pop(loop)

        def call_all() -> None:
            for then in waiting:
                then()

        try:
            loop.call_soon_threadsafe(call_all, context=contextvars.Context())
        except RuntimeError:
            logger.debug("a loop that waited for %d calls has closed", len(waiting))

    def block(self, call: Call, timeout: float | None, value: bool = False) -> None:
        """Block this thread until the call has ended, or its value is here."""

        def ended() -> bool:
            return call.state >= DONE and not (
                value and call.state == DONE and _is_away(call)
            )

        if ended():
            return
        name = f"{call.stream.label}.{call.method}"
        if self.on_loop or _on_a_loop():
            raise RuntimeError(
                f"{name}: to block here would stop the loop that is to bring the "
                "result; write 'await task.result()'"
            )
        waiter = self.executor.waits_here()
        signal: Callable[[], Any]
        if waiter is None:
            event = threading.Event()
            signal = event.set
        else:
            signal = self.executor.wake

        def look() -> None:
            if call.state == DONE and value and _is_away(call):
                self.fetch(call, signal)
            else:
                signal()

        self.when_settled(call, look)
        if waiter is None:
            in_time = event.wait(timeout)
        else:
            in_time = self.executor.wait_on_main(waiter, ended, call, timeout)
        if not in_time:
            raise TimeoutError(f"{name} has not ended in {timeout} s; it goes on")

    def block_until(
        self, condition: Callable[[], bool], call: Call, timeout: float | None
    ) -> bool:
        """On a worker's main thread: wait for more than one call; False if too long.

        Args:
            condition: over; who makes it true calls ``wake_main``.
            call: one of those that are waited for.
            timeout: seconds.
        """
        waiter = self.executor.waits_here()
        assert waiter is not None, "asked by waits_on_main"
        return self.executor.wait_on_main(waiter, condition, call, timeout)

    def wake_main(self) -> None:
        """Make a main thread that waits look again; from any thread."""
        self.executor.wake()

    def waits_on_main(self) -> bool:
        """This thread is a worker's main thread and runs a plain method."""
        return self.executor.waits_here() is not None

    def uid_of(self, incarnation: int) -> str:
        """The uid of a runtime; empty if it is not known."""
        member = self.members.get(incarnation)
        if member is None and incarnation in self._causes:
            member = self._causes[incarnation][0]
        if member is None and incarnation == self.incarnation:
            return self.uid
        return "" if member is None else member.uid

    def _refuse(self, call: Call) -> None:
        raise RuntimeError(
            f"{call.stream.label}.{call.method}: this runtime has stopped; start "
            "another with mosaic.init() or mosaic.run(main)"
        )

    def cancel(self, call: Call, reason: str) -> bool:
        """Ask that a call ends; False if it has ended."""
        if call.state >= DONE:
            return False
        reason = reason.encode("utf-8", "replace").decode()
        if self.on_loop:
            if self._inbox:
                contextvars.Context().run(self._drain)  # not in the user's
            return self.caller.cancel(call, reason)
        self.post(self.caller.cancel, call, reason)
        return True

    def when_settled(self, call: Call, then: Callable[[], Any]) -> None:
        """Call it on the loop's thread when the call has ended; from any thread."""
        if self.on_loop:
            self._watch(call, then)
        else:
            self.post(self._watch, call, then)

    def _watch(self, call: Call, then: Callable[[], Any]) -> None:
        if call.state >= DONE:
            then()
            return
        waiters = call.waiters
        if waiters is None:
            call.waiters = [then]
        else:
            waiters.append(then)
        if call.rare is not None and call.rare.grant is not None:
            if call.uid not in self.caller.awaited:
                self.caller.subscribe(call)
            elif call not in self.caller.awaited[call.uid]:
                self.caller.awaited[call.uid].append(call)

    def fetch(self, call: Call, then: Callable[[], Any]) -> None:
        """Get the value that stayed where it was made; on the loop's thread."""
        if not _is_away(call):
            then()
            return
        waiters = call.waiters
        if waiters is None:
            call.waiters = [then]
        else:
            waiters.append(then)
        item = rare(call)
        if not item.pending_fetch:
            item.pending_fetch = True
            self.caller.fetch(call)

    def is_away(self, call: Call) -> bool:
        """The value stayed where it was made."""
        return _is_away(call)

    # -- Caller: what CallerState asks for ---------------------------------------------

    def settled(self, call: Call) -> None:
        waiters = call.waiters
        call.waiters = None
        for then in waiters:
            try:
                then()
            except Exception:
                logger.exception("a callback of %s.%s", call.stream.label, call.method)

    def unheard(self, call: Call) -> None:
        if call.method == "__init__":
            return  # every call on the tessera says it again
        if call.hold == DROPPED:
            self._complain(call)
        else:
            rare(call).unheard = True

    def _complain(self, call: Call) -> None:
        """A failure that nobody has asked for."""
        if call.rare is not None:
            call.rare.unheard = False
        if call.state != FAILED or self.stopping:
            return
        if call.rare is not None and call.rare.reason == wire.REASONS[wire.UPSTREAM]:
            return  # the call at fault says it
        error = self.error_of(call)
        place = place_of(call)
        logger.error(
            "%s.%s, called at %s, failed and nobody asked for its result",
            call.stream.label,
            call.method,
            place,
            exc_info=(type(error), error, error.__traceback__),
        )

    def release(self, call: Call) -> None:
        """Tell the owner that the proxy is gone."""
        if call.hold == RELEASED:
            return
        call.hold = RELEASED
        if call.rare is not None and call.rare.grant is not None:
            return  # the grant tells it
        outbox = call.stream.outbox
        if isinstance(outbox, Peer):
            outbox.releases.append(call.uid)
            if not self.peers.ticking:
                self.peers.tick_soon()

    def _drain_dropped(self) -> None:
        dropped = self.dropped
        while dropped:
            item = dropped.popleft()
            if type(item) is Call:
                if item.state < DONE:
                    item.hold = DROPPED
                    continue
                if item.rare is not None:
                    if item.rare.unheard:
                        self._complain(item)
                    self.release(item)
                elif item.hold == HELD:
                    item.hold = RELEASED
                    outbox = item.stream.outbox
                    if outbox is not None:
                        outbox.releases.append(item.uid)  # type: ignore[attr-defined]
            else:
                self._drop_handle(item)

    def _drop_handle(self, handle: Any) -> None:
        outbox = handle.stream.outbox
        if isinstance(outbox, Peer):
            outbox.releases.append(handle.uid)

    def on_tick(self) -> bool:
        """The timer has passed: tell what was dropped."""
        if self.dropped:
            self._drain_dropped()
        # What this runtime drops of its own objects is counted at once, and must not
        # overtake the calls on them that it has sent to itself.
        own = self.outbox(self.incarnation)
        if own is not None:
            own.flush()
        self._send_to_owners(self.grants.drain())
        return False

    def _send_to_owners(self, messages: list[tuple[int, Any]]) -> None:
        for owner, message in messages:
            outbox = self.outbox(owner)
            if outbox is not None:
                outbox.send(message)
            elif not self.is_lost(owner):
                self.peers.expect(owner, message)

    def is_lost(self, incarnation: int) -> bool:
        """It was here, or was lost before this runtime came; not: is still to come."""
        if incarnation in self.members:
            return False
        return incarnation in self._causes or incarnation < self.incarnation

    def arrived(self, message: Any, buffers: Any, sender: int) -> Any:
        extra = message.extra
        if not (extra.references or extra.buffers or extra.size):
            return message.data
        grants: Any = ()
        if extra.references:
            grants = self._granted(message, sender)
        return Arrived(message.data, buffers, grants, extra.size)

    def _granted(self, message: Any, sender: int) -> Sequence[Any]:
        """A grant for each reference of a payload, by index.

        A call that takes a task of this runtime needs none for it: the task is held
        by being among the arguments, and who sent the call holds it until after.
        """
        references = message.extra.references
        if type(message) is wire.Submit:
            here = self.incarnation
            others = [r for r in references if r.kind != wire.TASK or r.owner != here]
            if len(others) < len(references):
                granted = iter(self.grants.delivered(others, sender))
                return [
                    None if r.kind == wire.TASK and r.owner == here else next(granted)
                    for r in references
                ]
        return self.grants.delivered(references, sender)

    def lost_error(self, call: Call, cause: Any) -> bytes:
        if isinstance(cause, MosaicError):
            return dump_error(cause, self.serializer)
        member, how = cause if type(cause) is tuple else (None, str(cause))
        name = f"{call.stream.label}.{call.method}"
        uid = "" if member is None else member.uid
        kind: type[RuntimeDisconnectedError] = RuntimeDisconnectedError
        where = "its runtime"
        if member is not None:
            where = f"{ids.short(uid)} ({member.host}, pid {member.pid})"
            if uid.startswith("worker"):
                kind = WorkerDied
            elif uid.startswith("node"):
                kind = NodeLost
        verdict = Verdict.NOT_STARTED if call.hold == RELEASED else Verdict.MAYBE_RAN
        error = kind(
            f"{where} is lost: {how}; {name} "
            + ("was not sent" if verdict is Verdict.NOT_STARTED else "may have run")
            + ". Its tesserae are gone: make them again",
            uid,
            verdict,
            how,
        )
        return dump_error(error, self.serializer)

    def cancelled_error(self, call: Call, reason: str) -> bytes:
        name = f"{call.stream.label}.{call.method}"
        why = f": {reason}" if reason else ""
        error = TaskCancelledError(
            f"{name} was cancelled before it started{why}", ids.task_name(call.uid)
        )
        return dump_error(error, self.serializer)

    def _on_waiting(self, message: wire.Waiting, buffers: Any, sender: int) -> None:
        task = self.worker.tasks.get(message.uid)
        if task is not None and not task.settled:
            self.executor.waited_for(task, sender)

    def tell_waiting(self, call: Call) -> None:
        """The main thread is blocked until this call ends; from that thread."""
        self.post(self._tell_waiting, call)

    def _tell_waiting(self, call: Call) -> None:
        outbox = call.stream.outbox
        if call.state < DONE and outbox is not None:
            outbox.send(wire.Waiting(call.uid))

    def _on_running(self, message: wire.Running, buffers: Any, sender: int) -> None:
        call = self.caller.calls.get(message.uid)
        if call is not None:
            rare(call).running_s = time.time() - message.for_s

    # -- Owner: what WorkerState asks for ----------------------------------------------

    def awaited_call(self, reference: wire.Reference) -> Call:
        stream = self._foreign_stream(reference.owner)
        call = Call(reference.uid, stream, "", None, 0, 0.0)
        call.hold = RELEASED  # its grant is in the payload
        return call

    def _foreign_stream(self, owner: int) -> Stream:
        stream = self._foreign.get(owner)
        if stream is None:
            stream = self._foreign[owner] = Stream(0, "task")
        if stream.outbox is None and stream.error is None:
            self._aim(stream, owner)
        return stream

    def failure(self, task: Task, reason: int, why: Any) -> bytes:
        name = f"{task.tessera.options.name}.{task.method}"
        uid = ids.task_name(task.uid)
        error: BaseException
        if isinstance(why, (Task, Call)):
            cause = self._error_of_argument(why)
            if isinstance(cause, UpstreamError) and cause.__cause__ is not None:
                cause = cause.__cause__  # the first one: chains of these are long
            if reason == wire.CANCELLED:
                error = TaskCancelledError(f"{name}: an argument was cancelled", uid)
            else:
                error = UpstreamError(
                    f"{name} was not called: an argument of it failed "
                    f"({type(cause).__name__}: {cause})",
                    uid,
                )
            error.__cause__ = cause
        elif reason == wire.CANCELLED:
            text = f": {why}" if why else ""
            error = TaskCancelledError(f"{name} was cancelled{text}", uid)
        elif reason == wire.GONE and self.stopping:
            # It was closed with all others: nobody has to look for a mistake.
            error = RuntimeDisconnectedError(
                f"{name}: {ids.short(self.uid)} is stopping with its cluster",
                self.uid,
                Verdict.NOT_STARTED,
                "its cluster is stopping",
            )
        elif reason == wire.LOST:
            error = RuntimeDisconnectedError(f"{name}: {why}")
        else:
            error = BUILTIN_ERRORS.get(reason, MosaicError)(f"{name}: {why}")
        return dump_error(error, self.serializer)

    def _error_of_argument(self, argument: Task | Call) -> BaseException:
        if isinstance(argument, Task):
            known = argument.outcome
            data = argument.raw.error if known is None else known.data
        else:
            data = argument.result
        return load_error(data, self.serializer)

    def cancel_running(self, task: Task) -> None:
        self.executor.cancel(task)

    def tessera_gone(self, tessera: Tessera) -> None:
        self.executor.tessera_gone(tessera)

    # -- executor.Port -----------------------------------------------------------------

    def load_call(self, task: Task) -> tuple[Sequence[Any], dict[str, Any]]:
        arrived = task.buffers
        data = task.data
        if type(arrived) is not Arrived:
            return self.serializer.loads_call(data)
        arguments = task.arguments
        if data[0] == direct.DIRECT:
            return direct.load(data, lambda i: self._value_of(arguments[i])), {}
        args, kwargs = self.serializer.loads_call(
            data, arrived.buffers, self._resolver(arrived.grants, arguments)
        )
        if arguments is not None:
            args = tuple(arg for arg in args if arg is not AFTER)
        return args, kwargs

    def load_class(self, task: Task) -> type:
        cls: type = self.serializer.loads(task.rare)
        task.rare = None
        return cls

    def dump_result(self, value: Any) -> bytes | Payload:
        return self.serializer.dumps(value)

    def dump_error(self, error: BaseException, task: Task) -> bytes:
        where = f"{ids.short(self.uid)} ({self.me.host}, pid {self.me.pid})"
        name = f"{task.tessera.options.name}.{task.method}"
        note = f"  in {name} on {where} · task {ids.task_name(task.uid)}"
        note += f" · attempt {self.executor.attempt(task)}"
        return dump_error(error, self.serializer, note=note)

    def cancelled(self, task: Task, *, started: bool) -> bytes:
        """The error of a call that was cancelled."""
        name = f"{task.tessera.options.name}.{task.method}"
        why = f": {task.cancelled}" if task.cancelled else ""
        when = "while it ran" if started else "before it started"
        verdict = Verdict.MAYBE_RAN if started else Verdict.NOT_STARTED
        error = TaskCancelledError(
            f"{name} was cancelled {when}{why}", ids.task_name(task.uid), verdict
        )
        return dump_error(error, self.serializer)

    def send_printed(self) -> None:
        """Only workers capture what is printed."""

    def completed(self, task: Task, outcome: Outcome) -> None:
        if get_ident() == self._ident:
            if type(outcome) is bytes and task.tessera.closing is None:
                self.worker.finished(task, outcome)
            else:
                self._ended(task, outcome)
            return
        self._completions.append((task, outcome))
        if not self._awake:
            self._awake = True
            self.loop.call_soon_threadsafe(self._drain, context=self.context)

    def placed(self, payload: Any) -> bool:
        """All that a value mentions has its place: some was made only just before."""
        if all(handle.owner for handle in payload.handles):
            return True
        self._drain_inbox()
        return all(handle.owner for handle in payload.handles)

    def _ended_later(self, task: Task, outcome: Any) -> bool:
        if not all(handle.owner for handle in outcome.handles):
            return False
        self._ended(task, outcome)
        return True

    def producer(self, task: Task) -> Producer:
        return self.worker.producers.by_uid[task.uid]

    def _ended(self, task: Task, outcome: Outcome) -> None:
        worker = self.worker
        kind: Any = type(outcome)
        if kind is bytes or kind is Payload:
            if kind is Payload and not self.placed(outcome):
                self._unplaced.append(lambda: self._ended_later(task, outcome))
                return
            worker.finished(task, outcome)
            if task is task.tessera.closing:
                worker.closed(task.tessera)
        elif kind is Built:
            worker.built(task, outcome.instance)  # type: ignore[union-attr]
        elif kind is Handed:
            self.executor.hand_over(task, outcome.coroutine)  # type: ignore[union-attr]
        elif worker.producers.by_uid and self._producing.took(task, outcome):
            pass  # a call that asks for a stream
        else:
            assert isinstance(outcome, Raised)
            tessera = task.tessera
            if task.method == "__init__" and tessera.instance is None:
                worker.not_built(task, outcome.error)
                return
            event = CANCEL_EVENT if outcome.reason == wire.CANCELLED else ERROR_EVENT
            worker.failed(task, event, outcome.reason, outcome.error)
            if task is tessera.closing:
                worker.closed(tessera)

    # -- values ------------------------------------------------------------------------

    def _resolver(self, handles: Any, arguments: Any) -> Callable[..., Any]:
        """What stands for the references of a payload.

        Args:
            handles: grants, or the handles of a payload that was made here.
            arguments: of a call: tasks are replaced by their values.
        """

        def resolve(index: int, args: tuple[Any, ...]) -> Any:
            what = args[0]
            handle = handles[index]
            if what == "tessera":
                if type(handle) is Grant:
                    stream = self.stream_of(handle.uid, handle.owner, args[2])
                    handle = TesseraHandle(self, handle.uid, stream, None, handle)
                return proxy_of(args[1], handle)
            if arguments is None:
                if isinstance(handle, TaskHandle):
                    proxy = handle.proxy
                else:
                    proxy = self._task(handle)
                return proxy if what == "task" else TaskOutput.rebuild(proxy, args)
            if what == "after":
                return AFTER
            if what == "done":
                return None
            value = self._value_of(arguments[index])
            return value if what == "task" else TaskOutput.pick(value, args[1])

        return resolve

    def _task(self, grant: Grant) -> TaskProxy[Any]:
        """A proxy for a task that another runtime made."""
        stream = self._foreign_stream(grant.owner)
        call = Call(grant.uid, stream, "", None, 0, 0.0)
        rare(call).grant = grant
        return TaskProxy(self, call)

    def _value_of(self, argument: Task | Call) -> Any:
        if isinstance(argument, Task):
            payload = argument.result
            if payload is None:
                payload = argument.raw
            if type(payload) is Raised or argument.state > DONE:
                ended = argument.outcome if payload is None else payload
                cancelled = ended.reason == wire.CANCELLED
                reason = wire.CANCELLED if cancelled else wire.UPSTREAM
                raise ArgumentFailed(argument, reason)
            if type(payload) is not Payload:
                data = argument.outcome.data if payload is None else payload
                return self.serializer.loads(data)
            return self.serializer.loads(
                payload.data, payload.buffers, self._resolver(payload.handles, None)
            )
        return self._load(argument.result)

    def _load(self, result: Any) -> Any:
        if type(result) is bytes:
            return self.serializer.loads(result)
        return self.serializer.loads(
            result.data, result.buffers, self._resolver(result.grants, None)
        )

    def value_of(self, call: Call) -> Any:
        """The value of a call that is done and whose value is here."""
        result = call.result
        if type(result) is bytes:
            return self.serializer.loads(result)
        item = rare(call)
        if not item.cached:
            item.value = self._load(result)
            item.cached = True
        return item.value

    def error_of(self, call: Call) -> BaseException:
        """The error of a call that ended without a value, rebuilt each time.

        A kept one would gather the frames of all who raise it, and keep them alive.
        """
        if call.rare is not None:
            call.rare.unheard = False
        return load_error(call.result, self.serializer)

    # -- sending -----------------------------------------------------------------------

    def _before(self, peer: Peer, payload: Any) -> None:
        """What must go first: grants of what it mentions, and definitions."""
        if payload.handles:
            mentioned = references(payload)
            self._send_to_owners(self.grants.sending(mentioned, peer.incarnation))
        for digest in payload.definitions:
            if digest not in peer.defined and peer.token != self.token:
                peer.defined.add(digest)
                peer.send(wire.Define(digest, self.serializer.blob(digest)))

    # -- membership --------------------------------------------------------------------

    def member_joined(self, member: wire.Member) -> None:
        if self._unplaced:
            self._place_waiting()

    def member_lost(self, member: wire.Member, cause: str) -> None:
        self._causes[member.incarnation] = (member, cause)
        live = [
            m.incarnation
            for m in self.members.values()
            if m.incarnation != self.incarnation and _counts(m)
        ]
        if _counts(member):
            self._send_to_owners(self.grants.lost(member.incarnation, live))
            self.worker.lost(member.incarnation)
            self.worker.holders.lost(member.incarnation, live)
        for stream in list(self.streams.values()):
            if stream.owner == member.incarnation:
                self.caller.stream_failed(stream, (member, cause))
        foreign = self._foreign.get(member.incarnation)
        if foreign is not None:
            self.caller.stream_failed(foreign, (member, cause))
        self.caller.lost(member.incarnation, (member, cause))


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _counts(member: wire.Member) -> bool:
    """It holds or owns objects."""
    return member.uid.split(":")[0] in ("head", "worker")


def _is_away(call: Call) -> bool:
    result = call.result
    return type(result) is Arrived and bool(result.size)


def place_of(call: Call) -> str:
    """Where a call was made, as ``file:line``."""
    code = call.code
    if code is None:
        return "another runtime"
    line = code.co_firstlineno
    # co_positions has one entry for each instruction of two bytes.
    positions = itertools.islice(code.co_positions(), call.instruction // 2, None)
    for start, _, _, _ in positions:
        if start is not None:
            line = start
        break
    return f"{code.co_filename}:{line}"

