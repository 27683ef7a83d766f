"""Connections that are cut again and again: each call runs once, in order.

Each runtime closes its connections at times of its own, with all that is on its way in
them. The short form makes 2,000 calls in some seconds; the long one, 10,000 calls with
cuts every 0.2 to 2 s for at least 30 s, is run by

    MOSAIC_TEST_LONG=1 python -m pytest tests/system/test_links_under_cuts.py
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from typing import Any

import mosaic_like as mosaic

LONG = bool(os.environ.get("MOSAIC_TEST_LONG"))
CALLS = 10_000 if LONG else 2_000
LASTS_S = 30.0 if LONG else 3.0
CUTS_S = (0.2, 2.0) if LONG else (0.02, 0.2)
AT_ONCE = 50


class Noting:
    """Notes which of its calls ran, in which order."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, int]] = []

    def note(self, caller: str, number: int, filler: bytes) -> int:
        self.ran.append((caller, number))
        return number

    def all_ran(self) -> list[tuple[str, int]]:
        return self.ran


class Calling:
    """Calls from a worker, so that workers talk to each other."""

    async def call(self, other: Any, name: str) -> int:
        return await call_all(other, name)

    async def cut(self, seed: int) -> int:
        return await cut_all(mosaic.runtime(), seed)


async def call_all(other: Any, name: str) -> int:
    """Makes the calls, some of them large; how many gave what was expected."""
    began_s = time.monotonic()
    good = 0
    for first in range(0, CALLS, AT_ONCE):
        numbers = range(first, first + AT_ONCE)
        calls = [other.note(name, n, bytes(n % 97 * 1000)) for n in numbers]
        gave = await mosaic.gather(calls)
        good += sum(n == value for n, value in zip(numbers, gave, strict=True))
        late_s = began_s + LASTS_S * first / CALLS - time.monotonic()
        await asyncio.sleep(max(0.0, late_s))  # spread over the time of the cuts
    return good


async def cut_all(runtime: Any, seed: int) -> int:
    """Closes all connections of a runtime, at random times; how many it closed."""
    rng = random.Random(seed)
    cuts = 0
    ends_s = time.monotonic() + LASTS_S
    while time.monotonic() < ends_s:
        await asyncio.sleep(rng.uniform(*CUTS_S))
        for peer in list(runtime.peers.by_token.values()):
            channel = peer._channel
            if channel is not None:
                channel.close()
                peer._broken("cut by the test")
                cuts += 1
    return cuts


def test_calls_run_once_and_in_order_while_connections_are_cut() -> None:
    async def main(runtime: Any) -> None:
        here, there = runtime.workers
        noting = [mosaic.remote(Noting, runtime=w)() for w in (here, there)]
        calling = mosaic.remote(Calling, runtime=here, is_async=True)()
        other = mosaic.remote(Calling, runtime=there, is_async=True)()
        await mosaic.gather(noting[0].all_ran(), noting[1].all_ran())
        async with asyncio.timeout(LASTS_S * 4 + 30):
            counts = await asyncio.gather(
                call_all(noting[0], "head"),
                calling.call(noting[1], "w0").result(),
                other.call(noting[1], "w1").result(),
                cut_all(runtime, 1),
                calling.cut(2).result(),
                other.cut(3).result(),
            )
        assert list(counts[:3]) == [CALLS] * 3
        assert all(cuts > 10 for cuts in counts[3:])
        expected = list(range(CALLS))
        first, second = await mosaic.gather(n.all_ran() for n in noting)
        assert [n for _, n in first] == expected
        assert Counter(name for name, _ in second) == {"w0": CALLS, "w1": CALLS}
        for name in ("w0", "w1"):
            assert [n for who, n in second if who == name] == expected
        print(f"{sum(counts[3:])} connections were cut")

    mosaic.run(main, num_workers=2)
