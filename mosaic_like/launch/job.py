"""``mrun CMD...``: a cluster, a program in it, and the end of both.

mrun is a member of its cluster without being a head: it starts it, sees that all
workers are ready, and says when to stop. The program finds the cluster by the key file
that ``MOSAIC_CLUSTER`` names. ``mrun --monitor`` is the same without a program: others
join. ``mrun --head`` is the program without the cluster: it joins one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
import time
from typing import TYPE_CHECKING

from ..config import DYNAMIC
from ..environment import CLUSTER, OF_JOINING
from ..ids import MRUN
from ..runtimes.job_signals import SAME_S, SIGNALS
from . import keys
from .cluster import Cluster, end
from .local import start, start_line
from .program import CannotRun, Program, Signals, find

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

    from ..config import Config
    from ..runtimes.head import Head
    from .layout import Layout
    from .remote import Remote


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """What mrun is told of nodes on other hosts.

    Args:
        layout: the hosts.
        python: the interpreter there.
        is_strict: no host may be left out.
    """

    layout: Layout
    python: str
    is_strict: bool


def run_program(
    command: Sequence[str], config: Config, elsewhere: Elsewhere | None = None
) -> int:
    """Run a program with a cluster of its own, and give the exit code for mrun."""
    return _of_program(_WithProgram(command, config, elsewhere))


def run_alone(config: Config, elsewhere: Elsewhere | None = None) -> int:
    """Keep a cluster until it is stopped, or a signal comes; the exit code."""
    return asyncio.run(_Alone(config, elsewhere).run())


def run_joined(command: Sequence[str], where: str | None) -> int:
    """Run a program in a cluster that runs, and give the exit code for mrun.

    Args:
        command: of the program.
        where: the key file or its directory; None: what ``MOSAIC_CLUSTER`` names.

    Raises:
        ConnectError: there is no such cluster.
    """
    path = os.path.abspath(keys.find(where))
    keys.load(path)
    return _of_program(_Joined(command, path))


def _of_program(job: _WithProgram | _Joined) -> int:
    try:
        find(job.command[0])  # before a cluster is started for nothing
        return asyncio.run(job.run())
    except CannotRun as error:
        print(f"mrun: {error}", file=sys.stderr)
        return error.code


class _Job:
    """What is there of it at any moment decides what a signal means."""

    def __init__(self, config: Config, elsewhere: Elsewhere | None) -> None:
        self._config = config
        self._elsewhere = elsewhere
        self._starting: asyncio.Task[tuple[Head, Cluster]] | None = None
        self._ending: Cluster | None = None
        self._signal: signal.Signals | None = None  # came before the cluster was there
        self._heard_s: dict[signal.Signals, float] = {}  # when each came last
        # Where other clusters are is no news for who has this one.
        self._environ = {
            name: text for name, text in os.environ.items() if name not in OF_JOINING
        }

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        signals = Signals(loop, self._came)
        began_s = time.monotonic()
        remote = self._remote(signals)
        self._starting = loop.create_task(start(self._config, MRUN, remote=remote))
        try:
            head, cluster = await self._starting
        except asyncio.CancelledError:
            if self._signal is None:
                raise
            return 128 + self._signal
        try:
            if self._signal is not None:  # too late to cancel the start
                return 128 + self._signal
            self._say_ready(head, cluster, time.monotonic() - began_s)
            return await self._serve(head, cluster, signals)
        finally:
            self._ending = cluster
            await end(head, cluster)

    async def _serve(self, head: Head, cluster: Cluster, signals: Signals) -> int:
        """Until it is to be stopped; the exit code."""
        raise NotImplementedError

    def _remote(self, signals: Signals) -> Remote | None:
        if self._elsewhere is None:
            return None
        from ..runtimes.logs import Logs
        from .remote import Remote

        logs, limit_bytes = self._config.logs, self._config.logs_limit
        return Remote(
            self._elsewhere.layout,
            self._elsewhere.python,
            self._environ,
            is_strict=self._elsewhere.is_strict,
            mask=signals.mask,
            on_signal=self._came_elsewhere,
            logs=None if logs is None else Logs(logs, limit_bytes),
        )

    def _say_ready(self, head: Head, cluster: Cluster, seconds: float) -> None:
        if self._config.quiet:
            return
        line = start_line(head)
        if cluster.remote is not None:
            for warning in cluster.remote.arrivals.warnings:
                print(f"mosaic: {warning}", file=sys.stderr)
            line = cluster.remote.arrivals.start_line()
        print(f"{line} · ready in {seconds:.1f} s", file=sys.stderr)
        if self._config.mode == DYNAMIC:
            print(
                f"mosaic: for a node: ssh HOST mrun --node --key - <{cluster.key}",
                file=sys.stderr,
            )

    def _came(self, number: signal.Signals, from_terminal: bool) -> None:
        """To this process."""
        now_s = time.monotonic()
        is_new = now_s - self._heard_s.get(number, -SAME_S) >= SAME_S
        self._heard_s[number] = now_s
        if is_new or not self._config.in_job or number not in SIGNALS:
            self._on_signal(number, from_terminal)

    def _came_elsewhere(self, number: signal.Signals) -> None:
        """To the nodes of the job: Slurm's --signal without B: leaves mrun out."""
        if number not in self._heard_s:
            self._came(number, False)

    def _on_signal(self, number: signal.Signals, from_terminal: bool) -> None:
        if self._ending is not None:
            self._ending.kill()  # it takes somebody too long
        elif self._starting is not None:
            self._signal = number
            self._starting.cancel()


class _WithProgram(_Job):
    """``mrun CMD...``."""

    def __init__(
        self, command: Sequence[str], config: Config, elsewhere: Elsewhere | None
    ) -> None:
        super().__init__(config, elsewhere)
        self.command = command
        self._program: Program | None = None

    async def _serve(self, head: Head, cluster: Cluster, signals: Signals) -> int:
        def lost(why: str) -> None:
            why = head.cluster_lost or why  # the monitor itself may have said it
            head.lose_cluster(why)
            name = self.command[0]
            print(f"mosaic: {why}; {name} has no cluster now", file=sys.stderr)

        cluster.watch(lost)
        environment = {**self._environ, CLUSTER: str(cluster.key)}
        self._program = Program.start(self.command, environment, signals.mask)
        try:
            return await self._program.ended()
        finally:
            self._program = None

    def _on_signal(self, number: signal.Signals, from_terminal: bool) -> None:
        if self._program is None:
            super()._on_signal(number, from_terminal)
        elif not from_terminal:
            self._program.send(number)


class _Alone(_Job):
    """``mrun --monitor``."""

    def __init__(self, config: Config, elsewhere: Elsewhere | None) -> None:
        super().__init__(config, elsewhere)
        self._told: asyncio.Future[int] | None = None  # the exit code

    async def _serve(self, head: Head, cluster: Cluster, signals: Signals) -> int:
        told = self._told = asyncio.get_running_loop().create_future()

        def lost(why: str) -> None:
            if not told.done():
                print(f"mosaic: {head.cluster_lost or why}", file=sys.stderr)
                told.set_result(1)

        cluster.watch(lost)
        # For a shell: whoever has it set joins.
        print(f"{CLUSTER}={cluster.key}", flush=True)
        await asyncio.wait((told, head.stopped), return_when="FIRST_COMPLETED")
        return told.result() if told.done() else 0

    def _on_signal(self, number: signal.Signals, from_terminal: bool) -> None:
        if self._told is None or self._ending is not None:
            super()._on_signal(number, from_terminal)
        elif not self._told.done():
            self._told.set_result(0)  # which is how it ends


class _Joined:
    """``mrun --head CMD...``, in a cluster of somebody else's."""

    def __init__(self, command: Sequence[str], path: str) -> None:
        self.command = command
        self._environ = {**os.environ, CLUSTER: path}
        self._program: Program | None = None
        self._signals: list[signal.Signals] = []  # that came before the program

    async def run(self) -> int:
        signals = Signals(asyncio.get_running_loop(), self._on_signal)
        self._program = Program.start(self.command, self._environ, signals.mask)
        for number in self._signals:
            self._program.send(number)
        return await self._program.ended()

    def _on_signal(self, number: signal.Signals, from_terminal: bool) -> None:
        if self._program is None:
            self._signals.append(number)
        elif not from_terminal:
            self._program.send(number)
