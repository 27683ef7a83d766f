"""How far the hosts of a cluster have come, and what people are told of that.

A host has a node, or a cause why it has none; of one with a node all workers come, or
it is known what is missing. What is waited for is decided here, from what the hosts
have said and what the head knows. Who waits, and reads what they say, is ``remote``.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import TYPE_CHECKING

from ..text import printable
from .engines import ssh
from .engines.allocation import counted, shortage
from .engines.hostlist import shown

if TYPE_CHECKING:
    from ..runtimes.head import Head
    from .engines.allocation import Host
    from .layout import Layout

_LINES = 40  # of a host that are kept for its cause


@dataclasses.dataclass
class Arrival:
    """How far one host has come.

    Args:
        host: it.
        node: the index of its node; -1: it has not joined.
        workers: that the node is starting.
        threads: of each.
        cores: that the node may use.
        cause: why there is no node; empty: there may be one yet.
        missing: what there is to say of workers that have not come.
        versions: that are not as here, for people.
        machine: of its node: see ``Member``.
    """

    host: Host
    node: int = -1
    workers: int = 0
    threads: int = 0
    cores: int = 0
    cause: str = ""
    missing: str = ""
    versions: str = ""
    machine: str = ""
    lines: deque[str] = dataclasses.field(default_factory=lambda: deque(maxlen=_LINES))

    @property
    def is_settled(self) -> bool:
        return self.node >= 0 or bool(self.cause)


class Arrivals:
    """Of all hosts of a layout."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.others = {host.name: Arrival(host) for host in layout.others}
        # This host has a node, but no command: its sockets tell which it is.
        self._here = None if layout.here is None else Arrival(layout.here)

    def waiting_is_over(self, head: Head, sockets: str, *, is_strict: bool) -> bool:
        """Nobody is left to wait for, or there is no use in waiting.

        Args:
            head: of the cluster.
            sockets: the directory in which the node of this host has its own.
            is_strict: no host may be left out.
        """
        if self._here is not None and self._here.node < 0:
            self._find_own(self._here, head, sockets)
        for arrival in self.joined():
            self._look_for_deaths(head, arrival)
        arrivals = self.all()
        if is_strict and any(a.cause or a.missing for a in arrivals):
            return True
        return all(
            a.is_settled and (a.cause or a.missing or not self._missing(head, a))
            for a in arrivals
        )

    def _find_own(self, own: Arrival, head: Head, sockets: str) -> None:
        for node in head.of_kind("node"):
            if node.address.startswith(f"ipc://{sockets}/"):
                own.node = int(node.uid.split(":")[1])
                own.workers = head.config.num_workers
                own.threads = head.config.num_threads

    def _look_for_deaths(self, head: Head, arrival: Arrival) -> None:
        """Of what is waited for: the node again, or workers that have not come."""
        for member, why in head.causes.values():
            if member.uid == f"node:{arrival.node}":
                arrival.cause = f"its node was lost while its workers started: {why}"
        ours = f"worker:{arrival.node}:"
        here = {worker.uid for worker in head.workers}
        died = [
            how
            for uid, how in head.never_joined.items()
            if uid.startswith(ours) and uid not in here
        ]
        arrival.missing = ""
        # The others of that host are waited for.
        if died and self._missing(head, arrival) <= len(died):
            count = arrival.workers - self._missing(head, arrival)
            arrival.missing = (
                f"{count} of {counted(arrival.workers, 'worker')} came: {died[0]} "
                "before it had joined; its node tries again"
            )

    def too_late(self, head: Head, timeout_s: float) -> None:
        """Whatever is still waited for has not come in time."""
        for arrival in self.all():
            if not arrival.is_settled:
                last = f" ({arrival.lines[-1]!r})" if arrival.lines else ""
                arrival.cause = f"no answer in {timeout_s:g} s{last}"
            elif not arrival.cause and (missing := self._missing(head, arrival)):
                count = arrival.workers - missing
                arrival.missing = (
                    f"{count} of {arrival.workers} workers are there after "
                    f"{timeout_s:g} s"
                )

    def all(self) -> list[Arrival]:
        return [*([self._here] if self._here else []), *self.others.values()]

    def joined(self) -> list[Arrival]:
        """Those that have a node."""
        return [a for a in self.all() if a.node >= 0 and not a.cause]

    def _missing(self, head: Head, arrival: Arrival) -> int:
        """Workers that are still to come."""
        here = sum(worker.indices[0] == arrival.node for worker in head.workers)
        return max(0, arrival.workers - here)

    def note_machines(self, head: Head) -> None:
        """All have come that will: which of them are one host."""
        machines = {member.uid: member.machine for member in head.of_kind("node")}
        for arrival in self.joined():
            arrival.machine = machines.get(f"node:{arrival.node}", "")

    # -- what people are told ----------------------------------------------------------

    @property
    def left_out(self) -> list[str]:
        """What has not come, and why."""
        told: dict[str, list[str]] = {}
        for arrival in self.all():
            if arrival.cause or arrival.missing:
                names = told.setdefault(arrival.cause or arrival.missing, [])
                names.append(arrival.host.name)
        return [printable(f"{shown(names)}: {why}") for why, names in told.items()]

    @property
    def warnings(self) -> list[str]:
        """What people are told of hosts that have joined."""
        told: dict[str, list[str]] = {}
        for arrival in self.joined():
            name = arrival.host.name
            if arrival.host.cores is None and arrival is not self._here:
                why = shortage(arrival.cores, arrival.workers, arrival.threads)
                told.setdefault(why, []).append(name)
            if arrival.versions:
                why = f"{arrival.versions}: if values cannot be read, install the same"
                told.setdefault(why, []).append(name)
        lines = [f"{shown(names)}: {why}" for why, names in told.items() if why]
        return [*lines, *self._twins()]

    def _twins(self) -> list[str]:
        """Of hosts with several names; an engine knows what it does."""
        if self._layout.allocation.engine != ssh.NAME:
            return []
        names: dict[str, list[str]] = {}
        for arrival in self.joined():
            names.setdefault(arrival.machine, []).append(arrival.host.name)
        return [
            f"{' and '.join(twins)} are one host, whose cores are given to each: name "
            "it once"
            for machine, twins in names.items()
            if machine and len(twins) > 1
        ]

    def start_line(self) -> str:
        """What people see when the cluster has started."""
        from .. import __version__

        shapes = [(a.workers, a.threads) for a in self.joined()]
        names = [a.host.name for a in self.joined()]
        text = ", " + counted(sum(workers for workers, _ in shapes), "worker")
        if len(set(shapes)) == 1:
            workers, threads = shapes[0]
            text = f" x {counted(workers, 'worker')} x {counted(threads, 'thread')}"
        nodes = counted(len(shapes), "node")
        interface = self._layout.interface
        where = shown(names) + (f", {interface}" if interface else "")
        return (
            f"mosaic {__version__.removesuffix('.0')} · "
            f"{self._layout.allocation.title} · {nodes}{text} ({where})"
        )
