"""``mrun doctor``: what a cluster needs of this host and of others, looked at.

Nothing is started. Other hosts are asked over ssh, by the same command there; what is
different there is named, as it would be the cause of a cluster that does not start.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..comms.messages import PROTOCOL
from ..comms.zeromq import check_libzmq
from ..config import usable_cores
from ..errors import MosaicError
from ..runtimes.base import PYTHON
from ..runtimes.directory import RunDirectory
from ..runtimes.resources import memory
from ..runtimes.segments import create
from ..sizes import size_text
from ..text import printable
from . import engines
from .engines import ssh
from .engines.allocation import counted, shell_line
from .engines.causes import cause
from .engines.hostlist import shown
from .layout import allocated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FEW_FILES = 1024
LITTLE_ROOM = 1 << 30  # bytes, where values go for which there is no memory
LITTLE_MEMORY = 1 << 30
HOST_TIMEOUT_S = 30.0
_AT_ONCE = 16  # hosts that are asked beside each other
_COMMANDS = ("srun", "qrsh", "blaunch", "mpiexec", "ssh")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line.

    Args:
        name: what was looked at.
        text: how it is.
        remedy: what to do about it; empty: it is well.
    """

    name: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        mark = "warn" if self.remedy else "ok"
        line = f"{mark:<5} {self.name:<14} {self.text}"
        return printable(f"{line}: {self.remedy}" if self.remedy else line)


def here(environ: Mapping[str, str]) -> list[Finding]:
    """What there is to say of this host."""
    looks: list[Callable[[], Finding]] = [
        lambda: Finding("python", f"{platform.python_version()}, {sys.executable}"),
        lambda: Finding("mosaic_like", f"{__version__}, protocol {PROTOCOL}"),
        _cores,
        _memory,
        _files,
        _shared,
        _directory,
        _encryption,
        lambda: _engines(environ),
    ]
    return [look() for look in looks]


def _cores() -> Finding:
    seen, usable = os.cpu_count() or 1, usable_cores()
    less = f" of {seen}: affinity and control groups give no more" * (usable < seen)
    return Finding("cores", f"{usable}{less}")


def _memory() -> Finding:
    found = memory()
    text = (
        f"{size_text(found.limit_bytes)} ({found.source}), "
        f"{size_text(found.available_bytes)} free"
    )
    little = found.available_bytes < LITTLE_MEMORY
    return Finding("memory", text, "workers may be killed for it" if little else "")


def _files() -> Finding:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return Finding("open files", "as many as there may be")
    few = f"for many workers say 'ulimit -n {4 * FEW_FILES}' first"
    return Finding("open files", f"{limit} at once", few if limit < FEW_FILES else "")


def _shared() -> Finding:
    try:
        os.close(create(1))
    except OSError as error:
        why = os.strerror(error.errno or 0)
        remedy = f"large values go in messages, several times slower ({why})"
        return Finding("shared memory", "none", remedy)
    return Finding("shared memory", "there is")


def _directory() -> Finding:
    name = "directory"
    try:
        directory = RunDirectory.create()
    except (OSError, MosaicError) as error:
        return Finding(name, "none can be made", f"{error}; TMPDIR names another")
    try:
        free = shutil.disk_usage(directory.path).free
        text = f"{directory.path.parent}, {size_text(free)} free"
    finally:
        directory.remove()
    little = "values that do not fit into memory go there: TMPDIR names another"
    return Finding(name, text, little if free < LITTLE_ROOM else "")


def _encryption() -> Finding:
    try:
        check_libzmq()
    except RuntimeError as error:
        return Finding("encryption", "none", str(error))
    return Finding("encryption", "there is")


def _engines(environ: Mapping[str, str]) -> Finding:
    commands = ", ".join(name for name in _COMMANDS if shutil.which(name)) or "none"
    try:
        found = allocated(environ)
    except ValueError as error:
        return Finding("hosts", f"commands: {commands}", str(error))
    if found is None:
        looked = ", ".join(engines.VARIABLES)
        return Finding("hosts", f"commands: {commands}; in no job (no {looked})")
    names = shown(host.name for host in found.hosts)
    count = counted(len(found.hosts), "host")
    return Finding("hosts", f"commands: {commands}; {found.title}: {count} ({names})")


def of_host(name: str, python: str, environ: Mapping[str, str]) -> list[Finding]:
    """What there is to say of another host: what is not well there, or different."""
    words = [python, "-m", __name__.partition(".")[0], "doctor", "--json"]
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


def examine(hosts: Sequence[str], python: str, *, as_json: bool) -> int:
    """Print it; the exit code: 1 if there is anything to do.

    Args:
        hosts: the others, as for ``--hosts``.
        python: the interpreter there.
        as_json: on one line, for programs.

    Raises:
        ValueError: a host has no name of one.
    """
    environ = dict(os.environ)
    if hosts:
        hosts = [host.name for host in ssh.parse_hosts(",".join(hosts)).hosts]
    findings = here(environ)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        others = dict(
            zip(
                hosts,
                pool.map(lambda h: of_host(h, python, environ), hosts),
                strict=True,
            )
        )
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
