"""A cluster whose nodes join and leave while it runs; all of them on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT_S = 60.0
pytestmark = pytest.mark.timeout(200)
MRUN = [sys.executable, "-m", "mosaic_like"]
HERE = ("--address", "127.0.0.1")


@contextlib.asynccontextmanager
async def node(key: str, **environ: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """One with a worker, until it has ended."""
    words = ["--node", "--key", key, "-nw", "1"]
    with subprocess.Popen(  # noqa: ASYNC220 -- to start one takes no time
        [*MRUN, *words],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environ},
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            # Not on the loop: who leaves says goodbye to the head first.
            assert await asyncio.to_thread(process.wait, LIMIT_S) == 0


def test_nodes_join_and_leave_at_any_time_and_what_is_made_goes_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    @mosaic.tessera  # here: it travels by value, and no worker has to import pytest
    class Place:
        def pid(self) -> int:
            return os.getpid()

    async def main(runtime: Any) -> None:
        key = str(runtime.hold.cluster.key)
        monitor = runtime.members[1].tcp.rpartition(":")[2]

        async def until(count: int) -> None:
            async with asyncio.timeout(LIMIT_S):
                while runtime.num_workers != count:
                    await runtime.membership()

        async def made() -> int:
            return await asyncio.wait_for(Place.remote().pid().result(), LIMIT_S)

        assert runtime.num_workers == 0
        waiting = Place.remote().pid()  # for whoever comes
        async with node(key):
            first = await asyncio.wait_for(waiting.result(), LIMIT_S)
            there = {"MOSAIC_MONITOR_HOST": "localhost", "MOSAIC_MONITOR_PORT": monitor}
            async with node(key, **there) as other:
                await asyncio.wait_for(runtime.wait_for_workers(2), LIMIT_S)
                assert len({await made(), await made()}) == 2
                other.send_signal(signal.SIGTERM)
                await until(1)
                assert {await made(), await made()} == {first}
        await until(0)  # the last may leave too
        waiting = Place.remote().pid()
        async with node(key):
            assert await asyncio.wait_for(waiting.result(), LIMIT_S) != first

    mosaic.run(main, mode="dynamic", address="127.0.0.1")


def test_a_signal_to_all_of_a_nodes_job_has_it_leave_in_order_and_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    @mosaic.tessera
    class Slow:
        def ready(self) -> None: ...

        def run(self) -> str:
            time.sleep(0.7)
            return "finished"

    async def main(runtime: Any) -> None:
        key = str(runtime.hold.cluster.key)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            async with node(key) as process:
                slow = Slow.remote()
                await asyncio.wait_for(slow.ready().result(), LIMIT_S)
                running = slow.run()
                await asyncio.sleep(0.1)  # it may as well not have begun
                owner = psutil.Process(process.pid)
                # As an engine does that cancels a job, or says that its time is over.
                for each in [owner, *owner.children(recursive=True)]:
                    each.send_signal(number)
                assert await asyncio.wait_for(running.result(), LIMIT_S) == "finished"
                assert await asyncio.to_thread(process.wait, LIMIT_S) == 0

    mosaic.run(main, mode="dynamic", address="127.0.0.1")


def test_a_cluster_and_a_node_in_the_background_serve_a_head_that_joins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    def mrun(*words: str) -> str:
        with tempfile.TemporaryFile("w+") as said:  # which the daemons have not open
            code = subprocess.run(
                [*MRUN, *words],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                timeout=LIMIT_S,
                check=False,
            ).returncode
            said.seek(0)
            text = said.read()
        assert code == 0, text
        return text

    program = (
        "import mosaic_like as m\n"
        "async def main(runtime):\n"
        "    await runtime.wait_for_workers(1)\n"
        "    print('workers', *(w.uid for w in runtime.workers))\n"
        "m.run(main)"
    )
    name, _, key = (
        mrun("--monitor", "--dynamic", "--daemon", *HERE).splitlines()[0].partition("=")
    )
    logs = Path(key).parent.parent
    try:
        assert name == "MOSAIC_CLUSTER"
        said = mrun("--node", "-i", "7", "-nw", "1", "--key", key, "--daemon")
        assert "node:7 has joined, with 1 worker" in said
        words = ["--head", "--key", key, sys.executable, "-c", program]
        assert mrun(*words) == "workers worker:7:0\n"
        # Who has ended before it was ready is told of at once.
        with pytest.raises(AssertionError, match="there is a node:7 already"):
            mrun("--node", "-i", "7", "-nw", "1", "--key", key, "--daemon")
        assert "1 worker · 1 node · 0 heads" in mrun("status")
    finally:
        assert "stopped" in mrun("stop")
        for log in logs.glob("mrun-*.log"):
            log.unlink()
