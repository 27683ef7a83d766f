"""The nodes of other hosts, as mrun starts them: commands, what they say, their end.

Each step of an engine is a process here, see ``step``. It gets the key on its standard
input, and says on its standard error which of its nodes have joined. A host that gets
none is left out, with its cause; or, where all are wanted, the cluster does not start.
Nobody waits for a node or worker that has died meanwhile: that is said, and the rest
goes on. Who is waited for is decided in ``arrivals``. What a host says later is shown
with its name.

Nothing waits here without a limit. The steps end when their nodes have; what does not
is ended. If mrun itself is killed, so are they, and the nodes find no monitor and end.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from typing import TYPE_CHECKING

from ..errors import ConnectError
from ..runtimes.job_signals import SIGNALS
from ..text import printable
from .arrivals import Arrivals
from .engines import ssh, steps
from .engines.allocation import node_command
from .engines.causes import cause
from .step import RunningStep, all_ended
from .versions import SAID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..runtimes.head import Head
    from ..runtimes.logs import Logs
    from .keys import Key
    from .layout import Layout

# What runtimes.lone_node says: both are of one version, or the key is refused.
_JOINED = re.compile(
    r"mosaic: node:([0-9]+) has joined, with ([0-9]+) workers? of ([0-9]+) threads?, "
    r"on ([0-9]+) cores?"
)
# What launch.joining says.
_SIGNALLED = re.compile(
    f"mosaic: its job got ({'|'.join(number.name for number in SIGNALS)})"
)


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
        self.arrivals = Arrivals(layout)
        self._steps: list[RunningStep] = []
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
            running = RunningStep(step, self)
            self._steps.append(running)
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
        arrivals, strict = self.arrivals, self._is_strict
        loop = asyncio.get_running_loop()
        deadline_s = None if timeout_s is None else loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline_s):
                while not arrivals.waiting_is_over(head, sockets, is_strict=strict):
                    await self._change(head)
        except TimeoutError:
            arrivals.too_late(head, timeout_s or 0.0)
        self._report(head)
        self._is_ready = True
        arrivals.note_machines(head)
        # A host that comes too late would come as one that nobody waits for.
        self._end_those_without_a_node()

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

    def _report(self, head: Head) -> None:
        lines = self.arrivals.left_out
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
        left = count - sum(bool(arrival.cause) for arrival in self.arrivals.all())
        if left < count:
            print(
                f"mosaic: going on with {left} of {count} hosts (--strict stops "
                "instead)",
                file=sys.stderr,
            )

    # -- what comes --------------------------------------------------------------------

    def said(self, name: str, line: str, *, is_error: bool = True) -> None:
        """A host has said something."""
        arrival = self.arrivals.others.get(name)
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
        arrival = self.arrivals.others[name]
        if not arrival.cause and (arrival.node < 0 or not self._is_ready):
            said = [*lines, *arrival.lines]
            arrival.cause = cause(name, self._python, status, said)
            self._settled.set()

    # -- the end -----------------------------------------------------------------------

    async def stopped(self) -> None:
        """The cluster has stopped: wait for the steps, end those that stay."""
        self._is_ending = True
        self._end_those_without_a_node()  # they do not hear that the cluster stops
        await all_ended(self._steps)
        if self._logs is not None:
            self._logs.close()

    def _end_those_without_a_node(self) -> None:
        arrivals = self.arrivals.others
        for running in self._steps:
            if not any(arrivals[name].node >= 0 for name in running.step.hosts):
                running.end()

    def kill(self) -> None:
        """Now; also in a signal handler."""
        self._is_ending = True
        for running in self._steps:
            running.terminate()
