"""The nodes of other hosts, as mrun starts them: commands, what they say, their end.

Each step of an engine is a process here. It gets the key on its standard input, and
says on its standard error which of its nodes have joined. A host that gets none is left
out, with its cause; or, where all are wanted, the cluster does not start. Nobody waits
for a node or worker that has died meanwhile: that is said, and the rest goes on. What a
host says later is shown with its name.

Nothing waits here without a limit. The steps end when their nodes have; what does not
is ended. If mrun itself is killed, so are they, and the nodes find no monitor and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import signal
import sys
from collections import deque
from typing import TYPE_CHECKING

from ..errors import ConnectError
from ..runtimes.job_signals import SIGNALS
from ..text import printable
from .engines import slurm, ssh, steps
from .engines.allocation import counted, node_command, shortage
from .engines.causes import cause
from .engines.hostlist import shown
from .program import prepared
from .versions import SAID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from ..runtimes.head import Head
    from ..runtimes.logs import Logs
    from .engines.allocation import Host, Step
    from .keys import Key
    from .layout import Layout

ENDED_TIMEOUT_S = 5.0  # from the end of the cluster to that of its steps
TERMINATE_TIMEOUT_S = 3.0
# srun may say that a process has ended before it passes on what that has said.
LAST_WORDS_S = 0.3
# What runtimes.lone_node says: both are of one version, or the key is refused.
_JOINED = re.compile(
    r"mosaic: node:([0-9]+) has joined, with ([0-9]+) workers? of ([0-9]+) threads?, "
    r"on ([0-9]+) cores?"
)
# What launch.joining says.
_SIGNALLED = re.compile(
    f"mosaic: its job got ({'|'.join(number.name for number in SIGNALS)})"
)
_LINES = 40  # of a host that are kept for its cause
_LONGEST = 16 << 10  # bytes of one line


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


class Remote:
    """See the module; on mrun's loop.

    Args:
        layout: the hosts.
        python: the interpreter there.
        environ: of the commands.
        is_strict: no host may be left out.
        mask: signals that are blocked in the commands.
        on_signal: called with those that an engine has sent to nodes.
        logs: keeps what the hosts say; None: it is shown alone.
    """

    def __init__(
        self,
        layout: Layout,
        python: str,
        environ: Mapping[str, str],
        *,
        is_strict: bool,
        mask: set[signal.Signals | int] | set[signal.Signals],
        on_signal: Callable[[signal.Signals], object] = lambda number: None,
        logs: Logs | None = None,
    ) -> None:
        self.layout = layout
        self._logs = logs
        self._python = python
        self._environ = environ
        self._is_strict = is_strict
        self._mask = mask
        self._on_signal = on_signal
        self.arrivals = {host.name: Arrival(host) for host in layout.others}
        # This host has a node, but no command: its sockets tell which it is.
        self._here = None if layout.here is None else Arrival(layout.here)
        self._running: list[_Running] = []
        self._settled = asyncio.Event()  # one more has come or failed
        self._is_ready = False
        self._is_ending = False

    async def start(self, key: Key) -> None:
        """Start all steps; who cannot be started is known by ``ready``."""
        line = json.dumps(key.content()).encode() + b"\n"
        allocation = self.layout.allocation
        in_job = allocation.engine != ssh.NAME
        commands = steps(
            allocation,
            self.layout.others,
            lambda host: node_command(self._python, host, in_job=in_job),
            self._environ,
        )
        # Grid Engine sends these to all of a job, and qrsh would end by them.
        mask = {*self._mask, *(each for each in SIGNALS if each != signal.SIGTERM)}
        for step in commands:
            running = _Running(self, step)
            self._running.append(running)
            await running.start(line, self._environ, mask)

    async def ready(
        self, head: Head, timeout_s: float | None, sockets: str = ""
    ) -> None:
        """Wait for the nodes and their workers, and say which hosts are left out.

        Args:
            head: of the cluster.
            timeout_s: for all of it; None: no limit.
            sockets: the directory in which the node of this host has its own.

        Raises:
            ConnectError: there is no worker at all; or a host has failed, and none may.
        """
        loop = asyncio.get_running_loop()
        deadline_s = None if timeout_s is None else loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline_s):
                while not self._is_ready_to_go(head, sockets):
                    await self._change(head)
        except TimeoutError:
            self._too_late(head, timeout_s or 0.0)
        self._report(head)
        self._is_ready = True
        machines = {member.uid: member.machine for member in head.of_kind("node")}
        for arrival in self._joined():
            arrival.machine = machines.get(f"node:{arrival.node}", "")
        # A host that comes too late would come as one that nobody waits for.
        self._end_those_without_a_node()

    def _is_ready_to_go(self, head: Head, sockets: str) -> bool:
        """Nobody is left to wait for, or there is no use in waiting."""
        if self._here is not None and self._here.node < 0:
            self._find_own(self._here, head, sockets)
        for arrival in self._joined():
            self._look_for_deaths(head, arrival)
        arrivals = self._all()
        if self._is_strict and any(a.cause or a.missing for a in arrivals):
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

    def _too_late(self, head: Head, timeout_s: float) -> None:
        for arrival in self._all():
            if not arrival.is_settled:
                last = f" ({arrival.lines[-1]!r})" if arrival.lines else ""
                arrival.cause = f"no answer in {timeout_s:g} s{last}"
            elif not arrival.cause and (missing := self._missing(head, arrival)):
                count = arrival.workers - missing
                arrival.missing = (
                    f"{count} of {arrival.workers} workers are there after "
                    f"{timeout_s:g} s"
                )

    async def _change(self, head: Head) -> None:
        """Wait for a member to come or to go, or for a command to end."""
        self._settled.clear()
        waiting = {
            asyncio.ensure_future(head.membership()),
            asyncio.ensure_future(self._settled.wait()),
        }
        try:
            done, _ = await asyncio.wait(waiting, return_when="FIRST_COMPLETED")
        finally:
            for task in waiting:
                task.cancel()
        for task in done:
            task.result()  # the cluster may have ended meanwhile

    def _all(self) -> list[Arrival]:
        return [*([self._here] if self._here else []), *self.arrivals.values()]

    def _joined(self) -> list[Arrival]:
        return [a for a in self._all() if a.node >= 0 and not a.cause]

    def _missing(self, head: Head, arrival: Arrival) -> int:
        """Workers that are still to come."""
        here = sum(worker.indices[0] == arrival.node for worker in head.workers)
        return max(0, arrival.workers - here)

    def _report(self, head: Head) -> None:
        told: dict[str, list[str]] = {}
        for arrival in self._all():
            if arrival.cause or arrival.missing:
                names = told.setdefault(arrival.cause or arrival.missing, [])
                names.append(arrival.host.name)
        lines = [printable(f"{shown(names)}: {why}") for why, names in told.items()]
        if not lines:
            return
        if self._is_strict or not head.num_workers:
            why = "all hosts are wanted (--strict)" if self._is_strict else "no host"
            raise ConnectError(
                f"the cluster did not start: {why}\n  " + "\n  ".join(lines)
            )
        for line in lines:
            print(f"mosaic: {line}", file=sys.stderr)
        count = len(self.layout.hosts)
        left = count - sum(bool(arrival.cause) for arrival in self._all())
        if left < count:
            print(
                f"mosaic: going on with {left} of {count} hosts (--strict stops "
                "instead)",
                file=sys.stderr,
            )

    @property
    def warnings(self) -> list[str]:
        """What people are told of hosts that have joined."""
        told: dict[str, list[str]] = {}
        for arrival in self._joined():
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
        if self.layout.allocation.engine != ssh.NAME:
            return []
        names: dict[str, list[str]] = {}
        for arrival in self._joined():
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

        shapes = [(a.workers, a.threads) for a in self._joined()]
        names = [a.host.name for a in self._joined()]
        text = ", " + counted(sum(workers for workers, _ in shapes), "worker")
        if len(set(shapes)) == 1:
            workers, threads = shapes[0]
            text = f" x {counted(workers, 'worker')} x {counted(threads, 'thread')}"
        nodes = counted(len(shapes), "node")
        interface = self.layout.interface
        where = shown(names) + (f", {interface}" if interface else "")
        return (
            f"mosaic {__version__.removesuffix('.0')} · "
            f"{self.layout.allocation.title} · {nodes}{text} ({where})"
        )

    # -- what comes --------------------------------------------------------------------

    def said(self, name: str, line: str, *, is_error: bool = True) -> None:
        """A host has said something."""
        arrival = self.arrivals.get(name)
        if arrival is None:
            return
        found = _JOINED.fullmatch(line) if arrival.node < 0 else None
        if found is not None:
            numbers = [int(number) for number in found.groups()]
            arrival.node, arrival.workers, arrival.threads, arrival.cores = numbers
            self._settled.set()
            return
        if line.startswith(SAID) and arrival.node < 0:
            arrival.versions = printable(line.removeprefix(SAID))
            return
        got = _SIGNALLED.fullmatch(line)
        if got is not None:
            self._on_signal(signal.Signals[got[1]])
            return
        arrival.lines.append(printable(line))
        if self._logs is not None:
            self._logs.add(name, printable(line) + "\n")
        if arrival.node >= 0 and not self._is_ending:
            print(
                f"{name} | {printable(line)}",
                file=sys.stderr if is_error else sys.stdout,
                flush=True,
            )

    def ended(self, name: str, status: int, lines: list[str]) -> None:
        """The command for a host has ended, or its own part of it."""
        arrival = self.arrivals[name]
        if not arrival.cause and (arrival.node < 0 or not self._is_ready):
            said = [*lines, *arrival.lines]
            arrival.cause = cause(name, self._python, status, said)
            self._settled.set()

    # -- the end -----------------------------------------------------------------------

    async def stopped(self) -> None:
        """The cluster has stopped: wait for the steps, end those that stay."""
        self._is_ending = True
        self._end_those_without_a_node()  # they do not hear that the cluster stops
        left: list[asyncio.Task[None]] = []
        for limit_s, end in (
            (ENDED_TIMEOUT_S, _Running.terminate),
            (TERMINATE_TIMEOUT_S, _Running.kill),
            (TERMINATE_TIMEOUT_S, _Running.kill),
        ):
            left = [running.task for running in self._running if running.task]
            if left:
                await asyncio.wait(left, timeout=limit_s)
            for running in self._running:
                end(running)
        if self._logs is not None:
            self._logs.close()
        for task in left:
            task.cancel()  # something that is no child of ours has its pipe open

    def _end_those_without_a_node(self) -> None:
        for running in self._running:
            if not any(self.arrivals[name].node >= 0 for name in running.step.hosts):
                running.end()

    def kill(self) -> None:
        """Now; also in a signal handler."""
        self._is_ending = True
        for running in self._running:
            running.terminate()


class _Running:
    """One step."""

    def __init__(self, remote: Remote, step: Step) -> None:
        self.step = step
        self.task: asyncio.Task[None] | None = None
        self._remote = remote
        self._process: asyncio.subprocess.Process | None = None
        self._lines: deque[str] = deque(maxlen=_LINES)  # of nobody in particular
        self._ended: set[str] = set()  # hosts of which it has been said
        self._output = slurm.Output() if step.is_labelled else None

    async def start(
        self,
        key: bytes,
        environ: Mapping[str, str],
        mask: set[signal.Signals | int] | set[signal.Signals],
    ) -> None:
        pipe = asyncio.subprocess.PIPE
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.step.command,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env=dict(environ),
                # Ctrl-C at a terminal is for the program to answer.
                start_new_session=True,
                preexec_fn=prepared(mask, signal.SIGTERM),
            )
        except OSError as error:
            why = os.strerror(error.errno or 0)
            text = f"mrun: {self.step.command[0]} cannot be run here: {why}"
            for name in self.step.hosts:
                self._remote.ended(name, 1, [text])
            return
        self.task = asyncio.get_running_loop().create_task(self._follow(key))

    async def _follow(self, key: bytes) -> None:
        """To its end, which frees its pipes."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(key)
        process.stdin.close()
        await asyncio.gather(
            self._read(process.stdout, is_error=False),
            self._read(process.stderr, is_error=True),
        )
        status = await process.wait()
        codes = {} if self._output is None else self._output.codes
        for name in self.step.hosts:
            self._remote.ended(name, codes.get(name, status), list(self._lines))

    async def _read(self, stream: asyncio.StreamReader, *, is_error: bool) -> None:
        loop = asyncio.get_running_loop()
        async for line in _lines(stream):
            if self._output is None:
                self._remote.said(self.step.hosts[0], line, is_error=is_error)
                continue
            said = self._output.line(line)
            for name in self._output.codes.keys() - self._ended:
                self._ended.add(name)
                loop.call_later(LAST_WORDS_S, self._host_ended, name)
            if said is not None and said[0]:
                self._remote.said(*said, is_error=is_error)
            elif said is not None:
                self._lines.append(said[1])

    def _host_ended(self, name: str) -> None:
        if self._output is not None and name in self.step.hosts:
            self._remote.ended(name, self._output.codes[name], [])

    def end(self) -> None:
        """Terminate it, and kill soon after what does not heed that."""
        self.terminate()
        asyncio.get_running_loop().call_later(TERMINATE_TIMEOUT_S, self.kill)

    def terminate(self) -> None:
        """srun and qrsh end what they have started, ssh closes its connection."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def kill(self) -> None:
        """With what it has started here, such as a ProxyCommand of ssh.

        That may have outlived it, and has our pipes then. Its group keeps its number as
        long as anybody is in it.
        """
        if self._process is not None and self.task is not None and not self.task.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Whole lines; one that is too long in pieces."""
    rest = b""
    while data := await stream.read(_LONGEST):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
        if len(rest) > _LONGEST:
            yield rest.decode(errors="replace")
            rest = b""
    if rest:
        yield rest.decode(errors="replace")
