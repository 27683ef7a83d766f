"""More than the memory of a node may hold: on disk, and equal when it comes back."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from large_values import MIB, Holder, all_returned, pair, until

import mosaic_like as mosaic
from mosaic_like.errors import MemoryOverflowError, RuntimeDisconnectedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Maker(Holder):
    def made(self, nbytes: int, number: int) -> Any:
        return np.full(nbytes, number, "u1")

    def is_full_of(self, value: Any, number: int) -> bool:
        return bool((value == number).all())

    def counted(self) -> tuple[int, int]:
        account = mosaic.runtime().sharing.account  # type: ignore[attr-defined] # ours
        return account.memory, account.files


def alone(main: Callable[..., Awaitable[None]], **options: Any) -> None:
    """In a cluster of its own, with two makers."""

    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(40):
            await runtime.sharing.ready()
            cls = mosaic.tessera(Maker)
            makers = [cls.options(runtime=w).remote() for w in runtime.workers]
            for maker in makers:

                async def ready(maker: Any = maker) -> bool:
                    return bool(await maker.ready().result())

                await until(ready)
            await main(runtime, *makers)

    mosaic.run(bounded, num_workers=2, **options)


async def host_of(runtime: Any) -> Any:
    return (await runtime.memory()).hosts[0]


def memfd_bytes(*pids: int) -> int:
    """Of all segments that these processes have open or mapped, each counted once."""
    found: dict[int, int] = {}
    for pid in pids:
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                path = f"/proc/{pid}/fd/{number}"
                if "memfd:mosaic" in os.readlink(path):
                    stat = os.stat(path)
                    found[stat.st_ino] = stat.st_blocks * 512
            except OSError:
                continue  # closed meanwhile
        mapped = 0
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                mapped = int(words[4]) if "memfd:mosaic" in line else 0
            elif mapped and words[0] == "Rss:":
                nbytes = int(words[1]) * 1024
                found[mapped] = max(found.get(mapped, 0), nbytes)
    return sum(found.values())


def test_a_gibibyte_goes_through_an_eighth_of_it(tmp_path: Path) -> None:
    budget, each, count = 128 * MIB, 8 * MIB, 128

    async def main(runtime: Any, *makers: Any) -> None:
        pids = [os.getpid(), runtime.warehouse.pid]
        pids += [worker.pid for worker in runtime.workers]
        refs: list[Any] = []
        most = most_used = 0
        for number in range(count):
            if number % 2:
                ref: Any = mosaic.put(np.full(each, number, "u1"))
            else:
                ref = makers[number // 2 % 2].made(each, number)
            refs.append(await ref)
            if number % 8 == 0:
                most = max(most, memfd_bytes(*pids))
                most_used = max(most_used, (await host_of(runtime)).used)
        assert 0 < most_used <= budget
        # A moment may pass from when something is in a file to when it is let go of.
        assert most <= budget + 4 * each
        report = await runtime.memory()
        places = [value.place for value in report.values]
        assert report.nbytes >= count * each
        assert places.count("spilled") >= count - budget // each
        assert places.count("resident") >= 4
        assert report.hosts[0].spilled >= count * each - budget
        assert not list(tmp_path.iterdir())
        # All come back, at a worker and at the head.
        checks = [makers[n % 2].is_full_of(ref, n) for n, ref in enumerate(refs)]
        assert all(await mosaic.gather(checks))
        del checks
        for number, ref in enumerate(refs):
            value = await (mosaic.get(ref) if number % 2 else ref.result())
            assert (value == number).all()
        # And what was mapped before it went into a file was not kept in memory.
        assert memfd_bytes(*pids) <= budget + 4 * each
        del refs, ref, value, report
        await all_returned(runtime, *makers)
        await until(lambda: runtime.sharing.account.files == 0)

        async def nothing_spilled() -> bool:
            return bool((await host_of(runtime)).spilled == 0)

        await until(nothing_spilled)

    alone(main, memory=budget, spill_directory=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_value_larger_than_everything_raises_where_it_is_made(
    tmp_path: Path,
) -> None:
    async def main(runtime: Any, maker: Any, other: Any) -> None:
        large = np.ones(40 * MIB, "u1")
        for make in (lambda: maker.total(large), lambda: mosaic.put(large)):
            with pytest.raises(
                MemoryOverflowError, match=r"40\.0 MiB.*16\.0 MiB.*32\.0 MiB"
            ):
                make()
        task = maker.ones(40 * MIB)
        with pytest.raises(MemoryOverflowError, match=r"40\.0 MiB.*spill_limit="):
            await task
        assert task.reason == "memory"
        # One that fits alone does.
        assert await maker.total(np.ones(30 * MIB, "u1")).result() == 30 * MIB
        assert (await other.ones(30 * MIB).result()).sum() == 30 * MIB

    alone(main, memory="16 MiB", spill_limit="32 MiB", spill_directory=str(tmp_path))


def test_a_full_disk_leaves_values_in_memory_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main(runtime: Any, maker: Any, other: Any) -> None:
        refs = [await mosaic.put(np.full(4 * MIB, n, "u1")) for n in range(16)]
        host = await host_of(runtime)
        assert host.spilled <= 8 * MIB == host.spill_limit
        assert host.used >= (64 - 8) * MIB
        for number, ref in enumerate(refs):
            assert await maker.is_full_of(ref, number).result()

    with caplog.at_level(logging.WARNING, "mosaic_like"):
        alone(main, memory="16 MiB", spill_limit="8 MiB", spill_directory=str(tmp_path))
    warnings = [r.message for r in caplog.records if "cannot go to disk" in r.message]
    assert len(warnings) == 1
    assert "16.0 MiB" in warnings[0]
    assert "8.0 MiB" in warnings[0]
    assert capfd.readouterr().err.count("cannot spill values") <= 1


def test_memory_is_flat_after_thousands_of_transfers(tmp_path: Path) -> None:
    async def main(runtime: Any, maker: Any, other: Any) -> None:
        array = np.ones(300_000, "u1")

        async def transfer(count: int) -> None:
            for _ in range(count // 50):
                echoes = [maker.echo(array) for _ in range(25)]
                totals = [other.total(echo) for echo in echoes]
                assert await mosaic.gather(totals) == [300_000] * 25

        await transfer(500)
        await all_returned(runtime, maker, other)
        before = (await host_of(runtime)).used
        await transfer(10_000)
        await all_returned(runtime, maker, other)
        host = await host_of(runtime)
        assert host.used <= max(2 * before, 32 * MIB)
        assert host.spilled == 0
        assert not (await runtime.memory()).values

    alone(main, memory="64 MiB", spill_directory=str(tmp_path))


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
        read = await mosaic.gather(
            tasks, return_exceptions=True
        )
        for number, value in enumerate(read):
            if isinstance(value, BaseException):
                assert isinstance(value, RuntimeDisconnectedError)
                assert whom != "reader"
            else:
                assert (value == number).all()
        assert whom == "warehouse" or not isinstance(read[0], BaseException)
        checked = await mosaic.gather(
            reading, return_exceptions=True
        )
        assert all(c is True or isinstance(c, mosaic.MosaicError) for c in checked)
        del tasks, reading, read, value
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


def test_memory_tells_of_values_where_they_are_and_who_holds_them() -> None:
    async def main(runtime: Any, maker: Any, other: Any) -> None:
        ref = await mosaic.put(np.ones(2 * MIB, "u1"))
        await mosaic.put(np.ones(MIB, "u1"), key="model")
        made = maker.ones(3 * MIB)
        words = other.echo([str(n) for n in range(50_000)])
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
