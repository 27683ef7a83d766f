"""A node that stands still: for a moment nobody notices, for too long it is ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from far_host import FarHost, code_of
from processes import halt
from shared_cluster import add_node

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 5.0


class Noting:
    """Writes down which of its calls ran."""

    def __init__(self) -> None:
        self.ran: list[int] = []

    def note(self, number: int) -> int:
        self.ran.append(number)
        return number


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    halt(pid)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_a_node_that_is_silent_for_too_long_is_killed_with_its_workers() -> None:
    async def main(runtime: Any) -> None:
        child = add_node(runtime)
        await runtime.wait_for_workers(2)
        first, second = runtime.workers
        here, there = (mosaic.remote(Noting, runtime=w)() for w in (first, second))
        await mosaic.gather(here.note(0), there.note(0))
        node = next(n for n in runtime.nodes if n.uid == "node:1")
        with frozen(node.pid):
            # Its worker goes on: whoever can talk to it does.
            assert await there.note(1).result() == 1
            began_s = time.monotonic()
            while any(m.pid == second.pid for m in runtime.members.values()):
                await runtime.membership()
            taken_s = time.monotonic() - began_s
            with pytest.raises(mosaic.RuntimeDisconnectedError, match="not heard for"):
                await there.note(2)
            # Killed while it stands still: it is never thawed into a cluster that
            # has lost it.
            status = await child.exited()
            assert status is not None
            assert os.WTERMSIG(status) == signal.SIGKILL
        assert taken_s > 0.5 * TIMEOUT_S
        assert await here.note(1).result() == 1
        assert await mosaic.remote(Noting)().note(3).result() == 3

    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(40):
            await main(runtime)

    mosaic.run(bounded, num_workers=1, node_timeout_s=TIMEOUT_S)


def test_a_node_that_stands_still_for_a_moment_loses_nothing() -> None:
    async def main(runtime: Any) -> None:
        (node,) = runtime.nodes
        one = mosaic.remote(Noting)()
        await one
        with frozen(node.pid):
            waited = [one.note(n) for n in range(100)]
            assert await mosaic.gather(waited) == list(range(100))
            await asyncio.sleep(1.0)  # what is tried is a time
        assert await one.ran == list(range(100))
        assert [n.pid for n in runtime.nodes] == [node.pid]

    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(40):
            await main(runtime)

    mosaic.run(bounded, num_workers=1, node_timeout_s=4 * TIMEOUT_S)


def test_a_node_that_nobody_hears_any_more_ends_though_it_cannot_say_so(
    host: FarHost,
) -> None:
    """As over ssh, when the one who had called has gone: see `runtimes.saying`."""

    async def main(runtime: Any) -> None:
        read, write = os.pipe()
        process = host.join(runtime, stderr=write)
        os.close(write)
        await runtime.wait_for_workers(2)
        os.close(read)
        host.cut()
        assert await asyncio.to_thread(code_of, process) == 1

    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(60):
            await main(runtime)

    try:
        mosaic.run(bounded, num_workers=1, node_timeout_s=TIMEOUT_S, address=host.near)
    finally:
        host.heal()
    assert host.pids == []


def test_a_node_of_another_host_that_is_thawed_too_late_finds_that_it_is_lost(
    host: FarHost,
) -> None:
    """Its worker has ended itself before the others took it for lost."""

    async def main(runtime: Any) -> None:
        process = host.join(runtime)
        await runtime.wait_for_workers(2)
        far = next(w for w in runtime.workers if w.uid == "worker:1:0")
        node = next(n for n in runtime.nodes if n.uid == "node:1")
        one = mosaic.remote(Noting, runtime=far)()
        assert await one.note(0).result() == 0
        with frozen(node.pid):
            while any(m.uid == "worker:1:0" for m in runtime.members.values()):
                await runtime.membership()
            with pytest.raises(mosaic.RuntimeDisconnectedError, match="not heard for"):
                await one.note(1)
        assert await asyncio.to_thread(code_of, process) == 1
        # What the worker said at its end has waited for its node to pass it on.
        assert f"{far.uid} has not heard {node.uid}" in host.said
        assert await mosaic.remote(Noting)().note(2).result() == 2

    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(60):
            await main(runtime)

    mosaic.run(
        bounded, num_workers=1, node_timeout_s=TIMEOUT_S, address=host.near, quiet=True
    )
    assert host.pids == []
