"""What type checkers know of function tasks: read by mypy and pyright, never run.

Each ``type: ignore`` stands at a mistake that must be found: an unused one is an error.
"""

from __future__ import annotations

from typing import Any, assert_type

import mosaic_like as mosaic


@mosaic.task
def half(x: int) -> float:
    return x / 2


@mosaic.task(max_retries=2)
def text_of(x: int, *, mark: str = "") -> str:
    return f"{x}{mark}"


@mosaic.task
async def later(x: int) -> bytes:
    return bytes(x)


async def calls() -> None:
    assert_type(half(3), float)
    assert_type(half.submit(3), mosaic.TaskProxy[float])
    assert_type(await half.submit(3).result(), float)
    assert_type(await text_of.submit(3, mark="!").result(), str)
    assert_type(await later(3), bytes)
    assert_type(later.submit(3), mosaic.TaskProxy[bytes])
    assert_type(text_of.options(timeout=3).submit(3), mosaic.TaskProxy[str])
    # A task stands for its value, whose type nobody checks.
    assert_type(text_of.submit(half.submit(3)), mosaic.TaskProxy[Any])
    assert_type(text_of.task(3, mark="!"), mosaic.TaskProxy[str])
    assert_type(later.task(3), mosaic.TaskProxy[bytes])
    assert_type(text_of.task(half.task(3)), mosaic.TaskProxy[Any])
    assert_type(half.run(3), float)
    assert_type(await later.run(3), bytes)
    half.task("three")  # type: ignore[call-overload]
    half.run("three")  # type: ignore[arg-type]
    half("three")  # type: ignore[arg-type]
    half.submit("three")  # type: ignore[call-overload]
    text_of.submit(3, mark=3)  # type: ignore[call-overload]
    text_of.submit()  # type: ignore[call-overload]


def executors() -> None:
    with mosaic.Executor() as executor:
        assert_type(executor.submit(len, "abc").result(), int)
        executor.submit(len, 3, initializer=3)
