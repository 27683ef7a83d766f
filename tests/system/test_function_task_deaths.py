"""Function tasks whose worker dies: what ran is lost or runs again, the rest moves."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from moved_calls import Waits, end, forgotten

import mosaic_like as mosaic
from mosaic_like.runtimes import seeking

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


@mosaic.task
def block_once(path: str) -> str:
    """Tells its process and stands, the first time; then gives something."""
    if os.path.exists(path):
        return "again"
    with open(f"{path}.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}.new", path)
    time.sleep(WAIT_S)
    return "once"


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


def test_a_task_that_ran_again_is_found_as_long_as_somebody_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeking, "_LATE_S", 3600.0)  # the test says when that is over

    async def main(runtime: Any) -> None:
        path = tmp_path / "ran"
        task = block_once.options(max_retries=1).submit(str(path))
        while not path.exists():  # noqa: ASYNC110 -- made by a worker
            await asyncio.sleep(0.005)
        pid = int(path.read_text())
        there, other = sorted(runtime.workers, key=lambda w: w.pid != pid)
        waits = Waits.options(runtime=other).remote()
        await waits.keep([mosaic.quote(task)])
        await kill(runtime, there)
        assert await end(task) == "again"
        del task
        await forgotten(runtime, 1)
        assert await waits.ends().result() == ["again"]
        del waits
        await forgotten(runtime, 0)

    mosaic.run(main, num_workers=2)
