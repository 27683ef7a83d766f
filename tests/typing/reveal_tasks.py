"""What type checkers know of function tasks: read by mypy and pyright, never run.

Each ``type: ignore`` stands at a mistake that must be found: an unused one is an error.
"""

from __future__ import annotations

import datetime
import pathlib
from typing import TYPE_CHECKING, Any, assert_type

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Mapping


@mosaic.task
def half(x: int) -> float:
    return x / 2


@mosaic.task(max_retries=2)
def text_of(x: int, *, mark: str = "") -> str:
    return f"{x}{mark}"


@mosaic.task
async def later(x: int) -> bytes:
    return bytes(x)


@mosaic.task(
    name="three",
    tags={"sum"},
    run_name="{x}",
    retry_on=(OSError, ValueError),
    retry_if=lambda error, attempt: True,
    retry_delay=mosaic.exponential_backoff(0.1),
    retry_jitter=0.1,
    timeout=3,
    interrupt="raise",
    cache_key=mosaic.input_hash(ignore=("z",)),
    cache_expiration=datetime.timedelta(days=1),
    persist=True,
    store=pathlib.Path("values"),
    serializer="json",
    concurrency=mosaic.Concurrency(key="arguments"),
    cancel_if=lambda value: value > 3,
    log_prints=True,
    on_done=[print, lambda info, value: None],
    on_state=print,
)
def three(x: int, y: int, z: float) -> float:
    return x + y + z


def key_of(context: Any, parameters: Mapping[str, Any]) -> str | None:
    return str(parameters["x"])


async def options() -> None:
    first = half.submit(1)
    keyed = half.options(cache_key=key_of, cache_expiration=None, after=[first.done])
    assert_type(
        keyed.options(after=first, delay=0.5).submit(3), mosaic.TaskProxy[float]
    )
    assert_type(half.options(timeout=mosaic.UNSET, store="v")(3), float)
    half.options(retry_delay=[1, 2.5], tags=["a"], batch_size=3, runtime="worker:0:1")
    assert_type(mosaic.task(half.fn, cache_key="inputs").submit(1).get(), float)


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
    # So do futures, in the first three places.
    with mosaic.Executor() as executor:
        future = executor.submit(len, "abc")
    assert_type(half.submit(future), mosaic.TaskProxy[Any])
    assert_type(three.submit(1, half.submit(3).as_future()), mosaic.TaskProxy[Any])
    assert_type(three.submit(1, 2, half.submit(3)), mosaic.TaskProxy[Any])
    assert_type(half.task(future), mosaic.TaskProxy[Any])
    assert_type(half.submit(half.submit(3).outputs[0]), mosaic.TaskProxy[Any])
    half.map([1, future])
    half.starmap([(half.submit(3),), {"x": future}])
    mosaic.task(max_retries="2")  # type: ignore[call-overload]
    mosaic.task(half.fn, max_retry=2)  # type: ignore[call-overload]
    half.options(delay="soon")  # type: ignore[arg-type]
    half.options(interrupt="stop")  # type: ignore[arg-type]
    half.options(none_such=1)  # type: ignore[call-arg]
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
