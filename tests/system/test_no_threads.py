"""Where no thread or process can be started any more: what needs one is told."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import pytest

import mosaic_like as mosaic

LIMIT_S = 40.0


class Limited:
    """What its process may start."""

    def __init__(self) -> None:
        self._start: Any = None

    def forbid(self) -> None:
        self._start = threading.Thread.start

        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        setattr(threading.Thread, "start", start)  # noqa: B010 -- as mypy wants it

    def allow(self) -> None:
        setattr(threading.Thread, "start", self._start)  # noqa: B010

    def large(self, size: int) -> bytes:
        return bytes(size)


class Single:
    """On a thread of its own."""

    def ident(self) -> int:
        return threading.get_ident()


def run(main: Any, workers: int) -> None:
    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(runtime)

    mosaic.run(bounded, num_workers=workers)


def test_who_is_to_have_a_thread_of_its_own_and_gets_none_is_told() -> None:
    async def main(runtime: Any) -> None:
        limited = mosaic.remote(Limited)()
        before = mosaic.remote(Single, thread=True)()
        ident = await before.ident().result()
        await limited.forbid()
        single = mosaic.remote(Single, thread=True)()
        for task in (single.ident(), single.ident()):
            with pytest.raises(RuntimeError, match=r"a thread of its own.*ulimit -u"):
                await task
        assert await before.ident().result() == ident
        # Neither is a thread needed to send what is large.
        for size in (70_000, 300_000, 3 << 20):
            assert len(await limited.large(size).result()) == size
        await limited.allow()
        assert await mosaic.remote(Single, thread=True)().ident().result() != ident

    run(main, 1)


@pytest.mark.timeout(60)
def test_a_warehouse_that_dies_again_and_again_is_told_of(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def main(runtime: Any) -> None:
        told = ""
        while "warehouse:0 ended (killed by SIGKILL), the last of 6 times" not in told:
            for member in runtime.of_kind("warehouse"):
                os.kill(member.pid, signal.SIGKILL)
                while member in runtime.of_kind("warehouse"):
                    await runtime.membership()
            await asyncio.sleep(0.01)  # what it says comes over a pipe
            told += capfd.readouterr().err
        assert "is started again every 10 s" in told
        assert await mosaic.get(mosaic.put("after all")) == "after all"

    run(main, 1)
