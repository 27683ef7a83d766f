"""Grid Engine: a job in a parallel environment has the hosts in ``$PE_HOSTFILE``.

``qrsh -inherit`` starts a process on one of them, inside the job; its words are joined
and read by a shell there. The environment has to allow it (``control_slaves TRUE``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .allocation import collected, is_count, shell_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .allocation import Allocation, Host, Step

NAME: Final = "sge"
VARIABLE: Final = "PE_HOSTFILE"


def read(environ: Mapping[str, str], _: Any = None) -> Allocation:
    """The allocation of this environment: see ``engines.find``."""
    path = environ[VARIABLE]
    return parse(Path(path).read_text(errors="replace"), environ.get("JOB_ID", ""))


def parse(text: str, job: str = "") -> Allocation:
    """What stands in the file: host, slots, queue and processors, a line each.

    Raises:
        ValueError: a line has no number of slots.

    >>> parse("host1 4 main@host1 UNDEFINED").hosts[0].cores
    4
    """
    slots: list[tuple[str, int]] = []
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if len(words) < 2 or not is_count(words[1]) or int(words[1]) < 1:
            raise ValueError(
                f"{VARIABLE}: found {line[:80]!r}, expected a host and its slots"
            )
        # A host is there once for each queue from which it has slots.
        slots.append((words[0], int(words[1])))
    if not slots:
        raise ValueError(f"{VARIABLE}: there is no host in it")
    return collected(NAME, slots, job)


def steps(
    hosts: Sequence[Host],
    node: Callable[[Host], Sequence[str]],
    environ: Mapping[str, str],
) -> list[Step]:
    """See ``engines.Steps``."""
    return shell_steps(("qrsh", "-inherit"), hosts, node, environ)
