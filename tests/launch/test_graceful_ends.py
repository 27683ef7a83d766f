"""Whatever ends a cluster in order, ``__close__`` of every tessera has run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from programs import PREAMBLE, ROOT, Program

if TYPE_CHECKING:
    from pathlib import Path

TESSERAE = 5
MAKE = f"""
async def make():
    made = [Sleeper.remote() for _ in range({TESSERAE})]
    await asyncio.gather(*(one.ping() for one in made))
    return made
"""
ENDS = {
    "run": """
async def main(runtime):
    kept.extend(await make())
kept = []
mosaic.run(main, num_workers=2)
""",
    "async with": """
async def main():
    async with mosaic.init(num_workers=2):
        kept.extend(await make())
kept = []
asyncio.run(main())
""",
    "run, with calls that do not end": """
@mosaic.tessera
class Producer:
    async def flood(self, one):
        self.calls = [one.sleep(0.001) for _ in range(20_000)]
async def main(runtime):
    kept.extend(await make())
    calls.extend(kept[0].sleep(0.001) for _ in range(20_000))
    for worker in runtime.workers:
        producers.append(Producer.options(runtime=worker).remote())
        await producers[-1].flood(kept[0])
kept, calls, producers = [], [], []
mosaic.run(main, num_workers=2)
""",
    "stop": """
mosaic.init(num_workers=2)
kept = [Sleeper.remote() for _ in range(5)]
[one.ping().get() for one in kept]
mosaic.stop()
""",
    "never stopped": """
mosaic.init(num_workers=2)
kept = [Sleeper.remote() for _ in range(5)]
[one.ping().get() for one in kept]
""",
}
WAITS = """
async def main(runtime):
    kept = await make()
    busy = kept[0].sleep(60)
    ready(runtime)
    await busy
mosaic.run(main, num_workers=2)
"""


def closed(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize("how", ENDS)
def test_a_program_that_ends_closes_every_tessera(how: str, tmp_path: Path) -> None:
    path = tmp_path / "closed"
    run(PREAMBLE + MAKE + ENDS[how], path)
    assert closed(path) == TESSERAE


def test_a_program_that_mrun_has_run_closes_every_tessera(tmp_path: Path) -> None:
    path = tmp_path / "closed"
    run(PREAMBLE + MAKE + ENDS["run"], path, "-m", "mosaic_like", "-nw", "2")
    assert closed(path) == TESSERAE


def run(script: str, path: Path, *before: str) -> None:
    words = [*before, sys.executable] if before else []
    found = subprocess.run(
        [sys.executable, *words, "-W", "error", "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CLOSED": str(path)},
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert "did not end" not in found.stderr


@pytest.mark.parametrize(
    ("who", "number", "code"),
    [
        ("head", signal.SIGINT, 130),
        ("head", signal.SIGTERM, 143),
        ("node:0", signal.SIGTERM, 1),
        ("monitor", signal.SIGTERM, 1),
    ],
)
def test_a_signal_that_ends_a_cluster_closes_every_tessera(
    who: str, number: int, code: int, tmp_path: Path
) -> None:
    """Also where a call runs, which is cancelled; a node gives it its time first."""
    path = tmp_path / "closed"
    env = {"CLOSED": str(path), "MOSAIC_DRAIN_TIMEOUT_S": "0.3"}
    env["MOSAIC_STOP_TIMEOUT_S"] = "15"  # a slow machine takes long to interrupt
    with Program(MAKE + WAITS, **env).ready() as program:
        pid = program.about["members"].get(who, program.process.pid)
        os.kill(pid, number)
        assert program.code() == code, program.errors()
        assert program.left() == []
    assert closed(path) == TESSERAE


LETS_GO = """
from pathlib import Path

class Closing:
    def __init__(self, name, closing_s): self.name, self.closing_s = name, closing_s
    def ping(self): return os.getpid()
    def __close__(self):
        self.say("begins")
        time.sleep(self.closing_s)
        self.say("ends")
    def say(self, what):
        with closed.open("a") as file: file.write(f"{self.name} {what}\\n")

def said(line):
    return closed.exists() and line in closed.read_text()

closed = Path(os.environ["CLOSED"])
runtime = mosaic.init(num_workers=1)
kept = [mosaic.remote(Closing)(name, 1.0) for name in ("let go", "held")]
[one.ping().get() for one in kept]
ready(runtime)
while not said("held begins"):
    time.sleep(0.01)
kept.pop(0)
while not said("let go ends"):
    time.sleep(0.01)
"""


def test_what_is_let_go_while_another_closes_is_closed_whole(tmp_path: Path) -> None:
    """It closes already when its turn comes, and is waited for nevertheless."""
    env = {"CLOSED": str(tmp_path / "closed")}
    with Program(LETS_GO, **env).ready() as program:
        os.kill(program.about["members"]["monitor"], signal.SIGTERM)
        assert program.code() == 0, program.errors()
        assert program.left() == []
