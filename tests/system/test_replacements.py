"""Workers that die so often that their node waits before it starts another."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from shared_cluster import add_node

import mosaic_like as mosaic
from mosaic_like import TaskState

LIMIT_S = 80.0


class Mortal:
    def pid(self) -> int:
        return os.getpid()


@mosaic.task
def where() -> int:
    return os.getpid()


@pytest.mark.timeout(100)
def test_when_the_last_worker_is_not_replaced_what_needs_one_waits_for_the_minute(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def main(runtime: Any) -> None:
        add_node(runtime, entry="short_minute:main")
        await runtime.wait_for_workers(2)
        await runtime.drain("worker:0:0")  # which is not replaced
        lasting = mosaic.remote(Mortal, max_restarts=20)()
        await lasting.pid()
        told = ""
        while "is replaced in" not in told:
            await runtime.wait_for_workers(1)
            (last,) = runtime.workers
            os.kill(last.pid, signal.SIGKILL)
            while last in runtime.workers:
                await runtime.membership()
            told += capfd.readouterr().err
        assert "since 5 workers were in 12 s" in told
        new = mosaic.remote(Mortal)()
        waiting = [new.pid(), where.submit()]
        for task in waiting:
            if not runtime.workers:  # else this machine is very slow
                assert task.state is TaskState.PENDING
                assert task.reason == "no worker"
                assert "pending, no worker" in repr(task)
        pid = await waiting[0].result()
        assert await mosaic.gather(waiting[1], lasting.pid()) == [pid, pid]
        assert waiting[0].reason is None

    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(runtime)

    mosaic.run(bounded, num_workers=1)
