"""Where a process can open nothing for a while: all goes on when it can again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic
from mosaic_like import session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT_S = 40.0


@contextlib.contextmanager
def no_descriptors(pid: int, but: int = 0) -> Iterator[None]:
    """This process can open no more than so many."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = (number for number in range(len(used) + but + 1) if number not in used)
    limit = [number for _, number in zip(range(but + 1), free, strict=False)][-1]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # the test has failed
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def pid_of(runtime: Any, kind: str) -> int:
    (member,) = runtime.of_kind(kind)
    return int(member.pid)


def segments_of(pid: int) -> int:
    """How many segments a process holds open."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # closed just now
            found += "memfd:mosaic" in os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def run(main: Any, **options: Any) -> None:
    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(runtime)

    mosaic.run(bounded, **{"num_workers": 1, **options})


class Counter:
    """Counts its calls, and keeps the count."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def size(self, value: bytes) -> int:
        return len(value)

    def take_nothing(self) -> None:
        """From now on what comes beside a message cannot be taken in here."""

        def arrived(*_: Any) -> Any:
            raise OSError(24, "Too many open files")

        session.current().arrived = arrived

    def __checkpoint__(self) -> int:
        return self.count

    def __restore__(self, state: int) -> None:
        self.count = state


@mosaic.task
def inner() -> str:
    return "inner"


@mosaic.task
def outer() -> str:
    """Waits where nobody can know that it does: only a helper can run the other."""
    ended = threading.Event()
    task = inner.submit()
    task.add_done_callback(lambda *_: ended.set())
    return "ended" if ended.wait(LIMIT_S) else "not ended"


def test_a_node_that_can_open_nothing_replaces_its_worker_when_it_can(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def main(runtime: Any) -> None:
        lasting = mosaic.remote(Counter, max_restarts=1)()
        await lasting.add()
        (worker,) = runtime.workers
        with no_descriptors(pid_of(runtime, "node")):
            os.kill(worker.pid, signal.SIGKILL)
            task = lasting.add()
            told = ""
            while "w0:0 could not be forked: [Errno 24]" not in told:
                await asyncio.sleep(0.01)  # what it says comes over a pipe
                told += capfd.readouterr().err
        assert await task.result() == 1
        assert await mosaic.remote(Counter)().add().result() == 1

    run(main)


def test_a_helper_that_cannot_be_forked_is_tried_again(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def main(runtime: Any) -> None:
        await outer.submit()  # the node and the worker know each other by this
        while runtime.of_kind("helper"):
            await runtime.membership()
        with no_descriptors(pid_of(runtime, "node")):
            task = outer.submit()
            told = ""
            while "h0:0 could not be forked" not in told:
                await asyncio.sleep(0.01)
                told += capfd.readouterr().err
        assert await task.result() == "ended"

    run(main)


def test_a_call_that_cannot_be_taken_in_fails() -> None:
    async def main(runtime: Any) -> None:
        counter = mosaic.remote(Counter)()
        await counter.take_nothing()
        with pytest.raises(OSError, match="Too many open files"):
            await counter.size(bytes(100_000))
        assert await counter.add().result() == 1

    run(main)


def test_a_checkpoint_that_cannot_be_read_now_is_not_damaged() -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        # More than one: libzmq ends a process that cannot take a new connection.
        counter = mosaic.remote(Counter, runtime=first, max_restarts=9)()
        await mosaic.gather(counter.add() for _ in range(3))
        await mosaic.checkpoint(counter)
        await mosaic.remote(Counter, runtime=second)().add()
        await runtime.sharing.ready()
        with no_descriptors(second.pid):
            os.kill(first.pid, signal.SIGKILL)
            task = counter.add()
            await asyncio.sleep(1.0)  # it is placed there, and tries
        assert await task.result() == 4

    run(main, num_workers=2)


@pytest.mark.timeout(60)
def test_spilling_that_fails_on_its_way_keeps_nothing_open(tmp_path: Path) -> None:
    """Some descriptors are there to copy what is to be spilled, and not for all."""

    async def main(runtime: Any) -> None:
        await runtime.sharing.ready()
        warehouse = pid_of(runtime, "warehouse")
        before = segments_of(warehouse)
        away = tmp_path / "away"
        (tmp_path / "spill").rename(away)  # so that much is to be spilled later
        kept = [mosaic.put(bytes([i]) * (4 << 20)) for i in range(7)]
        for ref in kept:
            await mosaic.get(ref)
        away.rename(tmp_path / "spill")
        with no_descriptors(warehouse, but=4):
            await asyncio.sleep(5.1)  # after which it is tried again
            kept += [mosaic.put(bytes(300_000)) for _ in range(3)]
            for ref in kept[7:]:
                await mosaic.get(ref)
        kept.clear()
        del ref
        while segments_of(warehouse) > before:  # noqa: ASYNC110 -- of another process
            await asyncio.sleep(0.05)

    (tmp_path / "spill").mkdir(mode=0o700)
    run(main, memory=32 << 20, spill_directory=str(tmp_path / "spill"))
