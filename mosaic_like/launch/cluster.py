"""The processes of a cluster, as their owner has them, and their end.

On the owner's loop. Who starts a cluster, and how a head is in it, is in ``local``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from typing import TYPE_CHECKING

from ..config import DYNAMIC, Config
from ..errors import ConnectError, MosaicError, RuntimeDisconnectedError
from ..runtimes.booting import MODULES
from ..runtimes.directory import RunDirectory
from ..runtimes.processes import Child, ForkServer, describe_status, gone_text
from ..runtimes.spec import Spec
from .listening import beside, network_of, warning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..comms.messages import Member
    from ..runtimes.head import Head
    from .early import Early
    from .keys import Key
    from .remote import Remote

GONE_TIMEOUT_S = 5.0


class Cluster:
    """The processes of one cluster, as their owner has them."""

    def __init__(
        self, config: Config, remote: Remote | None = None, early: Early | None = None
    ) -> None:
        self.config = config
        self.remote = remote
        # The node of this host is the only one that is no command of an engine's.
        self.has_node = config.mode != DYNAMIC or config.reuse_head
        if remote is not None:
            self.has_node = remote.layout.here is not None
        self.network = network_of(config)
        self._server: ForkServer | None = None
        try:
            if early is None:
                self.directory = RunDirectory.create()
            else:
                self.directory, booted = early.take()
                self._server = ForkServer.of(booted)
        except OSError as error:
            error.add_note(
                "mosaic: the cluster needs a run directory for its sockets; TMPDIR "
                "says where it is made"
            )
            raise
        self.monitor_address = self.directory.socket("monitor")
        self.monitor_token = secrets.token_bytes(8)
        self.key: Path | None = None
        self._server_lost = asyncio.Event()
        self._children: list[Child] = []
        self._failure = ""
        self.on_failed: Callable[[str], object] | None = None

    def launch(self) -> None:
        """Start the fork server, and ask it for monitor and node.

        Raises:
            ConnectError: the fork server cannot be started, or has ended at once.
        """
        server = self._server
        if server is None:
            try:
                server = self._server = ForkServer.start(
                    modules=MODULES, directory=str(self.directory.path)
                )
            except OSError as error:
                raise ConnectError(
                    f"the cluster did not start: no process can be made with "
                    f"{sys.executable!r}: {error}"
                ) from error
        server.on_lost = self._server_lost.set
        try:
            self._ask(server)
        except RuntimeDisconnectedError as error:
            raise ConnectError(
                f"the cluster did not start: {gone_text(server.pid)}; see what "
                f"{sys.executable!r} -c pass says"
            ) from error

    def _ask(self, server: ForkServer) -> None:
        spec = Spec(
            config=self.config.to_bytes(),
            directory=str(self.directory.path),
            monitor_address=self.monitor_address,
            monitor_token=self.monitor_token,
            path=[entry for entry in sys.path if isinstance(entry, str)],
            cwd=_working_directory(),
            network=self.network,
        )
        for kind in ("monitor", "node") if self.has_node else ("monitor",):
            if kind == "node":
                spec.network = beside(self.network)
            self._children.append(
                server.spawn(
                    f"mosaic_like.runtimes.{kind}:main",
                    spec.encode(),
                    attach=kind == "node",
                    owner_pidfd=True,
                    on_exited=self._exited,
                )
            )

    def watch(self, on_failed: Callable[[str], object]) -> None:
        """Learn on the running loop of the end of any of the processes."""
        assert self._server is not None
        self.on_failed = on_failed
        self._server.watch(asyncio.get_running_loop())

    def _exited(self, child: Child) -> None:
        if self._failure:
            return
        kind = "monitor" if child is self._children[0] else "node"
        if kind == "node" and child.status == 0:
            return  # it has left in order: the monitor knows what becomes of the rest
        if child.failure:
            self._failure = f"the {kind} could not be forked: {child.failure}"
        elif child.status is None:
            self._failure = gone_text(0 if self._server is None else self._server.pid)
        else:
            how = describe_status(child.status)
            self._failure = f"the {kind} (pid {child.pid}) is gone: {how}"
        if self.on_failed is not None:
            self.on_failed(self._failure)

    @property
    def monitor_ended(self) -> bool:
        """It is known to have; not: its fork server was lost, and it may live."""
        return bool(self._children) and self._children[0].status is not None

    def key_of(self, monitor: Member) -> Key:
        """Lets others in."""
        from .keys import Key

        keys = None if self.network is None else self.network.keys
        return Key.of(monitor, self.monitor_token, self.directory.path, keys)

    def write_key(self, monitor: Member) -> None:
        """Let other programs connect."""
        key = self.key_of(monitor)
        self.key = self.directory.write_key(key.content())
        if key.is_insecure:
            print(warning(key.tcp), file=sys.stderr)

    def kill(self) -> None:
        """Now and without order; also in a signal handler, and without a loop."""
        if self.remote is not None:
            self.remote.kill()
        for child in self._children:
            if child.pid:
                self._kill(child)
            else:
                child.on_started = self._kill

    def _kill(self, child: Child) -> None:
        with contextlib.suppress(MosaicError, TimeoutError):
            if self._server is not None:
                self._server.kill(child.pid)

    async def stopped(self) -> None:
        """Wait for the end of all processes, kill what does not end, tidy up."""
        server = self._server
        if server is not None:
            server.watch(asyncio.get_running_loop())
            try:
                async with asyncio.timeout(GONE_TIMEOUT_S):
                    for child in self._children:
                        await child.exited()
            except TimeoutError:
                self.kill()
            if self.remote is not None:
                await self.remote.stopped()
            server.close()
            # Its children are gone: it ends, and says so by the end of its socket.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    if not server.lost:
                        await self._server_lost.wait()
        self.tidy_up(0.5)

    def tidy_up(self, timeout_s: float) -> None:
        """The processes have ended, or were killed: reap, and remove the directory."""
        self.on_failed = None  # that they end is no failure any more
        server = self._server
        if server is not None and not server.wait_gone(timeout_s):
            print("mosaic: processes of the cluster did not end", file=sys.stderr)
        self._server = None
        self.directory.remove()


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed under us
        return ""


async def end(head: Head, cluster: Cluster) -> None:
    """Stop the cluster in order."""
    from ..comms import messages as wire

    head.peers.on_dropped()  # what failed unasked is told before that is no news
    head.unheard_failures.flush(all_of_it=True)
    head.stopping = True
    lines: list[str] = []
    gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    cluster.on_failed = lambda why: gone.done() or gone.set_result(why)  # type: ignore[func-returns-value]  # for its effect
    if not head.incarnation:
        cluster.kill()
    elif not cluster.monitor_ended:
        with contextlib.suppress(TimeoutError, MosaicError):
            head.monitor.send(wire.Stop("the program has ended"))
            async with asyncio.timeout(cluster.config.stop_timeout_s + 20.0):
                await asyncio.wait(
                    (head.stopped, head.monitor_ended, gone),
                    return_when="FIRST_COMPLETED",
                )
        if head.stopped.done():
            lines = head.stopped.result()
            await head.flushed(0.2, "monitor")
    head.close()
    await cluster.stopped()
    for line in lines:
        print(f"mosaic: {line}", file=sys.stderr)
