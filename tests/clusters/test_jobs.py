"""What jobs give and how they end, on the real engines: with make ci-cluster."""

from __future__ import annotations

import re
import shutil
import sys
import time
from typing import TYPE_CHECKING

import pytest
from testbed import LONG, MRUN, Bed, bed, until

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = LONG

GIVEN = """
import os
import mosaic_like as mosaic

@mosaic.tessera
class There:
    def given(self):
        name = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
        return f"{name}:{gpus}:{len(os.sched_getaffinity(0))}"

async def main(runtime):
    those = [There.options(runtime=w).remote() for w in runtime.workers]
    print(*sorted(await mosaic.gather(t.given() for t in those)))
    open(os.path.join(os.path.dirname(__file__), "ended"), "w").close()

mosaic.run(main)
"""
SAVES = """
import asyncio, os, sys, time
import mosaic_like as mosaic

@mosaic.tessera(max_restarts=1)
class Solver:
    def __init__(self, path): self.path, self.steps = path, 0
    def __checkpoint__(self): return self.saved(), self.steps
    def __restore__(self, state): self.steps = state[1]
    def step(self): self.steps += 1; time.sleep(0.05)
    def saved(self): return os.environ["SLURMD_NODENAME"]
    def __close__(self): open(self.path, "a").write("closed\\n")

async def main(runtime):
    workers = runtime.workers
    solvers = [Solver.options(runtime=w).remote(sys.argv[1]) for w in workers]
    @mosaic.on_deadline
    async def save():
        print("saved", *sorted(await mosaic.gather(s.saved() for s in solvers)))
    print("running", flush=True)
    while True:
        await mosaic.gather(s.step() for s in solvers)

mosaic.run(main)
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Bed]:
    with bed("slurm", "2") as made:
        yield made


def run(slurm: Bed, *words: str) -> str:
    return slurm.script("slurm", "run", "--", *words).out.strip()


@pytest.mark.parametrize(
    ("limits", "signal", "state"),
    [
        ((), ("scancel", "--batch", "--signal=USR1"), "COMPLETED"),
        ((), ("scancel", "--signal=USR1"), "COMPLETED"),  # the steps alone
        ((), ("scancel",), "CANCELLED"),
        # Slurm sends it up to 30 s earlier: 60 s are left to be up in.
        (("-t", "2", "--signal=B:USR1@30"), (), "COMPLETED"),
    ],
)
def test_a_job_that_is_to_end_saves_and_ends_in_order(
    slurm: Bed, limits: tuple[str, ...], signal: tuple[str, ...], state: str
) -> None:
    output, closed = slurm.folder / "output", slurm.folder / "closed"
    for path in (output, closed):
        path.unlink(missing_ok=True)
    slurm.environ["MOSAIC_CHECKPOINT_DIRECTORY"] = str(slurm.folder)
    program = slurm.write("saves.py", SAVES)
    line = " ".join([*MRUN, "-nw", "1", "-nth", "1", sys.executable, program])
    job = slurm.write("job", f"#!/bin/sh\nexec {line} {closed}\n")
    sbatch = ["sbatch", "--parsable", "-N2", "-o", str(output)]
    number = run(slurm, *sbatch, *limits, job)
    until(lambda: output.exists() and "running" in output.read_text())
    if signal:
        run(slurm, *signal, number)
    else:
        until(lambda: "SIGUSR1 is taken" in output.read_text(), 150.0)
    asked_s = time.monotonic()
    until(lambda: not run(slurm, "squeue", "--noheader", "-j", number))
    print(f"{state}: gone {time.monotonic() - asked_s:.1f} s after it was asked to")
    text = output.read_text()
    assert "saved n1 n2" in text, text
    # All of them, also of those that the program has not saved.
    paths = re.findall(r"read_checkpoint\('(.*)'\) gives its state\n", text)
    states = sorted(mosaic.read_checkpoint(path) for path in paths)
    assert [name for name, _ in states] == ["n1", "n2"], text
    assert all(steps > 0 for _, steps in states)
    assert closed.read_text() == "closed\n" * 2
    log = (slurm.folder / "s" / "log" / "jobs").read_text().splitlines()
    (told,) = (one for one in log if f"JobId={number} " in one)
    assert f"JobState={state}" in told
    assert run(slurm, "squeue", "--noheader", "--steps") == ""


def test_the_gpus_of_a_job_are_split_over_its_workers(slurm: Bed) -> None:
    program = slurm.write("given.py", GIVEN)
    output = slurm.folder / "output"
    output.unlink(missing_ok=True)
    line = " ".join([*MRUN, "-q", "--pin", sys.executable, program])
    job = slurm.write("job", f"#!/bin/sh\n{line}\necho end\n")
    wants = ["sbatch", "-N2", "--ntasks-per-node=2", "--gpus-per-node=2"]
    run(slurm, *wants, "-o", str(output), job)
    until(lambda: output.exists() and "end" in output.read_text())
    names = [each.rpartition(":")[0] for each in output.read_text().split()]
    assert names[:-1] == ["n1:0", "n1:1", "n2:0", "n2:1"]


def test_two_jobs_on_one_host_share_nothing_but_it(slurm: Bed) -> None:
    program = slurm.write("given.py", GIVEN)
    wants = ["srun", "--quiet", "-N1", "-n1", "-w", "n1", "--cpus-per-task=2"]
    words = [*wants, *MRUN, "-nw", "2", "-nth", "1", sys.executable, program]
    line = " ".join(words)
    both = f"{line} & {line} & wait"
    said = slurm.script("slurm", "run", "--", "sh", "-c", both)
    assert said.err.count("1 node x 2 workers x 1 thread (n1)") == 2, said.err
    assert len(said.out.split()) == 4


@pytest.mark.parametrize(
    "mpiexec",
    [
        "mpirun.openmpi --allow-run-as-root",
        "mpiexec.mpich",
    ],
)
def test_mpi_starts_the_nodes(mpiexec: str) -> None:
    name = mpiexec.split()[0]
    if shutil.which(name) is None:
        pytest.skip(f"no {name}: apt-get install openmpi-bin mpich")
    with bed("hosts", "2") as hosts:
        hosts.environ["MPIEXEC"] = mpiexec
        program = hosts.write("given.py", GIVEN)
        words = [*MRUN, "--mpi", "--hosts", "host1,host2", "-nw", "2", "-nth", "1"]
        said = hosts.script("hosts", "run", "--", *words, sys.executable, program)
        assert said.code == 0, said.err
        hosts.tell(name, said.err)
        named = [each.partition(":")[0] for each in said.out.split()]
        assert named == ["host1", "host1", "host2", "host2"]
        assert "mpi · 2 nodes x 2 workers x 1 thread (host[1-2], eth0)" in said.err
        assert [hosts.left(name) for name in ("host1", "host2")] == [[], []]
