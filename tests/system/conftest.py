"""A cluster that the tests of one file share: each test is a coroutine run in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest
from shared_cluster import shared_cluster
from specimens import RunIn, Warm

import mosaic_like as mosaic
from mosaic_like.comms import messages as wire
from mosaic_like.comms.link import LinkState

if TYPE_CHECKING:
    from collections.abc import Iterator


LIMIT_S = 25.0


async def warm_up(runtime: Any) -> None:
    """Make the links and threads that stay as long as the cluster."""
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


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunIn]:
    """Runs ``main(runtime)`` in a cluster of two workers; bounded in time."""
    try:
        with shared_cluster(warm_up, LIMIT_S) as run:
            yield run
    finally:
        assert not segments_left()


def segments_left() -> list[str]:
    """Segments that this process has open; those of values may still be mapped."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listdir itself had open
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [line for line in found if "/memfd:mosaic" in line]
