"""Tasks that another program of the cluster calls by name.

Each test has a cluster of its own: others join and leave it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

import mosaic_like as mosaic
from mosaic_like.tasks import serving

LIMIT_S = 20.0
CALLER = """
import asyncio, sys
import mosaic_like as mosaic

async def main():
    async with mosaic.connect(sys.argv[1]) as runtime:
        key = sys.argv[2]
        print(await runtime.served() == [key])
        print(await runtime.task(key).submit(20, by=2).result())
        print(await mosaic.gather(runtime.task(key).submit(i) for i in range(3)))

asyncio.run(main())
"""


@mosaic.task
def scale(x: int, *, by: int = 10) -> int:
    return by * x


@mosaic.task
async def forever() -> None:
    await asyncio.Event().wait()


async def test_serve_lets_another_program_submit_by_name() -> None:
    async with mosaic.init(num_workers=2) as runtime:
        # As a function of a program, which the other one cannot import.
        scale.fn.__module__ = "__main__"
        try:
            await runtime.serve(scale)
        finally:
            scale.fn.__module__ = __name__
        (key,) = await runtime.served()
        assert key == "__main__:scale"
        where = str(runtime.hold.cluster.key)
        command = [sys.executable, "-W", "error", "-c", CALLER, where, key]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, timeout=LIMIT_S
        )
        assert (done.stdout, done.stderr) == (b"True\n40\n[0, 10, 20]\n", b"")


async def test_a_name_that_is_not_served_is_a_lookup_error_with_those_that_are() -> (
    None
):
    async with mosaic.init(num_workers=2) as runtime:
        await scale.serve()
        found = f"'a:b' is not|there are: .*'{scale.key}'"
        with pytest.raises(LookupError, match=found):
            await runtime.task("a:b").submit(1)
        with pytest.raises(ValueError, match="module:function"):
            runtime.task("scale")
        with pytest.raises(TypeError, match=r"the key of a task.*not 3; 'await"):
            runtime.task(3)
        with pytest.raises(TypeError, match=r"by task\.submit"):
            runtime.task(scale)
        with pytest.raises(TypeError, match="takes tasks"):
            await runtime.serve(len)
        with pytest.raises(TypeError, match="by"):
            await runtime.task(scale.key).submit(1, bye=2)
        assert "served task" in repr(runtime.task(scale.key))
        # And one that is served is cancelled with the call of it.
        await runtime.serve(forever)
        call = runtime.task(forever.key).submit()
        call.cancel()
        assert isinstance(await call.exception(), mosaic.TaskCancelledError)
        await runtime.barrier(LIMIT_S)


async def test_tasks_are_served_again_when_the_worker_that_knows_them_dies() -> None:
    async with mosaic.init(num_workers=2) as runtime, asyncio.timeout(30):
        assert await runtime.served() == []
        await runtime.serve(scale, forever)
        before = runtime.task(scale.key)
        for _ in range(2):
            registry = serving._registry()
            await registry.keys()
            home = runtime.get_worker(runtime.uid_of(registry._mosaic_handle.owner))
            lost = registry.run(forever.key, (), {})
            os.kill(home.pid, signal.SIGKILL)
            assert isinstance(await lost.exception(), mosaic.WorkerDied)
            # Nobody is told meanwhile that nothing is served.
            calls = [named.submit(2) for named in (before, runtime.task(scale.key))]
            assert await mosaic.gather(calls) == [20, 20]
            assert await runtime.served() == sorted([forever.key, scale.key])


async def test_a_registry_that_may_be_another_waits_for_what_that_had() -> None:
    registry = serving.Registry(losses=True)
    asked = asyncio.ensure_future(registry.keys())
    await asyncio.sleep(0)
    assert not asked.done()
    registry.register([scale])
    assert await asked == [scale.key]
    registry._until_s = 0.0  # its time is over
    with pytest.raises(LookupError, match="'a:b' is served"):
        await registry.run("a:b", (), {})
