"""Published values in a cluster of two nodes: each reads from its own warehouse."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import numpy as np
import pytest
from processes import halt
from shared_cluster import add_node
from tables import settled

import mosaic_like as mosaic
from mosaic_like import session

LIMIT_S = 25.0
LARGE = 1 << 20


class Reader:
    """Reads, and looks at its runtime."""

    def total(self, value: Any) -> float:
        return float(np.sum(value))

    def copied(self) -> list[int]:
        return sorted(session.current().copied)


async def two_warehouses(runtime: Any) -> list[Any]:
    while len(found := runtime.of_kind("warehouse")) < 2:
        await runtime.membership()
    return list(found)


def test_a_published_value_is_read_from_the_warehouse_of_the_own_host() -> None:
    async def main(runtime: Any) -> None:
        cluster = runtime.hold.cluster
        cluster._children.append(add_node(runtime, on_exited=cluster._exited))
        async with asyncio.timeout(LIMIT_S):
            first, second = await two_warehouses(runtime)
            assert [m.uid for m in (first, second)] == ["warehouse:0", "warehouse:1"]
            await runtime.wait_for_workers(2)
            here, there = (
                mosaic.remote(Reader, runtime=uid)()
                for uid in ("worker:0:0", "worker:1:0")
            )
            array = np.ones(LARGE)
            plain = mosaic.put(array)
            assert await there.total(plain).result() == LARGE
            small = mosaic.put([1, 2], publish=True)
            large = mosaic.put(array, publish=True, key="array")
            uids = sorted(ref._call.uid for ref in (small, large))
            await settled(lambda: there.copied().result(), uids)
            assert await here.copied().result() == []
            halt(first.pid)
            try:
                assert await there.total(small).result() == 3
                assert await there.total(large).result() == LARGE
            finally:
                os.kill(first.pid, signal.SIGCONT)
            assert await here.total(large).result() == LARGE
            # One that comes later gets them, too.
            os.kill(second.pid, signal.SIGKILL)
            while (await two_warehouses(runtime))[1].pid == second.pid:
                await runtime.membership()
            await settled(lambda: there.copied().result(), uids)
            assert await there.total(large).result() == LARGE
            await mosaic.drop(small)
            await settled(lambda: there.copied().result(), [large._call.uid])
            with pytest.raises(mosaic.UpstreamError, match="dropped"):
                await there.total([small])
            del small, large
            await settled(lambda: there.copied().result(), [])
            assert await there.total(plain).result() == LARGE

    mosaic.run(main, num_workers=1)
