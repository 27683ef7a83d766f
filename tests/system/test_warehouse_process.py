"""The warehouse as a process: started late, killed, replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import pytest
from processes import halt

import mosaic_like as mosaic
from mosaic_like.errors import RuntimeDisconnectedError, UpstreamError, WorkerDied

LIMIT_S = 20.0
LARGE = 1 << 20


class Reader:
    """Reads and puts values."""

    def echo(self, value: Any) -> Any:
        return value

    def put(self, size: int) -> Any:
        return mosaic.put(bytes(size))


def one_more(n: int | None, by: int = 1) -> int:
    return by if n is None else n + by


def die(value: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def readers(runtime: Any) -> list[Any]:
    return [mosaic.remote(Reader, runtime=w)() for w in runtime.workers]


async def warehouse_is_here(runtime: Any, but: int = 0) -> Any:
    """Wait for one that is not the process ``but``."""
    while not [m for m in runtime.of_kind("warehouse") if m.pid != but]:
        await runtime.membership()
    return runtime.of_kind("warehouse")[0]


def run(main: Any, workers: int = 2) -> None:
    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(runtime)

    mosaic.run(bounded, num_workers=workers)


def test_an_exec_whose_worker_dies_frees_the_key() -> None:
    async def main(runtime: Any) -> None:
        await mosaic.put(1, key="n")
        bad, good = mosaic.exec("n", die), mosaic.exec("n", one_more)
        with pytest.raises(WorkerDied):
            await bad
        assert await mosaic.get(good) == 2

    run(main)


def test_without_a_runtime_it_says_how_to_get_one() -> None:
    with pytest.raises(RuntimeError, match=r"mosaic\.run"):
        mosaic.put(1)


def test_a_put_goes_before_the_warehouse_is_there() -> None:
    async def main(runtime: Any) -> None:
        refs = [mosaic.put(i, key=f"k{i}") for i in range(3)]
        # It is forked after the first calls; on a slow machine it may be there.
        first, _ = readers(runtime)
        value = first.echo([refs[1], mosaic.exec("k2", one_more)])
        assert await value.result() == [1, 3]

    run(main)


def test_the_death_of_the_warehouse_is_told_and_it_is_replaced() -> None:
    async def main(runtime: Any) -> None:
        first, second = readers(runtime)
        old = (await warehouse_is_here(runtime)).pid
        ref = mosaic.put(bytes(LARGE))
        kept = await first.put(LARGE).result()
        await mosaic.put(1, key="x")
        await ref
        os.kill(old, signal.SIGKILL)
        while runtime.of_kind("warehouse"):
            await runtime.membership()
        waiting = mosaic.put(2)  # for the next one
        start_s = time.monotonic()
        for lost in (ref, kept):
            with pytest.raises(RuntimeDisconnectedError, match="warehouse:0") as caught:
                await mosaic.get(lost)
            assert caught.value.runtime_id == "warehouse:0"
            assert caught.value.cause == "killed by SIGKILL"
            assert "put it again" in str(caught.value)
        with pytest.raises(UpstreamError, match="warehouse:0") as upstream:
            await second.echo([kept])
        assert isinstance(upstream.value.__cause__, RuntimeDisconnectedError)
        assert time.monotonic() - start_s < 10
        assert await mosaic.get(waiting) == 2
        assert (await warehouse_is_here(runtime)).pid != old
        with pytest.raises(LookupError, match="'x'; no key is used"):
            await mosaic.get("x")
        assert await first.echo(mosaic.put([3])).result() == [3]
        assert await mosaic.get(await second.put(5).result()) == bytes(5)

    run(main)


def test_what_waits_for_the_warehouse_when_it_dies_ends() -> None:
    async def main(runtime: Any) -> None:
        member = await warehouse_is_here(runtime)
        await mosaic.put(1, key="n")
        first, second = readers(runtime)
        halt(member.pid)
        ref = mosaic.put(bytes(LARGE))
        pending = [
            first.echo([ref]),
            mosaic.exec("n", one_more),
            mosaic.drop("n"),
            ref.apply(len),
            ref,
        ]
        await second.echo(1)  # all of it is on its way
        os.kill(member.pid, signal.SIGKILL)
        for task in pending:
            error = await task.exception()
            assert isinstance(error, RuntimeDisconnectedError | UpstreamError)
            assert "warehouse:0" in str(error)
        assert await mosaic.get(mosaic.exec("n", one_more)) == 1

    run(main)
