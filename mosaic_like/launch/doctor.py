"""``mrun doctor``: what a cluster needs of this host and of others, looked at.

Nothing is started. Other hosts are asked over ssh, by the same command there; what is
different there is named, as it would be the cause of a cluster that does not start.
What is looked at is in ``findings``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ..comms.addresses import tcp_text
from ..comms.messages import PROTOCOL
from ..runtimes.base import PYTHON
from ..text import printable
from .engines import ssh
from .engines.allocation import shell_line
from .engines.causes import cause
from .findings import Finding, here
from .layout import address_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .engines.allocation import Allocation

HOST_TIMEOUT_S = 30.0
_AT_ONCE = 16  # hosts that are asked beside each other


def of_host(
    name: str, python: str, environ: Mapping[str, str], back: str
) -> list[Finding]:
    """What there is to say of another host: what is not well there, or different.

    Args:
        name: of the host.
        python: the interpreter there.
        environ: of this process.
        back: where this host listens meanwhile; empty: nowhere.
    """
    words = [python, "-m", __name__.partition(".")[0], "doctor", "--json"]
    if back:
        words += ["--back", back]
    before = environ.get("SSH_COMMANDS", "").strip().rstrip(";")
    command = [*ssh.ssh(environ), "-T", name, shell_line(words, environ, before)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=HOST_TIMEOUT_S,
            env=dict(environ),
            check=False,
        )
    except subprocess.TimeoutExpired:
        why = f"no answer in {HOST_TIMEOUT_S:g} s"
        return [Finding("ssh", "not asked", why)]
    except OSError as error:
        why = f"ssh cannot be run here: {os.strerror(error.errno or 0)}"
        return [Finding("ssh", "not asked", why)]
    said = done.stdout.decode(errors="replace").splitlines()
    try:
        # Shells print what they like when they start.
        told = json.loads(said[-1])
        findings = [Finding(**each) for each in told["findings"]]
        theirs = str(told["python"]), int(told["protocol"])
    except (IndexError, KeyError, TypeError, ValueError):
        lines = [*said, *done.stderr.decode(errors="replace").splitlines()]
        why = cause(name, python, done.returncode, lines)
        return [Finding("ssh", "not asked", why)]
    return [*_different(*theirs), *(each for each in findings if each.remedy)] or [
        Finding("all", "as here, and well")
    ]


def _different(python: str, protocol: int) -> list[Finding]:
    found = []
    if python != PYTHON:
        found.append(
            Finding("python", f"{python}, here {PYTHON}", "use the same everywhere")
        )
    if protocol != PROTOCOL:
        found.append(
            Finding(
                "mosaic_like",
                f"protocol {protocol}, here {PROTOCOL}",
                "install the same version everywhere",
            )
        )
    return found


@contextlib.contextmanager
def _listening(hosts: Allocation | None) -> Iterator[tuple[str, list[Finding]]]:
    """Where other hosts would reach this one, while they are asked.

    With what there is to say of it here; an address that is empty: they cannot.
    """
    if hosts is None:
        yield "", []
        return
    try:
        number = address_for(hosts)
        family = socket.AF_INET6 if ":" in number else socket.AF_INET
        listener = socket.create_server((number, 0), family=family, backlog=_AT_ONCE)
    except (OSError, ValueError) as error:
        yield "", [Finding("address", "for those hosts: none", str(error))]
        return
    with listener:  # the kernel lets them in: nobody has to answer
        address = tcp_text(number, listener.getsockname()[1])
        yield address, [Finding("address", f"for those hosts: {number}")]


def examine(
    hosts: Sequence[str], python: str, *, as_json: bool, back: str | None = None
) -> int:
    """Print it; the exit code: 1 if there is anything to do.

    Args:
        hosts: the others, as for ``--hosts``.
        python: the interpreter there.
        as_json: on one line, for programs.
        back: where the host that asks listens; None: none does.

    Raises:
        ValueError: a host has no name of one, or ``back`` is no address.
    """
    environ = dict(os.environ)
    asked = ssh.parse_hosts(",".join(hosts)) if hosts else None
    names = [] if asked is None else [host.name for host in asked.hosts]
    findings = here(environ, back)
    with _listening(asked) as (ours, own), ThreadPoolExecutor(_AT_ONCE) as pool:
        findings += own
        told_by = pool.map(lambda name: of_host(name, python, environ, ours), names)
        others = dict(zip(names, told_by, strict=True))
    told = [findings, *others.values()]
    if as_json:
        print(json.dumps(_told(findings, others)))
    else:
        print(f"{socket.gethostname()}, this host")
        _show(findings)
        for name, found in others.items():
            print(f"\n{printable(name)}")
            _show(found)
    return int(any(each.remedy for found in told for each in found))


def _show(findings: Sequence[Finding]) -> None:
    for finding in findings:
        print(f"  {finding}")


def _told(
    findings: Sequence[Finding], others: Mapping[str, Sequence[Finding]]
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "host": socket.gethostname(),
        "python": PYTHON,
        "protocol": PROTOCOL,
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    if others:
        told["hosts"] = {
            name: [dataclasses.asdict(finding) for finding in found]
            for name, found in others.items()
        }
    return told
