"""A worker: it owns tesserae and runs their methods, until it ends or leaves.

What its process is made of, of which it knows nothing, is in ``worker_process``; where
its output goes, in ``printing``; how what lives in it is ended, in ``closing``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from .. import ids
from ..comms import messages as wire
from ..config import Config
from ..core import verdicts
from ..core.limits import Orphaned
from ..core.reach import is_near
from ..core.silence import Presence, fence_s
from ..errors import MonitorLost, Verdict
from ..ids import MRUN, short
from ..text import printable
from . import orders
from .checkpoints import Checkpoints
from .closing import Closing
from .departing import ANSWER_S, HAND_ON_S, Departing
from .executor import CLOSE_TIMEOUT_S
from .journal import Journal, paths
from .port import Built, Outcome
from .printing import EXIT_S, Printing
from .reports import RunningReports
from .saying import say
from .standstill import Standstill
from .watchdog import Watchdog

if TYPE_CHECKING:
    from ..core.call import Call
    from ..core.task import Task
    from ..core.tessera import Tessera
    from .peer import Peer
    from .spec import Spec

logger = logging.getLogger(__name__)

HURRY_S = 1.0  # that running calls have when the program has died
REST_S = 0.02  # between two looks at all tasks, while it leaves


class Worker(Printing):
    """Owns tesserae; see ActorRuntime."""

    main_thread = True

    def __init__(self, loop: asyncio.AbstractEventLoop, spec: Spec) -> None:
        journal = Journal.create(paths(spec.directory, os.getpid())[0])
        super().__init__(loop, Config.from_bytes(spec.config), journal)
        self._spec = spec
        self._ended_some = asyncio.Event()  # calls, while somebody looks
        self._looks_at_ends = False
        self._leave_at = math.inf  # when what has not ended is cancelled
        self._leave_s = math.inf  # the time that it was given, for people
        self._leaving: asyncio.Task[None] | None = None
        self._terminated = 0  # how often it got SIGTERM
        self._reports = RunningReports(self.executor.running, self._report)
        self._closing = Closing(self)
        self.beats = 0  # of the loop's timer
        self._recycling: asyncio.Task[None] | None = None
        path = orders.path_of(spec.directory, os.getpid())
        self.executor.interrupts.orders = lambda: orders.read(path)
        self.checkpoints = Checkpoints(self, spec.directory, spec.monitor_token)
        self.handlers[wire.Save] = self._on_save
        self._saving: set[asyncio.Task[None]] = set()
        self._standstill = Standstill(self)

    async def start(self) -> None:
        """Join the cluster."""
        spec = self._spec
        self.bind(f"ipc://{spec.directory}/w{os.getpid()}", spec.network)
        kind = spec.uid.partition(":")[0]
        await self.join(kind, spec.monitor_address, spec.monitor_token, spec.uid)
        Watchdog(  # as long as this process lives
            threading.get_ident(),
            self.executor.codes,
            lambda: self.peers.ticking,
            lambda: self.beats,
            self.post,
        )

    def on_tick(self) -> bool:
        more = super().on_tick()
        self.beats += 1
        self.executor.main.look_after_signal()
        if self._reports.look(self.loop.time()):
            self._standstill.arm()
            return True
        return more

    # -- the end -----------------------------------------------------------------------

    def recycle(self, why: str) -> None:
        """End this process at once, with all that it has; its node starts another."""
        if not self.stopping and self._recycling is None:
            self._recycling = self.loop.create_task(self._recycle(why))

    async def _recycle(self, why: str) -> None:
        # First the ends of the calls: nothing is heard of it once it is lost.
        await self.flushed(EXIT_S, "head", "worker", "helper")
        with contextlib.suppress(MonitorLost):
            self.monitor.send(wire.Exited(self.uid, self.me.pid, why))
        await self.flushed(EXIT_S, "monitor")
        os.kill(os.getpid(), signal.SIGKILL)

    def on_stop(self, message: wire.Stop, buffers: Any, sender: int) -> None:
        if not self.stopping:
            self.stopping = self._looks_at_ends = True
            if self._leaving is not None:
                self._leaving.cancel()
            # Before all that may hold the loop: the node wants to know who can answer.
            self.loop.call_soon(self._acknowledge, sender)
            if message.orphaned:
                self._closing.why = Orphaned(printable(message.why))
            if message.hurry:
                self._closing.running_s = min(HURRY_S, self._closing.running_s)
            self._stopping = self.loop.create_task(self._stop())

    def _refuse(self, call: Call) -> None:
        # By a method that runs on while all stops; what it raises may be its outcome.
        why = self._closing.why
        if isinstance(why, Orphaned):
            raise MonitorLost(
                f"{call.name} was not sent: {why}, and its cluster ends with "
                "it; run the program again",
                "monitor",
                Verdict.NOT_STARTED,
                why,
            )
        raise RuntimeError(f"{call.name} was not sent: {why}")

    def _acknowledge(self, sender: int) -> None:
        outbox = self.outbox(sender)
        if outbox is not None:
            outbox.acknowledge()

    async def _stop(self) -> None:
        lines: list[str] = []
        try:
            lines = await self._closing.all()
        except Exception:
            logger.exception("%s: while stopping", self.uid)
        self.checkpoints.clear()
        self._say_last(lines)
        await self.flushed(0.5, "node", "head", MRUN)
        self.ended.set_result(None)

    def _say_last(self, lines: list[str]) -> None:
        """All is closed: what was printed, and to the node what could not be closed."""
        self.finish_output()
        if self.node is not None:
            self.node.send(wire.Stopped(lines))

    # -- its node ----------------------------------------------------------------------

    @property
    def node(self) -> Peer | None:
        """To send to the node that has started it; None: it is lost."""
        uid = f"node:{self._index}"
        found = (m.incarnation for m in self.of_kind("node") if m.uid == uid)
        return self.outbox(next(found, 0))

    def member_joined(self, member: wire.Member) -> None:
        super().member_joined(member)
        monitor = self.members.get(ids.MONITOR_INCARNATION)
        if monitor is None or member.uid != f"node:{self._index}":
            return
        # A near monitor kills a node that stands still, and so its workers.
        if not is_near(self.me, monitor):
            self.presence.follow(member, self._silence_s)
        elif self.config.worker_timeout is not None:
            self.presence.follow(member, math.inf)  # which is to hear this worker

    @property
    def _silence_s(self) -> float:
        """After which its node is lost, and this worker is to have ended."""
        limit_s = self.config.node_timeout_s
        return limit_s - fence_s(limit_s)

    def presence_changed(self, member: wire.Member, presence: Presence) -> None:
        """Its node is silent: others take both for lost soon, so nothing may run."""
        if presence is Presence.SILENT and not self.stopping:
            say(
                f"{self.uid} has not heard {member.uid} for {self._silence_s:g} s, and "
                "ends itself: the others take it for lost"
            )
            os.kill(os.getpid(), signal.SIGKILL)

    # -- leaving -----------------------------------------------------------------------

    def terminate(self) -> None:
        """SIGTERM: leave in order; the second time at once, as far as that goes."""
        self._terminated += 1
        if self.stopping:
            return
        if not self.incarnation:
            os._exit(128 + signal.SIGTERM)  # it has nothing yet
        limit_s = self.config.drain_timeout_s if self._terminated == 1 else 0.0
        with contextlib.suppress(MonitorLost):  # then the node ends all of it
            self.monitor.send(wire.Drain(self.incarnation, limit_s, replace=True))

    def told_to_leave(self, message: wire.Leaving) -> None:
        if self.stopping:
            return
        if message.timeout_s is not None:
            leave_at = self.loop.time() + message.timeout_s
            if leave_at < self._leave_at:
                self._leave_at, self._leave_s = leave_at, message.timeout_s
        self._looks_at_ends = True
        self._ended_some.set()
        if self._leaving is None:
            self.departing = Departing(self, self._ended_some.set)
            self._leaving = self.loop.create_task(self._leave(self.departing))

    async def _leave(self, departing: Departing) -> None:
        """What is called here ends, all is closed and handed on, and so it ends."""
        how, left = "it was drained", wire.LEFT
        late = 0
        if not await self._all_ended(departing):
            late = sum(not task.settled for task in self.worker.tasks.values())
            late += len(self.worker.stopping.abandoned)
        if late:
            left = wire.LEFT_LATE
            how += (
                f", and {late} call{'s' * (late > 1)} that had not ended in "
                f"{self._leave_s:g} s {'were' if late > 1 else 'was'} cancelled"
            )
            self._closing.why = (
                f"{short(self.uid)} is being drained, and its calls had "
                f"{self._leave_s:g} s to end"
            )
        departing.close()
        tesserae = list(self.worker.tesserae.values())
        busy = await self._closing.end_calls(tesserae)
        # What is built again elsewhere goes on from here, and not from before: then a
        # checkpoint would wait for the call that runs, and let those behind it go on.
        saved = self.checkpoints.take_all(tesserae)
        if saved:
            deadline_s = self.loop.time() + CLOSE_TIMEOUT_S
            await self.until(lambda: all(task.settled for task in saved), deadline_s)
            # Calls that could not be interrupted may have ended, checkpoints may not.
            busy = await self._closing.end_calls(tesserae)
        started = self.executor.journal.remains()  # what closes takes its marks away
        lines = await self._closing.close(tesserae, busy)
        heir = await departing.hand_on()
        self.stopping = True
        self._say_last(lines)
        all_know = await self.flushed(
            *(HAND_ON_S, "head", "worker", "helper", "warehouse", "node"),
            broken_s=departing.patience_s(self._leave_at),
        )
        # Who has not heard how its calls ended would take them for not started.
        all_know = all_know and not self.restarts.untold
        remains = b"" if all_know else verdicts.encode(verdicts.of_leaver(started))
        with contextlib.suppress(MonitorLost):
            exited = wire.Exited(self.uid, self.me.pid, how, remains, left, heir)
            self.monitor.send(exited)
        await self.flushed(ANSWER_S, "monitor", broken_s=ANSWER_S)
        self.ended.set_result(None)

    async def _all_ended(self, departing: Departing) -> bool:
        """Wait until nothing runs or waits here; False: its time is over."""
        while not self._at_rest(departing):
            self._ended_some.clear()
            now_s = self.loop.time()
            if now_s >= self._leave_at:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self._leave_at - now_s, ANSWER_S)):
                    await self._ended_some.wait()
            await asyncio.sleep(REST_S)
        return True

    def _at_rest(self, departing: Departing) -> bool:
        if not departing.has_heard_all:
            return False
        worker = self.worker
        return (
            all(task.settled for task in worker.tasks.values())
            and not worker.stopping.abandoned
            and not self.placing.any_held()
        )

    @property
    def _index(self) -> str:
        return self.uid.split(":")[1]

    async def until(self, condition: Any, deadline_s: float) -> bool:
        """Wait for what only the end of some call can bring; False if it is late."""
        while not condition():
            self._ended_some.clear()
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._ended_some.wait()
            except TimeoutError:
                return bool(condition())
        return True

    def _ended(self, task: Task, outcome: Outcome) -> None:
        built = type(outcome) is Built and task.tessera.options.supervised is not None
        if built:
            self.checkpoints.building(task)
        super()._ended(task, outcome)
        if built:
            self.checkpoints.built(task.tessera)
        self._ended_some.set()

    def _on_save(self, message: wire.Save, buffers: Any, sender: int) -> None:
        from .saving import answer  # of use to few jobs, and once

        self._looks_at_ends = True
        saving = self.loop.create_task(answer(self, sender))
        self._saving.add(saving)
        saving.add_done_callback(self._saving.discard)

    def checkpoint(self, task: Task) -> None:
        self.checkpoints.take(task)

    def restore(self, task: Task, instance: Any) -> None:
        self.checkpoints.restore(task, instance)

    def tessera_gone(self, tessera: Tessera) -> None:
        super().tessera_gone(tessera)
        if tessera.options.supervised is not None:
            self.checkpoints.gone(tessera)
            self.restarts.retired.pop(tessera.uid, None)
        self._ended_some.set()

    def _drain(self) -> None:
        super()._drain()
        if self._looks_at_ends:
            self._ended_some.set()
        if self.printed:  # not in Printing: that would be a call more for each batch
            self._send_some()

    def delivered(self) -> None:
        super().delivered()
        if self._looks_at_ends:
            self._ended_some.set()
