"""A child that a method forks ends where the method ends, on whatever lane that ran."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from specimens import RunIn

LIMIT_S = 20.0
STATUS = {"return": 0, "raise": 1, "exit": 7}


class Forks:
    """Forks, and gives the exit status of the child."""

    def fork(self, how: str) -> int:
        pid = os.fork()
        if pid == 0:
            if how == "raise":
                raise ValueError("in the child")
            if how == "exit":
                sys.exit(7)
            return 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    async def afork(self, how: str) -> int:
        return self.fork(how)

    def plus(self, k: int) -> int:
        return k + 1


@pytest.mark.parametrize(
    "options",
    [{}, {"inline": True}, {"thread": True}, {"is_async": True}],
    ids=["main", "inline", "thread", "is_async"],
)
def test_a_forked_child_ends_with_its_method_on_every_lane(
    cluster: RunIn, options: dict[str, Any]
) -> None:
    async def main(runtime: Any) -> None:
        forks = mosaic.remote(Forks, **options)()
        for method in (forks.fork, forks.afork):
            for how, status in STATUS.items():
                # Among others, that the child must not run: it has them too.
                before = [forks.plus(i) for i in range(3)]
                forked = method(how)
                after = [forks.plus(i) for i in range(3)]
                async with asyncio.timeout(LIMIT_S):
                    assert await forked.result() == status, how
                    assert await mosaic.gather(*before, *after) == [1, 2, 3] * 2

    cluster(main)
