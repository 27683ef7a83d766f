"""The end of a runtime that leaves in order: it hears the others out, and hands on.

What it has is given to a warehouse, with the counts of who holds it: see
``core.leaving`` for the messages. Which calls end before, and how the tesserae close,
is the worker's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.link import LinkState
from ..core.leaving import Departure, Drained
from ..ids import short
from .leavers import is_owner
from .peer import framed_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.task import Task
    from .actor import ActorRuntime
    from .peer import Peer

logger = logging.getLogger(__name__)

# That a runtime has to say that it has seen, or to connect again: it takes longer only
# if it is frozen, or cut off.
ANSWER_S = 5.0
HAND_ON_S = 30.0  # for an heir to have all that it is given, if that is little
SLOWEST_BYTES_PER_S = 10 << 20  # of a network to another host
LOOK_S = 0.02
_COUNTS = 1000  # objects in one message


class Departing:
    """See the module; made when a runtime is told to leave.

    Args:
        runtime: a worker or a warehouse.
        changed: called when somebody has been heard or is lost.
    """

    def __init__(self, runtime: ActorRuntime, changed: Callable[[], object]) -> None:
        self._runtime = runtime
        self._changed = changed
        members = [*runtime.of_kind("head"), *runtime.of_kind("worker")]
        members += [*runtime.of_kind("helper"), *runtime.of_kind("warehouse")]
        self.state = Departure(
            m.incarnation for m in members if m.incarnation != runtime.incarnation
        )
        self._since_s = runtime.loop.time()
        # The numbers of those that there were; the first one may still be made.
        self._connections = {
            incarnation: max(1, peer.link.connection)
            for incarnation, peer in runtime.peers.by_incarnation.items()
        }
        self._closed: dict[int, wire.Options] = {}  # of tesserae that close, or have
        self._has_all: asyncio.Future[None] = runtime.loop.create_future()
        self.why = Drained(
            f"{short(runtime.uid)} is being drained and takes no new calls; make the "
            "tessera again, elsewhere"
        )
        runtime.handlers.update(
            {
                wire.Inherited: self._on_inherited,
                wire.Submit: self._submit,
                wire.Create: self._create,
            }
        )
        for incarnation, up_to in runtime.leavers.take_early().items():
            self.state.seen(incarnation, up_to)
        self._take_create = runtime.handling.on_create
        # One by one, since each call is looked at.
        runtime.peers.deliver = runtime.deliver_singly

    # -- what comes --------------------------------------------------------------------

    def seen(self, sender: int, up_to: int) -> None:
        """Somebody has heard it, and made its calls up to this one before."""
        self.state.seen(sender, up_to)
        self._changed()

    def joined(self, uid: str, incarnation: int) -> None:
        """Somebody has come."""
        if is_owner(uid):
            self.state.joined(incarnation)

    def lost(self, incarnation: int) -> None:
        """Somebody is lost."""
        self.state.lost(incarnation)
        self._changed()

    @property
    def has_heard_all(self) -> bool:
        """All have answered, or are waited for no longer.

        Who is frozen answers too late in any case; who is cut off may connect again, or
        will be declared lost.
        """
        runtime = self._runtime
        waited = self.state.waited
        waited_s = runtime.loop.time() - self._since_s
        if not waited or waited_s >= max(ANSWER_S, runtime.config.node_timeout_s):
            return True
        return waited_s >= ANSWER_S and not any(map(self._is_cut_off, waited))

    def _is_cut_off(self, incarnation: int) -> bool:
        outbox = self._runtime.outbox(incarnation)
        if outbox is None:
            return False
        link = outbox.link
        # A connection that is only being made counts as up, so it is asked as well
        # whether the one that there was has broken.
        is_broken = link.state in (LinkState.BROKEN, LinkState.OPENING)
        return is_broken or link.connection > self._connections.get(incarnation, 1)

    def patience_s(self, until_s: float) -> float:
        """For how long who is cut off is given the chance to hear the end.

        Args:
            until_s: on the loop's clock, when the time of who asked for it is over.
        """
        runtime = self._runtime
        rest_s = max(until_s - runtime.loop.time(), ANSWER_S)
        return min(rest_s, runtime.config.node_timeout_s)

    def _submit(self, message: wire.Submit, buffers: Any, sender: int) -> None:
        worker = self._runtime.worker
        uid = message.tessera
        tessera = worker.tesserae.get(uid)
        options = self._closed.get(uid) if tessera is None else tessera.options
        if options is not None and self.state.refuses(message):
            # Who calls what is built again elsewhere waits for that.
            why = self.why if options.supervised is None else None
            worker.elsewhere.turn_away(message, sender, why, options)
        else:
            worker.submit(message, buffers, sender)

    def close(self) -> None:
        """All calls have ended, or had their time; from now on none runs."""
        tesserae = self._runtime.worker.tesserae
        self._closed = {uid: tessera.options for uid, tessera in tesserae.items()}
        self.state.closing = True

    def _create(self, message: wire.Create, buffers: Any, sender: int) -> None:
        # Of one that comes later its maker hears when this runtime has left.
        if not self.state.closing:
            self._take_create(message, buffers, sender)

    # -- handing on --------------------------------------------------------------------

    async def hand_on(self) -> int:
        """Give all that is held to another; its incarnation, 0 if there is none."""
        runtime = self._runtime
        heir = self._heir()
        outbox = runtime.outbox(heir)
        if outbox is None:
            return 0
        # With its node goes its warehouse, and with that all segments.
        shares = outbox.uid.split(":")[1] == runtime.uid.split(":")[1]
        worker = runtime.worker
        tasks = [task for task in worker.tasks.values() if task.settled]
        for task in chain(tasks, worker.archive.values()):
            self._give(outbox, task, shares)
        # Then who holds them: also those that the values above have mentioned.
        holders = worker.holders
        uids = [*(task.uid for task in tasks), *worker.archive]
        uids += [uid for uid in (*worker.tesserae, *worker.kept) if uid in holders]
        for first in range(0, len(uids), _COUNTS):
            some = uids[first : first + _COUNTS]
            counts = [(uid, holders.counted(uid)) for uid in some]
            granters = {granter for _, held in counts for _, granter, _ in held}
            outbox.send(wire.HeldBy(counts, holders.silent(granters)))
        outbox.send(wire.HeldBy([]))  # that was all
        limit_s = HAND_ON_S + sum(task.size for task in tasks) / SLOWEST_BYTES_PER_S
        try:
            async with asyncio.timeout(limit_s):
                await self._has_all
        except TimeoutError:
            logger.warning(
                "%s leaves, and what it kept is lost: %s did not take it in %.0f s",
                *(short(runtime.uid), short(outbox.uid), limit_s),
            )
            heir = 0
        # What others were getting from here before they knew of the heir.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while runtime.transfers.under_way:  # noqa: ASYNC110 -- no event tells it
                    await asyncio.sleep(LOOK_S)
        return heir

    def _heir(self) -> int:
        """A warehouse that stays: that of this host, else any; 0: there is none."""
        runtime = self._runtime
        found = runtime.leavers.open(runtime.of_kind("warehouse"))
        mine = runtime.uid.split(":")[1]
        found.sort(key=lambda m: m.uid.split(":")[1] != mine)
        return found[0].incarnation if found else 0

    @staticmethod
    def _give(outbox: Peer, task: Task, shares: bool) -> None:
        outcome = task.outcome
        if isinstance(outcome, wire.Failed):
            # Who asks the heir for what went elsewhere hears how it ended here.
            reason = wire.CANCELLED if outcome.reason == wire.MOVED else outcome.reason
            outbox.send(wire.Inherit(task.uid, reason, outcome.data))
            return
        message = wire.Inherit(task.uid, wire.NO_FAILURE, outcome.data, outcome.extra)
        payload = task.result
        if payload is not None and payload.shared is not None and not shares:
            message, payload = framed_message(message, payload)
        outbox.send(message, payload)

    def _on_inherited(self, message: wire.Inherited, buffers: Any, sender: int) -> None:
        if not self._has_all.done():
            self._has_all.set_result(None)
