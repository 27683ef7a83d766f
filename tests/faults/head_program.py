"""A program that is ended from outside: ``python head_program.py FOLDER SEED WHAT``.

It notes what it does in the folder, as every run does, and then waits for its end.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from actors import Actor, Ledger
from history import Event
from program import Stage

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def idle(stage: Stage) -> None:
    """m11: nothing runs."""


async def running(stage: Stage) -> None:
    """m4: a plain method and a coroutine run, each on its worker."""
    plain = stage.call(stage.a, f"gate {stage.gate()}")
    coroutine = stage.call(stage.b, stage.gate(), method="arun")
    await stage.started(plain, coroutine)


async def queued(stage: Stage) -> None:
    """m3: calls wait behind those, from here and from the relay."""
    await running(stage)
    stage.calls(stage.a)
    stage.calls(stage.b)
    stage.relayed(stage.a, stage.rng.randint(1, 20))
    await stage.delivered(stage.first)
    await stage.delivered(stage.second)


async def pulling(stage: Stage) -> None:
    """m7: a large result is on its way here."""
    large = stage.call(stage.a, "", 64 << 20)
    await large.task


async def made_here(stage: Stage) -> None:
    """Several on each worker, idle: all of them are to be closed."""
    stage.more = [
        mosaic.remote(Actor, runtime=worker)(stage.folder)
        for worker in stage.runtime.workers
        for _ in range(5)
    ]
    await mosaic.gather(x.pid() for x in stage.more)


async def written_down(stage: Stage) -> None:
    """m9: a checkpoint of 32 MiB is on its way to the disk."""
    ledger = Ledger.options(runtime=stage.first).remote(stage.folder)
    stage.call(ledger, method="add")
    await stage.settled()
    stage.more = [ledger, mosaic.checkpoint(ledger)]


async def stops(stage: Stage) -> None:
    """m10: all is being closed already when it comes."""
    await made_here(stage)
    held = mosaic.remote(Actor, runtime=stage.first)(stage.folder)
    stage.call(held, f"gate {stage.gate()}")  # holds up the stop for a while
    stage.log.note(Event.HEALED)
    await mosaic.stop()


MOMENTS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "m3": queued,
    "m4": running,
    "m7": pulling,
    "m9": written_down,
    "many": made_here,
    "m10": stops,
    "m11": idle,
}


async def main(stage: Stage) -> None:
    await MOMENTS[sys.argv[3]](stage)
    stage.log.note(Event.HEALED)  # from now on it may come
    await asyncio.sleep(60)


if __name__ == "__main__":
    Stage(sys.argv[1], int(sys.argv[2])).run(main)
