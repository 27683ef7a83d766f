"""What a cluster needs of this host, looked at; nothing is started.

For ``mrun doctor``, which also asks other hosts and shows all of it.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import platform
import resource
import shutil
import socket
import sys
from typing import TYPE_CHECKING

from .. import __version__
from ..comms.addresses import host_and_port, main_address
from ..comms.messages import PROTOCOL
from ..comms.zeromq import check_libzmq
from ..config import usable_cores
from ..errors import MosaicError
from ..runtimes import portions
from ..runtimes.directory import RunDirectory
from ..runtimes.resources import memory
from ..runtimes.segments import create
from ..sizes import size_text
from ..text import printable
from . import engines
from .engines.allocation import counted
from .engines.hostlist import shown
from .layout import allocated, interfaces

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FEW_FILES = 1024
FEW_PROCESSES = 512  # and threads, of which a worker has several
LITTLE_ROOM = 1 << 30  # bytes, where values go for which there is no memory
LITTLE_MEMORY = 1 << 30
WAY_BACK_S = 5.0
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


def here(environ: Mapping[str, str], back: str | None = None) -> list[Finding]:
    """What there is to say of this host.

    Args:
        environ: of this process.
        back: tcp address of the host that asks; None: none does.
    """
    looks: list[Callable[[], Finding]] = [
        lambda: Finding("python", f"{platform.python_version()}, {sys.executable}"),
        lambda: Finding("mosaic_like", f"{__version__}, protocol {PROTOCOL}"),
        _cores,
        _memory,
        _files,
        _processes,
        _shared,
        _directory,
        lambda: _gpus(environ),
        _encryption,
        _network,
        lambda: _engines(environ),
    ]
    if back is not None:
        looks.append(lambda: _way_back(back))
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


def _processes() -> Finding:
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit == resource.RLIM_INFINITY:
        return Finding("processes", "as many as there may be")
    few = "all threads of yours on this host count: raise 'ulimit -u', or ask your site"
    text = f"{limit} at once, with threads"
    return Finding("processes", text, few if limit < FEW_PROCESSES else "")


def _shared() -> Finding:
    try:
        os.close(create(1))
    except OSError as error:
        why = os.strerror(error.errno or 0)
        remedy = f"large values go in messages, several times slower ({why})"
        return Finding("shared memory", "none", remedy)
    return Finding("shared memory", "there is; the size of /dev/shm means nothing")


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


def _gpus(environ: Mapping[str, str]) -> Finding:
    listed = portions.gpus(0, 1, environ)
    if listed:
        text = ", ".join(f"{name}={value}" for name, value in listed.items() if value)
        return Finding("GPUs", f"{text}, split over the workers of a host")
    devices = len(glob.glob("/dev/nvidia[0-9]*") or glob.glob("/dev/dri/renderD*"))
    if devices:
        return Finding("GPUs", f"{devices}; none are listed, so each worker sees all")
    return Finding("GPUs", "none")


def _network() -> Finding:
    found = [f"{name} {number}" for name, number in interfaces().items()]
    try:
        number = main_address()
        reached = f"other hosts most probably reach {number}"
    except ValueError:
        reached = "other hosts reach none of them"
    return Finding("network", f"{', '.join(found)}; {reached}")


def _way_back(address: str) -> Finding:
    """Whether this host reaches one that reaches it: nodes connect to the head."""
    name, (host, port) = "way back", host_and_port(address)
    try:
        socket.create_connection((host, port), WAY_BACK_S).close()
    except OSError as error:
        remedy = (
            f"{error.strerror or error}: a firewall between them, or --address names "
            "another interface of the host that asks"
        )
        return Finding(name, f"not to {host}", remedy)
    return Finding(name, f"to {host}")


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
