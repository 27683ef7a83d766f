"""Job scripts, as text; those of Slurm and Grid Engine are run in tests/clusters."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mosaic_like.launch.mrun import cli, script_main

WANTED = {
    "slurm": """#!/bin/bash
#SBATCH --job-name=fwi
#SBATCH --nodes=4
# Workers on each node, and threads of each worker.
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=2
# On each node.
#SBATCH --mem=8192M
#SBATCH --time=1:30:00
# For mosaic.on_deadline or MOSAIC_CHECKPOINT_DIRECTORY; other programs end by it.
##SBATCH --signal=B:USR1@120
#SBATCH --output=%x-%j.out
""",
    "sge": """#!/bin/bash
#$ -N fwi
#$ -S /bin/bash
#$ -cwd
#$ -j y
# All slots together. How they are spread over hosts is the environment's to
# say: qconf -spl lists those of your site; it needs control_slaves TRUE.
#$ -pe mpi 64
# For each slot.
#$ -l h_vmem=512M
#$ -l h_rt=1:30:00
# For mosaic.on_deadline or MOSAIC_CHECKPOINT_DIRECTORY; other programs end by it.
##$ -notify
""",
    "pbs": """#!/bin/bash
#PBS -N fwi
#PBS -l select=4:ncpus=16:mem=8192mb
#PBS -l place=scatter
#PBS -j oe
# Torque: #PBS -l nodes=4:ppn=16 instead of these two -l
#PBS -l walltime=1:30:00

cd "$PBS_O_WORKDIR"
""",
    "lsf": """#!/bin/bash
#BSUB -J fwi
# All slots together, and how many of them on each host.
#BSUB -n 64
#BSUB -R "span[ptile=16]"
#BSUB -o %J.out
# For each slot or for each host, in MB or other units: your site says.
#BSUB -R "rusage[mem=512]"
#BSUB -W 1:30
# For mosaic.on_deadline or MOSAIC_CHECKPOINT_DIRECTORY; other programs end by it.
##BSUB -wa USR1 -wt 2
""",
}
COMMON = f"""# Where mrun and python are; or: module load ..., conda activate ...
export PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH

# It finds the hosts of the job, starts a node on each, runs the program
# here, and ends all of it. Hosts that fail are left out; with --strict
# it ends instead.
exec mrun -nw 8 -nth 2 python fwi.py
"""


def script(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["script", *words], prog_name="mrun")
    return done.exit_code, done.output


@pytest.mark.parametrize("engine", sorted(WANTED))
def test_the_script_asks_for_what_mrun_is_told(engine: str) -> None:
    numbers = ("-n", "4", "-nw", "8", "-nth", "2", "-m", "8 GiB", "-t", "1:30:00")
    code, text = script(engine, "fwi", *numbers)
    assert code == 0
    separator = "" if engine == "pbs" else "\n"
    assert text == WANTED[engine] + separator + COMMON
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=20)


def test_the_script_of_the_documentation_is_that_which_is_written() -> None:
    page = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text()
    shown, *_ = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    _, text = script("slurm", "fwi", "-n", "2", "-nw", "2", "-nth", "2")
    here = shlex.quote(os.path.dirname(sys.executable))
    assert shown.replace("/home/me/mosaic-env/bin", here) == text


def test_a_command_is_quoted_and_may_have_options_of_its_own() -> None:
    code, text = script("slurm", "fwi", "--", "python", "-X", "dev", "two words.py")
    assert code == 0
    assert text.endswith("exec mrun -nw 1 -nth 1 python -X dev 'two words.py'\n")


def test_a_short_job_is_told_half_of_its_time_before_the_end() -> None:
    _, text = script("slurm", "fwi", "-t", "0:01:00")
    assert "--signal=B:USR1@30\n" in text


def test_mscript_is_mrun_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mscript", "lsf", "fwi", "-n", "2"])
    with pytest.raises(SystemExit) as end:
        script_main()
    assert end.value.code == 0
    assert capsys.readouterr().out == script("lsf", "fwi", "-n", "2")[1]


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (("fwi\n#SBATCH --x",), "NAME: found"),
        (("a", "--pe", "x y"), "--pe: found"),
        (("a", "-t", "ninety"), "expected such as '1:30:00'"),
        (("a", "-m", "lots"), "expected a size such as '2 GiB'"),
        (("a", "-n", "0"), "at least 1"),
    ],
)
def test_what_would_spoil_a_script_is_refused(
    words: tuple[str, ...], phrase: str
) -> None:
    code, text = script("sge", *words)
    assert code == 2
    assert phrase in text


def test_mrun_is_found_also_where_pip_has_put_it_apart_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "bin", tmp_path / "own"]
    for folder, name in zip(folders, ("python", "mrun"), strict=True):
        folder.mkdir()
        (folder / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(folders[0] / "python"))
    monkeypatch.setenv("PATH", str(folders[1]))
    done = CliRunner().invoke(cli, ["script", "slurm", "fwi"])
    assert f"export PATH={folders[0]}:{folders[1]}:$PATH\n" in done.output
