"""F17: methods that hold up, break or leave their worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors import Actor
from cells import Cell
from faults_of_workers import ANY_LOSS, others_go_on
from history import Outcome as O

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from program import Stage


def goes_on(do: str) -> Callable[[Stage], Awaitable[None]]:
    """m4: nobody is lost by it, and all calls have their values."""

    async def play(stage: Stage) -> None:
        running = stage.call(stage.a, do)
        stage.calls(stage.a)
        stage.relayed(stage.a, stage.rng.randint(1, 20))
        await stage.started(running)
        for made in stage.calls(stage.b):
            await made.task
        await stage.settled()
        pids = {stage.first.pid, stage.second.pid}
        assert {w.pid for w in stage.runtime.workers} == pids, "a worker was ended"

    return play


def breaks(do: str) -> Callable[[Stage], Awaitable[None]]:
    """m4: its worker may be lost by it, and nobody else."""

    async def play(stage: Stage) -> None:
        may_be = (O.VALUE, *ANY_LOSS)
        running = stage.call(stage.a, do, expect=may_be)
        stage.fault()
        stage.calls(stage.a, may_be)
        stage.calls(stage.b)
        await stage.started(running)
        await stage.settled()
        if stage.first.pid in [w.pid for w in stage.runtime.workers]:
            stage.calls(stage.a)
        else:
            await others_go_on(stage)

    return play


async def holds_the_loop(stage: Stage) -> None:
    """m4: a coroutine blocks, and nobody there is answered until it has ended."""
    holder = mosaic.remote(Actor, runtime=stage.first)(stage.folder)
    gate = stage.gate()
    held = stage.call(holder, gate, method="hold_loop")
    await stage.started(held)
    calls = stage.calls(stage.a)
    stage.relayed(stage.a, stage.rng.randint(1, 20))
    for made in stage.calls(stage.b):
        await made.task
    assert not calls[0].task.done()
    stage.open(gate)
    await stage.settled()


def never_ends(stage: Stage) -> None:
    """m10: deaf to SIGTERM, and in the middle of a call when all stops."""

    async def main(inner: Stage) -> None:
        inner.unheard = {1, 2, 3}
        inner.call(inner.a, "ignore_sigterm")
        held = inner.call(inner.a, "hold_interpreter 60")
        await inner.started(held)
        inner.fault()
        raise Over

    try:
        stage.run(main)
    except Over:
        stage.ended_within(20.0)
    else:
        stage.left.append("it has not ended by its own error")


class Over(Exception):
    """The program ends in the middle of it."""


CELLS = (
    Cell("F17", "loop", holds_the_loop),
    Cell("F17", "interpreter", goes_on("hold_interpreter 1.5"), in_ci=True),
    Cell("F17", "fork", goes_on("fork")),
    Cell("F17", "handler", goes_on("ignore_sigterm")),
    Cell("F17", "group", breaks("signal_group"), 12.0),
    Cell("F17", "descriptors", breaks("close_descriptors"), 5.0),
    Cell("F17", "never-ends", never_ends),
)
