"""The job scripts of docs/clusters.md, as they stand there: with make ci-cluster."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from testbed import CHECKOUT, LONG, Bed, Said, bed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = LONG

FWI = """
import mosaic_like as mosaic

async def main(runtime):
    print("hosts", *sorted(w.host for w in runtime.workers))

mosaic.run(main)
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Bed]:
    with bed("hosts", "3") as made:
        made.write("fwi.py", FWI)
        programs = Path(sys.executable).parent
        text = (CHECKOUT / "docs" / "clusters.md").read_text()
        for block in re.findall(r"```bash\n(#!.*?)```", text, re.S):
            assert block.count("/home/me/mosaic-env/bin") == 1
            block = block.replace("/home/me/mosaic-env/bin", str(programs))
            made.write(f"{name_of(block)}.sh", block)
        yield made


def name_of(script: str) -> str:
    """What it is for."""
    marks = {"#SBATCH": "slurm", "#$ ": "sge", "openmpi": "openmpi", "mpich": "mpich"}
    return next((name for mark, name in marks.items() if mark in script), "ssh")


def checked(said: Said, output: str, hosts: str) -> None:
    assert said.code == 0, (said.err, output)
    assert f"hosts {hosts}\n" in output


def test_slurm(hosts: Bed) -> None:
    with bed("slurm", "--on-hosts", under=hosts) as slurm:
        output = hosts.folder / "output"
        words = ["--wait", "-o", str(output), "-D", str(hosts.folder)]
        words = ["run", "--", "sbatch", *words, str(hosts.folder / "slurm.sh")]
        said = slurm.script("slurm", *words)
        checked(said, output.read_text(), "host1 host1 host2 host2")


def test_grid_engine(hosts: Bed) -> None:
    with bed("sge", under=hosts) as sge:
        output = hosts.folder / "output"
        script = f"cd {hosts.folder} && exec qsub -sync y -o {output} sge.sh"
        said = sge.script("sge", "run", "--", "sh", "-c", script)
        checked(said, output.read_text(), "host1 host2 host3")


@pytest.mark.parametrize(
    ("name", "command", "found"),
    [
        ("ssh", "ssh", "host1 host1 host2 host2 host2"),
        ("openmpi", "mpirun.openmpi", "host1 host1 host2 host2"),
        ("mpich", "mpiexec.mpich", "host1 host1 host2 host2"),
    ],
)
def test_hosts_by_name(hosts: Bed, name: str, command: str, found: str) -> None:
    if shutil.which(command) is None:
        pytest.skip(f"no {command}: apt-get install openmpi-bin mpich")
    script = f"cd {hosts.folder} && exec ./{name}.sh"
    said = hosts.script("hosts", "run", "--", "sh", "-c", script)
    checked(said, said.out, found)
