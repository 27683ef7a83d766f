"""What runs while something goes wrong: callers, and what is expected of each call.

A ``Stage`` is one run: a cluster of two workers, an actor on each, a relay on the
second that calls the first, and a history of all. The seed chooses how many calls there
are and what they do. Which faults there are stands in ``faults``; what is wrong,
``checker`` says.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors import Actor, Probe, Relay, tables, watch
from checker import Rules
from history import Event, Outcome, Reader, Writer

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

EVERY_STREAM = range(1 << 16)
LIMIT_S = 60.0  # of a run; nothing in it may wait for ever
TABLES_S = 10.0  # until tables are as before
VALUE = (Outcome.VALUE,)


class Made:
    """A call of a run."""

    def __init__(self, task: Any, stream: int, number: int) -> None:
        self.task = task
        self.call = stream, number
        self.gate = ""  # that it waits for


class Stage:
    """One run of a cell.

    Args:
        folder: for the history and the gates; nothing else is there.
        seed: of all that is chosen.
        slack: how many times longer bounds are here than on a quiet machine.
    """

    def __init__(self, folder: str, seed: int, slack: float = 1.0) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.log = Writer(folder)
        self.history = Reader(folder)
        self.slack = slack
        self.left: list[str] = []
        self.expected: dict[tuple[int, int], Collection[Outcome]] = {}
        self.repeatable: set[tuple[int, int]] = set()
        self.unheard: Collection[int] = set()  # streams of callers that are ended
        self.runtime: Any = None
        self.relays: set[int] = set()  # streams from the second worker
        self.more: list[Any] = []  # actors of the cell
        self._streams = itertools.count(1)
        self._of_actor: dict[int, int] = {}
        self._numbers: dict[int, int] = defaultdict(int)
        self._watching: list[asyncio.Future[None]] = []
        self._gates = itertools.count(1)

    # -- the cluster -------------------------------------------------------------------

    def run(self, main: Callable[[Stage], Awaitable[None]], **options: Any) -> None:
        """Run this with actors in a cluster, and see that nothing of it stays."""

        async def bounded(runtime: Any) -> None:
            self.runtime = runtime
            async with asyncio.timeout(LIMIT_S):
                await self._with_actors(main)

        mosaic.run(bounded, **{"num_workers": 2, **options})

    async def _with_actors(self, main: Callable[[Stage], Awaitable[None]]) -> None:
        self.first, self.second, *_ = self.runtime.workers
        before = await self._tables()
        self.make_actors()
        # Links and places are there before anything goes wrong.
        await mosaic.gather(x.pid() for x in (self.a, self.b, self.relay))
        await main(self)
        await self.settled()
        del self.a, self.b, self.relay
        self.more.clear()
        if not self.runtime.cluster_lost:
            await self._same_tables(before)

    def make_actors(self) -> None:
        """``a`` on the first worker; ``b`` and ``relay`` on the second."""
        self.a = mosaic.remote(Actor, runtime=self.first)(self.folder)
        self.b = mosaic.remote(Actor, runtime=self.second)(self.folder)
        self.relay = mosaic.remote(Relay, runtime=self.second)(self.folder)

    async def _tables(self) -> dict[str, dict[str, int]]:
        await self.runtime.wait_for_workers(2, 20)
        found = {}
        for worker in self.runtime.workers:
            probe = mosaic.remote(Probe, runtime=worker)()
            found[worker.uid] = await probe.tables().result()
            del probe
        gc.collect()
        return found | {"head": tables(self.runtime)}

    async def _same_tables(self, before: dict[str, dict[str, int]]) -> None:
        deadline_s = time.monotonic() + TABLES_S
        while True:
            after = await self._tables()
            grown = [
                f"{name} of {uid}: {size}, and {before[uid][name]} before"
                for uid, found in after.items()
                for name, size in found.items()
                if size != before[uid][name]
            ]
            if not grown or time.monotonic() > deadline_s:
                self.left += grown
                return
            await asyncio.sleep(0.05)  # releases go with what is sent later

    def probes(self) -> list[Any]:
        """One in each worker."""
        return [mosaic.remote(Probe, runtime=w)() for w in self.runtime.workers]

    def pid_of(self, kind: str) -> int:
        """Of the monitor or the node."""
        (member,) = self.runtime.of_kind(kind)
        return int(member.pid)

    # -- calls -------------------------------------------------------------------------

    def call(
        self,
        actor: Any,
        *args: Any,
        method: str = "run",
        expect: Iterable[Outcome] = VALUE,
        **options: Any,
    ) -> Made:
        """Call, note it, and note how it ends.

        Args:
            actor: on which; each has one stream from here.
            args: after stream and number.
            method: of the actor.
            expect: how it may end.
            options: of the call.
        """
        stream = self._of_actor.get(hash(actor))  # it must not be kept alive by this
        if stream is None:
            stream = self._of_actor[hash(actor)] = next(self._streams)
        number = self._numbers[stream]
        self._numbers[stream] += 1
        outcomes = self.expected[stream, number] = tuple(expect)
        remote = getattr(actor, method)
        if options:
            remote = remote.options(**options)
        self.log.note(Event.SUBMITTED, stream, number)
        task = remote(stream, number, *args)
        watching = watch(task, self.log, stream, number, outcomes)
        self._watching.append(asyncio.ensure_future(watching))
        return Made(task, stream, number)

    def calls(
        self, actor: Any, expect: Iterable[Outcome] = VALUE, most: int = 40
    ) -> list[Made]:
        """Some calls, chosen by the seed."""
        outcomes = tuple(expect)
        made = []
        for _ in range(self.rng.randint(1, most)):
            if self.rng.random() < 0.2:
                made.append(self.call(actor, method="arun", expect=outcomes))
            elif self.rng.random() < 0.1:
                size = self.rng.choice((1, 70_000, 300_000))
                made.append(self.call(actor, "", size, expect=outcomes))
            else:
                made.append(self.call(actor, expect=outcomes))
        return made

    def relayed(
        self,
        other: Any,
        count: int,
        expect: Iterable[Outcome] = VALUE,
        relay: Any = None,
    ) -> Made:
        """Let a relay call another actor so often."""
        stream = next(self._streams)
        outcomes = tuple(expect)
        self.expected.update({(stream, number): outcomes for number in range(count)})
        caller = self.relay if relay is None else relay
        task = caller.relay(stream, count, other)
        self.relays.add(stream)
        self._watching.append(asyncio.ensure_future(task.result()))
        return Made(task, stream, 0)

    def gate(self) -> str:
        """A name for what holds a method until it is opened."""
        return f"gate{next(self._gates)}"

    def open(self, gate: str) -> None:
        Path(self.folder, gate).touch()

    # -- moments -----------------------------------------------------------------------

    async def started(self, *made: Made) -> None:
        """These have started, as the actor says."""
        for one in made:
            await self._until(Event.STARTED, one)

    async def ended(self, *made: Made) -> None:
        for one in made:
            await self._until(Event.ENDED, one)

    def wait_ended(self, *made: Made) -> None:
        """The same while the loop stands still."""
        for one in made:
            self.history.wait(
                lambda call=one.call: bool(self.history.count(Event.ENDED, call)),  # type: ignore[misc]  # bound now
                f"ENDED of call {one.call}",
            )

    async def _until(self, event: Event, made: Made) -> None:
        await self.history.until(
            lambda: bool(self.history.count(event, made.call)),
            f"{event.name} of call {made.call}",
        )

    async def delivered(self, worker: Any) -> None:
        """All that was sent to it from here has been acknowledged."""
        (member,) = [m for m in self.runtime.of_kind("worker") if m.pid == worker.pid]
        peer = self.runtime.outbox(member.incarnation)
        await self.history.until(
            lambda: not peer.link.unacknowledged, f"acknowledgement of {worker.uid}"
        )

    async def jitter(self, most_s: float = 0.02) -> None:
        """The moment within the moment, by the seed."""
        await asyncio.sleep(self.rng.random() * most_s)

    async def replaced(self) -> Any:
        """The worker that has come for the first one, which was lost."""
        found: list[Any] = []

        def here() -> bool:
            uid, pid = self.first.uid, self.first.pid
            workers = self.runtime.workers
            found[:] = [w for w in workers if w.uid == uid and w.pid != pid]
            return bool(found)

        await self.history.until(here, "worker in the place of the first")
        return found[0]

    def fault(self) -> None:
        """Note that it happens now."""
        self.log.note(Event.FAULT)

    def healed(self) -> None:
        """Note that it is over."""
        self.log.note(Event.HEALED)

    async def settled(self) -> None:
        """Every call from here has ended; one that has not is left to the checker."""
        if self._watching:
            _, hang = await asyncio.wait(self._watching, timeout=15)
            for watching in hang:
                watching.cancel()
            await asyncio.gather(*self._watching, return_exceptions=True)
        self._watching.clear()

    def ended_within(self, bound_s: float) -> None:
        """All of it has ended now: not too long after the fault, if there was one."""
        faults = [r.time_s for r in self.history.records() if r.event is Event.FAULT]
        if not faults:
            self.left.append("the fault that did not come")
            return
        taken_s = time.monotonic() - max(faults)
        if taken_s > bound_s * self.slack:
            self.left.append(f"it ended after {taken_s:.1f} s, at most {bound_s:g} s")

    def rules(self, bound_s: float, after_healing_s: float | None) -> Rules:
        """What is expected of this run."""
        healing_s = None if after_healing_s is None else after_healing_s * self.slack
        return Rules(
            bound_s * self.slack,
            self.expected,
            healing_s,
            self.repeatable,
            frozenset(self.unheard),
        )
