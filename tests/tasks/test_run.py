"""``Task.run``: here, with the whole policy, and without a runtime; row 24."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest

import mosaic_like as mosaic
from mosaic_like.tasks.storage import DirectoryStore


class Flaky:
    """Fails so many times."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.calls: list[Any] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Flaky, (self.failures,)  # what it has counted is none of its content

    def __call__(self, x: int = 1) -> int:
        self.calls.append(x)
        if len(self.calls) <= self.failures:
            raise OSError(f"attempt {len(self.calls)}")
        return 2 * x

    async def later(self, x: int = 1) -> int:
        await asyncio.sleep(0)
        return self(x)


def run(task: Any, *args: Any, **kwargs: Any) -> Any:
    """Of either kind."""
    found = task.run(*args, **kwargs)
    return asyncio.run(found) if task.is_async else found


def kinds(flaky: Flaky, **options: Any) -> Any:
    """A task of a plain, or of a coroutine function."""

    def plain(x: int = 1) -> int:
        return flaky(x)

    async def coroutine(x: int = 1) -> int:
        return await flaky.later(x)

    return mosaic.task(plain, **options), mosaic.task(coroutine, **options)


@pytest.mark.parametrize("kind", [0, 1])
def test_run_tries_again_as_the_policy_says(kind: int) -> None:
    asked: list[tuple[str, int]] = []

    def wanted(error: Exception, attempt: Any) -> bool:
        asked.append((str(error), attempt.attempt))
        return True

    flaky = Flaky(2)
    task = kinds(flaky, max_retries=2, retry_on=OSError, retry_if=wanted)[kind]
    assert run(task, 4) == 8
    assert flaky.calls == [4, 4, 4]
    assert asked == [("attempt 1", 1), ("attempt 2", 2)]
    other = Flaky(9)
    with pytest.raises(OSError, match="attempt 1"):
        run(kinds(other, max_retries=3, retry_on=ValueError)[kind])
    with pytest.raises(OSError, match="attempt 2"):
        run(kinds(Flaky(9), max_retries=1)[kind])


def test_run_does_not_retry_where_retry_if_cannot_say(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def wanted(error: Exception, attempt: Any) -> bool:
        return 1 / 0 > 0

    plain, coroutine = kinds(Flaky(9), max_retries=3, retry_if=wanted)
    with pytest.raises(OSError, match="attempt 1") as caught:
        run(plain)
    assert "needs a plain one" in caught.value.__notes__[0]
    with pytest.raises(OSError, match="attempt 2") as caught:
        run(coroutine)
    assert "ZeroDivisionError" in caught.value.__notes__[0]
    assert len(caplog.records) == 2


CALLS: list[int] = []  # no closure: what is in that is part of a function's identity


def double(x: int) -> int:
    CALLS.append(x)
    return 2 * x


async def double_later(x: int) -> int:
    return double(x)


@pytest.mark.parametrize("function", [double, double_later])
def test_run_of_equal_inputs_runs_once(function: Any) -> None:
    CALLS.clear()
    task = mosaic.task(function, cache_key="inputs")
    assert [run(task, 1), run(task, 1), run(task, 2)] == [2, 2, 4]
    assert CALLS == [1, 2]
    assert task.cache_info() == (1, 0, 2, 2)
    assert run(task.options(refresh_cache=True), 1) == 2
    assert CALLS == [1, 2, 1]
    task.cache_clear()
    assert task.cache_info().size == 0


def test_run_in_two_threads_waits_for_the_one_that_runs() -> None:
    begun, go_on = threading.Event(), threading.Event()
    states: list[tuple[str, str | None]] = []

    def slow(x: int) -> int:
        begun.set()
        assert go_on.wait(30)
        return x

    def note(info: Any, transition: Any) -> None:
        states.append((info.state, info.reason))
        if transition.reason is None and transition.state == "pending":
            second.set()

    second = threading.Event()
    task = mosaic.task(slow, cache_key=lambda context, parameters: "one")
    found: list[int] = []
    first = threading.Thread(target=lambda: found.append(task.run(7)))
    first.start()
    assert begun.wait(30)
    noted = task.options(on_state=note)
    other = threading.Thread(target=lambda: found.append(noted.run(7)))
    other.start()
    assert second.wait(30)
    go_on.set()
    first.join(30)
    other.join(30)
    assert found == [7, 7]
    assert states[-1] in (("done", "reused"), ("done", "cached"))
    assert task.cache_info().misses == 1


def test_run_inside_itself_with_the_same_key_does_not_wait_for_itself() -> None:
    def count(depth: int) -> int:
        return depth if depth == 3 else task.run(depth + 1)

    async def count_later(depth: int) -> int:
        return depth if depth == 3 else await later.run(depth + 1)

    task = mosaic.task(count, cache_key=lambda context, parameters: "one")
    assert task.run(0) == 3
    assert task.options(timeout=60).run(0) == 3
    later = mosaic.task(count_later, cache_key=lambda context, parameters: "one")
    assert asyncio.run(later.run(0)) == 3


@pytest.mark.parametrize("kind", [0, 1])
def test_run_persists_its_values(kind: int, tmp_path: Any) -> None:
    flaky = Flaky()
    store = DirectoryStore(tmp_path)
    options = {"cache_key": lambda c, p: "k", "store": store, "store_key": "kept"}
    assert run(kinds(flaky, **options)[kind], 3) == 6
    assert "kept" in store
    assert run(kinds(flaky, **options)[kind], 5) == 6  # another task: by the store
    assert flaky.calls == [3]
    assert run(kinds(flaky, persist=True, store=store)[kind]) == 2


def test_run_stops_a_plain_function_whose_time_is_over() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    name.set("ours")
    ended = threading.Event()

    def endless() -> None:
        assert name.get() == "ours"
        try:
            while True:
                time.sleep(0.001)
        finally:
            ended.set()

    begun = time.monotonic()
    with pytest.raises(mosaic.TaskTimeoutError, match=r"timeout=0\.05 s"):
        mosaic.task(endless, timeout=0.05).run()
    assert ended.wait(10)
    assert time.monotonic() - begun < 10
    assert mosaic.task(name.get, timeout=60).run() == "ours"


def test_run_stops_a_coroutine_whose_time_is_over() -> None:
    tries: list[int] = []

    async def endless() -> None:
        tries.append(1)
        await asyncio.sleep(600)

    task = mosaic.task(endless, timeout=0.05, max_retries=1)
    with pytest.raises(mosaic.TaskTimeoutError):
        asyncio.run(task.run())
    assert len(tries) == 2


@pytest.mark.parametrize("kind", [0, 1])
def test_run_calls_hooks_with_the_end_and_each_move(kind: int) -> None:
    ends: list[Any] = []
    moves: list[Any] = []

    async def done(info: Any, value: Any) -> None:
        ends.append((info.name, info.state, info.attempt, value))

    task = kinds(
        Flaky(1),
        max_retries=1,
        tags={"io"},
        run_name="of {x}",
        on_done=done,
        on_failed=lambda info, error: ends.append((info.state, info.tags, error)),
        on_state=lambda info, move: moves.append((move.state, move.reason)),
        cancel_if=lambda value: value > 10,
    )[kind]
    assert run(task, 3) == 6
    assert ends.pop() == ("of 3", "done", 2, 6)
    assert moves == [
        ("pending", None),
        ("running", None),
        ("pending", "retry"),
        ("running", None),
        ("done", None),
    ]
    with pytest.raises(mosaic.TaskCancelledError, match="cancel_if") as caught:
        run(task, 30)
    assert caught.value.value == 60  # type: ignore[attr-defined]
    assert ends.pop() == ("cancelled", ["io"], caught.value)


def test_run_refuses_what_it_cannot_do() -> None:
    plain, _ = kinds(Flaky())
    with pytest.raises(TypeError, match="too many positional"):
        plain.run(1, 2)
    broken = plain.options(cache_key=lambda context, parameters: 3)
    with pytest.raises(TypeError, match="cache_key"):
        broken.run(1)
