"""A cluster on a thread of its own, for the coroutines of a file; one more node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from specimens import Warm

import mosaic_like as mosaic
from mosaic_like.comms import messages as wire
from mosaic_like.comms.link import LinkState
from mosaic_like.runtimes.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from specimens import RunIn

    from mosaic_like.runtimes.processes import Child

WARM_S = 50.0


async def warm_up(runtime: Any) -> None:
    """Make the links and threads that stay as long as the cluster."""
    # Also the links to the warehouse.
    await asyncio.wait_for(runtime.sharing.ready(), WARM_S)
    warm = [Warm.options(runtime=w).remote() for w in runtime.workers]
    # Large: the first one also starts pyzmq's thread for buffers.
    for size in (200_000, 300_000):
        await mosaic.gather(w.touch(bytes(size)) for w in warm)
    del warm
    # And those to the nodes, which calls that do not stop are told to.
    for node in runtime.of_kind("node"):
        peer = runtime.outbox(node.incarnation)
        peer.send(wire.Interrupt(0, 0))
        while peer.link.state is not LinkState.UP or peer.link.unacknowledged:  # noqa: ASYNC110 -- no event tells it
            await asyncio.sleep(0.005)


def add_node(
    runtime: Any,
    on_exited: Callable[[Child], None] | None = None,
    entry: str = "mosaic_like.runtimes.node:main",
) -> Child:
    """Start another node on this machine, as another host would."""
    cluster = runtime.hold.cluster
    spec = Spec(
        config=cluster.config.to_bytes(),
        directory=str(cluster.directory.path),
        monitor_address=cluster.monitor_address,
        monitor_token=cluster.monitor_token,
        path=list(sys.path),
        cwd=os.getcwd(),
    )
    child: Child = cluster._server.spawn(
        entry,
        spec.encode(),
        attach=True,
        owner_pidfd=True,
        on_exited=on_exited,
    )
    return child


@contextlib.contextmanager
def shared_cluster(
    warm_up: Callable[[Any], Awaitable[Any]], limit_s: float, **options: Any
) -> Iterator[RunIn]:
    """Gives what runs ``main(runtime)`` in a cluster of two workers.

    Args:
        warm_up: awaited with the runtime first, so that no test is the one in which
            links and threads are made that stay.
        limit_s: seconds that each ``main`` may take.
        options: of ``mosaic.run``.
    """
    ready: Future[tuple[Any, asyncio.AbstractEventLoop]] = Future()
    over = threading.Event()

    async def hold(runtime: Any) -> None:
        await warm_up(runtime)
        ready.set_result((runtime, asyncio.get_running_loop()))
        await asyncio.to_thread(over.wait)

    def serve() -> None:
        try:
            mosaic.run(hold, num_workers=2, **options)
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    thread = threading.Thread(target=serve, name="cluster")
    thread.start()
    try:
        runtime, loop = ready.result(WARM_S + 10)

        def run(main: Callable[[Any], Awaitable[Any]]) -> Any:
            async def bounded() -> Any:
                async with asyncio.timeout(limit_s):
                    return await main(runtime)

            return asyncio.run_coroutine_threadsafe(bounded(), loop).result(limit_s + 5)

        yield run
    finally:
        over.set()
        thread.join(30)
        assert not thread.is_alive()
