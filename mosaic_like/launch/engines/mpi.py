"""MPI: its own starter, ``mpiexec``, starts the nodes, on hosts that others have named.

For sites where that is set up to reach the hosts of a job and nothing else is. Each
host has an mpiexec of its own, whose only process gets standard input, on which the key
comes. No message goes by MPI. The words are those that Open MPI and MPICH, with all
that has its starter (Hydra), take alike.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from .allocation import Step, passed_on

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .allocation import Host

NAME: Final = "mpi"
VARIABLE: Final = "MPIEXEC"  # the command, with options of its own


def steps(
    hosts: Sequence[Host],
    node: Callable[[Host], Sequence[str]],
    environ: Mapping[str, str],
) -> list[Step]:
    """See ``engines.Steps``."""
    try:
        command = shlex.split(environ.get(VARIABLE, "")) or ["mpiexec"]
    except ValueError as error:
        raise ValueError(f"{VARIABLE}: {error}") from None
    # A single process would be bound to one core, and all its workers with it.
    command += ["-n", "1", "-bind-to", "none"]
    return [
        Step(
            (*command, "-host", host.name, *passed_on(node(host), environ)),
            (host.name,),
        )
        for host in hosts
    ]
