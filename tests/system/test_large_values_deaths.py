"""Who is killed while large values are on their way, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from large_values import MIB, all_returned, fail_to_open, pair, until

import mosaic_like as mosaic
from mosaic_like.errors import RuntimeDisconnectedError

if TYPE_CHECKING:
    from conftest import RunScript


def alone(main: Any, workers: int = 2) -> None:
    """In a cluster of its own."""

    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(25):
            await runtime.sharing.ready()
            holders = pair(runtime)
            for holder in holders:

                async def ready(holder: Any = holder) -> bool:
                    return await holder.ready().result()

                await until(ready)
            await main(runtime, *holders)

    mosaic.run(bounded, num_workers=workers)


def test_what_the_caller_has_can_be_passed_on_although_its_maker_was_killed() -> None:
    async def main(runtime: Any, first: Any, second: Any) -> None:
        small, large = first.echo([1, 2]), first.ones(MIB)
        pid = await first.pid().result()
        await mosaic.gather(small, large)
        os.kill(pid, signal.SIGKILL)
        # At once, when nobody knows of the loss, and later.
        assert await second.echo(small).result() == [1, 2]
        with pytest.raises(RuntimeDisconnectedError):
            await first.ones(1)
        assert await second.echo(small).result() == [1, 2]
        assert await second.total(large).result() == MIB
        del small, large
        await all_returned(runtime, second)

    alone(main)


def test_a_value_outlives_the_worker_that_made_it() -> None:
    async def main(runtime: Any, first: Any, second: Any) -> None:
        read, unread, kept = first.ones(MIB), first.ones(2 * MIB), first.ones(3 * MIB)
        value = await read.result()
        words = first.echo([str(number) for number in range(50_000)])
        await mosaic.gather(unread, kept)
        await words
        await second.keep(kept)
        os.kill(await first.pid().result(), signal.SIGKILL)
        with pytest.raises(RuntimeDisconnectedError):
            await first.ones(1)
        assert value.sum() == MIB
        assert (await unread.result()).sum() == 2 * MIB
        assert len(await words.result()) == 50_000
        assert (await second.give().result()).sum() == 3 * MIB
        assert await second.total(value, await unread.result()).result() == 3 * MIB
        await second.keep(None)
        del value, read, unread, kept, words
        await all_returned(runtime, second)

    alone(main)


def test_memory_comes_back_from_a_reader_that_was_killed() -> None:
    async def main(runtime: Any, first: Any, second: Any) -> None:
        made = second.ones(MIB)
        await made
        pid = await first.pid().result()
        await first.keep(np.ones(5 * MIB, "u1"))
        held = [first.hold(np.ones(MIB, "u1")), first.hold(made)]
        waiting = [first.total(np.ones(MIB, "u1")) for _ in range(20)]
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        for task in (*held, *waiting):
            with pytest.raises(RuntimeDisconnectedError):
                await task
        assert await second.total(made).result() == MIB
        del made, held, waiting, task
        await all_returned(runtime, second)

    alone(main)


def test_all_goes_on_without_the_warehouse_and_with_the_next() -> None:
    async def main(runtime: Any, first: Any, second: Any) -> None:
        array = np.ones(MIB, "u1")
        before = runtime.warehouse
        kept = await first.ones(MIB).result()
        unread = first.ones(2 * MIB)
        await unread
        calls = [first.total(second.echo(array)) for _ in range(10)]
        os.kill(before.pid, signal.SIGKILL)
        calls += [first.total(second.echo(array)) for _ in range(10)]
        for call in calls:
            assert await call.result() == MIB
        assert kept.sum() == MIB
        assert (await unread.result()).sum() == 2 * MIB
        await until(lambda: runtime.warehouse not in (None, before))
        await runtime.sharing.ready()
        assert (await first.echo(array).result()).sum() == MIB
        assert await second.total(kept, first.ones(MIB)).result() == 2 * MIB

    alone(main)


def test_a_value_whose_maker_and_warehouse_are_gone_is_an_error_at_once() -> None:
    async def main(runtime: Any, first: Any, second: Any) -> None:
        fail_to_open(runtime, 1)
        task = first.ones(MIB)
        await task
        pid = await first.pid().result()
        os.kill(runtime.warehouse.pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: runtime.warehouse is None or not runtime.sharing.home)
        with pytest.raises(RuntimeDisconnectedError):
            await task.result()
        assert await second.total(np.ones(MIB, "u1")).result() == MIB

    alone(main)


def test_a_value_larger_than_the_credit_goes_alone() -> None:
    # In a cluster of its own: to make it may hold the loop for so long that links
    # are made anew.
    async def main(runtime: Any, first: Any, second: Any) -> None:
        large = np.ones(260 * MIB, "u1")
        totals = [first.total(large) for _ in range(2)]
        small = first.total(np.ones(3))
        assert [await t.result() for t in totals] == [large.nbytes] * 2
        assert await small.result() == 3
        del totals
        await all_returned(runtime, first, second)
        assert runtime.sharing._stock.free_bytes <= 512 * MIB

    alone(main)


def test_nothing_is_left_when_all_are_killed() -> None:
    async def main(runtime: Any, first: Any, second: Any) -> None:
        tasks = [h.echo(np.ones(MIB, "u1")) for h in (first, second) for _ in range(20)]
        await tasks[0]
        pids = [m.pid for m in runtime.members.values() if m.pid != os.getpid()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it has gone with another
                os.kill(pid, signal.SIGKILL)
        ended = await asyncio.gather(
            *(task.result() for task in tasks), return_exceptions=True
        )
        for value in ended:
            if isinstance(value, BaseException):
                assert isinstance(value, mosaic.MosaicError)
            else:
                assert value.sum() == MIB  # it had come before

    alone(main)


def test_a_head_without_memfd_sends_messages_and_says_why_once(
    run_script: RunScript,
) -> None:
    result = run_script(
        """
import asyncio, os
import numpy as np
import mosaic_like as mosaic

@mosaic.tessera
class Echo:
    def echo(self, value): return value
    def ready(self): return bool(mosaic.runtime().sharing.home)

async def main(runtime):
    echo = Echo.remote()
    while runtime.warehouse is None or not await echo.ready().result():
        await runtime.membership() if runtime.warehouse is None else None
    for _ in range(5):
        assert (await echo.echo(np.ones(1 << 20)).result()).sum() == 1 << 20
    assert not runtime.sharing.home
    # The warehouse has memory that all can open, and a disk.
    refs = [mosaic.put(np.full(1 << 20, k)) for k in range(6)]
    await refs[-1]
    while (report := await runtime.memory()).hosts[0].used > 24 << 20:
        await asyncio.sleep(0.05)
    places = {str(value.place) for value in report.values if str(value.kind) == "put"}
    assert "spilled" in places and places <= {"spilled", "resident"}, report
    assert [v[0] for v in await echo.echo(refs).result()] == list(range(6))
    del refs
    while (report := await runtime.memory()).values:
        await asyncio.sleep(0.05)
    print("done", report.hosts[0].spilled)

del os.memfd_create
mosaic.run(main, num_workers=1, memory="24 MiB")
""",
        env={"MOSAIC_QUIET": "1"},
    )
    assert result.stdout == "done 0\n", result
    assert result.stderr.count("large values are sent in messages") == 1
    assert "no memfd_create" in result.stderr
