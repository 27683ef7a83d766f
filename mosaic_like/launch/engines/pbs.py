"""PBS and Torque: a job has its hosts in ``$PBS_NODEFILE``.

They are not to be had on the machines on which this was made: it is tested as text, and
with a stand-in for ssh, which starts the processes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .allocation import Allocation, collected, is_count

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME: Final = "pbs"
VARIABLE: Final = "PBS_NODEFILE"


def read(environ: Mapping[str, str], _: Any = None) -> Allocation:
    """The allocation of this environment: see ``engines.find``."""
    text = Path(environ[VARIABLE]).read_text(errors="replace")
    return parse(text, environ.get("PBS_JOBID", ""), environ.get("NCPUS", ""))


def parse(text: str, job: str = "", ncpus: str = "") -> Allocation:
    """What stands in the file.

    Args:
        text: a host each line: once for each core (Torque's ``ppn``), or once for each
            process (``mpiprocs`` of PBS Professional, which is 1 if nobody asks).
        job: its number.
        ncpus: cores of each process, as PBS Professional says it.

    Raises:
        ValueError: there is no host in it.

    >>> parse("a\\na\\nb\\nb\\n").hosts[0].cores
    2
    """
    names = text.split()
    if not names:
        raise ValueError(f"{VARIABLE}: there is no host in it")
    allocation = collected(NAME, ((name, 1) for name in names), job)
    if is_count(ncpus) and len(names) == len(allocation.hosts):
        cores = max(1, int(ncpus))
        hosts = [dataclasses.replace(host, cores=cores) for host in allocation.hosts]
        return dataclasses.replace(allocation, hosts=tuple(hosts))
    return allocation
