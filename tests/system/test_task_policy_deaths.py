"""What becomes of a task, and of its slots, when its worker dies or does not answer."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from policy_specimens import LONG_S, die_once, for_ever, lines, nap, spin

import mosaic_like as mosaic

if TYPE_CHECKING:
    from pathlib import Path


def test_retries_and_slots_outlive_a_worker(tmp_path: Path) -> None:
    path = str(tmp_path / "log")

    async def main(runtime: Any) -> Any:
        mosaic.limits["t"] = 1
        tagged = die_once.options(tags={"t"})
        again = tagged.options(max_retries=1).submit(f"{path}1")
        lost = tagged.submit(f"{path}2")
        last = tagged.submit(f"{path}2")
        async with asyncio.timeout(40):
            errors = [await task.exception() for task in (again, lost, last)]
        return errors, again.attempt, await again.result(), await last.result()

    errors, attempt, one, two = mosaic.run(main, num_workers=2)
    assert [type(e) for e in errors] == [type(None), mosaic.WorkerDied, type(None)]
    assert (attempt, one, two) == (2, "second", "second")


def test_timeout_really_settles_plain_and_async_tasks() -> None:
    """A worker that is slow to stop may be ended for it: so in a cluster of its own."""

    async def main(runtime: Any) -> Any:
        # Once, so that no worker has to import anything in the time of the others.
        await mosaic.gather([*spin.map([0.0] * 4), *nap.map([0.0] * 4)])
        begin_s = time.monotonic()
        tasks = [
            spin.options(timeout=0.1).submit(30.0),
            for_ever.options(timeout=0.1).submit(),
            for_ever.options(timeout=0.05, max_retries=2, retry_delay=0.01).submit(),
        ]
        async with asyncio.timeout(25):
            errors = [await task.exception() for task in tasks]
        return errors, time.monotonic() - begin_s

    errors, took_s = mosaic.run(main, num_workers=2)
    assert [type(e) for e in errors] == [mosaic.TaskTimeoutError] * 3
    assert took_s < 25


def test_slots_of_a_submitter_that_dies_are_free(tmp_path: Path) -> None:
    """The submitter is a worker: what it had is given back by the monitor."""
    path = str(tmp_path / "log")

    async def main(runtime: Any) -> Any:
        mosaic.limits["t"] = 1
        inner = for_ever.options(tags={"t"})
        outer = mosaic.task(_submits_and_dies).submit(inner, path)
        async with asyncio.timeout(40):
            error = await outer.exception()
            value = await mosaic.task(_value).options(tags={"t"}).submit().result()
        return error, value

    error, value = mosaic.run(main, num_workers=2)
    assert isinstance(error, mosaic.WorkerDied)
    assert value == 1


async def _submits_and_dies(inner: Any, path: str) -> None:
    inner.submit(path)
    while not lines(path):  # noqa: ASYNC110 -- what it looks at is a file
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), 9)


def _value() -> int:
    return 1


def test_tasks_that_wait_end_with_the_monitor_that_they_wait_for() -> None:
    async def main(runtime: Any) -> Any:
        mosaic.limits["t"] = 0
        tasks = [
            nap.options(tags={"t"}).submit(0.0),
            nap.options(delay=LONG_S).submit(0.0),
        ]
        while tasks[0].reason != "limit":  # noqa: ASYNC110 -- no event tells it
            await asyncio.sleep(0.01)
        (monitor,) = [m for m in runtime.members.values() if m.uid == "monitor"]
        os.kill(monitor.pid, signal.SIGKILL)
        async with asyncio.timeout(25):
            errors = [await task.exception() for task in tasks]
        return errors, [task.reason for task in tasks]

    errors, reasons = mosaic.run(main, num_workers=1)
    assert [type(e) for e in errors] == [mosaic.MonitorLost] * 2
    assert reasons == ["lost"] * 2
