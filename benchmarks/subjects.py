"""The tesserae that are measured. They do as little as can be."""

from __future__ import annotations

import os
from pathlib import Path
from time import sleep

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
