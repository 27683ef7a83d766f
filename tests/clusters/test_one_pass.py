"""One real pass of each engine: SSH, Slurm, Grid Engine. More: make ci-cluster."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from testbed import MRUN, Bed, bed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(300)  # packages may have to be installed

PROGRAM = """
import os, socket
import numpy as np
import mosaic_like as mosaic

@mosaic.tessera
class There:
    def host(self):
        return os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    def make(self):
        return np.arange(1 << 20, dtype=np.float64)
    def total(self, array):
        return float(array.sum())

async def main(runtime):
    those = [There.options(runtime=w).remote() for w in runtime.workers]
    print("hosts", *sorted(await mosaic.gather(t.host() for t in those)))
    # From each to the next: between hosts.
    made = [t.make() for t in those]
    totals = await mosaic.gather(
        t.total(made[n - 1]) for n, t in enumerate(those)
    )
    assert set(totals) == {float(sum(range(1 << 20)))}, totals
    print("done")
    open(os.path.join(os.path.dirname(__file__), "ended"), "w").close()

mosaic.run(main)
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Bed]:
    with bed("hosts", "3") as made:
        yield made


def test_ssh(hosts: Bed) -> None:
    program = hosts.write("program.py", PROGRAM)
    words = [*MRUN, "--hosts", "host1,host2,host3:2", "-nw", "1", "-nth", "1"]
    said = hosts.script("hosts", "run", "--", *words, sys.executable, program)
    assert said.code == 0, said.err
    assert said.out.splitlines() == ["hosts host1 host2 host3 host3", "done"]
    assert "ssh · 3 nodes, 4 workers (host[1-3], eth0) · ready in" in said.err
    assert len(said.err.splitlines()) == 1
    hosts.tell("ssh", said.err)
    assert [hosts.left(name) for name in ("host1", "host2", "host3")] == [[], [], []]


def test_slurm() -> None:
    with bed("slurm", "2") as slurm:
        program = slurm.write("program.py", PROGRAM)
        salloc = ["salloc", "--quiet", "-N2", "--ntasks-per-node=2"]
        said = slurm.script(
            "slurm", "run", "--", *salloc, *MRUN, sys.executable, program
        )
        assert said.code == 0, said.err
        assert said.out.splitlines() == ["hosts n1 n1 n2 n2", "done"]
        assert "2 nodes x 2 workers x 1 thread (n[1-2], lo)" in said.err
        assert len(said.err.splitlines()) == 1
        slurm.tell("slurm", said.err)
        queue = slurm.script("slurm", "run", "--", "squeue", "--noheader", "--steps")
        assert queue.out == ""


def test_grid_engine(hosts: Bed) -> None:
    with bed("sge", under=hosts) as sge:
        program = sge.write("program.py", PROGRAM)
        output = sge.folder / "output"
        numbers = ["-n", "3", "-nw", "1", "-nth", "1", "--pe", "spread"]
        text = sge.mrun("script", "sge", "program", *numbers, "--", "python", program)
        job = sge.write("job", text)
        qsub = ["qsub", "-sync", "y", "-o"]
        said = sge.script("sge", "run", "--", *qsub, str(output), job)
        assert said.code == 0, (said.err, output.read_text())
        lines = output.read_text().splitlines()
        sge.tell("sge, with the end of the job", lines[0])
        assert lines[-2:] == ["hosts host1 host2 host3", "done"]
        assert "3 nodes x 1 worker x 1 thread (host[1-3], eth0)" in lines[0]
        assert [hosts.left(name) for name in ("host1", "host2")] == [[], []]
