"""F4, F5, F7: the node stands still or is killed; the monitor is killed.

A cluster on one machine has one node and ends with it. Of nodes on other hosts, which
can be silent for too long, see ``faults_of_hosts``.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

from actors import Ledger
from cells import Cell
from faults_of_freezing import freeze, thaw_later
from faults_of_workers import (
    ANY_LOSS,
    children,
    ended_and_not_told,
    kill,
    killed_in_close,
)
from history import Outcome as O

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from program import Made, Stage

MAY_BE_LOST = (O.VALUE, *ANY_LOSS)


async def at(stage: Stage, moment: str, *, lost: bool) -> Made:
    """Calls of all kinds up to the moment; the first is held by the gate."""
    outcomes = MAY_BE_LOST if lost else (O.VALUE,)
    gate = stage.gate()
    held = stage.call(stage.a, f"gate {gate}", expect=outcomes)
    await stage.started(held)
    stage.calls(stage.b, outcomes)
    if moment == "m3":
        stage.calls(stage.a, outcomes)
        stage.relayed(stage.a, stage.rng.randint(1, 20), outcomes)
        await stage.delivered(stage.first)
    elif moment == "m7":
        size = 64 << 20
        large = stage.call(stage.b, "", size, expect=outcomes)
        await large.task
    elif moment == "m11":
        stage.open(gate)
        await stage.settled()
    await stage.jitter()
    held.gate = gate
    return held


def node_frozen(moment: str) -> Callable[[Stage], Awaitable[None]]:
    """It stands still for a moment: nobody notices."""

    async def play(stage: Stage) -> None:
        held = await at(stage, moment, lost=False)
        pid = stage.pid_of("node")
        freeze(stage, pid)
        stage.calls(stage.a)
        stage.calls(stage.b)
        await thaw_later(stage, pid, 0.5 + stage.rng.random())
        stage.open(held.gate)
        await stage.settled()
        assert stage.pid_of("node") == pid

    return play


async def killed_while_the_node_is_frozen(stage: Stage) -> None:
    """A worker dies meanwhile: it is told as soon as the node can."""
    gate = stage.gate()
    held = stage.call(stage.a, f"gate {gate}", expect=(O.LOST_MAYBE_RAN,))
    await stage.started(held)
    stage.calls(stage.a, (O.LOST_NOT_STARTED,))
    await stage.delivered(stage.first)
    node = stage.pid_of("node")
    os.kill(node, signal.SIGSTOP)
    os.kill(stage.first.pid, signal.SIGKILL)
    stage.calls(stage.b)
    await asyncio.sleep(0.2 * stage.rng.random())
    stage.fault()  # for the bound: nobody could know earlier
    os.kill(node, signal.SIGCONT)
    stage.healed()
    await stage.settled()
    await stage.replaced()


async def joining(stage: Stage) -> None:
    """m1: a worker has ended, and the one that takes its place says its hello."""
    stage.calls(stage.b, MAY_BE_LOST)
    server = stage.runtime.hold.cluster._server.pid
    before = children(server)
    kill(stage)
    await stage.history.until(lambda: bool(children(server) - before), "new worker")


async def before_delivery(stage: Stage) -> None:
    """m2: the worker stands still, and is sent calls."""
    os.kill(stage.first.pid, signal.SIGSTOP)
    stage.calls(stage.a, ANY_LOSS)
    stage.calls(stage.b, MAY_BE_LOST)
    await stage.jitter()


async def before_the_reply(stage: Stage) -> None:
    """m5: a method has ended while a coroutine keeps the loop from saying so."""
    await ended_and_not_told(stage, stage.a, ANY_LOSS, ANY_LOSS)


async def replies_under_way(stage: Stage) -> None:
    """m6: this loop stands still from before the ends until after the death."""
    calls = stage.calls(stage.a, MAY_BE_LOST)
    stage.runtime.peers.flush_all()
    stage.wait_ended(*calls)


async def proxies_under_way(stage: Stage) -> None:
    """m8: a proxy and a result are on their way to who stands still."""
    result = stage.call(stage.a, "", 300_000, expect=MAY_BE_LOST)
    os.kill(stage.second.pid, signal.SIGSTOP)
    stage.call(stage.b, [stage.a], method="keep", expect=ANY_LOSS)
    may_fail = (*ANY_LOSS, O.UPSTREAM)
    stage.call(stage.b, "", 0, result.task, expect=may_fail)
    stage.runtime.peers.flush_all()
    await stage.jitter()


async def written_down(stage: Stage) -> None:
    """m9: a checkpoint of 32 MiB is on its way to the disk."""
    ledger = Ledger.options(runtime=stage.first).remote(stage.folder)
    await stage.call(ledger, method="add").task
    await stage.settled()
    stage.more.append(mosaic.checkpoint(ledger))
    stage.call(ledger, method="add", expect=MAY_BE_LOST)
    await stage.jitter(0.1)


def killed_when(
    kind: str, scene: Callable[[Stage], Awaitable[Any]]
) -> Callable[[Stage], Awaitable[None]]:
    """The cluster ends: every call ends too, and what is called later is told."""

    async def play(stage: Stage) -> None:
        await scene(stage)
        stage.unheard = stage.relays  # the relay ends with the cluster
        stage.fault()
        os.kill(stage.pid_of(kind), signal.SIGKILL)
        await stage.settled()
        await stage.history.until(
            lambda: bool(stage.runtime.cluster_lost), "end of the cluster"
        )
        stage.calls(stage.a, MAY_BE_LOST, most=3)
        await stage.settled()
        await asyncio.gather(
            *(x.exception() for x in stage.more if isinstance(x, mosaic.TaskProxy))
        )

    return play


def killed(kind: str, moment: str) -> Callable[[Stage], Awaitable[None]]:
    """The same while calls of all kinds are under way."""
    return killed_when(kind, lambda stage: at(stage, moment, lost=True))


def node_killed_while_all_stops(stage: Stage) -> None:
    """m10: in the middle of ``__close__``, which ends with it; all is over soon."""
    killed_in_close(stage, lambda runtime: runtime.of_kind("node")[0].pid)


CELLS = (
    Cell("F4", "m3", node_frozen("m3"), after_healing_s=2.0, in_ci=True),
    Cell("F4", "m4", node_frozen("m4"), after_healing_s=2.0),
    Cell("F4", "m11", node_frozen("m11"), after_healing_s=2.0),
    Cell("F4", "worker-dies", killed_while_the_node_is_frozen, after_healing_s=2.0),
    *(
        Cell("F5", moment, killed("node", moment), 2.0, in_ci=moment == "m3")
        for moment in ("m3", "m4", "m7", "m11")
    ),
    Cell("F5", "m1", killed_when("node", joining), 2.0),
    Cell("F5", "m2", killed_when("node", before_delivery), 2.0),
    Cell("F5", "m5", killed_when("node", before_the_reply), 2.0),
    Cell("F5", "m6", killed_when("node", replies_under_way), 2.0),
    Cell("F5", "m8", killed_when("node", proxies_under_way), 2.0),
    Cell("F5", "m9", killed_when("node", written_down), 2.0),
    Cell("F5", "m10", node_killed_while_all_stops),
    *(
        Cell("F7", moment, killed("monitor", moment), 5.0, in_ci=moment == "m3")
        for moment in ("m3", "m4", "m11")
    ),
)
