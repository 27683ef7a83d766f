"""Why there is no node on a host: from how a command ended, and from what it said.

In words that say what to do; what the command itself said stands beside them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ...text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST: Final = 300  # characters of what is quoted
_NOT_FOUND: Final = 127  # exit codes of a shell
_NOT_EXECUTABLE: Final = 126
# What ours say themselves, with what to do: it is passed on as it is.
_OURS: Final = re.compile(r"(?:mrun|mosaic): (.*)")
_OURS_USAGE: Final = re.compile(r"Error: (.*)")  # click's
_KNOWN: Final = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (
            "Could not resolve hostname|can't resolve host name",
            "there is no host of this name",
        ),
        (
            "No route to host|Network is unreachable|[Tt]imed out",
            "it cannot be reached: is it up, and on this network?",
        ),
        ("Connection refused", "nothing there takes ssh connections"),
        (
            "Host key verification failed",
            "its host key is not known here, or has changed: say ssh {host} once "
            "by hand",
        ),
        (
            "Permission denied",
            "it lets nobody in without a password: give it your key, by ssh-copy-id "
            "{host}",
        ),
        (
            "(?:unknown|illegal|invalid|unrecognized|[Bb]ad configuration) option",
            "the command that reaches it does not know one of its options: see "
            "SSH_FLAGS, MPIEXEC and ~/.ssh/config",
        ),
        (
            "Too many open files",
            "a process may have too few files open there: raise that, for ssh by "
            "SSH_COMMANDS='ulimit -n 1024'",
        ),
        (
            "No space left on device|Disk quota exceeded",
            "there is no room on its disk: make some, or name another directory, for "
            "ssh by SSH_COMMANDS='export TMPDIR=/scratch'",
        ),
        (
            "No module named .?mosaic_like",
            "the Python there has no mosaic_like: install the same version there",
        ),
        (
            "No module named",
            "the Python there lacks something: install the same environment there",
        ),
    )
)


def cause(host: str, python: str, status: int, lines: Iterable[str]) -> str:
    """Why the command for one host ended before it had a node.

    Args:
        host: its name.
        python: the interpreter that was to be run there.
        status: the exit code; negative for a signal.
        lines: what it said, the last at the end.

    >>> cause("b", "/py", 127, ["sh: 1: exec: /py: not found"])
    "there is no /py: install Python there at the same path, or name another by \
--python (exit 127: 'sh: 1: exec: /py: not found')"
    """
    said = [printable(line).strip() for line in lines]
    said = [line for line in said if line.strip("-")]  # Open MPI rules its texts
    for line in reversed(said):
        found = _OURS.fullmatch(line) or _OURS_USAGE.fullmatch(line)
        if found is not None:
            return found[1][:_LONGEST]
    last = said[-1] if said else ""
    if status == _NOT_FOUND:
        return (
            f"there is no {python}: install Python there at the same path, or name "
            f"another by --python ({_ended(status, last)})"
        )
    if status == _NOT_EXECUTABLE:
        return f"{python} cannot be run there ({_ended(status, last)})"
    for pattern, text in _KNOWN:
        for line in said:
            if pattern.search(line):
                return f"{text.format(host=host)} ({_ended(status, line)})"
    return f"its command ended ({_ended(status, last)})"


def _ended(status: int, line: str) -> str:
    how = f"signal {-status}" if status < 0 else f"exit {status}"
    return f"{how}: {line[:_LONGEST]!r}" if line else how
