"""What has a name, when its worker or the monitor dies: see ``test_names``."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from test_names import Register, named

import mosaic_like as mosaic
from mosaic_like.errors import MonitorLost, WorkerDied

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


def test_without_a_monitor_a_name_raises_soon() -> None:
    async def main(runtime: Any) -> None:
        made = named("monitor")
        await made
        (monitor,) = [m for m in runtime.members.values() if m.uid == "monitor"]
        os.kill(monitor.pid, signal.SIGSTOP)
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
        assert time.monotonic() - start_s < 5.0

    run(main)


def run(main: Main) -> None:
    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(20):
            await main(runtime)

    mosaic.run(bounded, num_workers=2)
