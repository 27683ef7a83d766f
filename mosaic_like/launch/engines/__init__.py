"""The engines that hosts come from: what each says, and how it starts a process.

One file an engine. Here nothing is run and no host is asked: what an engine has said
is read from the environment and the files that it names, and what it is to do is a list
of command lines. Who runs them is ``launch.remote``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from . import lsf, mpi, pbs, sge, slurm, ssh

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .allocation import Allocation, Host, Step

# What is looked for, in this order: inside Slurm there may be variables of others.
FINDERS: tuple[tuple[str, Callable[[Mapping[str, str], Any], Allocation]], ...] = (
    (slurm.VARIABLE, slurm.read),
    (slurm.OLD_VARIABLE, slurm.read),
    (sge.VARIABLE, sge.read),
    (pbs.VARIABLE, pbs.read),
    (lsf.VARIABLE, lsf.read),
)
VARIABLES = tuple(variable for variable, _ in FINDERS)


class Steps(Protocol):
    def __call__(
        self,
        hosts: Sequence[Host],
        node: Callable[[Host], Sequence[str]],
        environ: Mapping[str, str],
    ) -> list[Step]:
        """The commands that start a node on each of these hosts."""
        ...


# PBS has no command of its own that passes on standard input, on which the key comes.
STARTERS: dict[str, Steps] = {
    slurm.NAME: slurm.steps,
    sge.NAME: sge.steps,
    pbs.NAME: ssh.steps,
    lsf.NAME: lsf.steps,
    mpi.NAME: mpi.steps,
    ssh.NAME: ssh.steps,
}


def steps(
    allocation: Allocation,
    hosts: Sequence[Host],
    node: Callable[[Host], Sequence[str]],
    environ: Mapping[str, str],
) -> list[Step]:
    """The commands that start a node on each of these hosts of an allocation.

    Raises:
        ValueError: what the environment says of the command cannot be read.
    """
    starter = STARTERS[allocation.starter or allocation.engine]
    return starter(hosts, node, environ)


def find(
    environ: Mapping[str, str], hostnames: Callable[[str], list[str] | None]
) -> Allocation | None:
    """The allocation that this process runs in; None: it runs in none.

    Args:
        environ: of this process.
        hostnames: asks Slurm for the hosts that a list of its stands for; None: it
            cannot be asked.

    Raises:
        ValueError: there is one, and what it says cannot be read.
    """
    for variable, read in FINDERS:
        if environ.get(variable):
            try:
                return read(environ, hostnames)
            except OSError as error:
                why = os.strerror(error.errno or 0)
                raise ValueError(
                    f"{variable}={environ[variable]} cannot be read: {why}; on another "
                    "host than the job's first this is so: run mrun there"
                ) from None
    return None
