"""Rows about function tasks: rates, map, chains, reductions, the Executor."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import statistics
import time
from typing import TYPE_CHECKING, Any, Final

import mosaic_like as mosaic

from .bench import rates
from .row import Result, at_least, at_most
from .subjects import Echo, increment, nap, nothing, plus, same

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .bench import Bench

TASKS: Final = 20_000
MAPPED: Final = 100_000
CHAIN: Final = 1_000
LEAVES: Final = 8_192
NAPS: Final = 1_000
POOLED: Final = 4_000  # a process pool takes long
WORKERS: Final = 2


async def _gathered(method: Callable[[int], Any], count: int) -> float:
    start_s = time.perf_counter()
    for proxy in [method(i) for i in range(count)]:
        await proxy
    return time.perf_counter() - start_s


async def submitted(bench: Bench) -> Result:
    """No-op tasks, to the calls on one tessera in the same run."""
    echo = Echo.remote()
    for method in (echo.ping, nothing.submit):
        await _gathered(method, TASKS)
    ours_s, calls_s = [], []
    for _ in range(bench.blocks):
        ours_s.append(await _gathered(nothing.submit, TASKS))
        calls_s.append(await _gathered(echo.ping, TASKS))
    return rates(
        "function tasks, 20k, to calls",
        ours_s,
        calls_s,
        at_least(0.4),
        calls=TASKS,
        unit="tasks/s",
    )


async def submitted_to_pool(bench: Bench) -> Result:
    """The same to ``ProcessPoolExecutor``, one call at a time."""
    await _gathered(nothing.submit, TASKS)
    context = multiprocessing.get_context("spawn")
    ours_s, pool_s = [], []

    def pooled(pool: concurrent.futures.ProcessPoolExecutor) -> float:
        start_s = time.perf_counter()
        for future in [pool.submit(same, i) for i in range(POOLED)]:
            future.result()
        return (time.perf_counter() - start_s) / POOLED

    with concurrent.futures.ProcessPoolExecutor(WORKERS, context) as pool:
        await asyncio.to_thread(pooled, pool)
        for _ in range(bench.blocks):
            ours_s.append(await _gathered(nothing.submit, TASKS) / TASKS)
            pool_s.append(await asyncio.to_thread(pooled, pool))
    return rates(
        "function tasks, 20k, to a process pool",
        ours_s,
        pool_s,
        at_least(5),
        unit="tasks/s",
    )


async def mapped(bench: Bench) -> Result:
    """How much more one item of a map costs among 100k than among 10k."""
    few_s, many_s = [], []

    async def one(count: int) -> float:
        start_s = time.perf_counter()
        await nothing.map(range(count))
        return (time.perf_counter() - start_s) / count

    await one(MAPPED // 10)
    for _ in range(min(bench.blocks, 5)):
        few_s.append(await one(MAPPED // 10))
        many_s.append(await one(MAPPED))
    return Result(
        name="map of 100k, cost to that of 10k",
        unit="x",
        ours=statistics.median(many_s) / statistics.median(few_s),
        target=at_most(1.3),
    )


async def chain(bench: Bench) -> Result:
    async def ours() -> float:
        start_s = time.perf_counter()
        task = increment.submit(0)
        for _ in range(CHAIN - 1):
            task = increment.submit(task)
        if await task.result() != CHAIN:
            raise AssertionError("a link is missing")
        return time.perf_counter() - start_s

    return await bench.rate(
        "function chain of 1000", ours, at_least(5_000), calls=CHAIN, unit="tasks/s"
    )


async def reduction(bench: Bench) -> Result:
    async def ours() -> float:
        start_s = time.perf_counter()
        level: list[Any] = list(plus.map(range(LEAVES), range(LEAVES)))
        while len(level) > 1:
            level = list(plus.map(level[::2], level[1::2]))
        if await level[0].result() != LEAVES * (LEAVES - 1):
            raise AssertionError("a leaf is missing")
        return time.perf_counter() - start_s

    return await bench.rate(
        "tree reduction of 8192 leaves",
        ours,
        at_least(5_000),
        calls=2 * LEAVES - 1,
        unit="tasks/s",
    )


async def executor(bench: Bench) -> Result:
    """Naps of 1 ms by ``Executor.map`` to what as many take, shared out exactly."""
    ours_s, ideal_s = [], []

    def alone() -> float:
        start_s = time.perf_counter()
        for i in range(NAPS // WORKERS):
            nap(i)
        return time.perf_counter() - start_s

    def mapping() -> float:
        with mosaic.Executor() as pool:
            start_s = time.perf_counter()
            if len(list(pool.map(nap, range(NAPS)))) != NAPS:
                raise AssertionError("some are missing")
            return time.perf_counter() - start_s

    await asyncio.to_thread(mapping)
    for _ in range(bench.blocks):
        ours_s.append(await asyncio.to_thread(mapping))
        ideal_s.append(await asyncio.to_thread(alone))
    return rates(
        "Executor.map, 1000 x 1 ms, to ideal",
        ours_s,
        ideal_s,
        at_least(0.95),
        calls=NAPS,
    )


ROWS: Final[dict[str, Callable[[Bench], Awaitable[Result]]]] = {
    "function-tasks": submitted,
    "function-tasks-pool": submitted_to_pool,
    "function-map": mapped,
    "function-chain": chain,
    "function-tree": reduction,
    "function-executor": executor,
}
