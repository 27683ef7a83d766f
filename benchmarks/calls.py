"""Rows about calls on tesserae that are there: rates, latency, chains."""

from __future__ import annotations

import asyncio
import functools
import statistics
import time
from typing import TYPE_CHECKING, Any, Final

from .bench import rates
from .relay import relay
from .row import Result, at_least, at_most

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .bench import Bench

PIPELINED: Final = 20_000
MANY: Final = 100_000
FEW: Final = 10_000
COROUTINES: Final = 256
CHAIN: Final = 1_000


async def _echo(**options: Any) -> Any:
    from .subjects import Echo

    proxy = Echo.options(**options).remote() if options else Echo.remote()
    await proxy
    return proxy


async def _outstanding(method: Any, calls: int) -> float:
    start_s = time.perf_counter()
    proxies = [method(i) for i in range(calls)]
    for proxy in proxies:
        await proxy
    return time.perf_counter() - start_s


async def _one_by_one(method: Any, calls: int) -> list[float]:
    taken_s = []
    for i in range(calls):
        start_s = time.perf_counter()
        await method(i)
        taken_s.append(time.perf_counter() - start_s)
    return taken_s


async def _pipelined(bench: Bench, name: str, method: Any, limit: float) -> Result:
    ours = functools.partial(_outstanding, method, PIPELINED)
    return await bench.rate(
        f"pipelined, 20k outstanding, {name}",
        ours,
        at_least(limit),
        calls=PIPELINED,
        against_pipelined=True,
    )


async def pipelined_plain(bench: Bench) -> Result:
    return await _pipelined(bench, "plain", (await _echo()).ping, 2)


async def pipelined_inline(bench: Bench) -> Result:
    return await _pipelined(bench, "inline", (await _echo(inline=True)).ping, 3)


async def pipelined_coroutine(bench: Bench) -> Result:
    return await _pipelined(bench, "coroutine", (await _echo()).aping, 2)


async def pipelined_many(bench: Bench) -> Result:
    echo = await _echo()
    return await bench.rate(
        "pipelined, 100k outstanding",
        functools.partial(_outstanding, echo.ping, MANY),
        at_least(2),
        calls=MANY,
        against_pipelined=True,
    )


async def flat_cost(bench: Bench) -> Result:
    """How much more one call costs among 100k than among 10k."""
    echo = await _echo()
    await _outstanding(echo.ping, FEW)
    few_s, many_s = [], []
    for _ in range(bench.blocks):
        few_s.append(await _outstanding(echo.ping, FEW) / FEW)
        many_s.append(await _outstanding(echo.ping, MANY) / MANY)
    return Result(
        name="cost of a call, 100k to 10k",
        unit="x",
        ours=statistics.median(many_s) / statistics.median(few_s),
        target=at_most(1.3),
    )


async def coroutines(bench: Bench) -> Result:
    echo = await _echo()
    each = 20 if bench.quick else 80

    async def caller() -> None:
        for i in range(each):
            await echo.ping(i)

    async def ours() -> float:
        start_s = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(COROUTINES)))
        return time.perf_counter() - start_s

    return await bench.rate(
        "256 coroutines, each its own call",
        ours,
        at_least(0.8),
        calls=COROUTINES * each,
        against_pipelined=True,
    )


async def lone_inline(bench: Bench) -> Result:
    echo = await _echo(inline=True)
    ours = functools.partial(_one_by_one, echo.ping)
    return await bench.latency("lone call, inline, p50", ours, at_most(1.6), calls=300)


async def lone_plain(bench: Bench) -> Result:
    echo = await _echo()
    ours = functools.partial(_one_by_one, echo.ping)
    return await bench.latency("lone call, plain, p50", ours, at_most(2.2), calls=300)


async def _chain(first: Any, second: Any) -> float:
    start_s = time.perf_counter()
    task = first.increment(0)
    for _ in range(CHAIN // 2 - 1):
        task = first.increment(second.increment(task))
    task = second.increment(task)
    found = await task.result()
    taken_s = time.perf_counter() - start_s
    if found != CHAIN:
        raise AssertionError(f"chain of {CHAIN} calls gave {found}")
    return taken_s


async def chain_same(bench: Bench) -> Result:
    echo = await _echo(runtime=bench.runtime.workers[0])
    return await bench.rate(
        "chain of 1000, same worker",
        functools.partial(_chain, echo, echo),
        at_least(30_000),
        calls=CHAIN,
        unit="tasks/s",
    )


async def _chain_two(bench: Bench, name: str, *, inline: bool) -> Result:
    """Each link is a way between processes; a plain one is two between threads too.

    Beside it: a message that blocking pyzmq passes on in just the same way.
    """
    first = await _echo(runtime=bench.runtime.workers[0], inline=inline)
    second = await _echo(runtime=bench.runtime.workers[1], inline=inline)
    await _chain(first, second)
    ours_s, blocking_s = [], []
    with relay() as peers:
        for _ in range(bench.blocks):
            ours_s.append(await _chain(first, second))
            blocking_s.append(peers.chain(CHAIN, hop=not inline))
    target = at_least(5_000, absolute=True)
    return rates(name, ours_s, blocking_s, target, calls=CHAIN, unit="tasks/s")


async def chain_two(bench: Bench) -> Result:
    return await _chain_two(bench, "chain of 1000, two workers", inline=False)


async def chain_two_inline(bench: Bench) -> Result:
    return await _chain_two(bench, "chain of 1000, two workers, inline", inline=True)


ROWS: Final[dict[str, Callable[[Bench], Awaitable[Result]]]] = {
    "pipelined-plain": pipelined_plain,
    "pipelined-inline": pipelined_inline,
    "pipelined-coroutine": pipelined_coroutine,
    "pipelined-100k": pipelined_many,
    "flat-cost": flat_cost,
    "coroutines-256": coroutines,
    "lone-inline": lone_inline,
    "lone-plain": lone_plain,
    "chain-same": chain_same,
    "chain-two": chain_two,
    "chain-two-inline": chain_two_inline,
}
