"""What becomes of a task, and of the slots that it holds, when its worker dies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from policy_specimens import die_once, for_ever, lines

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
    import os

    inner.submit(path)
    while not lines(path):  # noqa: ASYNC110 -- what it looks at is a file
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), 9)


def _value() -> int:
    return 1
