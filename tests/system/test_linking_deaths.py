"""``mosaic.link``, and workers that are killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from typing import Any

import pytest
from linked_parts import LIMIT_S, Part, ended, pair

import mosaic_like as mosaic
from mosaic_like import WorkerDied


def test_a_lost_worker_ends_what_is_linked_to_what_is_not_built_again() -> None:
    async def main(runtime: Any) -> None:
        one, two = await pair(runtime)
        safe, other = await pair(runtime, max_restarts=1)
        mosaic.link(one, two)
        mosaic.link(two, safe)  # which is ended for good, wherever it lives
        mosaic.link(other, third := Part.local())
        await ended_by(one.pid())
        text = str(await ended(two))
        assert re.search(
            r"linked to Part#\d+, which has ended: w0:\d \(.*\) is lost: killed by SIG",
            text,
        )
        assert "which has ended: it was linked to" in str(await ended(safe))
        # The other one of those is built again, once: that ends nothing.
        pid = await other.pid().result()
        os.kill(pid, signal.SIGKILL)
        while await other.pid().result() == pid:
            pass
        await ended_by(other.pid())
        with pytest.raises(WorkerDied, match="was built again once and is not any"):
            await other.pid().result()
        assert "was built again once" in str(await ended(third))

    async def ended_by(task: Any) -> None:
        os.kill(await task.result(), signal.SIGKILL)

    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(runtime)

    mosaic.run(bounded, num_workers=2)


def test_what_a_drained_worker_had_has_not_ended_in_order_unless_it_moves() -> None:
    async def main(runtime: Any) -> None:
        one, two = await pair(runtime)
        moves, other = await pair(runtime, max_restarts=1)
        mosaic.link(one, two)
        mosaic.link(moves, other)
        await runtime.drain(runtime.workers[0], timeout=LIMIT_S)
        text = str(await ended(two))
        assert "which has ended: w0:0" in text
        assert "has left: it was drained" in text
        assert await moves.pid().result() == await other.pid().result()

    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(runtime)

    mosaic.run(bounded, num_workers=2)
