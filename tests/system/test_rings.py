"""Main threads that stand in each other's way where no calls wait in a circle."""

from __future__ import annotations

import asyncio
from typing import Any

import mosaic_like as mosaic


@mosaic.tessera
class Member:
    """Blocks in plain methods."""

    def __init__(self, other: Any = None) -> None:
        self.other = other

    def leaf(self, x: Any = 1) -> Any:
        return x

    def blocks(self, *path: str) -> Any:
        """Call the other's method of that name with the rest, and block."""
        return getattr(self.other, path[0])(*path[1:]).get()


def test_three_workers_whose_threads_wait_for_each_other_do_not_stop() -> None:
    """No circle of calls: each thread blocks a call that it depends on itself."""

    async def main(runtime: Any) -> None:
        places = runtime.workers
        leaves = [Member.options(runtime=place).remote() for place in places]
        deeper = [
            Member.options(runtime=place).remote(leaf)
            for place, leaf in zip(places, leaves[2:] + leaves[:2], strict=True)
        ]
        for others, path in ((leaves, ["leaf"]), (deeper, ["blocks", "leaf"])):
            # The first of them call each other around, all at once.
            asking = [
                Member.options(runtime=place).remote(other)
                for place, other in zip(places, others[1:] + others[:1], strict=True)
            ]
            await mosaic.gather(a.leaf() for a in asking)
            calls = [a.blocks(*path) for _ in range(5) for a in asking]
            async with asyncio.timeout(20):
                assert await mosaic.gather(calls) == [1] * 15

    mosaic.run(main, num_workers=3)
