"""A loss among many: those who never spoke to each other need not begin for it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic
from mosaic_like.core.relays import FEW

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_S = 60.0
pytestmark = pytest.mark.timeout(150)


class Held:
    """Leaves a file when nobody holds it any more."""

    def __init__(self, path: str) -> None:
        self.path = path

    def touch(self) -> None: ...

    def __close__(self) -> None:
        with open(self.path, "w"):
            pass


class Neighbor:
    """Keeps what it is given, and knows to whom its worker has spoken."""

    def keep(self, other: Any) -> int:
        self.other = other
        return os.getpid()

    def spoken_to(self) -> list[str]:
        peers = mosaic.runtime().peers.by_incarnation.values()
        return sorted(peer.uid for peer in peers if not peer.is_unused)


def test_what_a_lost_one_held_is_freed_and_no_connection_is_made_for_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "closed"

    async def main(runtime: Any) -> None:
        places = runtime.workers
        held = mosaic.remote(Held, runtime=places[0])(str(path))
        holder = mosaic.remote(Neighbor, runtime=places[1])()
        others = [mosaic.remote(Neighbor, runtime=w)() for w in places[2:]]
        await held.touch()
        pid = await holder.keep(held).result()
        del held
        gc.collect()
        await mosaic.gather(other.spoken_to() for other in others)
        assert not path.exists()
        os.kill(pid, signal.SIGKILL)
        while not path.exists():  # noqa: ASYNC110 -- a file of another process
            await asyncio.sleep(0.02)
        for spoken_to in await mosaic.gather(o.spoken_to() for o in others):
            workers = [uid for uid in spoken_to if uid.startswith("worker")]
            assert len(workers) <= 1, spoken_to  # to itself at most

    async def bounded(runtime: Any) -> None:
        await asyncio.wait_for(main(runtime), LIMIT_S)

    mosaic.run(bounded, num_workers=FEW + 1)
