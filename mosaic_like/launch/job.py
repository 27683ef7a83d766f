"""``mrun CMD...``: a cluster, a program in it, and the end of both.

mrun is a member of its cluster without being a head: it starts it, sees that all
workers are ready, and says when to stop. The program finds the cluster by the key file
that ``MOSAIC_CLUSTER`` names.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
import time
from typing import TYPE_CHECKING

from . import keys
from .local import Cluster, end, start, start_line
from .program import CannotRun, Program, Signals, find

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

    from ..config import Config
    from ..runtimes.head import Head
    from .layout import Layout
    from .remote import Remote

UID = "mrun"


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
    try:
        find(command[0])  # before a cluster is started for nothing
        return asyncio.run(_Job(command, config, elsewhere).run())
    except CannotRun as error:
        print(f"mrun: {error}", file=sys.stderr)
        return error.code


class _Job:
    """What is there of it at any moment decides what a signal means."""

    def __init__(
        self, command: Sequence[str], config: Config, elsewhere: Elsewhere | None
    ) -> None:
        self._command = command
        self._config = config
        self._elsewhere = elsewhere
        self._starting: asyncio.Task[tuple[Head, Cluster]] | None = None
        self._program: Program | None = None
        self._ending: Cluster | None = None
        self._signal: signal.Signals | None = None  # came before the program was there

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        signals = Signals(loop, self._on_signal)
        began_s = time.monotonic()
        remote = self._remote(signals)
        self._starting = loop.create_task(start(self._config, UID, remote=remote))
        try:
            head, cluster = await self._starting
        except asyncio.CancelledError:
            if self._signal is None:
                raise
            return 128 + self._signal
        try:
            if self._signal is not None:  # too late to cancel the start
                return 128 + self._signal
            return await self._run(head, cluster, signals, began_s)
        finally:
            self._program = None
            self._ending = cluster
            await end(head, cluster)

    def _remote(self, signals: Signals) -> Remote | None:
        if self._elsewhere is None:
            return None
        from .remote import Remote

        return Remote(
            self._elsewhere.layout,
            self._elsewhere.python,
            os.environ,
            is_strict=self._elsewhere.is_strict,
            mask=signals.mask,
        )

    async def _run(
        self, head: Head, cluster: Cluster, signals: Signals, began_s: float
    ) -> int:
        def lost(why: str) -> None:
            why = head.cluster_lost or why  # the monitor itself may have said it
            head.lose_cluster(why)
            name = self._command[0]
            print(f"mosaic: {why}; {name} has no cluster now", file=sys.stderr)

        if not self._config.quiet:
            seconds = time.monotonic() - began_s
            line = start_line(head)
            if cluster.remote is not None:
                line = cluster.remote.start_line(self._config)
            print(f"{line} · ready in {seconds:.1f} s", file=sys.stderr)
        cluster.watch(lost)
        environment = {**os.environ, keys.ENVIRONMENT: str(cluster.key)}
        self._program = Program.start(self._command, environment, signals.mask)
        return await self._program.ended()

    def _on_signal(self, number: signal.Signals, from_terminal: bool) -> None:
        if self._program is not None:
            if not from_terminal:
                self._program.send(number)
        elif self._ending is not None:
            self._ending.kill()  # it takes somebody too long
        elif self._starting is not None:
            self._signal = number
            self._starting.cancel()
