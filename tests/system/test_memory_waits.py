"""Who waits for memory, who is killed while it is full, and what is told of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from large_values import MIB, pair, until
from little_memory import Maker, alone, host_of

import mosaic_like as mosaic
from mosaic_like.errors import MemoryOverflowError, RuntimeDisconnectedError

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunScript


@pytest.mark.parametrize("whom", ["warehouse", "maker", "reader"])
def test_who_is_killed_while_values_are_spilled_leaves_nothing(
    tmp_path: Path, whom: str
) -> None:
    async def main(runtime: Any, maker: Any, other: Any) -> None:
        warehouse = runtime.warehouse
        pid = {
            "warehouse": warehouse.pid,
            "maker": await maker.pid().result(),
            "reader": await other.pid().result(),
        }[whom]
        tasks = [maker.made(8 * MIB, number) for number in range(12)]
        reading = [other.is_full_of(task, n) for n, task in enumerate(tasks[:6])]
        await tasks[5]
        os.kill(pid, signal.SIGKILL)
        read = await mosaic.gather(tasks, return_exceptions=True)
        for number, value in enumerate(read):
            if isinstance(value, BaseException):
                assert isinstance(value, RuntimeDisconnectedError)
                assert whom != "reader"
            else:
                assert (value == number).all()
        assert whom == "warehouse" or not isinstance(read[0], BaseException)
        checked = await mosaic.gather(reading, return_exceptions=True)
        assert all(c is True or isinstance(c, mosaic.MosaicError) for c in checked)
        del tasks, reading, read, value, checked
        if whom == "warehouse":
            await until(lambda: runtime.warehouse not in (None, warehouse))
            await runtime.sharing.ready()
        else:

            async def nothing_left() -> bool:
                host = await host_of(runtime)
                return bool(host.spilled == 0)

            await until(nothing_left)
        again = await mosaic.put(np.full(8 * MIB, 3, "u1"))
        alive = pair(runtime)[0]
        assert await alive.total(again).result() == 24 * MIB

    alone(main, memory="32 MiB", spill_directory=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_head_that_is_killed_leaves_no_files(
    run_script: RunScript, tmp_path: Path
) -> None:
    script = """
        import asyncio, os, signal
        import mosaic_like as mosaic

        async def main(runtime):
            await runtime.sharing.ready()
            refs = [mosaic.put(bytes([n]) * (8 << 20)) for n in range(8)]
            for ref in refs:
                await ref
            print((await runtime.memory()).hosts[0].spilled >> 20, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        mosaic.run(main, num_workers=1)
    """
    environment = {"MOSAIC_MEMORY": "16 MiB", "MOSAIC_SPILL_DIRECTORY": str(tmp_path)}
    result = run_script(textwrap.dedent(script), env=environment)
    assert result.code == -signal.SIGKILL, result.stderr
    assert int(result.stdout) >= 48
    assert not list(tmp_path.iterdir())


def test_memory_tells_of_values_where_they_are_and_who_holds_them() -> None:
    async def main(runtime: Any, maker: Any, other: Any) -> None:
        ref = await mosaic.put(np.ones(2 * MIB, "u1"))
        await mosaic.put(np.ones(MIB, "u1"), key="model")
        made = maker.ones(3 * MIB)
        words = other.echo([str(n) for n in range(20_000)])
        await mosaic.gather([made, words])
        await other.keep(ref)
        await maker.keep(np.ones(4 * MIB, "u1"))
        report = await runtime.memory()
        told = [
            (v.kind, v.size // MIB, v.place, v.runtime, v.name) for v in report.values
        ]
        assert told == [
            ("other", 4, "resident", "warehouse:0", ""),
            ("result", 3, "resident", "worker:0:0", "Maker#1.ones"),
            ("put", 2, "resident", "warehouse:0", ""),
            ("put", 1, "resident", "warehouse:0", "'model'"),
            ("result", 0, "worker", "worker:0:1", "Maker#2.echo"),
        ]
        by_uid = {value.uid: value for value in report.values}
        assert by_uid[made.uid].holders == ("head",)
        assert by_uid[ref.uid].holders == ("head", "worker:0:1")
        (host,) = report.hosts
        assert 10 * MIB <= host.used <= host.limit == 64 * MIB
        assert not report.silent
        text = str(report)
        assert "2.0 MiB  resident  put" in text
        assert "in w0:1" in text
        # The same from outside.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c"),
            "from mosaic_like.launch.mrun import main; main()",
            *("memory", "--json"),
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(20):
            output, _ = await process.communicate()
        (cluster,) = json.loads(output)
        assert {v["uid"] for v in cluster["values"]} == set(by_uid)
        assert process.returncode == 0

    alone(main, memory="64 MiB")


def test_calls_wait_for_memory_and_hold_up_no_others() -> None:
    async def main(runtime: Any, maker: Any, other: Any) -> None:
        nbytes = 3 * MIB
        values = [maker.words(nbytes) for _ in range(8)]
        for value in values:
            await value
        cls = mosaic.tessera(Maker)
        lookers = [cls.options(runtime=runtime.workers[1]).remote() for _ in values]
        pairs = list(zip(lookers, values, strict=True))
        looks = [looker.look(v, 0.05) for looker, v in pairs]
        await until(lambda: any(look.reason == "memory" for look in looks))
        waiting = [look for look in looks if look.reason == "memory"]
        assert all(look.state == "pending" for look in waiting)
        assert await other.echo(5).result() == 5
        most = max(await mosaic.gather(looks))
        assert nbytes <= most <= 8 * MIB
        assert all(look.reason is None for look in looks)
        # One that is cancelled while it waits, and its memory.
        looks = [looker.look(v, 0.05) for looker, v in pairs]
        await until(lambda: looks[-1].reason == "memory")
        looks[-1].cancel()
        done = await mosaic.gather(looks, return_exceptions=True)
        assert isinstance(done[-1], mosaic.TaskCancelledError)
        assert await lookers[0].look([], 0.0).result() == 0
        with pytest.raises(MemoryOverflowError, match=r"look.*8\.0 MiB"):
            await lookers[0].look(maker.words(12 * MIB), 0.0)

    alone(main, memory="8 MiB")


def test_a_tessera_reserves_memory_for_its_life() -> None:
    async def main(runtime: Any, maker: Any, other: Any) -> None:
        cls = mosaic.tessera(Maker)
        here = cls.options(runtime=runtime.workers[0], memory="20 MiB")
        first = await here.remote()
        assert (await first.counted().result())[0] >= 20 * MIB
        second = here.remote()
        with pytest.raises(MemoryOverflowError, match=r"Maker#\d+ reserves 40.0 MiB"):
            await here.options(memory=40 * MIB).remote()
        await first.total(np.ones(8, "u1")).result()
        del first
        assert await (await second).total(np.ones(8, "u1")).result() == 8
        del second

        async def given_back() -> bool:
            return bool((await maker.counted().result())[0] < 20 * MIB)

        await until(given_back)

    alone(main, memory="32 MiB")
    with pytest.raises(ValueError, match="option 'memory'"):
        mosaic.tessera(memory=-1)(Maker)
