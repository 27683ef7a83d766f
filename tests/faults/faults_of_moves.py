"""F1, F2, F20 where something moves: built again elsewhere, or drained."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

from actors import Actor, Ledger
from cells import Cell
from faults_of_workers import ANY_LOSS, kill
from history import Event
from history import Outcome as O

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from program import Stage


def restarted(*, idempotent: bool) -> Callable[[Stage], Awaitable[None]]:
    """m3, m4: what had not started moves over, in order, and runs once."""

    async def play(stage: Stage) -> None:
        made = mosaic.tessera(max_restarts=1, idempotent=idempotent)(Moving)
        moving = made.options(runtime=stage.first).remote(stage.folder)
        for one in stage.calls(moving):
            await one.task
        await stage.settled()
        gate = stage.gate()
        outcome = O.VALUE if idempotent else O.LOST_MAYBE_RAN
        running = stage.call(moving, f"gate {gate}", expect=(outcome,))
        if idempotent:
            stage.repeatable.add(running.call)
        await stage.started(running)
        stage.calls(moving)
        stage.relayed(moving, stage.rng.randint(1, 20))
        await stage.delivered(stage.first)
        await stage.jitter()
        kill(stage)
        stage.open(gate)  # for who runs it again
        stage.calls(moving)
        await stage.settled()
        await stage.replaced()

    return play


class Moving(Actor):
    """Built again where its worker is lost."""


async def killed_while_written_down(stage: Stage) -> None:
    """m9: it goes on with the new state or with the one before, and with no other."""
    ledger = Ledger.options(runtime=stage.first).remote(stage.folder)
    first = stage.rng.randint(1, 5)
    for _ in range(first):
        stage.call(ledger, method="add")
    await mosaic.checkpoint(ledger)
    second = stage.rng.randint(1, 5)
    for _ in range(second):
        stage.call(ledger, method="add")
    await stage.settled()
    writing = mosaic.checkpoint(ledger)
    await stage.jitter(0.1)
    kill(stage)
    with contextlib.suppress(mosaic.WorkerDied):
        await writing
    again = stage.call(ledger, method="add")
    total = await again.task.result()
    if total not in (first + 1, first + second + 1):
        stage.left.append(f"{total - 1} was restored, not {first} or {first + second}")
    await stage.replaced()


async def poisoned(stage: Stage) -> None:
    """m4: a call that has ended two workers is not given a third."""
    made = mosaic.tessera(max_restarts=5, idempotent=True)(Moving)
    moving = made.options(runtime=stage.first).remote(stage.folder)
    await stage.call(moving).task
    crashes = stage.call(moving, "crash", expect=(O.POISONED,))
    stage.repeatable.add(crashes.call)
    stage.calls(moving, (O.VALUE, O.POISONED, *ANY_LOSS))
    stage.calls(stage.b, (O.VALUE, *ANY_LOSS))  # it may be built again beside it
    stage.unheard = stage.relays
    await stage.settled()
    starts = stage.history.count(Event.STARTED, crashes.call)
    assert starts == 2, f"it ran {starts} times"
    await stage.runtime.wait_for_workers(2, 20)


async def drained(stage: Stage) -> None:
    """m3: what was called before runs; what is called later is refused."""
    gate = stage.gate()
    held = stage.call(stage.a, f"gate {gate}")
    await stage.started(held)
    stage.calls(stage.a)
    large = stage.call(stage.a, "", 300_000)
    # Of those from a worker some may come too late.
    stage.relayed(stage.a, stage.rng.randint(1, 20), (O.VALUE, O.LOST_NOT_STARTED))
    await stage.delivered(stage.first)
    draining = asyncio.ensure_future(stage.runtime.drain(stage.first, timeout=20))
    await stage.history.until(
        lambda: stage.first.uid not in [w.uid for w in stage.runtime.workers],
        "news that it is drained",
    )
    later = stage.call(stage.a, expect=(O.LOST_NOT_STARTED,))
    await later.task.exception()
    stage.calls(stage.b)
    stage.open(gate)
    await draining
    assert len(await large.task.result()) == 300_000
    assert stage.history.count(Event.CLOSED) == 1


async def killed_while_drained(stage: Stage) -> None:
    """m10: the drain says so, and calls end as with any death."""
    held = stage.call(stage.a, f"gate {stage.gate()}", expect=(O.LOST_MAYBE_RAN,))
    await stage.started(held)
    stage.calls(stage.a, (O.LOST_NOT_STARTED,))
    await stage.delivered(stage.first)
    draining = asyncio.ensure_future(stage.runtime.drain(stage.first, timeout=20))
    await stage.jitter(0.1)
    kill(stage)
    with contextlib.suppress(mosaic.WorkerDied):
        await draining
        stage.left.append("the drain does not say that its worker died")
    await stage.settled()


async def told_to_end(stage: Stage) -> None:
    """m3: a worker that gets SIGTERM is drained, and replaced."""
    gate = stage.gate()
    held = stage.call(stage.a, f"gate {gate}")
    await stage.started(held)
    stage.calls(stage.a)
    await stage.delivered(stage.first)
    os.kill(stage.first.pid, signal.SIGTERM)
    stage.calls(stage.b)
    stage.open(gate)
    await stage.settled()
    await stage.replaced()
    assert stage.history.count(Event.CLOSED) == 1


async def told_to_end_while_written_down(stage: Stage) -> None:
    """m9: it is saved once more when it leaves, and goes on with all of that."""
    ledger = Ledger.options(runtime=stage.first).remote(stage.folder)
    for _ in range(count := stage.rng.randint(1, 5)):
        stage.call(ledger, method="add")
    await stage.settled()
    writing = mosaic.checkpoint(ledger)
    await stage.jitter(0.1)
    os.kill(stage.first.pid, signal.SIGTERM)
    stage.calls(stage.b)
    await stage.replaced()
    total = await stage.call(ledger, method="add").task.result()
    if total != count + 1:
        stage.left.append(f"{total - 1} was restored, not {count}")
    with contextlib.suppress(mosaic.RuntimeDisconnectedError):
        await writing


THREE = (("num_workers", 3),)

CELLS = (
    Cell("F1", "m9", killed_while_written_down),
    Cell("F1", "restart", restarted(idempotent=False)),
    Cell("F1", "restart-again", restarted(idempotent=True)),
    Cell("F2", "poison", poisoned),
    Cell("F20", "drain", drained, options=THREE),
    Cell("F20", "drain-killed", killed_while_drained, options=THREE),
    Cell("F20", "drain-term", told_to_end),
    Cell("F20", "m9", told_to_end_while_written_down),
)
