"""The options that say how many calls may go on, and the slots that they name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from mosaic_like.comms.messages import OF_TAG, Slot
from mosaic_like.tasks.concurrency import (
    Concurrency,
    current_tags,
    differences,
    limits,
    slots_of_tags,
    tags,
    tags_of,
)
from mosaic_like.tasks.recording import record


def _charge(account: int, amount: int) -> None: ...


def test_without_a_key_all_calls_of_a_task_count_together() -> None:
    rule = Concurrency(2)
    assert (
        rule.slot("m:f", {"x": 1}) == rule.slot("m:f", {"x": 2}) == Slot("task:m:f", 2)
    )
    assert rule.slot("m:g", {"x": 1}) != rule.slot("m:f", {"x": 1})


def test_calls_with_equal_arguments_count_together() -> None:
    rule = Concurrency(key="arguments")
    assert rule.slot("f", {"x": 1, "y": 2}) == rule.slot("f", {"x": 1, "y": 2})
    assert rule.slot("f", {"x": 1, "y": 2}) != rule.slot("f", {"x": 1, "y": 3})


def test_calls_count_together_by_the_named_parameters() -> None:
    rule = Concurrency(key=("account",))
    one = rule.slot("f", {"account": 1, "amount": 2})
    assert one == rule.slot("f", {"account": 1, "amount": 3})
    assert one != rule.slot("f", {"account": 2, "amount": 2})


def test_calls_count_together_by_what_a_function_gives() -> None:
    rule = Concurrency(key=lambda parameters: parameters["x"] % 2)
    assert rule.slot("f", {"x": 1}) == rule.slot("f", {"x": 3})
    assert rule.slot("f", {"x": 1}) != rule.slot("f", {"x": 2})


def test_an_unknown_key_is_refused_at_decoration() -> None:
    signature = inspect.signature(_charge)
    Concurrency(key=["account", "amount"]).check("charge", signature)  # type: ignore[arg-type]  # a list will do
    with pytest.raises(ValueError, match=r"charge\(account.*no parameter 'acount'"):
        Concurrency(key=("acount",)).check("charge", signature)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"limit": 0}, ValueError),
        ({"limit": -1}, ValueError),
        ({"limit": 1.5}, TypeError),
        ({"limit": True}, TypeError),
        ({"key": "account"}, ValueError),
        ({"key": ()}, TypeError),
        ({"key": (1,)}, TypeError),
        ({"key": 3}, TypeError),
        ({"scope": "forever"}, ValueError),
        ({"on_conflict": "retry"}, ValueError),
        ({"strict": True}, ValueError),
    ],
)
def test_concurrency_out_of_range_is_refused(
    options: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind, match="Concurrency"):
        Concurrency(**options)


def test_differences_names_the_arguments() -> None:
    assert differences({"a": 1, "b": [2]}, {"a": 1, "b": [3]}) == ["b"]
    assert differences({"a": {1}}, {"a": {1}}) == []


def test_tags_are_those_of_all_contexts() -> None:
    assert current_tags() == frozenset()
    with tags("db"), tags("slow", "db"):
        assert current_tags() == {"db", "slow"}
    assert current_tags() == frozenset()


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ("db", TypeError),
        (3, TypeError),
        ([3], TypeError),
        ([""], ValueError),
        (["h\udce4"], ValueError),
    ],
)
def test_tags_that_are_none_are_refused(bad: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="option 'tags'"):
        tags_of(bad)


def test_a_slot_of_each_tag_is_taken_in_one_order() -> None:
    found = slots_of_tags({"b", "a"})
    assert found == [Slot("tag:a", OF_TAG), Slot("tag:b", OF_TAG)]


def test_limits_and_record_need_a_runtime() -> None:
    with pytest.raises(RuntimeError, match="no runtime"):
        limits["db"] = 1
    with pytest.raises(RuntimeError, match="no runtime"), record("nowhere"):
        pass
