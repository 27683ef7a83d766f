"""What a process remembers of its tasks, and the keys it knows them by."""

from __future__ import annotations

import datetime
import functools
import inspect
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mosaic_like.tasks.caching import (
    Cache,
    Hit,
    InputHash,
    checked_key,
    expiration_of,
    input_hash,
    key_function,
    refreshes,
)


def test_the_second_of_two_equal_calls_waits_for_the_first() -> None:
    cache = Cache()
    assert cache.begin("k", "a", 0.0) == (Hit.RUN, "a")
    assert cache.begin("k", "b", 0.0) == (Hit.REUSED, "a")
    cache.end("k", "a", 1.0, has_value=True)
    assert cache.begin("k", "c", 2.0) == (Hit.CACHED, "a")
    assert cache.info == (1, 1, 1, 1)


def test_a_failure_is_not_cached() -> None:
    cache = Cache()
    cache.begin("k", "a", 0.0)
    cache.end("k", "a", 1.0, has_value=False)
    assert cache.begin("k", "b", 2.0) == (Hit.RUN, "b")


def test_a_value_expires_counted_from_its_end() -> None:
    cache = Cache()
    cache.begin("k", "a", 0.0)
    cache.end("k", "a", 10.0, has_value=True, expiration_s=5.0)
    assert cache.begin("k", "b", 14.9)[0] is Hit.CACHED
    assert cache.begin("k", "b", 15.0) == (Hit.RUN, "b")


def test_refresh_cache_runs_it_and_keeps_the_new_value() -> None:
    cache = Cache()
    cache.begin("k", "a", 0.0)
    cache.end("k", "a", 0.0, has_value=True)
    assert cache.begin("k", "b", 1.0, refresh=True) == (Hit.RUN, "b")
    cache.end("k", "b", 1.0, has_value=True)
    assert cache.begin("k", "c", 1.0) == (Hit.CACHED, "b")


def test_a_value_that_is_gone_is_a_miss() -> None:
    cache = Cache()
    cache.begin("k", "a", 0.0)
    cache.end("k", "a", 0.0, has_value=True)
    assert cache.begin("k", "b", 1.0, is_there=lambda t: False) == (Hit.RUN, "b")


def test_what_was_cleared_while_it_ran_is_not_remembered() -> None:
    cache = Cache()
    cache.begin("k", "a", 0.0)
    cache.clear()
    cache.end("k", "a", 0.0, has_value=True)
    assert cache.begin("k", "b", 1.0) == (Hit.RUN, "b")


def test_the_oldest_values_are_forgotten_and_what_runs_is_not() -> None:
    cache = Cache(most=2)
    cache.begin("runs", "r", 0.0)
    for key in "abc":
        cache.begin(key, key, 0.0)
        cache.end(key, key, 0.0, has_value=True)
    assert cache.begin("runs", "x", 0.0) == (Hit.REUSED, "r")
    assert cache.begin("c", "x", 0.0)[0] is Hit.CACHED
    assert cache.begin("a", "x", 0.0)[0] is Hit.RUN


class CacheWorld(RuleBasedStateMachine):
    """Calls in any order: a key never runs twice at once unless it was refreshed."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache(most=3)
        self.running: dict[str, set[int]] = {}
        self.ended: set[int] = set()
        self.last = 0
        self.refreshed: set[str] = set()

    @rule(key=st.sampled_from("ab"), refresh=st.booleans())
    def call(self, key: str, refresh: bool) -> None:
        self.last += 1
        hit, task = self.cache.begin(key, self.last, 0.0, refresh=refresh)
        if hit is Hit.RUN:
            assert task == self.last
            assert refresh or not self.running.get(key), "it runs already"
            self.running.setdefault(key, set()).add(task)
        elif hit is Hit.REUSED:
            assert task in self.running[key]
        else:
            assert task in self.ended

    @rule(key=st.sampled_from("ab"), value=st.booleans(), which=st.integers(0, 3))
    def end(self, key: str, value: bool, which: int) -> None:
        running = sorted(self.running.get(key, ()))
        if running:
            task = running[which % len(running)]
            # Only the last is in the table: it ends first here, or the others would
            # leave a key free whose older runs go on.
            if task == running[-1]:
                self.running[key] = set()
            else:
                self.running[key].discard(task)
            if value:
                self.ended.add(task)
            self.cache.end(key, task, 0.0, has_value=value)

    @invariant()
    def it_is_bounded(self) -> None:
        assert self.cache.info.size <= 3


TestCacheWorld = CacheWorld.TestCase
TestCacheWorld.settings = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class _Context:
    def __init__(self, fn: Any) -> None:
        self.task = self
        self.fn = fn


def _plus(x: int, y: int = 1) -> int:
    return x + y


def test_input_hash_ignores_the_parameters_it_is_told_to() -> None:
    key = input_hash(ignore=("y",))
    context = _Context(_plus)
    assert key(context, {"x": 1, "y": 1}) == key(context, {"x": 1, "y": 2})
    assert key(context, {"x": 1, "y": 1}) != key(context, {"x": 2, "y": 1})
    assert input_hash(context, {"x": 1}) != input_hash(context, {"y": 1})


def test_input_hash_of_an_unknown_parameter_is_refused_at_decoration() -> None:
    with pytest.raises(ValueError, match="no parameter 'z'"):
        input_hash(ignore=("x", "z")).check("_plus", inspect.signature(_plus))


def test_input_hash_of_a_text_is_refused() -> None:
    with pytest.raises(TypeError, match="expected names"):
        input_hash(ignore="x")


def test_an_argument_without_content_gives_no_key_and_says_which() -> None:
    told: list[str] = []
    assert InputHash().key(_plus, {"x": iter(())}, refused=told.append) is not None
    assert InputHash().key(_plus, {"x": (n for n in [1])}, refused=told.append) is None
    assert "argument 'x'" in told[0]
    assert "generator" in told[0]


def test_another_code_gives_another_key() -> None:
    def plus(x: int, y: int = 1) -> int:
        return x - y

    parameters = {"x": 1, "y": 1}
    assert InputHash().key(plus, parameters) != InputHash().key(_plus, parameters)


def test_decorators_count_as_code() -> None:
    def times(n: int) -> Any:
        @functools.wraps(_plus)
        def decorated(x: int, y: int = 1) -> int:
            return n * _plus(x, y)

        return decorated

    def keys(*functions: Any) -> list[str | None]:
        return [InputHash().key(function, {"x": 1}) for function in functions]

    one, same, other = keys(times(1), times(1), times(2))
    assert one == same != other
    cached = functools.lru_cache
    one, same, other = keys(cached(times(1)), cached(times(1)), cached(times(2)))
    assert one == same != other


@pytest.mark.parametrize("bad", ["inptus", ""])
def test_a_cache_key_that_is_another_text_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="'inputs'"):
        key_function(bad)


def test_a_cache_key_that_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="cache_key"):
        key_function(3)


def test_a_key_that_is_neither_text_nor_none_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="gave 3"):
        checked_key(3, "f")
    assert checked_key(None, "f") is None


@settings(deadline=None)
@given(st.floats(min_value=1e-9, max_value=1e9))
def test_cache_expiration_takes_seconds_and_timedeltas(seconds: float) -> None:
    assert expiration_of(seconds) == seconds
    delta = datetime.timedelta(seconds=1 + seconds)
    assert expiration_of(delta) == delta.total_seconds()


@pytest.mark.parametrize("bad", [0, -1, datetime.timedelta(0), float("nan")])
def test_cache_expiration_of_no_time_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        expiration_of(bad)


@pytest.mark.parametrize("bad", ["1", True, []])
def test_cache_expiration_of_another_kind_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="timedelta"):
        expiration_of(bad)


def test_refresh_cache_of_none_is_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOSAIC_REFRESH_CACHE", "1")
    assert refreshes(None)
    assert not refreshes(False)
    monkeypatch.delenv("MOSAIC_REFRESH_CACHE")
    assert not refreshes(None)
    assert refreshes(True)
