"""``mrun node``: a node, with its workers, that joins a cluster that runs.

This process asks a fork server for the node, and waits for its end. Signals go to the
node, which then leaves the cluster in order; it ends when this process closes its end
of a socket too, which its death does. Nobody else has the key: it comes by a file or by
standard input and goes on by a socket.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from ..runtimes.booting import PRELOAD
from ..runtimes.directory import RunDirectory
from ..runtimes.processes import ForkServer, describe_status
from ..runtimes.spec import Spec
from . import keys
from .listening import network_to
from .program import Signals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..runtimes.processes import Child

MODULES = (
    *PRELOAD,
    "mosaic_like.runtimes.lone_node",
    "mosaic_like.runtimes.worker_process",
)
ENTRY = "mosaic_like.runtimes.lone_node:main"
GONE_TIMEOUT_S = 5.0


def run_node(
    where: str | None,
    options: Mapping[str, Any],
    address: str | None = None,
    index: int | None = None,
) -> int:
    """Be a node until the cluster stops, or a signal comes; the exit code.

    Args:
        where: the key file, its directory, ``-`` for standard input, or None for what
            ``MOSAIC_CLUSTER`` names.
        options: its own, such as ``num_workers``; else as the cluster has them.
        address: of this machine, for the other hosts; None: that which leads to the
            monitor.
        index: that it is to have; None: the next. One that another has is refused.

    Raises:
        ConnectError: there is no such cluster, or it cannot be reached.
        ValueError: the address is not of this machine.
    """
    _, key = keys.load(where)
    network = network_to(key, address)
    directory = RunDirectory.create()
    # By itself it would take a job that it is in for that of the program.
    options = {"in_job": False, **options}
    try:
        spec = Spec(
            config=msgspec.msgpack.encode(options),
            directory=str(directory.path),
            monitor_address=key.endpoint,
            monitor_token=bytes.fromhex(key.token),
            uid="" if index is None else f"node:{index}",
            network=network,
        )
        return asyncio.run(_Owner(spec, in_job=options["in_job"]).run())
    finally:
        directory.remove()


class _Owner:
    """The process that the node belongs to.

    Args:
        spec: for the node.
        in_job: signals are of the program's job, which mrun is told of.
    """

    def __init__(self, spec: Spec, *, in_job: bool) -> None:
        self._spec = spec
        self._in_job = in_job
        self._server: ForkServer | None = None
        self._child: Child | None = None
        self._is_told = False  # to leave

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        Signals(loop, self._on_signal)  # before other threads are made
        server = ForkServer.start(modules=MODULES, directory=self._spec.directory)
        server.watch(loop)
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                child = server.spawn(
                    ENTRY, self._spec.encode(), attach=True, fds=[theirs.fileno()]
                )
            self._server, self._child = server, child
            child.on_started = self._started
            await child.exited()
        finally:
            ours.close()
            server.unwatch()
            # Its children end with the node, which had asked for them.
            if not server.wait_gone(GONE_TIMEOUT_S):
                print("mosaic: processes of the node did not end", file=sys.stderr)
        return self._code(child)

    def _code(self, child: Child) -> int:
        status = child.status
        if status is not None and os.WIFEXITED(status):
            return os.waitstatus_to_exitcode(status)
        how = "its fork server is gone" if status is None else describe_status(status)
        print(f"mosaic: the node (pid {child.pid}) {how}", file=sys.stderr)
        return 1

    def _started(self, child: Child) -> None:
        if self._is_told:
            self._tell(child)

    def _on_signal(self, number: signal.Signals, from_terminal: bool) -> None:
        if self._in_job:
            print(f"mosaic: its job got {number.name}", file=sys.stderr, flush=True)
            return
        self._is_told = True
        if self._child is not None and self._child.pid:
            self._tell(self._child)

    def _tell(self, child: Child) -> None:
        """The first time it leaves in order, the second in a hurry, then at once."""
        if self._server is not None and not child.ended:
            self._server.kill(child.pid, signal.SIGTERM)
