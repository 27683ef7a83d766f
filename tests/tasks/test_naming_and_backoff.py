"""Names of runs, and delays that grow."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like.tasks.backoff import exponential_backoff
from mosaic_like.tasks.naming import check_run_name, run_name_of


def _f(x: int, width: int = 3) -> None: ...


_SIGNATURE = inspect.signature(_f)


@pytest.mark.parametrize(
    "good", ["run", "{x}", "{x:>{width}}", "{x.real}", "{{}}", None]
)
def test_run_name_may_use_all_parameters(good: Any) -> None:
    check_run_name(good, "_f", _SIGNATURE)


@pytest.mark.parametrize("bad", ["{y}", "{x:{y}}", "{}", "{x", "{0}"])
def test_run_name_with_an_unknown_field_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="run_name"):
        check_run_name(bad, "_f", _SIGNATURE)


def test_run_name_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="run_name"):
        check_run_name(3, "_f", _SIGNATURE)


def test_run_name_is_a_format_string_or_a_function() -> None:
    parameters = {"x": 1, "width": 3}
    assert run_name_of("{x:>{width}}", parameters, "f") == "  1"
    assert run_name_of(lambda p: f"x={p['x']}", parameters, "f") == "x=1"
    with pytest.raises(TypeError, match="gave 1"):
        run_name_of(lambda p: 1, parameters, "f")  # type: ignore[arg-type, return-value]  # the mistake


def test_exponential_backoff_grows_up_to_its_maximum() -> None:
    assert [exponential_backoff(1, 3)(i) for i in (1, 2, 3)] == [1, 3, 9]
    assert exponential_backoff(1, maximum=2.5)(9) == 2.5
    assert exponential_backoff(0)(9) == 0


@settings(deadline=None)
@given(st.floats(0, 1e6), st.floats(1, 1e6), st.integers(1, 10_000))
def test_exponential_backoff_is_always_a_time(
    base: float, factor: float, i: int
) -> None:
    assert 0 <= exponential_backoff(base, factor)(i) <= 1e9


@pytest.mark.parametrize(
    "arguments", [(-1,), (1, 0.5), (1, 2, -1), (float("nan"),), (float("inf"),)]
)
def test_exponential_backoff_out_of_range_is_refused(arguments: Any) -> None:
    with pytest.raises(ValueError, match="exponential_backoff"):
        exponential_backoff(*arguments)


def test_exponential_backoff_travels() -> None:
    assert pickle.loads(pickle.dumps(exponential_backoff(1)))(2) == 2
