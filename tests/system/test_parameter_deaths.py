"""Parameters whose root or whose copies are lost with their process."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

import mosaic_like as mosaic
from mosaic_like.core.versions import CopyState

LIMIT_S = 25.0


@mosaic.tessera
class Model:
    """A medium."""

    def __init__(self, speed: float) -> None:
        self.speed = speed

    def twice(self) -> float:
        return 2 * self.speed


class Keeper:
    """Has a copy."""

    def __init__(self) -> None:
        self.model: Any = None

    def pid(self) -> int:
        return os.getpid()

    def keep(self, model: Model) -> None:
        self.model = model

    def pull(self) -> float:
        self.model.pull().get(10)
        speed: float = self.model.speed
        return speed


def test_who_loses_its_root_says_so_and_who_keeps_it_goes_on() -> None:
    async def main(runtime: Any) -> None:
        await runtime.wait_for_workers(2, LIMIT_S)
        one, two = (mosaic.remote(Keeper, runtime=w)() for w in runtime.workers)
        pid = await one.pid().result()
        lost = Model.options(runtime=one).parameter(1.5)
        here = Model.local_parameter(1.5)
        await lost.ref
        await mosaic.gather(one.keep(here), two.keep(lost))
        pulling = lost.pull()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(mosaic.WorkerDied):
            await lost.set("speed", 3.0)
        assert lost.twice() == 6.0
        assert lost.copy_states()["speed"] is CopyState.CHANGED
        with pytest.raises(mosaic.StaleError):
            lost.propagate("twice")
        for ask in (lambda: lost.get("speed"), lost.pull, lost.publish):
            with pytest.raises(mosaic.WorkerDied):
                await ask()
        with pytest.raises(mosaic.WorkerDied):
            await two.pull()
        del pulling
        # A copy is lost: its root does not mind, nor do the others.
        await two.keep(here)
        await here.set("speed", 4.0)
        await here.publish()
        assert await two.pull().result() == 4.0

    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(runtime)

    mosaic.run(bounded, num_workers=2)
