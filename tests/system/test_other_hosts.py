"""Members on another host: all that goes between them goes over tcp, with keys."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from far_host import Far, FarHost, code_of, key_of
from shared_cluster import shared_cluster, warm_up
from specimens import Counter, RunIn

import mosaic_like as mosaic
from mosaic_like.errors import WorkerDied

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT_S = 40.0
NEAR = 2  # workers on this host

CONNECT = """
import asyncio, sys
import mosaic_like as mosaic
from specimens import Counter

async def main():
    async with mosaic.connect("-") as runtime:
        await runtime.wait_for_workers(3)
        workers = runtime.workers
        counters = [Counter.options(runtime=w).remote(n) for n, w in enumerate(workers)]
        print(await mosaic.gather(c.add(1) for c in counters))
        sys.stdout.flush()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def cluster(host: FarHost) -> Iterator[RunIn]:
    """A cluster with two workers here, and a node with one on the other host."""

    async def begin(runtime: Any) -> None:
        started.append(host.join(runtime))
        await asyncio.wait_for(runtime.wait_for_workers(NEAR + 1), LIMIT_S)
        await count_of(runtime, "warehouse", 2)
        await warm_up(runtime)
        await runtime.memory()  # asks all that own something, so all are connected

    started: list[Any] = []
    try:
        with shared_cluster(begin, LIMIT_S, address=host.near) as run:
            yield run
    finally:
        codes = [code_of(process) for process in started]
    # The program has ended, and all of the cluster with it, in order.
    assert codes == [0], host.said
    assert host.pids == []
    assert host.left == []


def far(runtime: Any) -> Any:
    """A worker there."""
    return runtime.workers[NEAR]


async def count_of(runtime: Any, kind: str, count: int) -> None:
    """Wait until there are so many."""
    while len(runtime.of_kind(kind)) != count:
        await asyncio.wait_for(runtime.membership(), LIMIT_S)


def test_calls_errors_and_arguments_go_between_hosts(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        there = Counter.options(runtime=far(runtime)).remote(5)
        here = Counter.options(runtime=runtime.workers[0]).remote()
        assert await there.add(1).result() == 6
        # What a worker here has, one there takes from it, and the other way round.
        assert await there.add(here.add(2)).result() == 8
        assert await here.add(there.add(1)).result() == 11
        with pytest.raises(TypeError) as caught:
            await there.add("x").result()
        assert any("on w1:0" in note for note in caught.value.__notes__)
        assert await mosaic.gather(there.add(1) for _ in range(1000))

    cluster(main)


def test_who_is_on_another_host_shares_no_memory_and_is_reached_by_tcp(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        me = runtime.me
        for member in runtime.members.values():
            peer = runtime.outbox(member.incarnation)
            is_far = member.uid in ("node:1", "worker:1:0", "warehouse:1")
            assert peer.shares_memory != is_far
            assert peer.address.startswith("tcp" if is_far else "ipc")
            assert member.host == me.host  # a name tells nothing
        assert runtime.warehouse.uid == "warehouse:0"

    cluster(main)


def test_a_program_on_another_host_joins_by_a_key_on_its_standard_input(
    cluster: RunIn, host: FarHost
) -> None:
    async def main(runtime: Any) -> None:
        folder = str(Path(__file__).parent)
        process = host.start("-c", CONNECT, stdin=key_of(runtime), PYTHONPATH=folder)
        assert await asyncio.to_thread(code_of, process) == 0, host.said
        assert "[1, 2, 3]" in host.said
        await count_of(runtime, "head", 1)

    cluster(main)


def test_a_key_of_another_cluster_opens_nothing(cluster: RunIn, host: FarHost) -> None:
    async def main(runtime: Any) -> None:
        from mosaic_like.comms.zeromq import new_keys

        key = json.loads(key_of(runtime))
        own, other = key["keys"], new_keys()
        key["keys"] = {
            **own,
            "client_public": other.client_public,
            "client_secret": other.client_secret,
        }
        process = host.node(json.dumps(key), "-nw", "1")
        assert await asyncio.to_thread(code_of, process) == 1
        assert "did not let" in host.said
        assert len(runtime.of_kind("node")) == 2

    cluster(main)


def test_a_node_that_is_told_to_leaves_in_order(cluster: RunIn, host: FarHost) -> None:
    async def main(runtime: Any) -> None:
        process = host.join(runtime)
        await asyncio.wait_for(runtime.wait_for_workers(NEAR + 2), LIMIT_S)
        counter = Counter.options(runtime=runtime.workers[NEAR + 1]).remote()
        assert await counter.add(1).result() == 1
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(code_of, process) == 0, host.said
        await count_of(runtime, "node", 2)
        await count_of(runtime, "worker", NEAR + 1)
        with pytest.raises(mosaic.MosaicError):
            await counter.add(1).result()

    cluster(main)


def test_a_node_that_is_killed_is_known_to_be_in_two_seconds(
    cluster: RunIn, host: FarHost
) -> None:
    async def main(runtime: Any) -> None:
        process = host.join(runtime)
        await asyncio.wait_for(runtime.wait_for_workers(NEAR + 2), LIMIT_S)
        far_one = Far.options(runtime=runtime.workers[NEAR + 1]).remote()
        node = runtime.of_kind("node")[-1]
        assert await far_one.echo(1).result() == 1
        call = far_one.wait()
        begun_s = asyncio.get_running_loop().time()
        os.kill(node.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match=f"{node.uid}|its node is lost"):
            await call.result()
        # Two seconds on a machine that does nothing else.
        assert asyncio.get_running_loop().time() - begun_s < 10
        assert await asyncio.to_thread(code_of, process) == 1

    cluster(main)
