"""Tesserae that are built again together when one of them is lost."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from moved_calls import Waits, end, forgotten

import mosaic_like as mosaic
from mosaic_like import RuntimeDisconnectedError, TesseraChange, Verdict
from mosaic_like.runtimes import seeking

LIMIT_S = 30.0


@mosaic.tessera(max_restarts=3)
class Stage:
    """One of several; says in a file when it is built and closed."""

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = name, path
        self.calls = 0
        self.say("built")

    def __close__(self) -> None:
        self.say("closed")

    def say(self, what: str) -> None:
        with open(self.path, "a") as file:
            file.write(f"{self.name} {what}\n")

    def call(self) -> tuple[int, int]:
        """Where it is, and the how manieth call of this life it is."""
        self.calls += 1
        return os.getpid(), self.calls

    def block(self, started: str) -> None:
        Path(started).touch()
        time.sleep(LIMIT_S)

    def repeat(self, value: str) -> str:
        return value


@mosaic.tessera(max_restarts=3)
class Slow(Stage):
    """Is closed when a file is there."""

    def __init__(self, name: str, path: str, closing: Path, go: Path) -> None:
        super().__init__(name, path)
        self.closing, self.go = closing, go

    def block(self, started: str) -> None:
        self.say("blocks")
        super().block(started)

    def __close__(self) -> None:
        self.closing.touch()
        while not self.go.exists():
            time.sleep(0.005)


async def there(path: Path) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not path.exists():  # noqa: ASYNC110, ASYNC240 -- made by a method
            await asyncio.sleep(0.005)


def run(main: Any) -> None:
    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(runtime)

    mosaic.run(bounded, num_workers=3)


async def three(runtime: Any, path: Path) -> list[Any]:
    """One in each worker; all are built."""
    stages = [
        Stage.options(runtime=worker).remote(name, str(path))
        for name, worker in zip("abc", runtime.workers, strict=True)
    ]
    return [await stage for stage in stages]


async def kill_worker_of(stage: Any) -> None:
    os.kill((await stage.call().result())[0], signal.SIGKILL)


async def end_of(stage: Any) -> BaseException:
    """What its calls raise when it is built again no more."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            error = await stage.call().exception()
            if error is not None and "supervised" in str(error):
                return error
            await asyncio.sleep(0.01)


async def again(monitor: Any) -> None:
    async with asyncio.timeout(LIMIT_S):
        async for event in monitor:
            if event.change is TesseraChange.RESTARTED:
                return


def test_those_behind_the_lost_one_are_ended_and_built_again_in_order(
    tmp_path: Path,
) -> None:
    said, started = tmp_path / "said", tmp_path / "started"

    async def main(runtime: Any) -> None:
        a, b, c = await three(runtime, said)
        mosaic.supervise(a, b, c, restart="rest")
        first = [(await stage.call().result())[0] for stage in (a, b, c)]
        events = mosaic.monitor(c)
        running, queued = c.block(str(started)), c.call()
        await there(started)
        said.write_text("")
        await kill_worker_of(b)
        with pytest.raises(
            RuntimeDisconnectedError,
            match=r"^Stage#3\.block may have run: it is built again with Stage#2, "
            r"which w0:1 \(.*\) had: it is lost: killed by SIGKILL; make it again",
        ):
            await running.result()
        assert (await queued.result())[1] == 1  # it had not started: it moves
        await again(events)
        # The first lives on, with what it knows; the others begin anew, in order.
        assert await a.call().result() == (first[0], 2)
        assert (await b.call().result())[1] == 1
        assert (await c.call().result())[1] == 2
        lines = said.read_text().split("\n")
        assert [line for line in lines if line] == ["c closed", "b built", "c built"]

    run(main)


def test_others_who_wait_hear_what_the_caller_hears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeking, "_LATE_S", 3600.0)  # the test says when that is over
    started = tmp_path / "started"

    async def main(runtime: Any) -> None:
        a, b, c = await three(runtime, tmp_path / "said")
        mosaic.supervise(a, b, c, restart="rest")
        first, second = (Waits.options(runtime=w).remote() for w in runtime.workers[1:])
        late = Waits.options(runtime=runtime.workers[1]).remote()
        tasks = [c.block(str(started)), c.repeat("x"), c.repeat("x" * 300_000)]
        quoted = [mosaic.quote(task) for task in tasks]
        await mosaic.gather(one.keep(quoted) for one in (first, second, late))
        waiting = [first.ends(), second.ends()]
        taking = [one.echo(task) for one in (first, second) for task in tasks[1:]]
        await there(started)
        await kill_worker_of(a)
        expected = [await end(task) for task in tasks]
        assert expected[0].startswith("RuntimeDisconnectedError: Stage#3.block may")
        assert expected[1:] == ["x", 300_000]
        assert await mosaic.gather(waiting) == [expected, expected]
        assert [await end(task) for task in taking] == expected[1:] * 2
        # Long after, also when the caller has let them go itself.
        del tasks, quoted, waiting, taking
        await forgotten(runtime, 1, 3)  # one, if the others are where they were again
        assert await late.ends().result() == expected
        del first, second, late
        await forgotten(runtime, 0)  # nobody holds them any more

    run(main)


def test_all_are_built_again_as_often_as_is_allowed_and_then_end_together(
    tmp_path: Path,
) -> None:
    said = tmp_path / "said"

    async def main(runtime: Any) -> None:
        a, b, c = await three(runtime, said)
        mosaic.supervise(a, b, c, max_restarts=1)
        events = mosaic.monitor(c)
        said.write_text("")
        await kill_worker_of(c)
        # Calls made meanwhile go to the next life, whatever the order of the news.
        await again(events)
        for stage in (a, b, c):
            assert (await stage.call().result())[1] == 1
        lines = [line for line in said.read_text().split("\n") if line]
        assert sorted(lines[:2]) == ["a closed", "b closed"]
        assert lines[2:] == ["a built", "b built", "c built"]
        await kill_worker_of(a)
        texts = [str(await end_of(stage)) for stage in (a, b, c)]
        assert re.search(
            r"^w0:\d .* is lost: killed by SIGKILL; Stage#1, with those that it is "
            "supervised with, was built again once and is not any more: see what",
            texts[0],
        )
        for text in texts[1:]:  # it may have been in the same worker
            assert re.search(
                r"supervised with( Stage#\d, which has ended: w0|, was)", text
            )

    run(main)


def test_one_that_is_closed_leaves_the_group_and_a_method_makes_one_of_its_own(
    tmp_path: Path,
) -> None:
    said = tmp_path / "said"

    async def main(runtime: Any) -> None:
        a, b, c = await three(runtime, said)
        mosaic.supervise(a, b, c)
        with pytest.raises(ValueError, match=r"Stage#2 is supervised with others"):
            mosaic.supervise(b)
        await mosaic.kill(c)
        first = (await a.call().result())[0]
        events = mosaic.monitor(a)
        await kill_worker_of(b)
        await again(events)
        pid, calls = await a.call().result()
        assert (pid, calls) == (first, 1)  # ended in its worker, which lives
        assert "closed" in str(await c.call().exception()) or "killed" in str(
            await c.call().exception()
        )
        with pytest.raises(ValueError, match="found 'some', expected one of 'one', "):
            mosaic.supervise(a, restart="some")
        with pytest.raises(ValueError, match="found Stage#1 twice"):
            mosaic.supervise(a, a)

    run(main)


@mosaic.tessera(max_restarts=3)
class Sum:
    """Adds, and can be written down."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, k: int) -> int:
        self.total += k
        return self.total

    def call(self) -> tuple[int, int]:
        return os.getpid(), self.total

    def __checkpoint__(self) -> int:
        return self.total

    def __restore__(self, total: int) -> None:
        self.total = total


def test_those_that_are_ended_with_the_lost_one_have_their_checkpoints_again() -> None:
    async def main(runtime: Any) -> None:
        lost, ended = (
            Sum.options(runtime=worker).remote() for worker in runtime.workers[:2]
        )
        mosaic.supervise(lost, ended)
        for each, k in ((lost, 5), (ended, 7)):
            each.add(k)
            await mosaic.checkpoint(each)
            each.add(100)  # which nobody has written down
        for _ in range(2):  # those that were read are written and read again
            events = mosaic.monitor(ended)
            await kill_worker_of(lost)
            await again(events)
            assert await mosaic.gather(lost.add(0), ended.add(0)) == [5, 7]
            await mosaic.checkpoint(ended)

    run(main)


def test_a_call_runs_once_where_its_worker_is_drained_as_its_life_ends(
    tmp_path: Path,
) -> None:
    started, closing, go = (tmp_path / name for name in ("started", "closing", "go"))

    async def main(runtime: Any) -> None:
        a, b, _ = await three(runtime, tmp_path / "said")
        worker = runtime.workers[2]
        said = str(tmp_path / "said")
        slow = await Slow.options(runtime=worker).remote("slow", said, closing, go)
        mosaic.supervise(a, b, slow)
        running = slow.block(str(started))
        queued = [slow.call() for _ in range(20)]
        await there(started)
        await kill_worker_of(a)
        await there(closing)
        drained = asyncio.ensure_future(runtime.drain(worker))
        await asyncio.sleep(0.3)  # it is about to leave, if the machine is not slow
        go.touch()
        with pytest.raises(RuntimeDisconnectedError, match="block may have run") as end:
            await running.result()
        assert end.value.verdict is Verdict.MAYBE_RAN
        counts = [(await call.result())[1] for call in queued]
        assert counts == list(range(1, 21))
        await drained
        lines = (tmp_path / "said").read_text().split("\n")
        assert lines.count("slow blocks") == 1

    run(main)
