"""Tasks in a row, each an argument of the next: what the far end says of the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import specimens as s

import mosaic_like as mosaic

if TYPE_CHECKING:
    from pathlib import Path

    from specimens import RunIn

_LENGTH = 40


def test_the_end_of_a_chain_names_the_task_that_was_cancelled(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        path = str(tmp_path / "open")
        held, other = (s.Slow.options(runtime=w).remote() for w in runtime.workers)
        held.hold(path)
        first = task = held.hold(path)
        for i in range(_LENGTH):
            task = (other, held)[i % 2].mark("never", task)
        first.cancel("as asked")
        with pytest.raises(mosaic.TaskCancelledError, match="argument") as info:
            await task
        # Only the original: with all between, a long chain takes quadratic time to end.
        cause = info.value.__cause__
        assert isinstance(cause, mosaic.TaskCancelledError)
        assert "as asked" in str(cause)
        assert cause.__cause__ is None
        await other.touch(path)

    cluster(main)
