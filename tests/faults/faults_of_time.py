"""F18, F19: calls are cancelled, or their time is over, at each moment; clocks jump."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

from cells import Cell
from faults_of_workers import ended_and_not_told
from history import Event
from history import Outcome as O

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from program import Made, Stage

CANCELLED = (O.CANCELLED_NOT_STARTED, O.CANCELLED_RUNNING)
LATE = (O.LATE_NOT_STARTED, O.LATE_RUNNING)
TIME_S = 0.3  # that a call has
LARGE = 64 << 20  # bytes


def cancel(stage: Stage, *made: Made) -> None:
    stage.fault()
    for one in made:
        one.task.cancel()


async def same_worker(stage: Stage) -> None:
    """It was not ended by that, and takes calls."""
    for made in stage.calls(stage.a, most=5):
        await made.task
    assert stage.first.pid in [w.pid for w in stage.runtime.workers], "it was ended"


async def cancelled_before_delivery(stage: Stage) -> None:
    """m2: their worker stands still; who cancels is told in time all the same."""
    os.kill(stage.first.pid, signal.SIGSTOP)
    calls = stage.calls(stage.a, CANCELLED)
    cancel(stage, *calls)
    await stage.settled()
    os.kill(stage.first.pid, signal.SIGCONT)
    await same_worker(stage)


async def cancelled_at_once(stage: Stage) -> None:
    """m2: the order to stop goes with the call."""
    calls = stage.calls(stage.a, (O.VALUE, *CANCELLED))
    cancel(stage, *calls)
    await stage.settled()
    await same_worker(stage)


async def cancelled_in_the_queue(stage: Stage) -> None:
    """m3: some of those that wait; the others run, in order."""
    gate = stage.gate()
    held = stage.call(stage.a, f"gate {gate}")
    await stage.started(held)
    doomed = []
    for _ in range(stage.rng.randint(1, 5)):
        stage.calls(stage.a, most=10)
        doomed += stage.calls(stage.a, (O.CANCELLED_NOT_STARTED,), most=10)
    await stage.delivered(stage.first)
    cancel(stage, *doomed)
    for one in doomed:
        await one.task.exception()
    stage.open(gate)
    await stage.settled()
    await same_worker(stage)


def cancelled_while_running(do: str) -> Callable[[Stage], Awaitable[None]]:
    """m4: by an exception in the method, or in the coroutine."""

    async def play(stage: Stage) -> None:
        if do:
            running = stage.call(stage.a, do, expect=(O.CANCELLED_RUNNING,))
        else:
            running = stage.call(
                stage.a, "never", method="arun", expect=(O.CANCELLED_RUNNING,)
            )
        stage.calls(stage.a)
        await stage.started(running)
        await stage.jitter()
        cancel(stage, running)
        await stage.settled()
        await same_worker(stage)

    return play


async def cancelled_before_the_reply(stage: Stage) -> None:
    """m5: it ran; who cancels is told in time all the same."""
    running = await ended_and_not_told(stage, stage.a, (O.VALUE, O.CANCELLED_RUNNING))
    stage.calls(stage.a)
    cancel(stage, running)
    await running.task.exception()
    stage.open(running.gate)
    await stage.settled()
    await same_worker(stage)


async def cancelled_while_pulled(stage: Stage) -> None:
    """m7: it has ended, and what it gave stays whole; who waits for that may end."""
    large = stage.call(stage.a, "", LARGE)
    await large.task
    used = stage.call(stage.b, "", 0, large.task, expect=(O.VALUE, *CANCELLED))
    await stage.jitter(0.05)
    cancel(stage, large, used)
    assert len(await large.task.result()) == LARGE
    await stage.settled()
    await same_worker(stage)


async def cancelled_when_it_has_ended(stage: Stage) -> None:
    """m6: the answer is on its way; either may win, never both."""
    calls = stage.calls(stage.a, (O.VALUE, O.CANCELLED_RUNNING))
    stage.runtime.peers.flush_all()
    stage.wait_ended(*calls)
    cancel(stage, *calls)
    await stage.settled()
    await same_worker(stage)


async def cancelled_as_an_argument(stage: Stage) -> None:
    """m8: what waits for it on another worker is cancelled with it, and never runs."""
    gate = stage.gate()
    running = stage.call(stage.a, f"gate {gate}", expect=(O.CANCELLED_RUNNING,))
    await stage.started(running)
    stage.call(stage.b, "", 0, running.task, expect=(O.CANCELLED_NOT_STARTED,))
    await stage.delivered(stage.second)
    cancel(stage, running)
    await stage.settled()
    await same_worker(stage)


# -- F19 -------------------------------------------------------------------------------


async def late_before_delivery(stage: Stage) -> None:
    """m2: their worker stands still past the time."""
    os.kill(stage.first.pid, signal.SIGSTOP)
    for _ in range(stage.rng.randint(1, 20)):
        stage.call(stage.a, expect=LATE, timeout=TIME_S)
    stage.fault()
    await stage.settled()
    os.kill(stage.first.pid, signal.SIGCONT)
    await same_worker(stage)


async def late_in_the_queue(stage: Stage) -> None:
    """m3: none of them starts, though the way is free later."""
    gate = stage.gate()
    held = stage.call(stage.a, f"gate {gate}")
    await stage.started(held)
    late = [
        stage.call(stage.a, expect=(O.LATE_NOT_STARTED,), timeout=TIME_S)
        for _ in range(stage.rng.randint(1, 20))
    ]
    stage.calls(stage.a)
    stage.fault()
    for one in late:
        await one.task.exception()
    stage.open(gate)
    await stage.settled()
    await same_worker(stage)


def late_while_running(do: str) -> Callable[[Stage], Awaitable[None]]:
    """m4: it is stopped, and those behind it run."""

    async def play(stage: Stage) -> None:
        expect = (O.LATE_RUNNING,)
        if do:
            running = stage.call(stage.a, do, expect=expect, timeout=TIME_S)
        else:
            running = stage.call(
                stage.a, "never", method="arun", expect=expect, timeout=TIME_S
            )
        stage.calls(stage.a)
        stage.fault()
        await stage.started(running)
        await stage.settled()
        await same_worker(stage)

    return play


async def late_before_the_reply(stage: Stage) -> None:
    """m5: it ran in time; who is not told so in time is told something else."""
    expect = (O.VALUE, O.LATE_RUNNING)
    running = await ended_and_not_told(stage, stage.a, expect, timeout=10 * TIME_S)
    stage.calls(stage.a)
    stage.fault()
    await running.task.exception()
    stage.open(running.gate)
    await stage.settled()
    await same_worker(stage)


async def late_when_it_has_ended(stage: Stage) -> None:
    """m6: this loop stands still until the time is over; the answers are here."""
    expect = (O.VALUE, O.LATE_RUNNING)
    calls = [
        stage.call(stage.a, expect=expect, timeout=10 * TIME_S)
        for _ in range(stage.rng.randint(1, 20))
    ]
    stage.runtime.peers.flush_all()
    stage.wait_ended(*calls)
    stage.fault()
    time.sleep(10 * TIME_S)  # noqa: ASYNC251 -- the loop stands still
    await stage.settled()
    await same_worker(stage)


async def late_while_pulled(stage: Stage) -> None:
    """m7: it ended in time; to bring what it gave takes as long as it takes."""
    large = stage.call(stage.a, "", LARGE, timeout=10 * TIME_S)
    await large.task
    os.kill(stage.first.pid, signal.SIGSTOP)
    stage.fault()
    await asyncio.sleep(10 * TIME_S)
    os.kill(stage.first.pid, signal.SIGCONT)
    assert len(await large.task.result()) == LARGE
    await stage.settled()
    await same_worker(stage)


def clock_jumps(seconds: float) -> Callable[[Stage], Awaitable[None]]:
    """Wall clocks jump everywhere: nothing is late by that, or lasts longer."""

    async def play(stage: Stage) -> None:
        probes = stage.probes()
        await mosaic.gather(p.tables() for p in probes)
        gate = stage.gate()
        held = stage.call(stage.a, f"gate {gate}", timeout=30.0)
        long = [
            stage.call(stage.a, timeout=30.0) for _ in range(stage.rng.randint(1, 20))
        ]
        await stage.started(held)
        await mosaic.gather(p.shift_clock(seconds) for p in probes)
        real = time.time
        time.time = lambda: real() + seconds
        try:
            running = stage.call(
                stage.b,
                f"gate {stage.gate()}",
                expect=(O.LATE_RUNNING,),
                timeout=TIME_S,
            )
            stage.fault()
            await running.task.exception()
            assert not any(one.task.done() for one in long)
            stage.open(gate)
            await stage.settled()
            assert stage.history.count(Event.STARTED, long[-1].call)
            await same_worker(stage)
        finally:
            time.time = real

    return play


GATE = "gate never"

CELLS = (
    Cell("F18", "m2-frozen", cancelled_before_delivery, 2.5),
    Cell("F18", "m2", cancelled_at_once),
    Cell("F18", "m3", cancelled_in_the_queue),
    Cell("F18", "m4", cancelled_while_running(""), in_ci=True),
    Cell("F18", "m4-plain", cancelled_while_running(GATE)),
    Cell("F18", "m4-sleeps", cancelled_while_running("nap 20")),
    Cell("F18", "m5", cancelled_before_the_reply, 2.5),
    Cell("F18", "m6", cancelled_when_it_has_ended),
    Cell("F18", "m7", cancelled_while_pulled),
    Cell("F18", "m7-frames", cancelled_while_pulled, options=(("segments", False),)),
    Cell("F18", "m8", cancelled_as_an_argument),
    Cell("F19", "m2", late_before_delivery, TIME_S + 2.5),
    Cell("F19", "m3", late_in_the_queue, TIME_S + 1.0, in_ci=True),
    Cell("F19", "m4", late_while_running(""), TIME_S + 1.0),
    Cell("F19", "m4-plain", late_while_running(GATE), TIME_S + 1.0),
    Cell("F19", "m4-sleeps", late_while_running("nap 20"), TIME_S + 1.0),
    Cell("F19", "m5", late_before_the_reply, 10 * TIME_S + 2.5),
    Cell("F19", "m6", late_when_it_has_ended, 10 * TIME_S + 1.0),
    Cell("F19", "m7", late_while_pulled),
    Cell("F19", "clock-forward", clock_jumps(3600.0), TIME_S + 1.0),
    Cell("F19", "clock-back", clock_jumps(-3600.0), TIME_S + 1.0),
)
