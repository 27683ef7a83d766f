"""Loops with exclusive workers, barriers, and what the runtime knows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import specimens as s
from specimens import RunIn

if TYPE_CHECKING:
    from mosaic_like.runtimes.user import UserRuntime


def test_a_loop_has_a_worker_for_each_item(cluster: RunIn) -> None:
    async def main(runtime: UserRuntime) -> None:
        pool = s.Counter.options(len=runtime.num_workers).remote()
        await pool
        taken: set[str] = set()
        most = 0
        both = asyncio.Event()

        @runtime.async_for(range(12), "abcdefghijkl")
        async def loop(worker: Any, number: int, letter: str) -> tuple[int, str, int]:
            nonlocal most
            assert worker.uid not in taken
            taken.add(worker.uid)
            most = max(most, len(taken))
            if most == runtime.num_workers:
                both.set()
            if number < 2:  # or the first may have ended before the second begins
                async with asyncio.timeout(30):
                    await both.wait()
            pid = await pool.pid(runtime=worker).result()
            assert pid == worker.pid
            taken.discard(worker.uid)
            return number, letter, pid

        results = await loop
        assert [(n, x) for n, x, _ in results] == list(
            zip(range(12), "abcdefghijkl", strict=True)
        )
        assert most == 2
        assert len({pid for _, _, pid in results}) == 2

        @runtime.async_for([])
        async def empty(worker: Any, x: int) -> int:
            return x

        assert await empty == []

    cluster(main)


def test_loops_nest_without_waiting_for_each_other(cluster: RunIn) -> None:
    async def main(runtime: UserRuntime) -> None:
        holders: dict[str, int] = {}

        @runtime.async_for(range(4))
        async def outer(worker: Any, i: int) -> list[Any]:
            @runtime.async_for(range(3))
            async def middle(inner_worker: Any, j: int) -> list[Any]:
                holders[inner_worker.uid] = holders.get(inner_worker.uid, 0) + 1
                await asyncio.sleep(0)

                @runtime.async_for(range(2))
                async def deepest(_: Any, k: int) -> tuple[int, int, int]:
                    await asyncio.sleep(0)
                    return i, j, k

                return await deepest

            both = await asyncio.gather(middle, middle)
            return both[0]

        results = await outer
        assert results[3][2][1] == (3, 2, 1)
        # all workers were given back
        assert len(await runtime.async_for(range(4))(_uid_of)) == 4

    async def _uid_of(worker: Any, _: int) -> str:
        return str(worker.uid)

    cluster(main)


def test_an_inner_loop_runs_on_the_worker_of_the_outer_item(cluster: RunIn) -> None:
    async def main(runtime: UserRuntime) -> None:
        inside: list[bool] = []
        both = asyncio.Barrier(2)

        @runtime.async_for(range(2))
        async def outer(worker: Any, _: int) -> None:
            async with asyncio.timeout(20):
                await both.wait()  # now all workers are taken

            @runtime.async_for(range(3))
            async def inner(own: Any, _: int) -> None:
                inside.append(own == worker)

            await inner
            async with asyncio.timeout(20):
                await both.wait()

        await outer
        assert inside == [True] * 6

    cluster(main)


def test_a_failing_item_gives_its_worker_back(cluster: RunIn) -> None:
    async def main(runtime: UserRuntime) -> None:
        ended: list[int] = []
        failing = asyncio.Event()

        @runtime.async_for(range(100))
        async def loop(worker: Any, i: int) -> None:
            if i == 1:
                failing.set()
                raise KeyError("item 1")
            await failing.wait()
            ended.append(i)

        with pytest.raises(KeyError, match="item 1"):
            await loop
        assert ended[0] == 0  # what ran went on to its end
        assert len(ended) < 3  # and no more was started

        @runtime.async_for(range(3), timeout=0.02)
        async def stuck(worker: Any, i: int) -> None:
            await asyncio.Event().wait()

        with pytest.raises(TimeoutError, match="0 of 3 items"):
            await stuck

        both = asyncio.Barrier(2)

        @runtime.async_for(range(2))
        async def after(worker: Any, i: int) -> int:
            async with asyncio.timeout(20):
                await both.wait()  # needs both workers at once
            return i

        assert await after == [0, 1]

    cluster(main)


_LOST = """
import asyncio, os
import mosaic_like as mosaic

@mosaic.tessera
class Echo:
    def pid(self): return os.getpid()
    def identity(self, x): return x

async def main(runtime):
    pool = Echo.options(len=2).remote()
    await pool
    victim = runtime.workers[1]
    tries = []

    async def body(worker, i):
        tries.append((i, worker.uid))
        task = pool.identity(i, runtime=worker)
        if worker == victim:
            os.kill(victim.pid, 9)
            await pool.pid(runtime=worker)
        return await task.result()

    assert await runtime.async_for(range(6))(body) == list(range(6))
    lost = [i for i, uid in tries if uid == victim.uid]
    assert len(lost) == 1
    assert [i for i, _ in tries].count(lost[0]) == 2

    @runtime.async_for(range(1), safe=False)
    async def unsafe(worker, i):
        os.kill(worker.pid, 9)
        await Echo.options(runtime=worker).remote().pid()

    try:
        await unsafe
    except mosaic.RuntimeDisconnectedError:
        print("raised")

async def bounded(runtime):
    async with asyncio.timeout(20):
        await main(runtime)

mosaic.run(bounded, num_workers=2)
"""


def test_an_item_whose_worker_was_lost_runs_again(run_script: Any) -> None:
    result = run_script(_LOST)
    assert result.code == 0, result.stderr
    assert result.stdout == "raised\n"
    assert "item 1 runs again" in result.stderr


def test_a_barrier_waits_for_calls_made_inside_calls(
    cluster: RunIn, tmp_path: Any
) -> None:
    async def main(runtime: UserRuntime) -> None:
        first, second = runtime.workers
        slow = s.Slow.options(runtime=second).remote()
        caller = s.Caller.options(runtime=first).remote(slow)
        over = s.Caller.options(runtime=second).remote(caller)
        await over.fire("fire", "hold", str(tmp_path / "go"))
        with pytest.raises(TimeoutError, match=r"not reached in 0\.05 s"):
            await runtime.barrier(0.05)
        with pytest.raises(TimeoutError):
            await runtime.barrier(timeout=0)
        (tmp_path / "go").touch()
        await runtime.barrier(20)
        assert await slow.order == ["hold"]
        # held up by nothing: nothing to wait for
        await runtime.barrier()

    cluster(main)


def test_what_is_registered_runs_at_the_next_barrier(cluster: RunIn) -> None:
    async def main(runtime: UserRuntime) -> None:
        counter = s.Counter.remote()
        seen: list[int] = []

        async def look() -> None:
            seen.append(await counter.value().result())
            counter.add(10)

        runtime.register_barrier_task(look)
        counter.add(1)
        await runtime.barrier()
        assert seen == [1]
        await runtime.barrier()
        assert seen == [1]
        assert await counter.n == 11

        async def bad() -> None:
            raise KeyError("registered")

        runtime.register_barrier_task(bad)
        with pytest.raises(KeyError, match="registered"):
            await runtime.barrier()
        await runtime.barrier()
        plain: Any = int
        runtime.register_barrier_task(plain)
        with pytest.raises(TypeError, match=r"gave 0, .* 'async def'"):
            await runtime.barrier()
        with pytest.raises(TypeError, match="coroutine function"):
            runtime.register_barrier_task(3)  # type: ignore[arg-type]

    cluster(main)


def test_the_runtime_knows_its_workers(cluster: RunIn) -> None:
    async def main(runtime: UserRuntime) -> None:
        assert [w.uid for w in runtime.workers] == ["worker:0:0", "worker:0:1"]
        assert runtime.workers[1].indices == (0, 1)
        assert runtime.num_workers == 2
        assert runtime.get_worker("worker:0:1") == runtime.workers[1]
        assert [n.uid for n in runtime.nodes] == ["node:0"]
        with pytest.raises(LookupError, match="there are: worker:0:0"):
            runtime.get_worker("worker:0:5")
        await runtime.wait_for_workers(2, timeout=1)
        with pytest.raises(TimeoutError, match="2 of 3 workers"):
            await runtime.wait_for_workers(3, timeout=0.01)
        with pytest.raises(LookupError):
            s.Counter.options(runtime="worker:1:0").remote()

    cluster(main)
