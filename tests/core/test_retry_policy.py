"""When a failed call runs again, and how its time stands still meanwhile."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.comms.messages import Options
from mosaic_like.core.limits import Limit, Limits
from mosaic_like.core.retries import RetryPolicy, delay_of
from mosaic_like.core.task import QUEUED, Task
from mosaic_like.core.tessera import INLINE, LOOP, MAIN, Tessera
from mosaic_like.errors import SerializationError, TaskTimeoutError
from mosaic_like.proxies.retries import check_retries, dump_retries, load_retries

SECONDS = st.floats(0, 1e6)


def low(a: float, b: float) -> float:
    return a


def high(a: float, b: float) -> float:
    return b


def policy(**options: Any) -> RetryPolicy:
    return RetryPolicy(check_retries(options))


@given(st.lists(SECONDS, min_size=1), st.integers(1, 100))
def test_of_a_sequence_the_last_delay_repeats(delays: list[float], retry: int) -> None:
    found = policy(retry_delay=delays).delay_s(retry, low)
    assert found == (delays[retry - 1] if retry <= len(delays) else delays[-1])


@given(SECONDS, st.floats(0, 1))
def test_jitter_is_drawn_around_the_delay(delay: float, jitter: float) -> None:
    asked = policy(retry_delay=delay, retry_jitter=jitter)
    assert asked.delay_s(1, low) == pytest.approx(delay * (1 - jitter))
    assert asked.delay_s(1, high) == pytest.approx(delay * (1 + jitter))
    assert asked.delay_s(1, low) >= 0


def test_a_function_of_the_retry_gives_the_delay() -> None:
    asked = policy(retry_delay=lambda retry: 2**retry)
    assert [asked.delay_s(i, low) for i in (1, 2, 3)] == [2, 4, 8]
    for wrong, error in (("1", TypeError), (-1, ValueError), (math.nan, ValueError)):
        with pytest.raises(error, match=r"retry_delay\(1\)"):
            policy(retry_delay=lambda retry, wrong=wrong: wrong).delay_s(1, low)


def test_what_is_said_nowhere_has_its_default() -> None:
    plain = RetryPolicy({}, {})
    assert plain.concerns(TaskTimeoutError("late"))
    assert not plain.concerns(KeyboardInterrupt())
    assert plain.delay_s(9, high) == 0
    assert plain.condition is None


def test_each_option_of_the_call_takes_the_place_of_that_of_the_tessera() -> None:
    tessera = check_retries(
        {"retry_on": OSError, "retry_delay": 2, "retry_if": lambda error, attempt: 1}
    )
    call = check_retries({"retry_delay": [3], "retry_if": None})
    both = RetryPolicy(tessera, call)
    assert both.concerns(FileNotFoundError())
    assert not both.concerns(ValueError())
    assert both.delay_s(1, low) == 3
    assert both.condition is None


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"retry_on": "OSError"}, TypeError, "expected an exception class"),
        ({"retry_on": None}, TypeError, "expected an exception class"),
        ({"retry_on": (OSError, 1)}, TypeError, "expected an exception class"),
        ({"retry_on": [OSError]}, TypeError, "expected an exception class"),
        ({"retry_on": ()}, ValueError, "at least one"),
        ({"retry_on": KeyboardInterrupt}, ValueError, "only what is an Exception"),
        ({"retry_on": BaseException}, ValueError, "only what is an Exception"),
        ({"retry_if": True}, TypeError, "expected a function"),
        ({"retry_if": lambda error: True}, TypeError, "does not fit"),
        ({"retry_delay": ""}, TypeError, "expected seconds"),
        ({"retry_delay": None}, TypeError, "expected seconds"),
        ({"retry_delay": True}, TypeError, "expected seconds"),
        ({"retry_delay": -0.1}, ValueError, "0 or more"),
        ({"retry_delay": math.inf}, ValueError, "0 or more"),
        ({"retry_delay": []}, ValueError, "at least one delay"),
        ({"retry_delay": [1, "2"]}, TypeError, "expected seconds"),
        ({"retry_delay": [1, -2]}, ValueError, "0 or more"),
        ({"retry_delay": lambda: 1}, TypeError, "does not fit"),
        ({"retry_jitter": 1.1}, ValueError, "0 to 1"),
        ({"retry_jitter": math.nan}, ValueError, "0 to 1"),
        ({"retry_jitter": "0"}, TypeError, "0 to 1"),
    ],
)
def test_wrong_retry_options_say_which_and_why(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as info:
        check_retries(options)
    assert f"option {next(iter(options))!r}" in str(info.value)


def test_what_is_only_numbers_and_classes_is_kept_as_it_is() -> None:
    assert delay_of(1) == 1.0
    assert delay_of(range(2)) == (0.0, 1.0)
    assert dump_retries({"max_retries": 1}, "A") == b""
    data = dump_retries({"retry_on": OSError, "retry_delay": (1, 2)}, "A")
    assert load_retries(data) == {"retry_on": (OSError,), "retry_delay": (1.0, 2.0)}
    assert load_retries(b"") == {}


def test_a_function_that_cannot_travel_is_named() -> None:
    made = (i for i in range(3))
    with pytest.raises(SerializationError, match=r"'retry_if' of Klass\.m cannot"):
        dump_retries(
            {"retry_delay": 1, "retry_if": lambda error, attempt: next(made)},
            "Klass.m",
        )


def test_the_time_of_an_attempt_stands_still_while_the_next_one_waits() -> None:
    limits = Limits(lambda uid: True)
    limits.add(Limit(1, 5.0, None, 0.0))
    limits.add(Limit(2, 5.0, 8.0, 0.0))
    for uid in (1, 2, 3):
        limits.pause(uid)
    assert limits.due(7.9) == []
    (late,) = limits.due(8.0)
    assert late.uid == 2
    assert late.why(8.0).final
    limits.again(1, 20.0)
    assert limits.due(24.9) == []
    assert [limit.uid for limit in limits.due(25.0)] == [1]


class Runner:
    def __init__(self, lane: int) -> None:
        self._lane = lane
        self.started: list[Task] = []

    def lane(self, tessera: Tessera, method: str) -> int:
        return self._lane

    def start(self, task: Task) -> None:
        self.started.append(task)

    def start_run(self, run: list[Task]) -> None:
        self.started += run

    def construct(self, task: Task) -> None: ...


def make(lane: int, **options: Any) -> tuple[Tessera, Runner]:
    runner = Runner(lane)
    tessera = Tessera(1, 2, Options(name="T", **options), runner)
    tessera.instance = runner
    return tessera, runner


def call(tessera: Tessera, uid: int) -> Task:
    task = Task(uid, 2, tessera, "method", b"", state=QUEUED)
    tessera.enqueue(task)
    return task


@pytest.mark.parametrize("lane", [MAIN, INLINE, LOOP])
def test_a_call_that_waits_keeps_its_place(lane: int) -> None:
    tessera, runner = make(lane)
    first = call(tessera, 1)
    tessera.pause()
    second = call(tessera, 2)
    assert runner.started == [first]
    assert tessera.resume(first)
    assert tessera.lane == lane
    tessera.finished()
    assert runner.started == [first, second]


def test_where_calls_overlap_one_that_waits_takes_no_room() -> None:
    tessera, runner = make(LOOP, is_async=True, max_concurrency=1)
    first, second, third = (call(tessera, uid) for uid in (1, 2, 3))
    assert runner.started == [first]
    tessera.pause()
    assert runner.started == [first, second]
    assert not tessera.resume(first)  # there is no room now, but it goes first then
    assert runner.started == [first, second]
    tessera.finished()
    assert runner.started == [first, second, first]
    tessera.finished()
    assert runner.started == [first, second, first, third]
    tessera.finished()
    assert (tessera.active, tessera.limit) == (0, 1)
