"""What tests of values in chunks share: a tessera, and when all is over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
from large_values import MIB, Holder, until

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT_S = 25.0
LONG = 48 * MIB  # is on its way for long enough to be interrupted


class Chunked(Holder):
    """A holder that tells of its transfers."""

    def under_way(self) -> int:
        return under_way(mosaic.runtime())

    def ping(self, x: int) -> int:
        return x

    def mixed(self, sizes: list[int]) -> Iterator[Any]:
        for index, size in enumerate(sizes):
            if size < 0:
                raise ValueError("on purpose")
            yield np.full(size, index, "u1")


class Built:
    """Made of a large value."""

    def __init__(self, array: Any) -> None:
        self.total = float(array.sum())

    def value(self) -> float:
        return self.total


def under_way(runtime: Any) -> int:
    """Transfers of it that are not complete."""
    count: int = runtime.transfers.under_way
    return count


def holders(runtime: Any) -> list[Any]:
    """Two on each of two workers."""
    cls = mosaic.tessera(Chunked)
    return [cls.options(runtime=w).remote() for w in runtime.workers[:2] * 2]


async def all_over(runtime: Any, *holders: Any) -> None:
    """No transfer is left anywhere, nor what it kept."""
    await until(lambda: not under_way(runtime))
    for holder in holders:

        async def over(holder: Any = holder) -> bool:
            return not await holder.under_way().result()

        await until(over)
    transfers = runtime.transfers
    assert not transfers._landing
    assert not any(len(a) for a in transfers._arrivals.values())

    def idle() -> bool:
        return not any(d.under_way for d in transfers._departures.values())

    await until(idle)


def alone(main: Any, **options: Any) -> None:
    """In a cluster of its own."""

    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(runtime, *holders(runtime))

    mosaic.run(bounded, num_workers=2, segments=False, **options)
