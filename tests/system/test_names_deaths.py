"""What has a name, when its worker or the monitor dies: see ``test_names``."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from processes import halt
from test_names import Register, named

import mosaic_like as mosaic
from mosaic_like.errors import MonitorLost, WorkerDied
from mosaic_like.launch import status

Main = Callable[[Any], Coroutine[Any, Any, None]]


def test_a_name_is_free_when_its_worker_dies() -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        asking = Register.options(runtime=second).remote()
        made = named("worker", 1, runtime=first)
        found = await asking.asks("worker", 2).result()
        pid = await made.pid().result()
        running = found.forever()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await running
        with pytest.raises(WorkerDied):
            await found.put(0).result()
        again = named("worker", 5, runtime=second)
        assert await again.put(6).result() == [5, 6]
        with pytest.raises(WorkerDied):
            await made.put(0).result()

    run(main)


def test_a_claim_whose_worker_dies_is_made_again() -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        asking = Register.options(runtime=second).remote()
        await asking
        # Its construction takes long: the others wait for it.
        slow = Register.options(name="slow", runtime=first).remote(1, 20.0)
        found = asking.asks_and_waits("slow")
        os.kill(first.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await slow
        # Either it had been given what died, or it made its own, which raised.
        with pytest.raises((WorkerDied, ValueError)):
            await found.result()
        assert await named("slow", 3, runtime=second).put(4).result() == [3, 4]

    run(main)


@mosaic.tessera(max_restarts=3)
class Keeper(Register):
    """A register that is built again, with its first value."""

    async def finds(self, name: str) -> Any:
        found = Keeper.options(name=name).remote(-1)
        await found
        return found


def test_what_is_built_again_keeps_its_name() -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        asking = Keeper.options(runtime=second).remote()
        made = Keeper.options(name="keeper", runtime=first).remote(1)
        # Who asks before it is known, and who has called it meanwhile.
        early = Keeper.options(name="keeper").remote(2)
        events = mosaic.monitor(early)
        assert await asking.finds("keeper").result() == made
        assert await early.put(3).result() == [1, 3]
        assert await early == await made
        assert (await anext(events)).change is mosaic.TesseraChange.UP
        os.kill(await made.pid().result(), signal.SIGKILL)
        assert await early.put(4).result() == [1, 4]
        changes = [(await anext(events)).change.value for _ in range(2)]
        assert changes == ["down", "restarted"]
        # Also for who asks now, from there and from here.
        found = await asking.finds("keeper").result()
        assert found == made
        assert await found.put(5).result() == [1, 4, 5]
        assert await Keeper.options(name="keeper").remote(6) == made
        # Without restarts it is another kind of thing.
        with pytest.raises(TypeError, match=r"made with max_restarts, and is asked"):
            await Keeper.options(name="keeper", max_restarts=0).remote()
        failed = Keeper.options(name="other", max_restarts=1).remote(-1)
        with pytest.raises(ValueError, match="start is -1"):
            await failed
        assert await Keeper.options(name="other").remote(8).put(9).result() == [8, 9]
        await mosaic.close(made)
        again = Keeper.options(name="keeper").remote(7)
        assert await again.put(8).result() == [7, 8]
        assert again != found
        with pytest.raises(LookupError, match="closed"):
            await found.put(0).result()
        del made, early, found, again, failed, events
        async with asyncio.timeout(25):
            while await status._names(runtime) or len(runtime.worker.kept) > 1:
                gc.collect()
                await asyncio.sleep(0.01)
        del asking
        async with asyncio.timeout(25):
            while len(runtime.worker.holders):
                gc.collect()
                await asyncio.sleep(0.01)

    run(main)


def test_without_a_monitor_a_name_raises_soon() -> None:
    async def main(runtime: Any) -> None:
        made = named("monitor")
        await made
        (monitor,) = [m for m in runtime.members.values() if m.uid == "monitor"]
        halt(monitor.pid)
        waits = named("monitor")
        call = waits.put(1)
        os.kill(monitor.pid, signal.SIGKILL)
        start_s = time.monotonic()
        with pytest.raises(MonitorLost):
            await waits
        with pytest.raises(MonitorLost):
            await call.result()
        with pytest.raises(MonitorLost):
            await named("other").put(1).result()
        assert time.monotonic() - start_s < 10.0

    run(main)


def run(main: Main) -> None:
    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(20):
            await main(runtime)

    mosaic.run(bounded, num_workers=2)
