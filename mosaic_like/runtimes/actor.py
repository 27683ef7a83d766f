"""A runtime that makes calls and owns tesserae: a head or a worker.

It joins the states of ``core`` with the links, the serializer and the executor. What
user code touches may be called from any thread: it pickles there and posts the rest to
the loop's thread, where all states live.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import itertools
import logging
import math
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .. import ids
from ..comms import direct
from ..comms import messages as wire
from ..comms.checks import check_extra
from ..comms.exceptions import error_summary
from ..comms.messages import Submit
from ..comms.serialization import PLAIN, Payload, Serializer
from ..core.caller import (
    COUNTED_BYTES,
    DROPPED,
    HELD,
    RELEASED,
    Arrived,
    Call,
    CallerState,
    rare,
    references,
)
from ..core.names import NAME_BYTES
from ..core.reach import is_near
from ..core.references import Grants
from ..core.task import (
    CANCEL_EVENT,
    CANCELLED,
    DONE,
    ERROR_EVENT,
    FAILED,
    PREPARE,
    Task,
)
from ..core.worker import CLOSE_METHOD, WorkerState
from ..errors import ProtocolError
from ..proxies.runtime import check_open
from ..proxies.task import TaskProxy
from ..proxies.tessera import READY, TesseraHandle, ordered_only
from ..tasks.host import Learned
from ..text import printable
from .admitting import Admitting
from .around import Around
from .base import Base
from .cycles import Cycles
from .deaths import Deaths
from .executor import CURRENT, Built, Executor, Handed, Outcome, Raised, Retrying
from .failures import Failures
from .inventory import Inventory
from .leavers import OWNERS, Leavers
from .limits import Limiting
from .names import Names
from .observing import Observing
from .parts import PartCalls
from .placing import Placing
from .restarting import Restarts
from .retrying import Later
from .sharing import Sharing
from .slots import Slots
from .storing import Storing
from .streams import Intakes, Producing
from .transfers import Landing, Transfers
from .values import Values

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from ..config import Config
    from ..core.caller import Stream
    from ..core.limits import Limit
    from ..core.streams import Producer
    from ..core.tessera import Tessera
    from ..tasks.connections import Connections
    from ..tasks.submission import Functions
    from .departing import Departing
    from .peers import Peer

logger = logging.getLogger(__name__)

# Looked up for each call.
getframe = sys._getframe
now = time.time
get_ident = threading.get_ident
current_task = CURRENT.get

_AT_ONCE_S = 60.0  # that a thread waits for the loop's, which is not held for so long
_UNHEARD = 10_000  # incarnations that others may have heard of before this runtime
_DIRECT_KINDS = (PLAIN - {bytes}) | {TaskProxy}


class ActorRuntime(Base):
    """See the module; ``main_thread``: plain methods run on this process's main one."""

    main_thread = False

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config) -> None:
        super().__init__(loop, config)
        self.unused: str | None = None  # see session: only what starts one has a text
        self.sharing = Sharing(self)
        self.serializer = Serializer(segments=self.sharing)
        self.transfers = Transfers(self)
        self.caller = CallerState(self)
        self.dropped: deque[Call | TesseraHandle] = deque()
        self.peers.dropped = self.dropped
        self.peers.on_dropped = self._drain_dropped
        self.peers.before = self.before
        self.executor = Executor(self, loop, main_thread=self.main_thread)
        self.cycles = Cycles(self)
        self.placing = Placing(self)
        self.names = Names(self)
        self.slots = Slots(self)
        self.around = Around(self)
        self.observing = Observing(self)
        self._hooks: set[asyncio.Task[None]] = set()
        self.restarts = Restarts(self)
        self.streams = self.placing.streams
        self.create = self.placing.create
        self.storing = Storing(self)
        self.values = Values(self)
        self.failures = Failures(self)
        self._part_calls = PartCalls(self)
        self.parts = self._part_calls.of_argument
        self.part_of = self._part_calls.of_task
        self.deaths = Deaths(self)
        self.leavers: Leavers = Leavers(self)
        self.departing: Departing | None = None  # while this runtime itself leaves
        self.before_lost = self.leavers.gone  # type: ignore[method-assign]  # nothing but that
        self.remains = self.deaths.left  # type: ignore[method-assign]  # nothing but that
        self.limiting = Limiting(self)
        self.limits: dict[int, Limit] = {}
        # Of which failures nothing is logged when nobody asks for them.
        self._silenced: WeakKeyDictionary[Stream, tuple[type[BaseException], ...]]
        self._silenced = WeakKeyDictionary()
        # The last one that was logged, and the places of its calls.
        self._told: WeakKeyDictionary[Stream, tuple[bytes, set[str]]]
        self._told = WeakKeyDictionary()
        # What the states, the executor and the proxies ask for.
        self.value_of = self.values.of
        self.error_of = self.values.error
        self.load_call = self.values.call
        self.load_class = self.values.cls
        self.dump_result = self.serializer.dumps
        self.dump_error = self.failures.raised
        self.cancelled = self.failures.cancelled
        self.cancelled_error = self.failures.cancelled_here
        self.lost_error = self.failures.lost
        self.failure = self.failures.refused
        self._inbox: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._completions: deque[tuple[Task, Outcome]] = deque()
        self._looking = False  # at what has come, inside user code
        self._awake = False
        self._ident = threading.get_ident()
        self._other_loops: dict[asyncio.AbstractEventLoop, list[Callable[[], Any]]] = {}
        self.causes: dict[int, tuple[wire.Member, str]] = {}
        self.cluster_lost = ""  # why nothing can be made any more
        self.warehouse: wire.Member | None = None  # that of this host, if it is known
        # Published values of others that it has: its incarnation.
        self.copied: dict[int, int] = {}
        self.intakes = Intakes(self)
        # What is printed and not sent, in containers; only workers capture it.
        self.talk: tuple[Any, Any, Any] = (), (), ()
        # Calls made inside those of runtimes that wait in a barrier, by incarnation.
        self.made_inside: dict[int, int] = {}
        # What sends function tasks: tasks.submission, once there are some.
        self.functions: Functions | None = None
        self.functions_lock = threading.Lock()
        self.learned = Learned(self)  # those that others have sent here

    def joined_cluster(self, settings: bytes) -> None:
        self.peers.on_tick = self.on_tick
        self.uids = ids.uids(self.incarnation)
        self.worker = WorkerState(
            self, self.executor, self.caller, self.peers.by_incarnation
        )
        self.worker.never = self.is_lost
        self.may_hand_back = self.worker.may_hand_back
        # Of calls that have a time, by uid: looked at by those made inside them.
        self.limits = self.worker.limits.by_uid
        self._producing = Producing(self, self.worker.producers)
        self.grants = Grants(self.incarnation, self.worker.holders, self._wake_tick)
        self.grants.heirs = self.caller.heirs
        self.placing.joined()
        self.names.joined()
        self.slots.joined()
        self.restarts.joined()
        self.inventory = Inventory(self)
        self.admitting = Admitting(self)
        self.worker.admit = self.admitting.admit
        self.worker.reserve = self.admitting.reserve
        worker, caller = self.worker, self.caller
        holders = worker.holders
        self.handlers.update(
            {
                wire.Submit: worker.submit,
                wire.Done: caller.done,
                wire.Release: worker.release,
                wire.Create: self._on_create,
                wire.Failed: caller.failed,
                wire.Value: caller.value,
                wire.Cancel: lambda m, b, s: worker.on_cancel(
                    m, self.executor.attempt(worker.tasks.get(m.uid)), s
                ),
                wire.Subscribe: lambda m, b, s: worker.subscribe(m.uid, s),
                wire.Fetch: lambda m, b, s: worker.fetch(m.uid, s),
                wire.Item: self.intakes.item,
                wire.Credit: lambda m, b, s: worker.producers.credit(m.uid, m.items),
                wire.Running: self._on_running,
                wire.Again: self._on_again,
                wire.Ran: self._on_ran,
                wire.Ending: self._on_ending,
                wire.Learn: self.learned.learn,
                wire.Recall: lambda m, b, s: worker.recall(m.uids, s),
                wire.Recalled: self._on_recalled,
                wire.Waiting: self.cycles.on_waiting,
                wire.Circle: self.cycles.on_circle,
                wire.ReleaseGrants: lambda m, b, s: holders.release_grants(s, m.grants),
                wire.Retain: self._on_retain,
                wire.Holding: self._on_holding,
                wire.LossSeen: self._on_loss_seen,
                wire.Define: lambda m, b, s: self.serializer.define(m.digest, m.blob),
                wire.Copied: self._on_copied,
                wire.Leaving: self.leavers.on_leaving,
                wire.LeavingSeen: self.leavers.on_seen,
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
        printed = self.talk[0]
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

    def count_inside(self, root: int) -> None:
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
        if buffers:
            super()._deliver(peer, batch, buffers)
            return
        handlers = self.handlers
        sender = peer.incarnation
        last = len(batch) - 1
        index = 0
        while index <= last:
            message = batch[index]
            kind = type(message)
            try:
                if kind is Submit and index < last and message.extra is None:
                    index = self.worker.submit_run(batch, index, sender)
                    continue
                handlers[kind](message, (), sender)
            except Exception as error:
                self._bad(peer, message, error)
            index += 1
        self.delivered()

    def deliver_singly(self, peer: Peer, batch: list[Any], buffers: list[Any]) -> None:
        """For who has to look at each message by its handler."""
        self.caller.now_s = now()
        super()._deliver(peer, batch, buffers)

    def _bad(self, peer: Peer, message: Any, error: Exception) -> None:
        super()._bad(peer, message, error)
        if isinstance(message, wire.Done | wire.Value):
            self.caller.unreadable(message.uid, error)

    def at_once(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call it on the loop's thread, and have what it gives; from any thread."""
        if self.on_loop:
            self.catch_up()
            return contextvars.Context().run(function, *args)
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run() -> None:
            try:
                future.set_result(function(*args))
            except BaseException as error:  # of who asked
                future.set_exception(error)

        self.post(run)
        return future.result(_AT_ONCE_S)

    @property
    def connections(self) -> Connections:
        """The tasks here that wait for each other."""
        from ..tasks.submission import functions_of

        return functions_of(self).connections

    def want(self, call: Call) -> None:
        """Somebody waits for a task that is only prepared; from any thread."""
        connections = self.connections
        if self.on_loop:
            contextvars.Context().run(connections.want, call)
        else:
            self.post(connections.want, call)

    def catch_up(self) -> None:
        """Do now what other threads have posted; on the loop's, inside user code."""
        if self._inbox:
            contextvars.Context().run(self._drain)  # not in the user's

    def resolve_worker(self, where: Any) -> Any:
        raise NotImplementedError  # see UserRuntime

    def delivered(self) -> None:
        self.caller.release_credited()

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
            next(self.uids), handle.stream, method, frame.f_code, frame.f_lasti, now()
        )
        task = current_task()
        if task is not None:
            call.inside = task.within()
            if self.limits and task.uid in self.limits:
                extra = extra or wire.Extra()
                self.limiting.inherit(task, call, extra)
            if self.made_inside:
                self.count_inside(call.root)
        if self.stopping:
            self._refuse(call)
        if get_ident() != self._ident:
            self.post(self.caller.submit, call, payload, extra, handle)
            return call
        if self._inbox:
            contextvars.Context().run(self._drain)  # not in the user's
        self.caller.submit(call, payload, extra, handle)
        return call

    def prepare(
        self, handle: Any, method: str, extra: wire.Extra | None, depth: int = 2
    ) -> tuple[Call, wire.Extra | None]:
        """A call as ``submit`` makes it, in state prepare, and what goes with it."""
        frame = getframe(depth)
        call = Call(
            next(self.uids), handle.stream, method, frame.f_code, frame.f_lasti, now()
        )
        call.state = PREPARE
        task = current_task()
        if task is not None:
            call.inside = task.within()
            if self.limits and task.uid in self.limits:
                extra = extra or wire.Extra()
                self.limiting.inherit(task, call, extra)
            if self.made_inside:
                self.count_inside(call.root)
        if self.stopping:
            self._refuse(call)
        return call, extra

    def give_here(self, call: Call, value: bytes | Payload) -> None:
        """A call that was not sent has a value, which is kept here."""
        self.caller.calls[call.uid] = call
        call.stream = self.placing.foreign(self.incarnation)
        self.worker.give_here(call.uid, value)

    def refuse_here(self, call: Call, kind: int, error: bytes) -> None:
        call.stream = self.placing.foreign(self.incarnation)
        self.worker.refuse_here(call.uid, kind, error)

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
        stream = self.placing.foreign(owner)
        extra.kind = wire.RESULT_CALL
        target = TesseraHandle(self, 0, stream, None, handle)
        call = self.submit(target, method, payload, extra, 3)
        return call

    def on_other_loop(
        self, loop: asyncio.AbstractEventLoop, then: Callable[[], Any]
    ) -> None:
        """Call it on another loop of this process; many at once in one wake-up."""
        if self.loop.is_closed():
            loop.call_soon_threadsafe(then, context=contextvars.Context())
            return
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
        check_open(self, "this task")
        name = call.name
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
        executor = self.executor
        if waiter is not None:
            in_time = executor.wait_on_main(waiter, ended, call, timeout, certain=True)
        elif (task := executor.thread_task()) is not None:
            wait = executor.blocked(task, call, timeout is None, signal)
            try:
                in_time = event.wait(timeout)
            finally:
                executor.unblocked(wait)
            if not ended():
                wait.refuse()
        else:
            in_time = event.wait(timeout)
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
        if member is None and incarnation in self.causes:
            member = self.causes[incarnation][0]
        if member is None and incarnation == self.incarnation:
            return self.uid
        return "" if member is None else member.uid

    def forked(self) -> None:
        """In a child that the program forked: the cluster is not the child's.

        What has ended can still be read; nothing else would ever end here, and what
        the child sent would come between the batches of its parent.
        """

        def refuse(*_: Any) -> Any:
            raise RuntimeError(
                f"this process was forked from that of {self.uid}, and has no runtime: "
                "start one here with mosaic.init(), or make the calls before the fork"
            )

        self.stopping = True
        self._refuse = refuse  # type: ignore[method-assign, assignment]  # of this one alone
        self.when_settled = refuse  # type: ignore[method-assign, assignment]  # the same

    def _refuse(self, call: Call) -> None:
        raise RuntimeError(
            f"{call.name}: this runtime has stopped; start "
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
            return self._cancel(call, reason)
        self.post(self._cancel, call, reason)
        return True

    def _cancel(self, call: Call, reason: str) -> bool:
        asked = self.caller.cancel(call, reason)
        if asked and reason:
            rare(call).told = CANCELLED, reason
        if asked and call.uid in self.caller.calls:
            self.limiting.asked(call, reason)
        return asked

    def when_settled(self, call: Call, then: Callable[[], Any]) -> None:
        """Call it on the loop's thread when the call has ended; from any thread."""
        if self.on_loop or (call.state >= DONE and self.loop.is_closed()):
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
            if self._looking:  # inside user code, which nothing may run in between
                self.loop.call_soon(then, context=self.context)
                continue
            try:
                then()
            except Exception:
                logger.exception("a callback of %s.%s", call.stream.label, call.method)

    def credit_spent(self) -> None:
        """Take in what has come, although the loop has not come by.

        A program that makes many calls without awaiting would else stand still with
        its workers, each in turn: it makes calls while they have run out of them, and
        they run calls while it waits. Where tesserae live here it is left to the loop:
        their methods must not run inside somebody's code.
        """
        if self.peers.gathering or not self.on_loop or self.worker.tesserae:
            return
        self._looking = True
        try:
            contextvars.Context().run(self.transport.poll)
        finally:
            self._looking = False

    def silence(self, stream: Stream, kinds: tuple[type[BaseException], ...]) -> None:
        """Log nothing of such failures of this tessera."""
        self._silenced[stream] = kinds

    def silence_as(self, old: Stream, stream: Stream) -> None:
        """What was said of one stream holds for the one that took its place."""
        if old in self._silenced:
            self._silenced[stream] = self._silenced[old]

    def unheard(self, call: Call) -> None:
        if call.method == "__init__" or (call.method == READY and call.hold == DROPPED):
            # Every call on the tessera says it again; see _drop_handle.
            rare(call).unheard = True
        elif call.hold == DROPPED:
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
        gone = call.rare is not None and call.rare.reason == wire.REASONS[wire.GONE]
        if gone and call.method == CLOSE_METHOD:
            return  # what it asked for is so
        error = self.error_of(call)
        if isinstance(error, self._silenced.get(call.stream, ())):
            return
        place = place_of(call)
        # Calls on what could not be made all fail with the very same error.
        last, places = self._told.get(call.stream, (b"", set()))
        is_new = call.result != last
        if is_new:
            places = set()
            self._told[call.stream] = call.result, places
        elif place in places:
            return
        places.add(place)
        logger.error(
            "%s.%s, called at %s, failed and nobody asked for its result%s",
            call.stream.label,
            call.method,
            place,
            "" if is_new else f": {error_summary(call.result)} (see above)",
            exc_info=(type(error), error, error.__traceback__) if is_new else None,
        )

    def release(self, call: Call) -> None:
        """Tell the owner that the proxy is gone."""
        if call.hold == RELEASED:
            return
        call.hold = RELEASED
        if call.rare is not None and call.rare.pending_fetch:
            self.caller.unfetch(call)
        if call.rare is not None and call.rare.grant is not None:
            return  # the grant tells it
        outbox = call.stream.outbox
        if outbox is not None:
            outbox.releases.append(call.uid)
            if not self.peers.ticking:
                self.peers.tick_soon()
        elif self.caller.heirs:
            self.leavers.release(call)

    def _drain_dropped(self) -> None:
        dropped = self.dropped
        while dropped:
            item = dropped.popleft()
            if type(item) is Call:
                if item.state < DONE:
                    if item.rare is None or not self._stays(item):
                        item.hold = DROPPED
                    continue
                if item.rare is not None:
                    if item.rare.connected and self._stays(item):
                        continue
                    if item.rare.unheard:
                        self._complain(item)
                    self.release(item)
                elif item.hold == HELD:
                    item.hold = RELEASED
                    outbox = item.stream.outbox
                    if outbox is not None:
                        outbox.releases.append(item.uid)
                    elif self.caller.heirs:
                        self.leavers.release(item)
            else:
                self._drop_handle(item)

    def _stays(self, call: Call) -> bool:
        """Of a task that others wait for, or that waits: it has another proxy."""
        if call.rare.proxies:
            call.rare.proxies -= 1
            return True
        if call.rare.connected and not PREPARE < call.state < DONE:
            self.connections.dropped(call)
        return False

    def _drop_handle(self, handle: Any) -> None:
        outbox = handle.stream.outbox
        if outbox is not None:
            outbox.releases.append(handle.uid)
        call = handle.call
        if call is None or call.state == DONE or handle.stream.number:
            return
        # Nothing was ever called on it, so nothing else says that it was not made.
        if call.state < DONE:
            self._watch(call, lambda: self._complain(call))
        elif call.rare is not None and call.rare.unheard:
            self._complain(call)

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
        return self.cycles.look(self.loop.time())

    def _send_to_owners(self, messages: list[tuple[int, Any]]) -> None:
        for owner, message in messages:
            outbox = self.outbox(owner)
            if outbox is not None:
                if not (self.leavers.leaving and self.leavers.keep(owner, message)):
                    outbox.send(message)
            elif not self.is_lost(owner):
                self.peers.expect(owner, message)

    def is_lost(self, incarnation: int) -> bool:
        """It was here, or was lost before this runtime came; not: is still to come."""
        if incarnation in self.members or incarnation == self.incarnation:
            return False
        if incarnation in self.causes or incarnation < self.peers.newest:
            return True  # they are announced in order
        return incarnation >= 1 << ids.INCARNATION_BITS

    def arrived(self, message: Any, buffers: Any, sender: int) -> Any:
        extra = message.extra
        if not (extra.references or extra.buffers or extra.size or extra.parts):
            return message.data
        check_extra(extra, len(buffers))
        grants: Any = ()
        if extra.references:
            grants = self._granted(message, sender)
            if extra.shared is not None:
                return self.sharing.arrived(message, grants)
        if extra.parts is not None:
            return self.transfers.arrived(message, grants, sender)
        return Arrived(message.data, buffers, grants, extra.size)

    def locate(self, arrived: Arrived, then: Callable[[], None]) -> None:
        """Have the rest of a payload: of its segments, or of its chunks."""
        in_chunks = type(arrived.shared) is Landing
        (self.transfers if in_chunks else self.sharing).locate(arrived, then)

    def unwanted(self, arrived: Arrived) -> None:
        """The rest of a payload is not needed any more."""
        if type(arrived.shared) is Landing:
            self.transfers.unwanted(arrived)

    def _granted(self, message: Any, sender: int) -> Sequence[Any]:
        """A grant for each reference of a payload, by index.

        A call that takes a task of this runtime needs none for it: the task is held
        by being among the arguments, and who sent the call holds it until after.
        """
        references = message.extra.references
        if type(message) is wire.Submit:
            here = self.incarnation
            if len(references) == 1:
                (only,) = references
                if only.kind == wire.TASK and only.owner == here:
                    return (None,)
            others = [r for r in references if r.kind != wire.TASK or r.owner != here]
            if len(others) < len(references):
                granted = iter(self.grants.delivered(others, sender))
                return [
                    None if r.kind == wire.TASK and r.owner == here else next(granted)
                    for r in references
                ]
        return self.grants.delivered(references, sender)

    def _on_retain(self, message: wire.Retain, buffers: Any, sender: int) -> None:
        if message.holder == self.incarnation and not self.leavers.left:
            raise ProtocolError("what comes here is counted here")
        self.worker.holders.retain(sender, message.uid, message.holder)

    def _on_holding(self, message: wire.Holding, buffers: Any, sender: int) -> None:
        self._check_loss(message.granter)
        self.worker.holders.holding(sender, message.uid, message.granter, message.count)

    def _on_loss_seen(self, message: wire.LossSeen, buffers: Any, sender: int) -> None:
        self._check_loss(message.incarnation)
        self.worker.holders.loss_seen(sender, message.incarnation)

    def _check_loss(self, incarnation: int) -> None:
        """Others may hear of it earlier, even of one that is not announced here yet."""
        member = self.members.get(incarnation)
        if member is None and incarnation in self.causes:
            member = self.causes[incarnation][0]
        known = member is not None and _counts(member)
        if not known and not 0 < incarnation - self.peers.newest < _UNHEARD:
            raise ProtocolError(f"{incarnation} is nobody who could be lost")

    def _on_create(self, message: wire.Create, buffers: Any, sender: int) -> None:
        self.worker.check_create(message, sender)
        message.options.name = printable(message.options.name)[:NAME_BYTES]
        if message.options.unique:
            self.names.created(message)
        self.worker.create(message, buffers, sender)

    def _on_running(self, message: wire.Running, buffers: Any, sender: int) -> None:
        call = self.caller.calls.get(message.uid)
        if call is not None:
            item = rare(call)
            if message.delay_s is None:
                item.running_s, item.reason = time.time() - message.for_s, None
            else:
                item.running_s, item.reason = None, "retry"
            self.limiting.begun(call, message.attempt, message.delay_s)
            if item.watched is not None:
                item.watched.look(call)

    def _on_again(self, message: wire.Again, buffers: Any, sender: int) -> None:
        if not (message.delay_s >= 0 and math.isfinite(message.delay_s)):
            raise ProtocolError(f"it waits {message.delay_s} s")
        if self.functions is not None:
            self.functions.again(message, sender)

    def _on_ran(self, message: wire.Ran, buffers: Any, sender: int) -> None:
        call = self.caller.calls.get(message.uid)
        item = None if call is None else call.rare
        if item is not None and item.watched is not None:
            item.watched.ran(message)

    def _on_ending(self, message: wire.Ending, buffers: Any, sender: int) -> None:
        call = self.caller.calls.get(message.uid)
        if call is not None:
            rare(call).told = message.state, message.reason

    def tell(self, task: Task, message: Any) -> None:
        """Tell the caller of a task that runs here something; from any thread."""
        if task.caller == self.incarnation:  # only such have tasks at a head
            self.handlers[type(message)](message, (), task.caller)

    def finish_prints(self, task: Task) -> None:
        """The last line that a call has printed ends here; where that is captured."""

    def start_hook(self, hook: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine function of the user that nobody waits for; on the loop."""
        running = self.loop.create_task(hook)
        self._hooks.add(running)
        running.add_done_callback(self._hooks.discard)

    def _on_recalled(self, message: wire.Recalled, buffers: Any, sender: int) -> None:
        if self.functions is not None:
            self.functions.recalled(message, sender)

    # -- Owner: what WorkerState asks for ----------------------------------------------

    def awaited_call(self, reference: wire.Reference) -> Call:
        uid = reference.uid
        owner = self.grants.owner_now(reference.owner)
        stream = self.placing.foreign(self.copied.get(uid, owner))
        call = Call(uid, stream, "", None, 0, 0.0)
        call.hold = RELEASED  # its grant is in the payload
        return call

    def _on_copied(self, message: wire.Copied, buffers: Any, sender: int) -> None:
        for uid in message.uids:
            if not message.kept:
                self.copied.pop(uid, None)
            elif self.warehouse is not None and self.warehouse.incarnation == sender:
                self.copied[uid] = sender

    def cancel_running(self, task: Task) -> None:
        self.executor.cancel(task)

    def stopping_call(self, task: Task) -> None:
        self.limiting.stopping(task)

    def limited(self, task: Task) -> bool:
        return self.limiting.limited(task)

    def recycle(self, why: str) -> None:
        """Only a worker can be ended for a call that does not stop."""

    def tessera_gone(self, tessera: Tessera) -> None:
        self.executor.tessera_gone(tessera)
        if tessera.options.unique:
            self.names.gone(tessera)
        supervised = tessera.options.supervised is not None
        if supervised and not (self.departing and self.departing.state.closing):
            self.restarts.gone(tessera)  # else it is built again elsewhere

    # -- executor.Port -----------------------------------------------------------------

    def send_printed(self) -> None:
        """Only workers capture what is printed."""

    def finish_lines(self, task: Task, outcome: Outcome) -> None:
        """The same: what is left of its last lines goes before its end is told."""

    def completed(self, task: Task, outcome: Outcome) -> None:
        lines, out, err = self.talk
        if lines or out or err:
            self.finish_lines(task, outcome)
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

    def completed_run(self, run: list[Task]) -> None:
        self.worker.finished_run(run)

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

    def retry_later(self, task: Task, attempt: int, delay_s: float) -> bool:
        return self.limiting.retry_later(task, attempt, delay_s)

    def retry_now(self, task: Task, attempt: int) -> bool:
        return self.limiting.retry_now(task, attempt)

    def checkpoint(self, task: Task) -> None:
        raise ValueError("what lives here is not built again: nobody would read it")

    def restore(self, task: Task, instance: Any) -> None:
        """Nothing is built again but in workers."""

    def producer(self, task: Task) -> Producer:
        return self.worker.producers.by_uid[task.uid]

    def _ended(self, task: Task, outcome: Outcome) -> None:
        worker = self.worker
        kind: Any = type(outcome)
        if kind is bytes or kind is Payload:
            if kind is Payload and not self.placed(outcome):
                # Its end is told after those of later calls.
                self.executor.journal.irregular(task)
                self.placing.later(lambda: self._ended_later(task, outcome))
                return
            worker.finished(task, outcome)
            if task is task.tessera.closing:
                worker.closed(task.tessera)
        elif kind is Built:
            worker.built(task, outcome.instance)  # type: ignore[union-attr]
        elif kind is Handed:
            self.executor.hand_over(task, outcome.coroutine)  # type: ignore[union-attr]
        elif kind is Later:
            self.executor.retries.begin(task, outcome)  # type: ignore[arg-type]  # the kind says it
        elif kind is Retrying:
            self.limiting.retrying(task, outcome.attempt)  # type: ignore[union-attr]
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

    # -- sending -----------------------------------------------------------------------

    def before(self, peer: Peer, payload: Any) -> None:
        """What must go first: grants of what it mentions, and definitions."""
        for handle in payload.handles:
            if handle.owner != peer.incarnation:  # who counts when it comes
                mentioned = references(payload)
                self._send_to_owners(self.grants.sending(mentioned, peer.incarnation))
                break
        if self.functions is not None and payload.handles:
            self.functions.mention(payload, peer.incarnation)
        for digest in payload.definitions:
            if digest not in peer.defined and peer.token != self.token:
                peer.defined.add(digest)
                peer.send(wire.Define(digest, self.serializer.blob(digest)))

    def close(self) -> None:
        self.observing.close()
        super().close()
        self.executor.retries.close()
        self.executor.end_threads()
        self.sharing.close()

    # -- membership --------------------------------------------------------------------

    def told_to_leave(self, message: wire.Leaving) -> None:
        """Somebody wants this runtime to leave; a head cannot be asked to."""

    def leaving_changed(self) -> None:
        """Another is about to leave."""

    def member_joined(self, member: wire.Member) -> None:
        if member.uid.startswith("warehouse"):
            self.warehouse = self._own_warehouse()
            self.sharing.warehouse_changed()
        if self.departing is not None:
            self.departing.joined(member.uid, member.incarnation)
        self.placing.place_waiting()
        if self.functions is not None and member.uid.startswith("worker"):
            self.functions.joined(member)

    def _own_warehouse(self) -> wire.Member | None:
        """That of this runtime's node; a head takes the first one on its host."""
        on_host = [m for m in self.of_kind("warehouse") if is_near(self.me, m)]
        mine = self.uid.split(":")[1:2]
        of_node = [m for m in on_host if m.uid.split(":")[1:] == mine]
        return next(iter(of_node or on_host), None)

    def member_lost(self, member: wire.Member, cause: str) -> None:
        self.causes[member.incarnation] = (member, cause)
        if self.departing is not None:
            self.departing.lost(member.incarnation)
        self.deaths.begin(member)
        self.restarts.lost(member, cause)
        if member is self.warehouse:
            self.copied.clear()
            self.warehouse = self._own_warehouse()
            self.sharing.warehouse_changed()
        live = [
            m.incarnation
            for m in self.members.values()
            if m.incarnation != self.incarnation and _counts(m)
        ]
        if _counts(member):
            self._send_to_owners(self.grants.lost(member.incarnation, live))
            self.worker.lost(member.incarnation)
            if member.uid.startswith("head"):
                self.worker.lost_head(member.incarnation)
            self.worker.holders.lost(member.incarnation, live)
            self.worker.holders.prune(self.is_lost)
        for stream in self.placing.streams_to(member.incarnation):
            if stream.error is None:
                self.caller.stream_failed(stream, (member, cause))
        self.caller.lost(member.incarnation, (member, cause))
        self.learned.lost(member.incarnation)
        if self.functions is not None:
            self.functions.lost(member)
        self.storing.lost(member.incarnation)
        if member.uid.startswith("node"):
            self.placing.place_waiting()  # what waits for its warehouse
        self.sharing.member_lost(member.incarnation)
        self.transfers.member_lost(member.incarnation, member.uid)
        self.intakes.lost(member.incarnation)
        self.deaths.end(member)
        self.names.lost(member.incarnation)
        monitor = self.outbox(ids.MONITOR_INCARNATION)
        if monitor is not None and _counts(member):
            # Which waits for this before it gives away what the lost one had claimed.
            monitor.send(wire.LossSeen(member.incarnation))


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _counts(member: wire.Member) -> bool:
    """It holds or owns objects."""
    return member.uid.split(":")[0] in OWNERS


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
