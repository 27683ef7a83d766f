"""On which hosts a cluster of mrun gets nodes, with how many workers each.

Hosts are named by the user or by an engine (``engines``). One of them may be this one:
its node needs no command. Where the others reach this host is looked up here; nothing
is started.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..comms.addresses import own_address
from ..config import DYNAMIC, usable_cores
from . import engines
from .engines import slurm, ssh
from .engines.allocation import counted, shortage
from .engines.hostlist import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config import Config
    from .engines.allocation import Allocation, Host

_ASK_TIMEOUT_S = 10.0
_DISCARD = 9


@dataclasses.dataclass(frozen=True)
class Layout:
    """See the module.

    Args:
        allocation: where the hosts come from.
        here: this host, if it is to have a node.
        others: the other hosts; none: all of the cluster is on this one.
        address: of this host, for them.
        interface: that has this address; empty: it is not known.
    """

    allocation: Allocation
    here: Host | None
    others: tuple[Host, ...]
    address: str | None
    interface: str = ""

    @property
    def hosts(self) -> tuple[Host, ...]:
        return (*((self.here,) if self.here else ()), *self.others)

    @property
    def options(self) -> dict[str, Any]:
        """Those of the cluster that follow from it."""
        options: dict[str, Any] = {"address": self.address} if self.others else {}
        if self.here is not None:
            options["num_workers"] = self.here.workers
            options["num_threads"] = self.here.threads
        return options

    @property
    def warnings(self) -> list[str]:
        """What people are told of hosts that are asked for more than they have."""
        short: dict[str, list[str]] = {}
        for host in self.hosts:
            if host.cores and host.workers and host.threads:
                why = shortage(host.cores, host.workers, host.threads)
                short.setdefault(why, []).append(host.name)
        return [f"{shown(names)}: {why}" for why, names in short.items() if why]


def named(hosts: str | None, hostfile: str | None) -> Allocation | None:
    """What was named on the command line; None: nothing.

    Raises:
        ValueError: it cannot be read.
    """
    if hosts is not None:
        return ssh.parse_hosts(hosts)
    if hostfile is None:
        return None
    try:
        text = Path(hostfile).read_text(errors="replace")
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ValueError(f"--hostfile {hostfile}: {why}") from None
    return ssh.parse_hostfile(text, hostfile)


def allocated(environ: Mapping[str, str]) -> Allocation | None:
    """The allocation in which this process runs; None: it runs in none.

    Raises:
        ValueError: it cannot be read.
    """
    return engines.find(environ, _hostnames)


def _hostnames(listed: str) -> list[str] | None:
    said = _say("scontrol", "show", "hostnames", listed)
    return said.split() or None


def _say(*words: str) -> str:
    """What a command prints; nothing if it fails, or is not there."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ASK_TIMEOUT_S,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout
    return ""


def lay_out(
    allocation: Allocation,
    environ: Mapping[str, str],
    *,
    num_nodes: int | None = None,
    num_workers: int | None = None,
    num_threads: int | None = None,
    address: str | None = None,
    free_head: bool = False,
    starter: str = "",
) -> Layout:
    """Who gets what.

    Args:
        allocation: of which hosts.
        environ: of this process.
        num_nodes: how many of them; None: all.
        num_workers: of each that was not named with a number of its own; None: as the
            job says, else as many as it has cores for us.
        num_threads: of each worker; None: the same.
        address: of this host, for the others, or its interface that they reach; None:
            what leads to them.
        free_head: this host is to have no node.
        starter: of nodes, instead of the engine's own.

    Raises:
        ValueError: there are fewer hosts, one is named twice, the address cannot be
            told, or the options of the starter's command cannot be read.
    """
    is_here = [_is_here(host.name, environ) for host in allocation.hosts]
    marked = sorted(zip(is_here, allocation.hosts, strict=True), key=lambda m: not m[0])
    if sum(is_here) > 1:
        both = " and ".join(host.name for here, host in marked if here)
        raise ValueError(f"{both} are all this host: name it once")
    if free_head:
        marked = [mark for mark in marked if not mark[0]]
    available = len(marked)
    if num_nodes is not None and num_nodes > available:
        left_out = " beside this one" if free_head and any(is_here) else ""
        raise ValueError(
            f"-n {num_nodes}: {allocation.title} has {counted(available, 'host')}"
            f"{left_out} ({shown(host.name for _, host in marked)})"
        )
    if not marked:
        raise ValueError(
            "--free-head leaves no host for workers: the only one is the head's"
        )
    planned = [
        (here, _known(host, here).planned(num_workers, num_threads))
        for here, host in marked[:num_nodes]
    ]
    mine = next((host for here, host in planned if here), None)
    others = tuple(host for here, host in planned if not here)
    allocation = dataclasses.replace(allocation, starter=starter)
    if not others:
        return Layout(allocation, mine, others, None)
    # So that a wrong SSH_FLAGS is told before anything is started.
    engines.steps(allocation, others, lambda _: (), environ)
    found = interfaces()
    if address in found:
        address = found[address]
    elif address is None:
        address = address_for(dataclasses.replace(allocation, hosts=others))
    number = _number(address)
    interface = next((i for i, its in found.items() if its == number), "")
    return Layout(allocation, mine, others, address, interface)


def _known(host: Host, here: bool) -> Host:
    """The same with what this host knows of itself."""
    if not here or host.cores is not None:
        return host
    return dataclasses.replace(host, cores=usable_cores())


def local_warnings(config: Config) -> list[str]:
    """What people are told of a cluster on this machine alone: see ``Layout``."""
    if config.mode == DYNAMIC and not config.reuse_head:
        return []
    why = shortage(usable_cores(), config.num_workers, config.num_threads)
    return [why] if why else []


def interfaces() -> dict[str, str]:
    """The first number of each network interface of this host, IPv4 before IPv6."""
    import psutil  # only for several hosts

    families = (socket.AF_INET, socket.AF_INET6)
    numbers: dict[str, str] = {}
    for name, addresses in psutil.net_if_addrs().items():
        own = [each for each in addresses if each.family in families]
        for each in sorted(own, key=lambda each: families.index(each.family)):
            numbers.setdefault(name, each.address.partition("%")[0])
    return numbers


def _is_here(name: str, environ: Mapping[str, str]) -> bool:
    name = name.rpartition("@")[2]
    own = socket.gethostname()
    if name in (
        own,
        own.partition(".")[0],
        "localhost",
        environ.get("SLURMD_NODENAME"),
    ):
        return True
    number = _number(name)
    if number is None:
        return False
    family = socket.AF_INET6 if ":" in number else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((number, 0))  # only its own can be
        except OSError:
            return False
    return True


def _number(name: str) -> str | None:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    return str(found[0][4][0])


def address_for(others: Allocation) -> str:
    """Of this host, as others reach it: that from which one goes to them.

    Raises:
        ValueError: it cannot be told.
    """
    why = "none of their names is known here"
    for host in others.hosts:
        number = _number(host.name.rpartition("@")[2]) or _engines_number(
            others.engine, host.name
        )
        if number is None:
            continue
        try:
            return own_address(_tcp(number))
        except OSError as error:
            why = str(error)
    raise ValueError(
        f"the address of this machine for {shown(h.name for h in others.hosts)} "
        f"cannot be told, since {why}: name it by --address"
    )


def _tcp(number: str) -> str:
    return (
        f"tcp://[{number}]:{_DISCARD}"
        if ":" in number
        else f"tcp://{number}:{_DISCARD}"
    )


def _engines_number(engine: str, name: str) -> str | None:
    """Of a host that only the engine knows by this name."""
    if engine == slurm.NAME:
        said = _say("scontrol", "show", "node", "--oneliner", name)
        for word in said.split():
            if word.startswith("NodeAddr="):
                return _number(word.removeprefix("NodeAddr="))
    elif engine == ssh.NAME:
        said = _say(*ssh.ssh(os.environ), "-G", name)
        for line in said.splitlines():
            if line.startswith("hostname "):
                return _number(line.removeprefix("hostname ").strip())
    return None
