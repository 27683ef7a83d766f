"""SSH: hosts that were named by ``--hosts`` or ``--hostfile``.

What the user has set counts: ~/.ssh/config as ever, ``SSH_FLAGS`` for ssh itself, and
``SSH_COMMANDS`` for what is to be run on a host first. Nothing is asked at a terminal:
mrun has none to give to many hosts.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

from . import hostlist
from .allocation import Allocation, Host, is_count, shell_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .allocation import Step

NAME: Final = "ssh"
CONNECT_TIMEOUT_S: Final = 10
# Of several -o for one thing ssh takes the first, so these come after the user's own.
_OPTIONS: Final = (
    *("-o", "BatchMode=yes"),
    *("-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"),
    # One that stayed for the next would keep our pipes.
    *("-o", "ControlMaster=no"),
)
_SLOTS = re.compile(r"(?:slots|workers)=([0-9]+)")


def parse_hosts(text: str) -> Allocation:
    """The hosts of ``--hosts``.

    Args:
        text: names with commas between them, each with a number of workers if it is to
            have its own; also in Slurm's short form.

    Raises:
        ValueError: it is no such list.

    >>> [(h.name, h.workers) for h in parse_hosts("me@gpu1,n[1-2]:4").hosts]
    [('me@gpu1', None), ('n1', 4), ('n2', 4)]
    """
    hosts: list[Host] = []
    for item in re.split(r",(?![^\[]*\])", text):
        name, colon, number = item.strip().partition(":")
        if colon and (not is_count(number) or int(number) < 1):
            raise ValueError(
                f"--hosts: found {item.strip()!r}, expected a host, or a host and its "
                "number of workers such as host2:4"
            )
        workers = int(number) if colon else None
        hosts += [Host(each, None, workers) for each in _names(name, "--hosts")]
    return _allocation(hosts, "--hosts")


def parse_hostfile(text: str, path: str) -> Allocation:
    """The hosts of a file, one a line.

    Args:
        text: what stands in it: a name, perhaps with ``slots=4`` or ``:4`` for its
            workers; # begins a comment.
        path: of the file, for errors.

    Raises:
        ValueError: a line cannot be read.
    """
    hosts: list[Host] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"{path}, line {number}"
        name, colon, workers = words[0].partition(":")
        found = [_SLOTS.fullmatch(word) for word in words[1:]]
        given = [workers] if colon else []
        given += [match[1] for match in found if match is not None]
        if None in found or not all(is_count(n) and int(n) for n in given):
            raise ValueError(
                f"{where}: found {line.strip()[:80]!r}, expected a host, or a host "
                "and its number of workers such as 'host2 slots=4'"
            )
        own = int(given[-1]) if given else None
        hosts += [Host(each, None, own) for each in _names(name, where)]
    return _allocation(hosts, path)


def _names(text: str, where: str) -> list[str]:
    try:
        names = hostlist.expand(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    for name in names:
        if name.startswith("-"):  # ssh would take it for an option
            raise ValueError(f"{where}: {name!r} is no name of a host")
    return names


def _allocation(hosts: Sequence[Host], where: str) -> Allocation:
    if not hosts:
        raise ValueError(f"{where}: there is no host in it")
    once: dict[str, Host] = {}
    for host in hosts:
        if host.name in once:
            raise ValueError(
                f"{where}: {host.name} is named twice; for several workers write "
                f"{host.name}:{max(2, host.workers or 0)}"
            )
        once[host.name] = host
    return Allocation(NAME, tuple(once.values()))


def steps(
    hosts: Sequence[Host],
    node: Callable[[Host], Sequence[str]],
    environ: Mapping[str, str],
) -> list[Step]:
    """See ``engines.Steps``."""
    before = environ.get("SSH_COMMANDS", "").strip().rstrip(";")
    return shell_steps((*ssh(environ), "-T"), hosts, node, environ, before)


def ssh(environ: Mapping[str, str]) -> list[str]:
    """The command with the options that count for all hosts.

    Raises:
        ValueError: SSH_FLAGS has a quote that does not end.
    """
    try:
        flags = shlex.split(environ.get("SSH_FLAGS", ""))
    except ValueError as error:
        raise ValueError(f"SSH_FLAGS: {error}") from None
    return ["ssh", *flags, *_OPTIONS]
