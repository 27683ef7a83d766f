"""Cancel and timeouts where a worker cannot answer, or is to end with its call."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path  # noqa: TC003 - the workers have it too
from typing import Any

import pytest
from processes import halt
from specimens import catch_all

import mosaic_like as mosaic
from mosaic_like import TaskCancelledError, TaskTimeoutError, Verdict

SOON_S = 10.0  # on a slow machine; it takes 1.5 s on another


class Hard:
    """Stops when it likes to."""

    def pid(self) -> int:
        return os.getpid()

    def stubborn(self, begun: Path, seconds: float) -> None:
        """Catch all that is raised."""
        end_s = time.monotonic() + seconds
        catch_all(begun, lambda _: time.monotonic() > end_s)

    async def stands(self) -> None:
        await asyncio.sleep(20)


async def begins(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - made by another process
        await asyncio.sleep(0.002)


def test_a_frozen_worker_does_not_keep_its_callers_waiting() -> None:
    async def main(runtime: Any) -> None:
        hard = mosaic.remote(Hard)()
        pid = await hard.pid().result()
        halt(pid)
        try:
            start_s = time.monotonic()
            late = hard.pid.options(timeout=0.2)()
            with pytest.raises(TaskTimeoutError, match="does not answer") as caught:
                await late
            assert time.monotonic() - start_s < SOON_S
            assert caught.value.verdict is Verdict.MAYBE_RAN
            cancelled = hard.pid()
            cancelled.cancel("enough")
            with pytest.raises(TaskCancelledError, match="enough; w0:0 does not answ"):
                await cancelled
        finally:
            os.kill(pid, signal.SIGCONT)
        assert await hard.pid().result() == pid
        # The answers that came late are counted, and dropped.
        assert not runtime.caller.given_up
        assert (late.state, late.reason) == ("failed", "timeout")
        assert cancelled.state == "cancelled"

    mosaic.run(main, num_workers=1)


def test_kill_ends_the_worker_of_what_does_not_stop(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        hard = mosaic.remote(Hard, interrupt="kill")()
        beside = mosaic.remote(Hard)()
        first = await hard.pid().result()
        other = beside.stands()
        task = hard.stubborn(tmp_path / "begun", 20)
        await begins(tmp_path / "begun")
        task.cancel()
        with pytest.raises(TaskCancelledError):
            await task
        with pytest.raises(mosaic.WorkerDied, match=r"stubborn.*interrupt='kill'"):
            await other
        await runtime.wait_for_workers(1, 20)
        # One that cannot do it itself: the node does.
        hard = mosaic.remote(Hard, interrupt="kill")()
        pid = await hard.pid().result()
        assert pid != first
        halt(pid)
        last = hard.pid()
        task = hard.pid.options(timeout=0.2)()
        with pytest.raises(TaskTimeoutError):
            await task
        with pytest.raises(mosaic.WorkerDied, match="interrupt='kill'"):
            await last

    mosaic.run(main, num_workers=1)
