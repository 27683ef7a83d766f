"""More than the memory of a node may hold: on disk, and equal when it comes back."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from large_values import MIB, all_returned, until
from little_memory import alone, host_of, memfd_bytes

import mosaic_like as mosaic
from mosaic_like.errors import MemoryOverflowError

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunScript


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
        assert not os.listdir(tmp_path)
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


def test_what_is_in_no_segment_is_counted_too() -> None:
    nbytes = 200 << 10  # too small for a segment, too large to travel unasked

    async def main(runtime: Any, maker: Any, other: Any) -> None:
        before = (await host_of(runtime)).used
        made = [maker.made(nbytes, number) for number in range(20)]
        put = [mosaic.put(np.full(nbytes, number, "u1")) for number in range(20)]
        for task in (*made, *put):
            await task
        host = await host_of(runtime)
        assert 40 * nbytes <= host.used - before <= 41 * nbytes
        await mosaic.drop(put[0])
        assert (await host_of(runtime)).used - before <= 40 * nbytes
        del made, put, task

        async def given_back() -> bool:
            return bool((await host_of(runtime)).used <= before)

        await until(given_back)

    alone(main)


def test_what_is_in_no_segment_goes_to_disk_where_there_is_no_memory() -> None:
    nbytes, count, limit = 200 << 10, 60, 8 * MIB

    async def main(runtime: Any, maker: Any, other: Any) -> None:
        made = [maker.made(nbytes, number) for number in range(count)]
        put = [mosaic.put(np.full(nbytes, number, "u1")) for number in range(count)]
        listed = [maker.words(nbytes) for number in range(count)]
        for task in (*made, *put, *listed):
            await task
        host = await host_of(runtime)
        assert host.used <= limit
        assert host.used + host.spilled >= 3 * count * nbytes
        for tasks in (made, put):
            checks = [other.is_full_of(ref, n) for n, ref in enumerate(tasks)]
            assert all(await mosaic.gather(checks))
            found = await mosaic.gather(tasks)
            assert all((value == n).all() for n, value in enumerate(found))
        expected = await mosaic.gather(other.words(nbytes))
        assert await mosaic.gather(listed) == expected * count
        del made, put, listed, task, tasks, checks, found

        async def given_back() -> bool:
            host = await host_of(runtime)
            return not host.spilled and not (await runtime.memory()).values

        await until(given_back)

    alone(main, memory=limit)


MANY = """
import resource

import numpy as np

import mosaic_like as mosaic

soft, hard = 256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@mosaic.tessera
class Maker:
    def made(self, number):
        return np.full(300_000, number, "u1")


async def main(runtime):
    await runtime.sharing.ready()
    maker = Maker.remote()
    tasks = [maker.made(number) for number in range(150)]
    for task in tasks:
        await task
    places = [value.place for value in (await runtime.memory()).values]
    print(len(places), "worker" in places)


mosaic.run(main, num_workers=1)
"""


def test_many_values_need_no_higher_limit_of_open_files(run_script: RunScript) -> None:
    result = run_script(MANY)
    assert result.stdout == "150 False\n", result.stderr
    assert not result.stderr


def test_memory_is_flat_after_thousands_of_transfers(tmp_path: Path) -> None:
    async def main(runtime: Any, maker: Any, other: Any) -> None:
        array = np.ones(300_000, "u1")

        async def transfer(count: int) -> None:
            for _ in range(count // 50):  # each value goes to one and to the other
                echoes = [maker.echo(array) for _ in range(25)]
                totals = [other.total(echo) for echo in echoes]
                assert await mosaic.gather(totals) == [300_000] * 25

        await transfer(500)
        await all_returned(runtime, maker, other)
        before = (await host_of(runtime)).used
        await transfer(5_000)
        await all_returned(runtime, maker, other)
        host = await host_of(runtime)
        assert host.used <= max(2 * before, 32 * MIB)
        assert host.spilled == 0
        assert not (await runtime.memory()).values

    alone(main, memory="64 MiB", spill_directory=str(tmp_path))
