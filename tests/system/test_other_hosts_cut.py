"""A host that cannot be reached any more, for a while and for good."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from far_host import Far, FarHost, Unavailable, ended, far_host
from shared_cluster import shared_cluster
from specimens import Counter

import mosaic_like as mosaic
from mosaic_like.errors import WorkerDied

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT_S = 50.0
NODE_TIMEOUT_S = 6.0
SHORT_S = 1.5  # well below it: what is sent meanwhile is sent again
CALLS = 200


@pytest.fixture(scope="module")
def host() -> Iterator[FarHost]:
    try:
        with far_host() as host:
            yield host
    except Unavailable as error:
        pytest.skip(str(error))


def test_a_short_cut_loses_nothing_and_a_long_one_ends_the_node(host: FarHost) -> None:
    node: list[Any] = []

    async def begin(runtime: Any) -> None:
        key = Path(runtime.hold.cluster.key).read_text()  # noqa: ASYNC240 -- a line
        node.append(host.node(key, "-nw", "1"))
        await asyncio.wait_for(runtime.wait_for_workers(3), LIMIT_S)

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
        assert await asyncio.to_thread(ended, node[0]) == 1
        assert "has not heard the monitor" in host.said
        assert host.pids == []
        host.heal()
        assert len(runtime.of_kind("node")) == 1

    options = {"address": host.near, "node_timeout_s": NODE_TIMEOUT_S}
    with shared_cluster(begin, LIMIT_S, **options) as run:
        run(main)
    assert host.left == []
