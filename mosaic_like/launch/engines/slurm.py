"""Slurm: inside ``salloc`` or ``sbatch`` the hosts are in the environment.

``srun`` starts one process on each of many hosts, and gives all of them what comes on
its standard input (tried with 22.05). So hosts that are to have the same share a step.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from . import hostlist
from .allocation import Allocation, Host, Step, is_count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NAME: Final = "slurm"
VARIABLE: Final = "SLURM_JOB_NODELIST"
OLD_VARIABLE: Final = "SLURM_NODELIST"  # its older name
_COUNT = re.compile(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?")
_EXITED = re.compile(
    r"srun: error: (\S+): tasks? [0-9,-]+: Exited with exit code ([0-9]+)"
)
_KILLED = re.compile(r"srun: error: (\S+): tasks? [0-9,-]+: (Killed|Terminated)")
_LABELLED = re.compile(r"\s*([0-9]+): ?(.*)")
# A process says first where it is: the numbers of tasks are in no known order.
ANNOUNCED: Final = "mosaic: on "
_ANNOUNCE: Final = f'echo "{ANNOUNCED}$SLURMD_NODENAME" >&2; exec "$@"'


def read(
    environ: Mapping[str, str],
    hostnames: Callable[[str], list[str] | None] = lambda _: None,
) -> Allocation:
    """The allocation of this environment.

    Args:
        environ: in which SLURM_JOB_NODELIST is, or SLURM_NODELIST.
        hostnames: what Slurm itself says that a list stands for; None: it is not here.

    Raises:
        ValueError: it cannot be read, or srun has started many of this process.
    """
    times = environ.get("SLURM_STEP_NUM_TASKS", "")
    if is_count(times) and int(times) > 1:
        raise ValueError(
            f"srun has started this {times} times, and each would be a cluster of its "
            "own: start mrun once, without srun; it starts a node on each host itself"
        )
    variable = VARIABLE if environ.get(VARIABLE) else OLD_VARIABLE
    listed = environ[variable]
    try:
        names = hostnames(listed) or hostlist.expand(listed)
    except ValueError as error:
        raise ValueError(f"{variable}: {error}") from None
    cores = _counts(environ, "SLURM_JOB_CPUS_PER_NODE", len(names))
    tasks: Sequence[int | None] = [None] * len(names)
    threads = None
    if environ.get("SLURM_NTASKS") or environ.get("SLURM_NTASKS_PER_NODE"):
        # Else this is of --exclusive or so, and nobody has asked for it. Who asks for
        # one task on each host often means all of it.
        asked = _counts(environ, "SLURM_TASKS_PER_NODE", len(names))
        if any(count is not None and count > 1 for count in asked):
            tasks = asked
            given = environ.get("SLURM_CPUS_PER_TASK", "")
            threads = int(given) if is_count(given) and int(given) else None
    hosts = tuple(
        Host(name, own, None, threads, count)
        for name, own, count in zip(names, cores, tasks, strict=True)
    )
    return Allocation(NAME, hosts, environ.get("SLURM_JOB_ID", ""))


def _counts(environ: Mapping[str, str], name: str, count: int) -> list[int | None]:
    """Numbers such as ``4(x2),1``, one for each host."""
    text = environ.get(name, "")
    if not text:
        return [None] * count
    numbers: list[int | None] = []
    for item in text.split(","):
        found = _COUNT.fullmatch(item.strip())
        if found is None:
            raise ValueError(f"{name}: found {text[:80]!r}, expected such as '4(x2),1'")
        numbers += [int(found[1])] * min(int(found[2] or 1), hostlist.MOST)
        if len(numbers) > hostlist.MOST:
            break
    if len(numbers) != count:
        raise ValueError(
            f"{name}: found {text[:80]!r}, for {len(numbers)} of {count} hosts"
        )
    return numbers


def steps(
    hosts: Sequence[Host],
    node: Callable[[Host], Sequence[str]],
    environ: Mapping[str, str],
) -> list[Step]:
    """See ``engines.Steps``."""
    alike: dict[tuple[object, ...], list[Host]] = {}
    for host in hosts:
        alike.setdefault((host.cores, host.workers, host.threads), []).append(host)
    return [_step(group, node(group[0])) for group in alike.values()]


def _step(hosts: Sequence[Host], node: Sequence[str]) -> Step:
    names = tuple(host.name for host in hosts)
    count = len(names)
    command = [
        "srun",
        f"--nodes={count}",
        f"--ntasks={count}",
        "--ntasks-per-node=1",
        f"--nodelist={','.join(names)}",
        # All that the job has there, which other steps may use at the same time.
        "--overlap",
        "--mem=0",
        "--cpu-bind=none",
        # One that fails must not end the others, nor a host that is lost.
        "--kill-on-bad-exit=0",
        "--no-kill",
        "--wait=0",
        "--mpi=none",
        "--export=ALL",
        "--label",
        "--job-name=mosaic",
    ]
    if hosts[0].cores is not None:
        command.append(f"--cpus-per-task={hosts[0].cores}")
    command += ["sh", "-c", _ANNOUNCE, "sh", *node]
    return Step(tuple(command), names, is_labelled=True)


class Output:
    """Whose the lines are that a step prints.

    >>> output = Output()
    >>> output.line("0: mosaic: on n2")
    >>> output.line("0: hello")
    ('n2', 'hello')
    >>> output.line("srun: error: n[1-2]: tasks 0-1: Exited with exit code 127")
    >>> output.codes
    {'n1': 127, 'n2': 127}
    """

    def __init__(self) -> None:
        self._hosts: dict[str, str] = {}  # by task
        self.codes: dict[str, int] = {}  # of processes that have failed, by host

    def line(self, text: str) -> tuple[str, str] | None:
        """The host and what it said; an empty host: the step; None: nothing."""
        labelled = _LABELLED.fullmatch(text)
        if labelled is not None:
            task, said = labelled.groups()
            if task not in self._hosts and said.startswith(ANNOUNCED):
                self._hosts[task] = said.removeprefix(ANNOUNCED)
                return None
            return self._hosts.get(task, ""), said
        found = _EXITED.fullmatch(text)
        if found is not None:
            self._ended(found[1], int(found[2]))
            return None
        found = _KILLED.match(text)
        if found is not None:
            self._ended(found[1], 137 if found[2] == "Killed" else 143)
            return None
        return "", text

    def _ended(self, hosts: str, code: int) -> None:
        try:
            names = hostlist.expand(hosts)
        except ValueError:
            return
        self.codes.update(dict.fromkeys(names, code))
