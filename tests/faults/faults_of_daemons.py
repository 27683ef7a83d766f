"""F4, F5, F7: the node stands still or is killed; the monitor is killed.

A cluster on one machine has one node and ends with it. Of nodes on other hosts, which
can be silent for too long, see ``faults_of_hosts``.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from cells import Cell
from faults_of_freezing import freeze, thaw_later
from faults_of_workers import ANY_LOSS
from history import Outcome as O

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


def killed(kind: str, moment: str) -> Callable[[Stage], Awaitable[None]]:
    """The cluster ends: every call ends too, and what is called later is told."""

    async def play(stage: Stage) -> None:
        await at(stage, moment, lost=True)
        stage.unheard = stage.relays  # the relay ends with the cluster
        stage.fault()
        os.kill(stage.pid_of(kind), signal.SIGKILL)
        await stage.settled()
        await stage.history.until(
            lambda: bool(stage.runtime.cluster_lost), "end of the cluster"
        )
        stage.calls(stage.a, MAY_BE_LOST, most=3)
        await stage.settled()

    return play


CELLS = (
    Cell("F4", "m3", node_frozen("m3"), after_healing_s=2.0, in_ci=True),
    Cell("F4", "m4", node_frozen("m4"), after_healing_s=2.0),
    Cell("F4", "m11", node_frozen("m11"), after_healing_s=2.0),
    Cell("F4", "worker-dies", killed_while_the_node_is_frozen, after_healing_s=2.0),
    *(
        Cell("F5", moment, killed("node", moment), 2.0, in_ci=moment == "m3")
        for moment in ("m3", "m4", "m7", "m11")
    ),
    *(
        Cell("F7", moment, killed("monitor", moment), 5.0, in_ci=moment == "m3")
        for moment in ("m3", "m4", "m11")
    ),
)
