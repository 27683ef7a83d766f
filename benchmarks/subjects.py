"""The tesserae that are measured. They do as little as can be."""

from __future__ import annotations

import os
from pathlib import Path
from time import sleep
from typing import Any

import mosaic_like as mosaic


@mosaic.tessera
class Echo:
    """Answers with what it was given."""

    def ping(self, x: int) -> int:
        return x

    async def aping(self, x: int) -> int:
        return x

    def increment(self, x: int) -> int:
        return x + 1

    def hold(self, seconds: float) -> None:
        """Keeps the worker's main thread, so that calls stay queued."""
        sleep(seconds)

    def memory(self) -> int:
        """Bytes that this worker alone has (private pages)."""
        text = Path(f"/proc/{os.getpid()}/smaps_rollup").read_text()
        return 1024 * sum(
            int(line.split()[1])
            for line in text.splitlines()
            if line.startswith("Private_")
        )


@mosaic.tessera
class Arrays:
    """Keeps, takes and gives large arrays."""

    def __init__(self) -> None:
        self.array: Any = None

    def make(self, nbytes: int) -> None:
        import numpy as np

        self.array = np.ones(nbytes, "u1")

    def give(self) -> Any:
        return self.array

    def echo(self, array: Any) -> Any:
        return array

    def pages(self, array: Any) -> int:
        return int(array[::4096].sum())

    def length(self, array: Any) -> int:
        return len(array)

    def ready(self) -> bool:
        return bool(_sharing().home)

    def copied(self) -> int:
        return int(_sharing().bytes_copied)


def _sharing() -> Any:
    runtime: Any = mosaic.runtime()
    return runtime.sharing


def same(x: int) -> int:
    return x


nothing = mosaic.task(same)


@mosaic.task
def increment(x: int) -> int:
    return x + 1


@mosaic.task
def plus(x: int, y: int) -> int:
    return x + y


def nap(x: int) -> int:
    sleep(0.001)
    return x
