"""What tests of the memory of a node share: makers, and a cluster with little of it."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from large_values import Holder, until

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Maker(Holder):
    def made(self, nbytes: int, number: int) -> Any:
        return np.full(nbytes, number, "u1")

    def is_full_of(self, value: Any, number: int) -> bool:
        return bool((value == number).all())

    def words(self, nbytes: int) -> list[str]:
        return ["x" * 100 + str(n) for n in range(nbytes // 100)]

    def look(self, words: list[str], seconds: float) -> int:
        time.sleep(seconds)
        return int(mosaic.runtime().admitting._admission.nbytes)

    def counted(self) -> tuple[int, int]:
        account = mosaic.runtime().sharing.account
        return account.memory, account.files


def alone(main: Callable[..., Awaitable[None]], **options: Any) -> None:
    """In a cluster of its own, with two makers."""

    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(100):
            await runtime.sharing.ready()
            cls = mosaic.tessera(Maker)
            makers = [cls.options(runtime=w).remote() for w in runtime.workers]
            for maker in makers:

                async def ready(maker: Any = maker) -> bool:
                    return bool(await maker.ready().result())

                await until(ready)
            await main(runtime, *makers)

    mosaic.run(bounded, num_workers=2, **options)


async def host_of(runtime: Any) -> Any:
    return (await runtime.memory()).hosts[0]


def memfd_bytes(*pids: int) -> int:
    """Of all segments that these processes have open or mapped, each counted once."""
    found: dict[int, int] = {}
    for pid in pids:
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                path = f"/proc/{pid}/fd/{number}"
                if "memfd:mosaic" in os.readlink(path):
                    stat = os.stat(path)
                    found[stat.st_ino] = stat.st_blocks * 512
            except OSError:
                continue  # closed meanwhile
        mapped = 0
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                mapped = int(words[4]) if "memfd:mosaic" in line else 0
            elif mapped and words[0] == "Rss:":
                nbytes = int(words[1]) * 1024
                found[mapped] = max(found.get(mapped, 0), nbytes)
    return sum(found.values())
