"""A cluster that the tests of one file share: each test is a coroutine run in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest
from specimens import RunIn, Warm

import mosaic_like as mosaic
from mosaic_like.comms import messages as wire
from mosaic_like.comms.link import LinkState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


LIMIT_S = 25.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunIn]:
    """Runs ``main(runtime)`` in a cluster of two workers; bounded in time."""
    ready: Future[tuple[Any, asyncio.AbstractEventLoop]] = Future()
    over = threading.Event()

    async def hold(runtime: Any) -> None:
        # Also the links to the warehouse.
        await asyncio.wait_for(runtime.sharing.ready(), LIMIT_S)
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
        ready.set_result((runtime, asyncio.get_running_loop()))
        await asyncio.to_thread(over.wait)

    def serve() -> None:
        try:
            mosaic.run(hold, num_workers=2)
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    thread = threading.Thread(target=serve, name="cluster")
    thread.start()
    try:
        runtime, loop = ready.result(30)

        def run(main: Callable[[Any], Awaitable[Any]]) -> Any:
            async def bounded() -> Any:
                async with asyncio.timeout(LIMIT_S):
                    return await main(runtime)

            return asyncio.run_coroutine_threadsafe(bounded(), loop).result(LIMIT_S + 5)

        yield run
    finally:
        over.set()
        thread.join(30)
        assert not thread.is_alive()
        assert not segments_left()


def segments_left() -> list[str]:
    """Segments that this process has open; those of values may still be mapped."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listdir itself had open
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [line for line in found if "/memfd:mosaic" in line]
