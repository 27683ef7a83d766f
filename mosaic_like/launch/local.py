"""A cluster on this machine: ``run``, ``init``, ``stop``, ``interactive``, ``connect``."""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from .. import session
from ..comms import messages as wire
from ..config import Config
from ..errors import ConnectError, MosaicError
from ..runtimes.directory import RunDirectory
from ..runtimes.head import Head
from ..runtimes.loops import new_loop
from ..runtimes.processes import PRELOAD, Child, ForkServer, describe_status
from ..runtimes.spec import Spec

MODULES = (
    *PRELOAD,
    "mosaic_like.runtimes.monitor",
    "mosaic_like.runtimes.node",
    "mosaic_like.runtimes.worker",
)
GONE_TIMEOUT_S = 5.0


class Cluster:
    """The processes of one cluster, as their owner has them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.directory = RunDirectory.create()
        self.monitor_address = self.directory.socket("monitor")
        self.monitor_token = secrets.token_bytes(8)
        self._server: ForkServer | None = None
        self._children: list[Child] = []
        self.failed: asyncio.Future[str] | None = None

    def launch(self) -> None:
        """Start the fork server, and ask it for monitor and node."""
        self._server = ForkServer.start(modules=MODULES)
        spec = Spec(
            config=self.config.to_bytes(),
            directory=str(self.directory.path),
            monitor_address=self.monitor_address,
            monitor_token=self.monitor_token,
            path=[entry for entry in sys.path if isinstance(entry, str)],
            cwd=os.getcwd(),
        ).encode()
        for kind in ("monitor", "node"):
            self._children.append(
                self._server.spawn(
                    f"mosaic_like.runtimes.{kind}:main",
                    spec,
                    attach=kind == "node",
                    owner_pidfd=True,
                    on_exited=self._exited,
                )
            )

    async def started(self) -> None:
        """The monitor is there to be spoken to."""
        assert self._server is not None
        loop = asyncio.get_running_loop()
        self.failed = loop.create_future()
        self._server.watch(loop)
        await self._children[0].started()

    def _exited(self, child: Child) -> None:
        if self.failed is not None and not self.failed.done():
            kind = "monitor" if child is self._children[0] else "node"
            status = child.status
            how = "it ended" if status is None else describe_status(status)
            self.failed.set_result(f"the {kind} (pid {child.pid}) is gone: {how}")

    async def stopped(self) -> None:
        """Wait for the end of all processes, kill what does not end, tidy up."""
        server = self._server
        if server is not None:
            deadline_s = asyncio.get_running_loop().time() + GONE_TIMEOUT_S
            for child in self._children:
                left_s = max(0.01, deadline_s - asyncio.get_running_loop().time())
                try:
                    async with asyncio.timeout(left_s):
                        await child.exited()
                except TimeoutError:
                    server.kill(child.pid)
            server.unwatch()
            server.close()
            if not await asyncio.to_thread(server.wait_gone, 2.0):
                print("mosaic: processes of the cluster did not end", file=sys.stderr)
        self.directory.remove()


async def start(config: Config) -> tuple[Head, Cluster]:
    """A new cluster with a head on the running loop, all its workers ready."""
    cluster = Cluster(config)
    head = None
    try:
        cluster.launch()
        head = Head(asyncio.get_running_loop(), config)
        head.bind(cluster.directory.socket("head"))
        await cluster.started()
        await _or_failed(
            cluster,
            head.join(
                "head",
                cluster.monitor_address,
                cluster.monitor_token,
                timeout_s=config.timeout or 180.0,
            ),
        )
        await _or_failed(
            cluster, head.wait_for_workers(config.num_workers, config.timeout)
        )
    except BaseException:
        if head is not None:
            await _end(head, cluster)
        raise
    return head, cluster


async def _or_failed(cluster: Cluster, awaitable: Awaitable[None]) -> None:
    assert cluster.failed is not None
    waiting = asyncio.ensure_future(awaitable)
    await asyncio.wait((waiting, cluster.failed), return_when="FIRST_COMPLETED")
    if not waiting.done():
        waiting.cancel()
        raise ConnectError(f"the cluster did not start: {cluster.failed.result()}")
    await waiting


async def _end(head: Head, cluster: Cluster | None) -> None:
    """Stop the cluster in order."""
    head.stopping = True
    lines: list[str] = []
    if cluster is not None:
        if head.incarnation:
            try:
                head.monitor.send(wire.Stop("the program has ended"))
                limit_s = cluster.config.stop_timeout_s + 20.0
                async with asyncio.timeout(limit_s):
                    assert cluster.failed is not None
                    await asyncio.wait(
                        (head.stopped, cluster.failed), return_when="FIRST_COMPLETED"
                    )
                if head.stopped.done():
                    lines = head.stopped.result()
            except (TimeoutError, MosaicError):
                pass
    await head.flushed(0.2)
    head.close()
    if cluster is not None:
        await cluster.stopped()
    for line in lines:
        print(f"mosaic: {line}", file=sys.stderr)


def run(main: Callable[..., Awaitable[Any]], **options: Any) -> Any:
    """Run a coroutine function with a cluster of its own, and give what it returns."""
    config = Config.make(**options)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_main(main, config))


async def _main(main: Callable[..., Awaitable[Any]], config: Config) -> Any:
    head, cluster = await start(config)
    session.use(head)
    try:
        if inspect.signature(main).parameters:
            return await main(head)
        return await main()
    finally:
        session.use(None)
        await _end(head, cluster)
