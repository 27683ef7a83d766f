"""What the tests of links make two of."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import mosaic_like as mosaic
from mosaic_like import TaskCancelledError

LIMIT_S = 25.0


@mosaic.tessera
class Part:
    """One of two."""

    def __init__(self, path: str = "", fails: bool = False) -> None:
        self.path = path
        if fails:
            raise ValueError("no such part")

    def __close__(self) -> None:
        if self.path:
            Path(self.path).touch()

    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        raise ValueError("only this call fails")

    def block(self, path: str) -> None:
        Path(path).touch()
        time.sleep(LIMIT_S)

    def link(self, one: Any, other: Any) -> None:
        mosaic.link(one, other)


async def ended(proxy: Any) -> BaseException:
    """What its calls raise once it has ended."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                await proxy.pid().result()
            except (LookupError, TaskCancelledError) as error:
                return error
            await asyncio.sleep(0.01)


async def pair(runtime: Any, **options: Any) -> tuple[Any, Any]:
    """Two that live, in different workers."""
    first, second = runtime.workers[:2]
    one = await Part.options(runtime=first, **options).remote()
    return one, await Part.options(runtime=second, **options).remote()
