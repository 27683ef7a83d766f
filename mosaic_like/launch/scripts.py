"""Job scripts for ``mrun script``: text alone, for people to read and to change.

All that is specific to a site, such as partitions and accounts, is theirs to add. The
script asks the engine for what mrun is told, and mrun finds the hosts by itself.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
_TIME: Final = re.compile(r"([0-9]+):([0-5][0-9]):([0-5][0-9])")
_MIB: Final = 1 << 20
_NOTICE_S: Final = 120  # from the signal for on_deadline to the limit of the job
_FOR_DEADLINE: Final = (
    "# For mosaic.on_deadline or MOSAIC_CHECKPOINT_DIRECTORY; other programs end by it."
)


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be run, and on what.

    Args:
        name: of the job.
        command: the program and its arguments.
        nodes: hosts.
        workers: on each.
        threads: of each worker.
        memory: bytes on each host; None: as the site has it.
        time: limit, as ``h:mm:ss``; empty: as the site has it.
        environment: of parallel jobs, in Grid Engine.
        path: the folders in which mrun and python are, as PATH has them.

    Raises:
        ValueError: a field has what would not be one word in a script.
    """

    name: str
    command: Sequence[str]
    nodes: int = 1
    workers: int = 1
    threads: int = 1
    memory: int | None = None
    time: str = ""
    environment: str = "mpi"
    path: str = ""

    def __post_init__(self) -> None:
        for what, name in (("NAME", self.name), ("--pe", self.environment)):
            if _NAME.fullmatch(name) is None:
                raise ValueError(
                    f"{what}: found {name!r}, expected a letter, then letters, digits, "
                    "'.', '_' and '-', at most 63"
                )
        if self.time and _TIME.fullmatch(self.time) is None:
            raise ValueError(f"--time: found {self.time!r}, expected such as '1:30:00'")

    @property
    def cores(self) -> int:
        """On each host."""
        return self.workers * self.threads

    @property
    def run(self) -> str:
        """The lines that are the same for all engines."""
        line = f"mrun -nw {self.workers} -nth {self.threads}"
        return (
            "# Where mrun and python are; or: module load ..., conda activate ...\n"
            f"export PATH={shlex.quote(self.path)}:$PATH\n\n"
            "# It finds the hosts of the job, starts a node on each, runs the program\n"
            "# here, and ends all of it. Hosts that fail are left out; with --strict\n"
            "# it ends instead.\n"
            f"exec {line} {shlex.join(self.command)}\n"
        )

    @property
    def seconds(self) -> int:
        """Of the limit."""
        hours, minutes, seconds = map(int, self.time.split(":"))
        return (hours * 60 + minutes) * 60 + seconds

    @property
    def notice_s(self) -> int:
        """How long before the limit the program may be told; at most half of it."""
        return min(_NOTICE_S, self.seconds // 2)

    @property
    def mebibytes(self) -> int:
        """Of memory on each host, rounded up."""
        return -(-(self.memory or 0) // _MIB)


def slurm(job: Job) -> str:
    """For ``sbatch``."""
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={job.name}",
        f"#SBATCH --nodes={job.nodes}",
        "# Workers on each node, and threads of each worker.",
        f"#SBATCH --ntasks-per-node={job.workers}",
        f"#SBATCH --cpus-per-task={job.threads}",
    ]
    if job.memory is not None:
        lines += ["# On each node.", f"#SBATCH --mem={job.mebibytes}M"]
    if job.time:
        lines.append(f"#SBATCH --time={job.time}")
        lines += [_FOR_DEADLINE, f"##SBATCH --signal=B:USR1@{job.notice_s}"]
    lines += ["#SBATCH --output=%x-%j.out"]
    return "\n".join([*lines, "", job.run])


def sge(job: Job) -> str:
    """For ``qsub`` of Grid Engine."""
    lines = [
        "#!/bin/bash",
        f"#$ -N {job.name}",
        "#$ -S /bin/bash",
        "#$ -cwd",
        "#$ -j y",
        "# All slots together. How they are spread over hosts is the environment's to",
        "# say: qconf -spl lists those of your site; it needs control_slaves TRUE.",
        f"#$ -pe {job.environment} {job.nodes * job.cores}",
    ]
    if job.memory is not None:
        each = -(-job.mebibytes // job.cores)
        lines += ["# For each slot.", f"#$ -l h_vmem={each}M"]
    if job.time:
        lines.append(f"#$ -l h_rt={job.time}")
    # Not s_rt: its SIGUSR1 ends what qrsh is served by, and the job with it (8.1.9).
    lines += [_FOR_DEADLINE, "##$ -notify"]
    return "\n".join([*lines, "", job.run])


def pbs(job: Job) -> str:
    """For ``qsub`` of PBS Professional."""
    chunk = f"select={job.nodes}:ncpus={job.cores}"
    if job.memory is not None:
        chunk += f":mem={job.mebibytes}mb"
    lines = [
        "#!/bin/bash",
        f"#PBS -N {job.name}",
        f"#PBS -l {chunk}",
        "#PBS -l place=scatter",
        "#PBS -j oe",
        f"# Torque: #PBS -l nodes={job.nodes}:ppn={job.cores} instead of these two -l",
    ]
    if job.time:
        lines.append(f"#PBS -l walltime={job.time}")
    return "\n".join([*lines, "", 'cd "$PBS_O_WORKDIR"', job.run])


def lsf(job: Job) -> str:
    """For ``bsub <`` of LSF."""
    lines = [
        "#!/bin/bash",
        f"#BSUB -J {job.name}",
        "# All slots together, and how many of them on each host.",
        f"#BSUB -n {job.nodes * job.cores}",
        f'#BSUB -R "span[ptile={job.cores}]"',
        "#BSUB -o %J.out",
    ]
    if job.memory is not None:
        lines += [
            "# For each slot or for each host, in MB or other units: your site says.",
            f'#BSUB -R "rusage[mem={-(-job.mebibytes // job.cores)}]"',
        ]
    if job.time:
        minutes = -(-job.seconds // 60)
        lines.append(f"#BSUB -W {minutes // 60}:{minutes % 60:02}")
        lines += [_FOR_DEADLINE, f"##BSUB -wa USR1 -wt {-(-job.notice_s // 60)}"]
    return "\n".join([*lines, "", job.run])


ENGINES: Final[dict[str, Callable[[Job], str]]] = {
    "slurm": slurm,
    "sge": sge,
    "pbs": pbs,
    "lsf": lsf,
}
