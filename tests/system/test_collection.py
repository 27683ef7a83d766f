"""What nobody holds is gone: tables and memory of real processes go back."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import TYPE_CHECKING, Any

import psutil
from tables import Probe, settled, tables

import mosaic_like as mosaic

if TYPE_CHECKING:
    from pathlib import Path


class Measuring(Probe):
    """Looks at its worker's memory too."""

    def rss(self) -> int:
        gc.collect()
        return psutil.Process().memory_info().rss

    def echo(self, value: Any) -> Any:
        return value


class Closing:
    """Writes a line when it is closed."""

    def __init__(self, path: str) -> None:
        self.path = path

    def touch(self) -> None: ...

    def keep(self, other: Any) -> None:
        self.other = other

    def __close__(self) -> None:
        with open(self.path, "a") as file:
            file.write(f"closed {os.getpid()}\n")


class Giver:
    """Makes tesserae and gives them away."""

    def make(self, path: str) -> Any:
        return mosaic.remote(Closing)(path)

    def pass_on(self, proxy: Any) -> Any:
        return proxy


def test_calls_and_tesserae_that_were_dropped_leave_the_tables_as_they_were() -> None:
    async def main(runtime: Any) -> None:
        probes = [mosaic.remote(Measuring, runtime=w)() for w in runtime.workers]

        async def look() -> list[dict[str, int]]:
            gc.collect()
            await asyncio.sleep(0.05)  # the batch with the releases goes out
            return [
                tables(runtime),
                *[await p.tables().result() for p in probes],
            ]

        await mosaic.gather(p.echo(1) for p in probes)
        before = await look()
        await settled(look, before)
        for _ in range(10):
            calls = [p.echo(i) for i in range(5_000) for p in probes]
            assert await mosaic.gather(calls) == [
                i for i in range(5_000) for _ in probes
            ]
            del calls
        many = [mosaic.remote(Measuring)() for _ in range(1_000)]
        await mosaic.gather(m.echo(i) for i, m in enumerate(many))
        chain = many[0].echo(0)
        for member in many[1:50]:
            chain = member.echo([chain])  # from worker to worker, nested
        await chain
        del many, chain, member
        for probe in probes:
            probe.echo(1)  # fire and forget
        await settled(look, before)

    mosaic.run(main, num_workers=2)


def test_memory_does_not_grow_with_the_number_of_calls() -> None:
    async def main(runtime: Any) -> None:
        probe = mosaic.remote(Measuring)()
        me = psutil.Process()

        async def calls(count: int) -> None:
            for _ in range(count // 5_000):
                await mosaic.gather(probe.echo(i) for i in range(5_000))

        async def rss() -> tuple[int, int]:
            gc.collect()
            return me.memory_info().rss, await probe.rss().result()

        await calls(10_000)
        grown: list[list[int]] = []
        # What calls leave behind grows each time; what the allocator keeps, once.
        while not grown or max(grown[-1]) >= 2 << 20:
            assert len(grown) < 3, grown
            before = await rss()
            await calls(100_000)
            grown.append([b - a for a, b in zip(before, await rss(), strict=True)])

    mosaic.run(main, num_workers=1)


def test_close_runs_when_the_last_proxy_anywhere_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "closed"

    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        keeper = mosaic.remote(Closing, runtime=second)(str(path))
        giver = mosaic.remote(Giver, runtime=second)()
        kept = mosaic.remote(Closing, runtime=first)(str(path))
        await keeper.keep(kept)
        del kept  # the keeper on the other worker still has it
        await giver.pass_on(1)
        assert not path.exists()
        made = await giver.make(str(path)).result()
        again = await giver.pass_on(made).result()
        assert again == made
        del made, giver
        await again.touch()
        assert not path.exists()
        del again

        async def lines() -> int:
            await asyncio.sleep(0.01)
            return len(path.read_text().splitlines()) if path.exists() else 0

        await settled(lines, 1)
        await keeper.keep(None)
        await settled(lines, 2)

    mosaic.run(main, num_workers=2)
    assert len(path.read_text().splitlines()) == 3  # the keeper, when all stopped


def test_a_result_is_kept_as_long_as_somebody_has_its_task() -> None:
    async def main(runtime: Any) -> None:
        first, second = (mosaic.remote(Measuring, runtime=w)() for w in runtime.workers)
        task = first.echo(list(range(1000)))
        # Two consumers on other runtimes drop it; the head still has it.
        assert len(await second.echo(task).result()) == 1000
        assert len(await second.echo([task, task]).result()) == 2
        gc.collect()
        assert len(await task.result()) == 1000
        large = first.echo(bytes(1 << 20))  # stays where it was made
        assert len(await second.echo(large).result()) == 1 << 20
        assert len(await large.result()) == 1 << 20

    mosaic.run(main, num_workers=2)
