"""The way to another host when it has much to carry, and when it is cut."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from far_host import Far, FarHost, code_of
from shared_cluster import shared_cluster
from specimens import Counter, RunIn

import mosaic_like as mosaic
from mosaic_like.errors import WorkerDied

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT_S = 50.0
NODE_TIMEOUT_S = 6.0
SHORT_S = 1.5  # well below it: what is sent meanwhile is sent again
CALLS = 200


@contextlib.contextmanager
def cluster(
    host: FarHost, node: list[Any], code: int, **options: Any
) -> Iterator[RunIn]:
    """One for a single test, with two workers here and one there.

    Args:
        host: the other one.
        node: gets the process of its node.
        code: with which that is to end.
        options: of the cluster.
    """

    async def begin(runtime: Any) -> None:
        node.append(host.join(runtime))
        await asyncio.wait_for(runtime.wait_for_workers(3), LIMIT_S)

    with shared_cluster(begin, LIMIT_S, address=host.near, **options) as run:
        yield run
    assert code_of(node[0]) == code, host.said
    assert host.left == []


def test_an_array_of_64_mib_goes_to_another_host_and_back(host: FarHost) -> None:
    async def main(runtime: Any) -> None:
        far_one = Far.options(runtime=runtime.workers[2]).remote()
        near_one = Far.options(runtime=runtime.workers[0]).remote()
        array = np.arange(8 << 20, dtype=np.float64)
        total = float(array.sum())
        assert await far_one.total(array).result() == total
        assert await near_one.total(far_one.make(8 << 20)).result() == total
        part = await far_one.make(1 << 20).result()
        assert np.array_equal(part, array[: 1 << 20])
        # One message, not chunks: what is pickled has no buffers beside it.
        numbers = [float(n) for n in range(300_000)]
        assert await far_one.echo(numbers).result() == numbers

    with cluster(host, [], 0) as run:
        run(main)


def test_a_short_cut_loses_nothing_and_a_long_one_ends_the_node(host: FarHost) -> None:
    node: list[Any] = []

    async def main(runtime: Any) -> None:
        far = runtime.workers[2]
        counter = Counter.options(runtime=far).remote()
        other = Far.options(runtime=far).remote()
        assert await counter.add(1).result() == 1
        assert await other.echo(1).result() == 1

        host.cut()
        calls = [counter.add(1) for _ in range(CALLS)]
        # A cut shorter than this would not be one; what follows does not wait for it.
        await asyncio.sleep(SHORT_S)
        host.heal()
        assert await mosaic.gather(calls) == list(range(2, CALLS + 2))

        waiting = other.wait()
        host.cut()
        with pytest.raises(WorkerDied, match=f"was not heard for {NODE_TIMEOUT_S:g} s"):
            await waiting.result()
        # Though nobody can tell it: it knows by itself.
        assert await asyncio.to_thread(code_of, node[0]) == 1
        assert "has not heard the monitor" in host.said
        assert host.pids == []
        host.heal()
        assert len(runtime.of_kind("node")) == 1

    with cluster(host, node, 1, node_timeout_s=NODE_TIMEOUT_S) as run:
        run(main)
