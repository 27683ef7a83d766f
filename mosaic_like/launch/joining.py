"""``mrun node``: a node, with its workers, that joins a cluster that runs.

This process asks a fork server for the node, and waits for its end. After a signal it
tells the node, by a socket, to leave the cluster in order; the node ends too when this
process closes its end of the socket, which its death does. Nobody else has the key: it
comes by a file or by standard input and goes on by a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
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
from .versions import warning

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping

    from ..runtimes.processes import Child

MODULES = (
    *PRELOAD,
    "mosaic_like.runtimes.lone_node",
    "mosaic_like.runtimes.worker_process",
)
ENTRY = "mosaic_like.runtimes.lone_node:main"
GONE_TIMEOUT_S = 5.0
_LEAVE = b"x"  # see lone_node


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
    if told := warning(key.versions):
        print(told, file=sys.stderr)
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
        # What is written there before there is a node waits for it.
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        Signals(loop, self._on_signal)  # before other threads are made
        server = ForkServer.start(modules=MODULES, directory=self._spec.directory)
        server.watch(loop)
        try:
            with self._theirs:
                child = server.spawn(
                    ENTRY,
                    self._spec.encode(),
                    attach=True,
                    fds=[self._theirs.fileno()],
                )
            await child.exited()
        finally:
            self._ours.close()
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

    def _on_signal(self, number: signal.Signals, from_terminal: bool) -> None:
        if self._in_job:
            print(f"mosaic: its job got {number.name}", file=sys.stderr, flush=True)
            return
        # The first time it leaves in order, the second in a hurry, then at once.
        with contextlib.suppress(OSError):  # it has ended
            self._ours.send(_LEAVE)
