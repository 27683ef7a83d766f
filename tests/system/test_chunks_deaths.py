"""Who is killed while large values go in chunks, and what is left."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import numpy as np
import pytest
from chunked import LONG, all_over, alone, under_way
from large_values import MIB, until

import mosaic_like as mosaic
from mosaic_like.errors import RuntimeDisconnectedError, Verdict, WorkerDied


def test_calls_fail_when_the_receiver_is_killed_in_the_middle() -> None:
    async def main(runtime: Any, first: Any, second: Any, *others: Any) -> None:
        pid = await first.pid().result()
        totals = [first.total(np.ones(LONG, "u1")) for _ in range(2)]
        await until(lambda: under_way(runtime))
        os.kill(pid, signal.SIGKILL)
        for total in totals:
            with pytest.raises(RuntimeDisconnectedError):
                await total
        await all_over(runtime)
        assert await second.total(np.ones(3 * MIB, "u1")).result() == 3 * MIB

    alone(main)


def test_values_are_lost_with_the_sender_that_is_killed_in_the_middle() -> None:
    async def main(runtime: Any, first: Any, second: Any, *others: Any) -> None:
        pid = await first.pid().result()
        made = first.ones(LONG)
        await made
        total = second.total(made)
        value = asyncio.ensure_future(made.result())
        await until(lambda: under_way(runtime))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied) as caught:
            await value
        assert caught.value.verdict is Verdict.RAN_RESULT_LOST
        with pytest.raises(mosaic.MosaicError):
            await total
        await all_over(runtime, second)
        assert await second.total(np.ones(3 * MIB, "u1")).result() == 3 * MIB

    alone(main)


def test_a_stream_is_lost_with_the_sender_that_is_killed_in_the_middle() -> None:
    async def main(runtime: Any, first: Any, second: Any, *others: Any) -> None:
        pid = await first.pid().result()
        stream = aiter(first.items(10, LONG // 4))
        item = asyncio.ensure_future(anext(stream))
        await until(lambda: under_way(runtime))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RuntimeDisconnectedError):
            await item
        await all_over(runtime, second)

    alone(main)


def test_all_ends_in_the_middle_of_transfers() -> None:
    async def main(runtime: Any, first: Any, second: Any, *others: Any) -> None:
        made = first.ones(LONG)
        await made
        tasks = [second.total(made), first.total(np.ones(LONG, "u1"))]
        await until(lambda: under_way(runtime))
        del tasks

    alone(main)
