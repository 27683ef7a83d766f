"""Rows about memory, each in a program of its own so that nothing else is counted."""

from __future__ import annotations

import functools
import statistics
from typing import TYPE_CHECKING, Final

from . import programs
from .row import Result, at_most

if TYPE_CHECKING:
    from collections.abc import Callable

    from .bench import Bench

_IDLE: Final = """
import asyncio, json
import mosaic_like as mosaic

@mosaic.tessera
class Idle:
    def ping(self, x):
        return x

def pss():
    import psutil
    here = psutil.Process()
    processes = [here, *here.children(recursive=True)]
    return sum(process.memory_full_info().pss for process in processes)

async def made(count):
    idle = [Idle.remote() for _ in range(count)]
    for proxy in idle:
        await proxy
    return idle

async def main(runtime):
    first = await made(2)
    for proxy in first:
        await proxy.ping(1)
    await asyncio.sleep(0.5)  # until the last batches are acknowledged
    whole = pss()
    warm = await made(500)
    await asyncio.sleep(0.5)
    before = pss()
    more = await made(2000)
    await asyncio.sleep(0.5)
    print(json.dumps({"whole": whole, "each": (pss() - before) / len(more)}))

mosaic.run(main, num_workers=2)
"""

# Within the credit of 10,000 calls for each stream, so every call is at the worker.
_PENDING: Final = """
import json, tracemalloc
import mosaic_like as mosaic
from benchmarks.subjects import Echo

STREAMS, EACH = 8, 5000

async def main(runtime):
    worker = runtime.workers[0]
    probe = Echo.options(runtime=worker, inline=True).remote()
    echoes = [Echo.options(runtime=worker).remote() for _ in range(STREAMS)]
    for echo in echoes:
        for task in [echo.ping(i) for i in range(EACH)]:
            await task
    before = await probe.memory().result()
    held = echoes[0].hold(5.0)  # the main thread is taken: what follows stays queued
    tracemalloc.start()
    tasks = [echo.ping(i) for i in range(EACH) for echo in echoes]
    # On the same link and answered by the loop: all calls before it have arrived.
    await probe.ping(1)
    caller = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    after = await probe.memory().result()
    assert not held.done(), "the calls were no longer pending: hold them for longer"
    print(json.dumps({
        "caller": caller / len(tasks), "worker": (after - before) / len(tasks)
    }))
    for task in tasks:
        await task

mosaic.run(main, num_workers=1)
"""


@functools.cache
def _median(program: str, key: str, runs: int) -> float:
    return statistics.median(values[key] for values in _reports(program, runs))


@functools.cache
def _reports(program: str, runs: int) -> list[dict[str, float]]:
    return [programs.run(program).values for _ in range(runs)]


def _runs(bench: Bench) -> int:
    return 1 if bench.quick else 3


def whole(bench: Bench) -> Result:
    return Result(
        name="idle PSS, 2 workers",
        unit="MiB",
        ours=_median(_IDLE, "whole", _runs(bench)) / 2**20,
        target=at_most(100),
    )


def idle_tessera(bench: Bench) -> Result:
    return Result(
        name="idle PSS, one more tessera",
        unit="KiB",
        ours=_median(_IDLE, "each", _runs(bench)) / 1024,
        target=at_most(2),
    )


def pending_caller(bench: Bench) -> Result:
    return Result(
        name="pending task, caller",
        unit="B",
        ours=_median(_PENDING, "caller", _runs(bench)),
        target=at_most(450),
    )


def pending_worker(bench: Bench) -> Result:
    return Result(
        name="pending task, worker",
        unit="B",
        ours=_median(_PENDING, "worker", _runs(bench)),
        target=at_most(300),
    )


ROWS: Final[dict[str, Callable[[Bench], Result]]] = {
    "idle-pss": whole,
    "idle-tessera": idle_tessera,
    "pending-caller": pending_caller,
    "pending-worker": pending_worker,
}
