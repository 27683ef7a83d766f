"""Options of tasks are checked where they are written; rows 32, 33, 51, 57."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import mosaic_like as mosaic
from mosaic_like.tasks.options import NAMES, UNSET, TaskOptions, check_options, merged


@mosaic.task(max_retries=2, tags={"io"}, timeout=3)
def work(x: int) -> int:
    return x


def test_all_bad_names_are_in_one_error_with_the_nearest() -> None:
    with pytest.raises(TypeError) as caught:
        mosaic.task(max_retry=1, time_out=2, after=[])  # type: ignore[call-overload]  # the mistake that is tested
    text = str(caught.value)
    assert "'max_retry' (did you mean 'max_retries'?)" in text
    assert "'time_out' (did you mean 'timeout'?)" in text
    assert "'after' (of a call: task.options(after=...))" in text


def test_all_bad_values_are_in_one_error() -> None:
    with pytest.raises(TypeError) as caught:
        mosaic.task(max_retries=-1, tags="io", cancel_if=3)  # type: ignore[call-overload]  # the mistake that is tested
    text = str(caught.value)
    assert "'max_retries': found -1, expected at least 0" in text
    assert "'tags': found 'io', expected {'io'}" in text
    assert "'cancel_if': found 3, expected a function" in text


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"max_retries": -1}, ValueError, "at least 0"),
        ({"max_retries": True}, TypeError, "expected int"),
        ({"retry_on": ValueError("x")}, TypeError, "exception class"),
        ({"retry_on": KeyboardInterrupt}, ValueError, "only what is an Exception"),
        ({"retry_delay": []}, ValueError, "at least one delay"),
        ({"retry_jitter": 2}, ValueError, "expected 0 to 1"),
        ({"timeout": 0}, ValueError, "more than 0 seconds"),
        ({"timeout": -1}, ValueError, "more than 0 seconds"),
        ({"interrupt": "politely"}, ValueError, "'flag', 'raise' or 'kill'"),
        ({"cache_expiration": 0}, ValueError, "more than 0 seconds"),
        ({"on_done": [3]}, TypeError, "a function, or several"),
        ({"run_name": "{x"}, ValueError, "run_name"),
        ({"name": ""}, ValueError, "can be printed"),
        ({"log_prints": "yes"}, TypeError, "True, False or None"),
    ],
)
def test_a_bad_value_is_told_at_decoration(
    options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        mosaic.task(**options)


def test_good_values_are_taken_as_they_are_meant() -> None:
    assert check_options({"on_done": print, "tags": ["a"], "timeout": UNSET}) == {
        "on_done": (print,),
        "tags": frozenset({"a"}),
    }


def test_options_make_a_new_task_of_the_same_function() -> None:
    other = work.options(timeout=None, max_retries=UNSET, name="other")
    assert (other.name, work.name) == ("other", "work")
    assert other._options.timeout is None
    assert other._options.max_retries == 2
    assert other.tags == {"io"}
    assert other._code is work._code  # it is not sent again
    assert other(3) == 3


def test_none_gives_the_default_of_every_option() -> None:
    plain = TaskOptions()
    for name in NAMES:
        assert merged(plain, {name: None}) == plain


def test_a_decorated_task_may_be_decorated_again() -> None:
    again = mosaic.task(work, name="again")
    assert again.fn is work.fn
    assert again._options.max_retries == 2


def test_a_task_travels_by_its_name_or_with_its_function() -> None:
    assert pickle.loads(pickle.dumps(work)) is work
    assert pickle.loads(pickle.dumps(UNSET)) is UNSET
    other = pickle.loads(pickle.dumps(mosaic.task(len, name="size", timeout=3)))
    assert (other.name, other._options.timeout, other([1, 2])) == ("size", 3, 2)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"runtime": 3}, TypeError, "'runtime': found 3, expected one of"),
        ({"runtime": "nope"}, ValueError, "'worker:0:1', or the name of a strategy"),
        ({"store_key": "{nope}"}, ValueError, "mentions 'nope'; there are"),
        ({"store_key": "{parameters[y]}"}, ValueError, "mentions 'y'"),
        ({"store_key": "../x"}, ValueError, "store_key '../x': expected the name"),
        ({"store_key": "{info.name}/../{info[key]}"}, ValueError, "neither empty"),
        ({"store_key": "{"}, ValueError, "option 'store_key': '{': "),
    ],
)
def test_a_place_or_key_that_can_never_be_is_told_at_decoration(
    options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        mosaic.task(store="somewhere", **options)(work.fn)
    assert text in str(caught.value)


def test_places_and_keys_that_may_be_are_taken() -> None:
    for place in ("worker:0:1", "least-loaded"):
        assert work.options(runtime=place)._options.runtime == place
    for key in (
        "a/{parameters[x]!r:>4}",
        "{parameters.x.y[z]:{info.name}}",
        "{info[key]}",
    ):
        assert work.options(store="s", store_key=key)._options.store_key == key
