"""F3: a worker stands still for longer than links wait, and goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from cells import Cell

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from program import Stage

STALL_S = 0.2  # of links; 5 s as they are shipped
FROZEN_S = 1.0


def freeze(stage: Stage, pid: int) -> None:
    """SIGSTOP now."""
    stage.fault()
    os.kill(pid, signal.SIGSTOP)


async def thaw_later(stage: Stage, pid: int, seconds: float) -> None:
    """Once links have taken for lost what was sent, and sent it again."""
    await asyncio.sleep(seconds)
    os.kill(pid, signal.SIGCONT)
    stage.healed()


def frozen(moment: str) -> Callable[[Stage], Awaitable[None]]:
    """It stands still for longer than links wait, and nobody is lost by that."""

    async def play(stage: Stage) -> None:
        await mosaic.gather(p.stall_after(STALL_S) for p in stage.probes())
        for peer in stage.runtime.peers.by_token.values():
            peer.link.stall_s = STALL_S
        pid = stage.first.pid
        gate = stage.gate()
        if moment == "m2":
            freeze(stage, pid)
        held = stage.call(stage.a, f"gate {gate}" if moment == "m3" else "")
        if moment != "m2":
            await stage.started(held)
        calls = stage.calls(stage.a, most=200)
        relayed = stage.relayed(stage.a, stage.rng.randint(1, 100))
        if moment == "m4":
            await stage.started(calls[0])
        elif moment == "m6":
            await stage.ended(calls[-1])
        elif moment == "m11":
            await mosaic.gather(made.task for made in (*calls, relayed))
        if moment != "m2":
            freeze(stage, pid)
        stage.calls(stage.b)
        await thaw_later(stage, pid, FROZEN_S * (0.5 + stage.rng.random()))
        stage.open(gate)
        await stage.settled()
        again = stage.calls(stage.a)
        await again[-1].task
        assert pid in [w.pid for w in stage.runtime.workers], "it was taken for dead"

    return play


CELLS = (
    Cell("F3", "m2", frozen("m2"), after_healing_s=5.0),
    Cell("F3", "m3", frozen("m3"), after_healing_s=5.0, in_ci=True),
    Cell("F3", "m4", frozen("m4"), after_healing_s=5.0),
    Cell("F3", "m6", frozen("m6"), after_healing_s=5.0),
    Cell("F3", "m11", frozen("m11"), after_healing_s=5.0),
)
