"""Who holds tasks of another one's calls, and asks how they ended."""

from __future__ import annotations

import asyncio
from typing import Any

import mosaic_like as mosaic


@mosaic.tessera(is_async=True)
class Waits:
    def keep(self, tasks: list[Any]) -> None:
        self.tasks = tasks

    async def ends(self) -> list[Any]:
        return [await end(task) for task in self.tasks]

    def echo(self, value: Any) -> Any:
        return value


async def end(task: Any) -> Any:
    """What is the same wherever it is asked: of what is large its size."""
    error = await task.exception()
    if error is not None:
        return f"{type(error).__name__}: {error}"
    value = await task.result()
    return value if len(value) < 100 else len(value)


async def forgotten(runtime: Any, *counts: int) -> None:
    """Calls that moved were waited for long enough; others hold so many of them."""
    known = runtime.restarts.seeking
    while _many(known._kept) not in counts:  # noqa: ASYNC110 -- no event tells it
        await asyncio.sleep(0.01)
    for lost in list(known._remembered):
        known._forget_free(lost, None)
    assert _many(known._remembered) == _many(known._kept)


def _many(by_lost: dict[int, Any]) -> int:
    return sum(len(calls) for calls in by_lost.values())
