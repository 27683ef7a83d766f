"""What a program does when its job is to end: signals as engines send them."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest
from programs import Program

import mosaic_like as mosaic

if TYPE_CHECKING:
    from pathlib import Path

# The arguments: what save() does; it asks a worker, which has to be there still.
SAVES = """
async def main(runtime):
    sleepers = [Sleeper.remote(), Sleeper.remote()]
    pids = await mosaic.gather(s.ping() for s in sleepers)
    go_on = asyncio.Event()
    @mosaic.on_deadline
    async def save():
        assert await mosaic.gather(s.ping() for s in sleepers) == pids
        print("saved", flush=True)
        if "raise" in sys.argv: raise OSError("no room")
        if "end" in sys.argv: go_on.set(); await asyncio.sleep(0.2)
        if "long" in sys.argv: await asyncio.sleep(1000)
    mosaic.on_deadline(lambda: print("and this", flush=True))
    ready(runtime)
    await go_on.wait()
mosaic.run(main, num_workers=2)
sys.exit(7)
"""
JOB = {"SLURM_JOB_ID": "7"}


def printed(program: Program) -> list[str]:
    """What it has printed since, after its end."""
    assert program.process.stdout is not None
    return program.process.stdout.read().decode().splitlines()


def test_all_of_a_job_gets_the_signals_and_the_program_saves_with_its_workers() -> None:
    with Program(SAVES, **JOB).ready() as program:
        for number in (signal.SIGUSR2, signal.SIGTERM):
            for pid in program.pids():
                os.kill(pid, number)
        program.signal(signal.SIGUSR1)
        program.signal(signal.SIGUSR1)  # from who passes it on
        code = program.code()
        assert program.left() == []
        errors = program.errors()
        assert code == 0, errors
        first, second = errors.splitlines()
        assert first.startswith("SIGUSR1 is taken for the deadline of this job")
        assert second.startswith("SIGUSR1 stopping: 0 running")
        assert printed(program) == ["saved", "and this"]


@pytest.mark.parametrize(
    ("how", "number", "code", "phrase"),
    [
        ("raise", signal.SIGTERM, 1, "OSError: no room"),
        ("end", signal.SIGTERM, 7, ""),  # main has returned: it ends as ever
    ],
)
def test_how_saving_ends_is_how_the_program_ends(
    how: str, number: signal.Signals, code: int, phrase: str
) -> None:
    with Program(SAVES, how).ready() as program:
        program.signal(number)
        assert program.code() == code
        assert phrase in program.errors()
        assert printed(program) == ["saved", "and this"]


def test_ctrl_c_does_not_wait_for_the_end_of_saving() -> None:
    with Program(SAVES, "long").ready() as program:
        program.signal(signal.SIGTERM)
        assert program.line() == "saved\n"
        program.signal(signal.SIGTERM)  # the limit itself: there are seconds left
        program.signal(signal.SIGINT)
        assert program.code() == 1


# One is made by the program, one by a tessera; nobody has asked for on_deadline.
SOLVES = """
@mosaic.tessera(max_restarts=1)
class Solver:
    def __init__(self): self.steps = 0
    def step(self): time.sleep(0.01); self.steps += 1
    def __checkpoint__(self): return self.steps
    def __restore__(self, steps): self.steps = steps

class Broken(Solver):
    def __checkpoint__(self): raise OSError("no state")

class Busy(Solver):
    def step(self): print("begun"); time.sleep(1000)

@mosaic.tessera
class Maker:
    async def make(self):
        self.solver = Solver.remote()
        await self.solver.step()

async def main(runtime):
    w0, w1 = runtime.workers
    maker, solver = Maker.remote(), Solver.options(runtime=w0).remote()
    broken = Broken.options(runtime=w0).remote()
    busy = Busy.options(runtime=w1).remote()
    await mosaic.gather(maker.make(), solver.step(), broken.step())
    steps = [solver.step() for _ in range(1000)]
    ready(runtime)
    if "busy" in sys.argv: await busy.step()
    await asyncio.Event().wait()
mosaic.run(main, num_workers=2)
"""


@pytest.mark.parametrize(
    ("number", "busy"), [(signal.SIGUSR1, ""), (signal.SIGTERM, "busy")]
)
def test_what_is_built_again_is_written_down_and_kept_for_the_next_job(
    number: signal.Signals, busy: str, tmp_path: Path
) -> None:
    environ = {**JOB, "MOSAIC_CHECKPOINT_DIRECTORY": str(tmp_path)}
    if busy:
        environ["MOSAIC_DRAIN_TIMEOUT_S"] = "1"
    with Program(SOLVES, busy, **environ) as program:
        program.ready()
        if busy:  # else it would be cancelled before it has begun
            assert program.line().endswith("begun\n")
        program.signal(number)
        assert program.code() == 0, program.errors()
        assert program.left() == []
        errors = program.errors()
    # The constructor's state is one, too: of what was not called.
    given = re.findall(
        r"mosaic: (\w+)#1: mosaic\.read_checkpoint\('(.*)'\) gives its state\n", errors
    )
    if busy:
        assert "mosaic: Busy#1: no checkpoint, since a call on it went on for" in errors
    else:
        why = "that could not be written down"
        assert f"mosaic: Broken#1: no checkpoint, since {why}\n" in errors
        assert sorted(name for name, _ in given) == ["Busy", "Solver", "Solver"]
        states = sorted(mosaic.read_checkpoint(path) for _, path in given)
        assert states[:2] == [0, 1]
        assert 1 <= states[2] < 1000  # before what waited


def test_who_cannot_be_told_is_told_so() -> None:
    with pytest.raises(RuntimeError, match="there is no runtime here"):
        mosaic.on_deadline(print)
    with pytest.raises(TypeError, match="on_deadline takes a function, not 7"):
        mosaic.on_deadline(7)  # type: ignore[type-var]  # the mistake is the point
    with (
        mosaic.init(num_workers=1),
        pytest.raises(RuntimeError, match=r"started by mosaic\.run\(main\)"),
    ):
        mosaic.on_deadline(print)
