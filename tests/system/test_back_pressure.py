"""A producer that is faster than its tessera: memory stays bounded, orders still pass.

The short form makes 100,000 calls, with 4 KiB each where nobody holds their proxies; a
million plain ones by

    MOSAIC_TEST_LONG=1 python -m pytest -s tests/system/test_back_pressure.py
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import mosaic_like as mosaic
from mosaic_like.core.call import CALL_CREDIT
from mosaic_like.core.sending import BYTE_CREDIT

LONG = bool(os.environ.get("MOSAIC_TEST_LONG"))
CALLS = 1_000_000 if LONG else 100_000
HELD = 1_000_000 if LONG else 50_000
ARGUMENT = bytes(4096)
WORKER_BYTES = 300 << 20
# What a call is for its caller until it has ended: records, and in the short form its
# arguments, which nobody else has.
CALL_BYTES = 1500
LIMIT_S = 60.0  # of what nothing tells that it has happened
ORDER_S = 10.0  # in which an order passes, on a machine that does other things too


class Slow:
    """Takes its calls when it is let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.count = 0

    def take(self, argument: bytes) -> None:
        assert self.gate.wait(300)
        self.count += 1

    async def wait(self) -> None:
        await asyncio.Event().wait()


class Echo:
    """Ends at once."""

    def take(self, argument: int) -> int:
        return argument


class Gate:
    """What passes beside: another tessera of the same worker."""

    async def expect(self, many: int) -> None:
        """So many calls are to count as many, where a worker is to put some aside."""
        mosaic.runtime().worker.archive.least = many

    async def kept(self) -> tuple[int, int]:
        """Ended calls that are kept here, in full and put aside."""
        worker = mosaic.runtime().worker
        return len(worker.tasks), len(worker.archive)

    async def open(self, slow: Any) -> None:
        for tessera in mosaic.runtime().worker.tesserae.values():
            if isinstance(tessera.instance, Slow):
                tessera.instance.gate.set()

    async def ping(self) -> int:
        return resident_bytes()


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(900 if LONG else 240)
def test_a_flood_of_calls_is_held_by_its_caller_and_orders_pass() -> None:
    async def main(runtime: Any) -> None:
        (worker,) = runtime.workers
        slow = mosaic.remote(Slow, runtime=worker)()
        gate = mosaic.remote(Gate, runtime=worker)()
        waiting = mosaic.remote(Slow, runtime=worker)()
        doomed = waiting.wait()
        at_rest = await gate.ping().result()
        before = resident_bytes()
        began_s = time.monotonic()
        argument = b"" if LONG else ARGUMENT
        for _ in range(CALLS):
            slow.take(argument)
        last = slow.take(argument)
        made_s = time.monotonic() - began_s
        grown = resident_bytes() - before
        # All of them stand: what passes now passes them.
        orders = []
        for order in (gate.ping, runtime.memory, gate.ping):
            began_s = time.monotonic()
            await order()
            orders.append(time.monotonic() - began_s)
        began_s = time.monotonic()
        doomed.cancel()
        with pytest.raises(mosaic.TaskCancelledError):
            await doomed
        orders.append(time.monotonic() - began_s)
        full = await gate.ping().result()
        stream = slow._mosaic_handle.stream
        assert len(stream.held) >= CALLS - CALL_CREDIT
        assert stream.outbox is not None
        assert stream.outbox.bytes_out <= BYTE_CREDIT
        print(
            f"\n{CALLS:,} calls made in {made_s:.1f} s; caller +{grown >> 20} MiB, "
            f"worker {at_rest >> 20} -> {full >> 20} MiB; orders took "
            + ", ".join(f"{s * 1e3:.0f} ms" for s in orders)
        )
        assert full < WORKER_BYTES
        assert grown < CALLS * (CALL_BYTES + len(argument))
        assert max(orders) < ORDER_S
        began_s = time.monotonic()
        await gate.open(slow)
        await last
        count = await slow.count
        assert count == CALLS + 1
        at_end = await gate.ping().result()
        print(f"run in {time.monotonic() - began_s:.1f} s; worker {at_end >> 20} MiB")
        assert at_end < WORKER_BYTES

    mosaic.run(main, num_workers=1)


@pytest.mark.timeout(900 if LONG else 240)
def test_ended_calls_whose_proxies_are_held_take_little_of_their_worker() -> None:
    async def main(runtime: Any) -> None:
        (worker,) = runtime.workers
        echo = mosaic.remote(Echo, runtime=worker)()
        gate = mosaic.remote(Gate, runtime=worker)()
        if not LONG:
            await gate.expect(HELD // 8)
        at_rest = await gate.ping().result()
        before = resident_bytes()
        held = [echo.take(i) for i in range(HELD)]
        await held[-1]
        grown = resident_bytes() - before
        # They are gone over at ticks, also when no more come. As many as may be on
        # their way at once can stay as they are.
        async with asyncio.timeout(LIMIT_S):
            while (await gate.kept().result())[1] < HELD // 2:  # noqa: ASYNC110 -- no event tells it
                await asyncio.sleep(0.05)
        in_full, aside = await gate.kept().result()
        full = await gate.ping().result()
        print(
            f"\n{HELD:,} ended calls held: {in_full:,} in full, {aside:,} put aside; "
            f"worker {at_rest >> 20} -> {full >> 20} MiB, caller +{grown >> 20} MiB"
        )
        assert full < WORKER_BYTES
        # To their caller and to other calls they are what they were.
        assert await held[HELD // 4].result() == HELD // 4
        assert await echo.take(held[1]).result() == 1
        del held
        async with asyncio.timeout(LIMIT_S):
            while sum(await gate.kept().result()) > 100:  # noqa: ASYNC110 -- no event tells it
                await asyncio.sleep(0.05)

    mosaic.run(main, num_workers=1)
