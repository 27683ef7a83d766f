"""LSF: a job has its hosts in ``LSB_MCPU_HOSTS``; ``blaunch`` starts processes there.

LSF is not to be had on the machines on which this was made: it is tested with a
stand-in for ``blaunch``, which its manual calls a replacement of rsh and ssh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .allocation import collected, is_count, shell_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .allocation import Allocation, Host, Step

NAME: Final = "lsf"
VARIABLE: Final = "LSB_MCPU_HOSTS"


def read(environ: Mapping[str, str], _: Any = None) -> Allocation:
    """The allocation of this environment: see ``engines.find``."""
    return parse(environ[VARIABLE], environ.get("LSB_JOBID", ""))


def parse(text: str, job: str = "") -> Allocation:
    """What the variable says: hosts, each with its slots after it.

    Raises:
        ValueError: a host has no number of slots.

    >>> [(host.name, host.cores) for host in parse("a 4 b 2").hosts]
    [('a', 4), ('b', 2)]
    """
    words = text.split()
    names, slots = words[::2], words[1::2]
    if (
        not names
        or len(names) != len(slots)
        or not all(is_count(count) and int(count) for count in slots)
    ):
        raise ValueError(
            f"{VARIABLE}: found {text[:80]!r}, expected hosts and their slots such as "
            "'host1 4 host2 4'"
        )
    return collected(NAME, zip(names, map(int, slots), strict=True), job)


def steps(
    hosts: Sequence[Host],
    node: Callable[[Host], Sequence[str]],
    environ: Mapping[str, str],
) -> list[Step]:
    """See ``engines.Steps``."""
    return shell_steps(("blaunch",), hosts, node, environ)
