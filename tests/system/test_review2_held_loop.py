"""A worker whose loop is held by user code cannot hear that it is to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, os, sys, time
import mosaic_like as mosaic


@mosaic.tessera
class Holding:
    async def hold(self):
        open("held", "w").close()
        time.sleep(60)


@mosaic.tessera
class Closing:
    async def __close__(self):
        time.sleep(2)  # holds the loop too, but for what it is to do
        print("closed", flush=True)


async def main(runtime):
    first, second = runtime.workers
    closing = Closing.options(runtime=second).remote()
    await closing
    holding = Holding.options(runtime=first).remote()
    task = holding.hold()
    while not os.path.exists("held"):
        await asyncio.sleep(0.01)
    print("held", flush=True)
    if "leave" not in sys.argv:
        await task


mosaic.run(main, num_workers=2, stop_timeout_s=1.0)
"""


def _start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MOSAIC_QUIET": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_end_does_not_wait_for_a_loop_that_is_held(tmp_path: Path) -> None:
    program = _start(tmp_path, "leave")
    out, err = program.communicate(timeout=30)  # it is held for longer
    assert program.returncode == 0
    assert "Closing#1 | closed" in out  # the other worker had its time
    assert "w0:0 did not answer" in err
    assert "w0:1 did not" not in err


def test_with_the_program_a_held_loop_is_gone_soon(tmp_path: Path) -> None:
    program = _start(tmp_path)
    assert program.stdout is not None
    line = ""
    while "held" not in line:
        line = program.stdout.readline()
        assert line
    children = psutil.Process(program.pid).children(recursive=True)
    assert len(children) >= 5
    program.send_signal(signal.SIGKILL)
    program.wait(10)
    _, alive = psutil.wait_procs(children, timeout=10.0)
    program.communicate(timeout=10)
    assert not alive
