"""Function tasks whose worker dies: what ran is lost or runs again, the rest moves."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from pathlib import Path

WAIT_S = 20.0


@mosaic.task
def square(x: int) -> int:
    return x * x


@mosaic.task
def die_once(path: str) -> int:
    """Ends its worker the first time."""
    if not os.path.exists(path):
        with open(path, "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return 1


def test_the_running_task_of_a_lost_worker_fails_and_queued_ones_move(
    tmp_path: Path,
) -> None:
    async def main(runtime: Any) -> None:
        gone = die_once.submit(str(tmp_path / "once"))
        others = [square.submit(i) for i in range(200)]
        with pytest.raises(mosaic.WorkerDied) as caught:
            await gone
        assert caught.value.verdict is mosaic.Verdict.MAYBE_RAN
        assert (gone.state, gone.reason) == ("failed", "lost")
        assert await mosaic.gather(others) == [i * i for i in range(200)]
        # And those of the worker that took its place.
        await runtime.wait_for_workers(2, WAIT_S)
        assert await mosaic.gather(square.map(range(50))) == [i * i for i in range(50)]

    mosaic.run(main, num_workers=2)


def test_a_lost_running_task_runs_again_where_retries_are_left(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        behind = square.submit(
            again := die_once.options(max_retries=1).submit(str(tmp_path / "once"))
        )
        assert await behind.result() == 1
        assert again.attempt == 2
        # Not where retry_on names only others.
        other = die_once.options(max_retries=1, retry_on=ValueError)
        with pytest.raises(mosaic.WorkerDied):
            await other.submit(str(tmp_path / "other"))

    mosaic.run(main, num_workers=2)
