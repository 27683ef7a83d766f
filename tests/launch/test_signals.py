"""Ctrl-C, SIGTERM and death of programs: how they end, and that nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from programs import ROOT, Program

if TYPE_CHECKING:
    from pathlib import Path

# It is ready as soon as it has its directory.
STARTS = """
from mosaic_like.runtimes import directory
made = directory.RunDirectory.create
def create():
    found = made()
    print(json.dumps({"members": {}, "server": 0, "directory": str(found.path)}),
          flush=True)
    return found
directory.RunDirectory.create = create
"""

WAITS = """
async def main(runtime):
    a, b = Sleeper.remote(), Sleeper.remote()
    await asyncio.gather(a.ping(), b.ping())
    tasks = [s.sleep(60) for s in (a, b) for _ in range(4)]
    ready(runtime)
    await mosaic.gather(*tasks)
mosaic.run(main, num_workers=2)
"""


def test_ctrl_c_ends_with_130_and_one_line_and_leaves_nothing() -> None:
    with Program(WAITS).ready() as program:
        program.signal()
        assert program.code() == 130
        assert program.left() == []
        assert program.errors() == (
            "^C stopping: 2 running, 6 queued cancelled (again to stop)\n"
        )


def test_sigterm_does_the_same_and_ends_with_143() -> None:
    with Program(WAITS).ready() as program:
        program.signal(signal.SIGTERM)
        assert program.code() == 143
        assert program.left() == []
        assert program.errors().startswith("SIGTERM stopping: 2 running, 6 queued")


def test_main_may_swallow_the_cancellation_and_go_on() -> None:
    script = """
async def main():
    runtime = mosaic.runtime()
    task = Sleeper.remote().nap(60)
    ready(runtime)
    try:
        await task
    except asyncio.CancelledError:
        pass
    assert await Sleeper.remote().ping().result() > 0
    print(await task.exception() is not None)
    return 3
sys.exit(mosaic.run(main, num_workers=1))
"""
    with Program(script).ready() as program:
        program.signal()
        assert program.line() == "True\n"
        assert program.code() == 3
        assert program.left() == []


def test_keyboard_interrupt_can_be_caught_and_handlers_are_put_back() -> None:
    script = """
import signal
before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
async def main(runtime):
    assert signal.getsignal(signal.SIGINT) is not before[0]
    ready(runtime)
    await asyncio.sleep(60)
try:
    mosaic.run(main, num_workers=1)
except KeyboardInterrupt as error:
    print(type(error).__mro__[1].__name__)
assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
"""
    with Program(script).ready() as program:
        program.signal()
        assert program.line() == "KeyboardInterrupt\n"
        assert program.code() == 0


def test_the_second_ctrl_c_gives_up_a_main_that_does_not_end(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    script = """
async def main(runtime):
    await Sleeper.remote().ping()
    keep = Sleeper.remote()
    await keep
    ready(runtime)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("cancelled", flush=True)
mosaic.run(main, num_workers=1)
"""
    with Program(script, CLOSED=str(closed)).ready() as program:
        program.signal()
        assert program.line() == "cancelled\n"
        program.signal()
        assert program.code() == 130
        assert program.left() == []
        assert program.errors() == (
            "^C stopping: 0 running, 0 queued cancelled (again to stop)\n"
            "^C stopping the cluster (again to kill)\n"
        )
    assert closed.read_text() == "closed\n" * 2  # in order: its __close__ ran


def test_the_second_ctrl_c_reaches_code_that_holds_the_loop() -> None:
    script = """
async def main(runtime):
    try:
        ready(runtime)
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        raise
mosaic.run(main, num_workers=1)
"""
    with Program(script).ready() as program:
        # Two of one kind that come before the first is seen are one.
        program.signal(signal.SIGTERM)
        program.signal(signal.SIGINT)
        assert program.code() in (130, 143)
        assert program.line() == "interrupted\n"
        assert program.left() == []


def test_the_third_ctrl_c_kills_what_takes_too_long(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    script = """
async def main(runtime):
    keep = Sleeper.remote(closing_s=60)
    await keep
    ready(runtime)
    await asyncio.sleep(60)
mosaic.run(main, num_workers=1)
"""
    with Program(script, CLOSED=str(closed)).ready() as program:
        for expected in ("stopping:", "stopping the cluster", "killed"):
            program.signal()
            assert expected in program.line(error=True)
        assert program.code() == 130
        assert program.left() == []
    assert not closed.exists()


def test_ctrl_c_while_it_starts_leaves_nothing() -> None:
    script = """
async def main(): ...
mosaic.run(main, num_workers=1)
"""
    with Program(STARTS + script).ready() as program:
        program.about["server"] = program.process.pid
        program.signal()
        assert program.code() in (0, 130)  # 0: it was over before
        assert program.left() == []


def test_a_killed_head_takes_everything_with_it(tmp_path: Path) -> None:
    """kill -9, while calls run."""
    closed = tmp_path / "closed"
    with Program(WAITS, CLOSED=str(closed)).ready() as program:
        program.signal(signal.SIGKILL)
        assert program.code() == -9
        assert program.left() == []
    assert closed.read_text() == "closed\n" * 2


def test_a_killed_head_leaves_close_its_time_but_no_more() -> None:
    script = """
async def main(runtime):
    keep = Sleeper.remote(closing_s=60)
    await keep
    ready(runtime)
    await asyncio.sleep(60)
mosaic.run(main, num_workers=1)
"""
    with Program(script).ready() as program:
        program.signal(signal.SIGKILL)
        assert program.left() == []


@pytest.mark.parametrize("after_ms", [0, 30, 80, 150, 250, 400])
def test_a_head_killed_while_it_starts_leaves_nothing(
    after_ms: int, tmp_path: Path
) -> None:
    """What is left is found by the fixture that looks after each test."""
    script = """
async def main(): await asyncio.sleep(60)
mosaic.run(main, num_workers=2)
"""
    with Program(STARTS + script).ready() as program:
        program.about["server"] = program.process.pid
        if after_ms:
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.process.wait(after_ms / 1000)
            program.signal(signal.SIGKILL)
            program.code()
            assert program.left() == []
        else:
            # Before the fork server is there nobody can tidy up: the next cluster does.
            program.signal(signal.SIGKILL)
            program.code()
            again = subprocess.run(
                [sys.executable, "-c", "import mosaic_like as m\nwith m.init(): pass"],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                timeout=60,
            )
            assert again.returncode == 0
            assert program.left() == []


@pytest.mark.parametrize("what", ["monitor", "server"])
def test_when_the_cluster_is_lost_creations_raise_and_the_program_ends(
    what: str,
) -> None:
    script = """
async def main(runtime):
    sleeper = Sleeper.remote()
    await sleeper
    ready(runtime)
    began = time.monotonic()
    try:
        await sleeper.nap(60)
    except mosaic.MosaicError as error:
        print(type(error).__name__, time.monotonic() - began < 20, flush=True)
    began = time.monotonic()
    while True:
        try:
            await Sleeper.remote()
        except mosaic.WorkerDied:
            pass  # the other worker was lost too, of which nothing was heard yet
        except mosaic.MonitorLost as error:
            print(error, time.monotonic() - began < 20, flush=True)
            break
    try:
        while True:
            await runtime.membership()  # nobody will join any more
    except mosaic.MonitorLost as error:
        print(error, flush=True)
    return 0
sys.exit(mosaic.run(main, num_workers=2))
"""
    with Program(script).ready() as program:
        members = program.about["members"]
        os.kill(members["monitor"] if what == "monitor" else program.about["server"], 9)
        first = program.line()
        assert first.endswith("True\n"), first
        second = program.line()
        assert "nothing can be made any more" in second
        assert second.endswith("True\n"), second
        assert "nobody joins any more: " in program.line()
        assert program.code() == 0
        assert program.left() == []
