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


@mosaic.task
def large(n: int) -> tuple[int, list[int]]:
    """Its value stays at its worker, and says which that was."""
    return os.getpid(), list(range(n))


@mosaic.task
def longer(value: Any, by: list[int]) -> tuple[int, list[int]]:
    return os.getpid(), value[1] + by


@mosaic.task
def length(value: Any) -> int:
    return len(value[1])


async def kill(runtime: Any, worker: Any) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    while worker in runtime.workers:
        await runtime.membership()


def test_a_done_task_whose_value_was_lost_is_retried_and_dependents_follow() -> None:
    async def main(runtime: Any) -> None:
        worker = runtime.workers[0]
        there = large.options(runtime=worker)
        first = there.submit(50_000)
        second = longer.options(runtime=worker).submit(first, [1])
        other = there.task(60_000)
        await mosaic.wait([first, second, other])
        await kill(runtime, worker)
        last = length.submit(second)
        with pytest.raises(mosaic.UpstreamError):
            await last
        # What was prepared, too, whether or not anybody has asked for it since.
        assert (other.state, second.state) == ("done", "done")
        other.retry()
        second.retry()  # which takes the value of another that is lost with it
        assert await last.result() == 50_001
        assert len((await other.result())[1]) == 60_000
        assert worker.pid not in [(await t.result())[0] for t in (first, second)]
        assert (first.attempt, second.attempt, last.attempt) == (2, 2, 2)
        with pytest.raises(mosaic.InvalidTransitionError, match=r"'retry'.*'done'"):
            second.retry()

    mosaic.run(main, num_workers=2)


def test_what_cannot_be_retried_when_its_value_was_lost_says_why() -> None:
    async def main(runtime: Any) -> None:
        worker = runtime.workers[0]
        first = large.options(runtime=worker).submit(30_000)
        add = longer.options(runtime=worker)
        second = add.submit(first, [1])
        wide = add.submit(first, list(range(30_000)))
        await mosaic.wait([second, wide])
        del first  # its value has gone with it
        await kill(runtime, worker)
        with pytest.raises(TypeError, match="nobody holds large, which it takes"):
            second.retry()
        with pytest.raises(TypeError, match=r"not kept, .*up to 64.0 KiB.*submit it"):
            wide.retry()
        with pytest.raises(mosaic.WorkerDied, match=r"lost. Run it again: by task.ret"):
            await wide.result()

    mosaic.run(main, num_workers=2)


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
        # Nor where retry_if, which is asked here then, does not agree.
        refused = die_once.options(max_retries=1, retry_if=lambda error, attempt: False)
        with pytest.raises(mosaic.WorkerDied):
            await refused.submit(str(tmp_path / "refused"))

    mosaic.run(main, num_workers=2)
