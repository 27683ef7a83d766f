"""What tests of large values share: a tessera that takes and gives them."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MIB = 1 << 20


class Holder:
    """Takes, keeps and gives large values, and tells of its process."""

    def __init__(self) -> None:
        self.kept: Any = None

    def echo(self, value: Any) -> Any:
        return value

    def total(self, *values: Any) -> float:
        return float(sum(value.sum() for value in values))

    def ones(self, nbytes: int) -> Any:
        return np.ones(nbytes, "u1")

    def keep(self, value: Any) -> None:
        self.kept = value

    def keep_own(self, nbytes: int) -> None:
        self.kept = np.zeros(nbytes, "u1")

    def give(self) -> Any:
        return self.kept

    def fill(self, number: int) -> None:
        self.kept[:] = number

    def write_to(self, array: Any) -> None:
        array[0] = 1

    def apart(self) -> tuple[Any, Any]:
        return np.ones(MIB, "u1"), np.zeros(MIB, "u1")

    def items(self, count: int, nbytes: int) -> Iterator[Any]:
        for index in range(count):
            yield np.full(nbytes, index, "u1")

    async def stream(self, count: int, nbytes: int) -> AsyncIterator[Any]:
        for index in range(count):
            yield np.full(nbytes, index, "u1")

    def ready(self) -> bool:
        runtime: Any = mosaic.runtime()
        return bool(runtime.sharing.home)

    def memory(self) -> dict[str, int]:
        return memory_of(mosaic.runtime())

    def cannot_open(self, times: int) -> None:
        fail_to_open(mosaic.runtime(), times)

    def apart_from_all(self, apart: bool) -> None:
        live_apart(mosaic.runtime(), apart=apart)

    def pid(self) -> int:
        return os.getpid()

    def hold(self, value: Any) -> None:
        time.sleep(30)


def memory_of(runtime: Any) -> dict[str, int]:
    """What a runtime has of shared memory."""
    gc.collect()
    sharing = runtime.sharing
    stock, maps = sharing._stock, sharing._reader._maps
    return {
        "copied": stock.bytes_copied,
        "passed on": sharing.bytes_passed_on,
        "made": stock.made,
        "on loan": len(stock.on_loan),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mapped": 0 if maps is None else len(maps._mappings),
    }


def live_apart(runtime: Any, *, apart: bool) -> None:
    """As if all others were on other hosts."""
    for peer in runtime.peers.by_incarnation.values():
        if peer.incarnation != runtime.incarnation:
            peer.shares_memory = not apart


def fail_to_open(runtime: Any, times: int) -> None:
    """As if what has made a segment had ended, when something of it comes."""
    reader = runtime.sharing._reader
    really = reader.open
    left = [times]

    def open_(*args: Any) -> bool:
        if left[0]:
            left[0] -= 1
            return False
        reader.open = really
        return bool(really(*args))

    reader.open = open_


def descriptors(pid: int) -> int:
    """Segments that a process has open."""
    found = 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += "memfd:mosaic" in os.readlink(f"/proc/{pid}/fd/{number}")
        except OSError:
            continue  # closed between the two lines
    return found


def pair(runtime: Any) -> list[Any]:
    """A tessera on each of two workers."""
    cls = mosaic.tessera(Holder)
    return [cls.options(runtime=w).remote() for w in runtime.workers[:2]]


async def until(condition: Any, limit_s: float = 20.0) -> None:
    """Wait for what no message tells; bounded."""
    async with asyncio.timeout(limit_s):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.01)


async def all_returned(runtime: Any, *holders: Any) -> None:
    """Everything that was on loan has come back, and the warehouse has closed it."""
    await until(lambda: not memory_of(runtime)["on loan"])
    for holder in holders:

        async def returned(holder: Any = holder) -> bool:
            return not (await holder.memory().result())["on loan"]

        await until(returned)
    await until(lambda: not descriptors(runtime.warehouse.pid))
