"""The option worker_timeout: a worker that is not heard is killed by its node."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from processes import halt

import mosaic_like as mosaic

SILENT_S = 8.0  # with much else to do a worker that is well is heard in less


class Quiet:
    """Says where it is."""

    def pid(self) -> int:
        return os.getpid()

    def sleep(self, seconds: float) -> float:
        """Whoever only takes long is heard all the time."""
        time.sleep(seconds)
        return seconds


def test_a_worker_that_is_not_heard_is_killed_and_one_that_is_busy_is_not() -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        frozen = mosaic.remote(Quiet, runtime=first)()
        busy = mosaic.remote(Quiet, runtime=second)()
        pid = await frozen.pid().result()
        sleeps = busy.sleep(SILENT_S + 1)
        halt(pid)
        with pytest.raises(
            mosaic.WorkerDied, match=r"not heard for 8 s \(worker_timeout\)"
        ):
            await frozen.pid()
        assert await sleeps.result() == SILENT_S + 1
        await runtime.wait_for_workers(2, timeout=60)

    mosaic.run(main, num_workers=2, worker_timeout=SILENT_S)
