"""How large the tables of a runtime are, and when they are as they were."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from mosaic_like import session
from mosaic_like.core.tessera import Tessera

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LIMIT_S = 20.0


def tables(runtime: Any) -> dict[str, int]:
    """The sizes of all tables that grow with calls and tesserae."""
    worker, caller = runtime.worker, runtime.caller
    return {
        "tesserae": len(worker.tesserae),
        "tasks": len(worker.tasks),
        "holders": len(worker.holders.shared),
        "calls": len(caller.calls),
        "awaited": len(caller.asking.awaited),
        "fetching": len(caller.asking.fetching),
        "streams": len(runtime.streams),
        "records": len(runtime.records),
    }


class Probe:
    """Looks at the tables of the worker that it lives in, and at what is in none."""

    def tables(self) -> dict[str, int]:
        # Calls are not tracked by the collector, so it finds no circle they are in.
        living = sum(type(thing) is Tessera for thing in gc.get_objects())
        return {**tables(session.current()), "living": living}


async def settled(look: Callable[[], Awaitable[Any]], expected: Any) -> None:
    """Releases ride in later batches: wait until what is seen is as expected."""
    found: Any = None
    try:
        async with asyncio.timeout(LIMIT_S):
            # Nothing tells when a release has been counted elsewhere.
            while (found := await look()) != expected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"expected {expected}, found {found}")
