"""A runtime that makes calls and owns tesserae: a head or a worker.

It joins the states of ``core`` with the links, the serializer and the executor, and
hears who joins and who is lost. How it makes calls is in ``calling``, how it runs them
in ``owning``; what is a feature of its own is a part of its own.
"""

from __future__ import annotations

import contextvars
import threading
import time
from typing import TYPE_CHECKING, Any

from .. import ids
from ..comms import messages as wire
from ..comms.checks import check_extra
from ..comms.messages import Extra, Submit
from ..comms.serialization import Serializer
from ..core.caller import CallerState
from ..core.payloads import Arrived, references
from ..core.reach import is_near
from ..core.references import Grants
from ..core.relays import FEW
from ..core.senders import Kind, kind_of
from ..core.worker import WorkerState
from ..errors import ProtocolError
from ..proxies.handles import TesseraHandle
from ..tasks.host import Learned
from .admitting import Admitting
from .around import Around
from .blocking import Blocking
from .cycles import Cycles
from .deaths import Deaths
from .dropping import Dropping
from .executor import Executor
from .failures import Failures
from .handling import Handling
from .intakes import Intakes
from .inventory import Inventory
from .journal import Journal
from .known import known_values
from .leavers import Leavers, is_owner
from .limits import Limiting
from .linking import Linking
from .names import Names
from .observing import Observing
from .owning import Owning
from .parts import PartCalls
from .placing import Placing
from .restarting import Restarts
from .sharing import Sharing
from .slots import Slots
from .storing import Storing
from .streams import Producing
from .transfers import Landing, Transfers
from .unheard import UnheardFailures
from .values import Values
from .watching import Watching

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from ..config import Config
    from ..core.call import Call
    from ..tasks.connections import Connections
    from ..tasks.submission import Functions
    from .peer import Peer

now = time.time  # looked up for each batch
_CALLS = (Submit, wire.Create)  # whose references are arguments
_UNGRANTED = (None,)  # see ActorRuntime._granted


class ActorRuntime(Owning):
    """See the module; ``main_thread``: plain methods run on this process's main one.

    Args:
        loop: see Base.
        config: the same.
        journal: of the calls that run here; None: one that is in no file.
    """

    main_thread = False

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        journal: Journal | None = None,
    ) -> None:
        super().__init__(loop, config)
        self.unused: str | None = None  # see session: only what starts one has a text
        self.sharing = Sharing(self)
        self.serializer = Serializer(segments=self.sharing)
        self.transfers = Transfers(self)
        self.caller = CallerState(self)
        self.unheard_failures = UnheardFailures(self)
        self.unheard = self.unheard_failures.note
        self.silence = self.unheard_failures.silence
        self.silence_as = self.unheard_failures.silence_as
        self.dropping = Dropping(self, self.peers, self.unheard_failures)
        self.release = self.dropping.release
        self.dropped = self.peers.dropped = self.dropping.dropped
        self.peers.on_dropped = self.dropping.drain
        self.peers.before = self.before
        self.executor = Executor(
            self, loop, journal or Journal(), main_thread=self.main_thread
        )
        self.cycles = Cycles(self)
        self.placing = Placing(self)
        self.names = Names(self)
        self.slots = Slots(self)
        self.around = Around(self)
        self.observing = Observing(self)
        self.restarts = Restarts(self)
        self.linking = Linking(self)
        self.watching = Watching(self)
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
        self.departing = None
        self.before_lost = self.leavers.gone  # type: ignore[method-assign]  # nothing but that
        self.remains = self.deaths.left  # type: ignore[method-assign]  # nothing but that
        self.limiting = Limiting(self)
        self.limits = {}
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
        self.causes: dict[int, tuple[wire.Member, str]] = {}
        self.cluster_lost = ""  # why nothing can be made any more
        self.warehouse: wire.Member | None = None  # that of this host, if it is known
        self.intakes = Intakes(self)
        self.blocking = Blocking(self)
        self.block = self.blocking.block
        self.block_until = self.blocking.block_until
        self.wake_main = self.blocking.wake_main
        self.waits_on_main = self.blocking.waits_on_main
        self.on_other_loop = self.blocking.on_other_loop
        self.handling: Handling = Handling(self)
        self.made_inside = {}
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
        self.may_hand_back = self.worker.recalls.may_hand_back
        self.limits = self.worker.stopping.limits.by_uid
        self._producing = Producing(self, self.worker.producers)
        self.grants = Grants(self.incarnation, self.worker.holders, self._wake_tick)
        self.grants.heirs = self.caller.asking.heirs
        self.placing.joined()
        self.names.joined()
        self.slots.joined()
        self.restarts.joined()
        self.linking.joined()
        self.inventory = Inventory(self)
        self.admitting = Admitting(self)
        self.worker.arguments.admit = self.admitting.admit
        self.worker.lifecycle.reserve = self.admitting.reserve
        self.worker.keeping = self.admitting.keeping
        self.handlers.update(self.handling.table())

    # -- taking in what comes ----------------------------------------------------------

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
        elif isinstance(error, ProtocolError):
            return  # it was no call of anybody's
        elif isinstance(message, Submit | wire.Create):
            self.worker.not_taken(message.uid, error)

    def delivered(self) -> None:
        self.caller.held.release_credited()

    def arrived(self, message: Any, buffers: Any, sender: int) -> Any:
        extra = message.extra
        mentioned = extra.references
        if len(mentioned) == 1 and not buffers and type(message) is Submit:
            # What chains are made of, in one comparison: nothing but a task from here.
            (only,) = mentioned
            if (
                only.owner == self.incarnation
                and only.kind == wire.TASK
                and only.uid >= 0
                and extra == Extra(mentioned)
            ):
                return Arrived(message.data, (), _UNGRANTED)
        if not (mentioned or extra.buffers or extra.size or extra.parts):
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

    def locate(self, arrived: Arrived, then: Callable[[], None]) -> None:
        """Have the rest of a payload: of its segments, or of its chunks."""
        in_chunks = type(arrived.shared) is Landing
        (self.transfers if in_chunks else self.sharing).locate(arrived, then)

    def unwanted(self, arrived: Arrived) -> None:
        """The rest of a payload is not needed any more."""
        if type(arrived.shared) is Landing:
            self.transfers.unwanted(arrived)

    # -- sending -----------------------------------------------------------------------

    def before(self, peer: Peer, message: Any, payload: Any) -> None:
        """What must go first: grants of what it mentions, and definitions."""
        for handle in payload.handles:
            if handle.owner != peer.incarnation:  # who counts when it comes
                mentioned = references(payload)
                if type(message) in _CALLS:
                    self._add_known(peer, message.extra, payload, mentioned)
                self._send_to_owners(self.grants.sending(mentioned, peer.incarnation))
                break
        if self.functions is not None and payload.handles:
            self.functions.mention(payload, peer.incarnation)
        self._define(peer, payload.definitions)

    def _add_known(
        self, peer: Peer, extra: Extra, payload: Any, mentioned: list[Any]
    ) -> None:
        extra.known = known_values(payload.handles, peer, self.sharing)
        for known in extra.known:
            mentioned += known.references
            self._define(peer, self.serializer.mentioned(known.data))

    def _define(self, peer: Peer, digests: Sequence[bytes]) -> None:
        for digest in digests:
            if digest not in peer.defined and peer.token != self.token:
                peer.defined.add(digest)
                peer.send(wire.Define(digest, self.serializer.blob(digest)))

    def _send_to_owners(self, messages: list[tuple[int, Any]]) -> None:
        for owner, message in messages:
            outbox = self.outbox(owner)
            if outbox is not None:
                if not (self.leavers.leaving and self.leavers.keep(owner, message)):
                    outbox.send(message)
            elif not self.is_lost(owner):
                self.peers.expect(owner, message)

    def on_tick(self) -> bool:
        """The timer has passed: tell what was dropped."""
        if self.dropped:
            self.dropping.drain()
        # What this runtime drops of its own objects is counted at once, and must not
        # overtake the calls on them that it has sent to itself.
        own = self.outbox(self.incarnation)
        if own is not None:
            own.flush()
        self._send_to_owners(self.grants.drain())
        return self.cycles.look(self.loop.time())

    # -- what proxies ask for ----------------------------------------------------------

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

    def resolve_worker(self, where: Any) -> Any:
        raise NotImplementedError  # see UserRuntime

    def uid_of(self, incarnation: int) -> str:
        """The uid of a runtime; empty if it is not known."""
        member = self.members.get(incarnation)
        if member is None and incarnation in self.causes:
            member = self.causes[incarnation][0]
        if member is None and incarnation == self.incarnation:
            return self.uid
        return "" if member is None else member.uid

    # -- membership --------------------------------------------------------------------

    def is_lost(self, incarnation: int) -> bool:
        """It was here, or was lost before this runtime came; not: is still to come."""
        if incarnation in self.members or incarnation == self.incarnation:
            return False
        if incarnation in self.causes or incarnation < self.peers.newest:
            return True  # they are announced in order
        return incarnation >= 1 << ids.INCARNATION_BITS

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
        if self.functions is not None and kind_of(member.uid) is Kind.WORKER:
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
        self.deaths.end_asked(member, cause)
        self.restarts.lost(member, cause)
        self.watching.lost(member, cause)
        self.linking.lost(member.incarnation)
        if member is self.warehouse:
            self.copied.clear()
            self.warehouse = self._own_warehouse()
            self.sharing.warehouse_changed()
        live = [
            m.incarnation
            for m in self.members.values()
            if m.incarnation != self.incarnation and is_owner(m.uid)
        ]
        if is_owner(member.uid):
            sends = self.grants.lost(member.incarnation, live)
            # The heir of one that has left must hear it before what comes after it.
            heirless = member.incarnation not in self.leavers.left
            tell = self._by_the_monitor(sends) if heirless else set()
            self._send_to_owners([s for s in sends if s[0] not in tell])
            self.worker.lost(member.incarnation)
            if member.uid.startswith("head"):
                self.worker.stopping.lost_head(member.incarnation)
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
        if monitor is not None and is_owner(member.uid):
            # Which waits for this before it gives away what the lost one had claimed.
            monitor.send(wire.LossSeen(member.incarnation, list(tell)))

    def _by_the_monitor(self, sends: list[tuple[int, Any]]) -> set[int]:
        """The owners to which a connection would be made for LossSeen alone."""
        if len(sends) <= FEW or self.leavers.leaving or self.cluster_lost:
            return set()
        told: dict[int, int] = {}
        for to, _ in sends:
            told[to] = told.get(to, 0) + 1
        peers = self.peers.by_incarnation
        return {
            to
            for to, count in told.items()
            # More than one: what it holds of theirs, which must come first.
            if count == 1 and to in peers and peers[to].is_unused
        }

    def close(self) -> None:
        self.observing.close()
        super().close()
        self.executor.close()
        self.sharing.close()
