"""Tasks as JSON and back; no runtime."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
import served_tasks

import mosaic_like as mosaic


def test_to_json_and_from_json_give_the_same_task() -> None:
    task = served_tasks.double.options(
        timeout=5, on_state=served_tasks.bored, cache_key="inputs", delay=2
    )
    text = task.to_json()
    assert json.loads(text)["task"] == "served_tasks:double"
    again = mosaic.Task.from_json(text)
    assert again._options == task._options
    assert again.fn is task.fn
    assert again(3) == 6
    assert mosaic.Task.from_json(again.to_json())._options == task._options


def test_from_json_of_a_plain_function_makes_a_task_of_it() -> None:
    text = mosaic.task(served_tasks.plain).to_json()
    assert text == '{"task": "served_tasks:plain", "options": {}}'
    assert mosaic.Task.from_json(text).fn is served_tasks.plain


def test_to_json_of_a_by_value_function_is_a_value_error() -> None:
    def local() -> None: ...

    for fn in (local, lambda: None):
        with pytest.raises(ValueError, match="put it into a module"):
            mosaic.task(fn).to_json()


def test_to_json_of_an_option_that_has_no_name_is_a_value_error() -> None:
    task = served_tasks.double.options(cancel_if=lambda value: False)
    with pytest.raises(ValueError, match="'cancel_if'"):
        task.to_json()
    with pytest.raises(ValueError, match="'viz_value'"):
        served_tasks.double.options(viz_value=object()).to_json()


@pytest.mark.parametrize("key", ["no_such_module:f", "served_tasks:g", "x", ":", "a:"])
def test_from_json_of_an_unknown_task_is_a_lookup_error(key: str) -> None:
    with pytest.raises(LookupError, match="there is no"):
        mosaic.Task.from_json(json.dumps({"task": key, "options": {}}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"task": "a:b", "options": 3}'])
def test_from_json_of_something_else_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="to_json"):
        mosaic.Task.from_json(text)


def test_from_json_checks_options_as_the_decorator_does() -> None:
    text = '{"task": "served_tasks:plain", "options": {"max_retries": -1}}'
    with pytest.raises(ValueError, match="max_retries"):
        mosaic.Task.from_json(text)


@pytest.mark.parametrize(
    "options",
    [
        {"store": "somewhere", "serializer": "json", "store_key": "{parameters[x]}"},
        {"concurrency": mosaic.Concurrency(2, key=("x",), on_conflict="drop")},
        {"concurrency": mosaic.Concurrency(key=served_tasks.account)},
        {"retry_delay": mosaic.exponential_backoff(0.5, maximum=3)},
        {"cache_expiration": datetime.timedelta(days=3, microseconds=1)},
        {"cache_key": mosaic.input_hash(ignore=("x",))},
    ],
)
def test_options_that_are_plain_data_in_a_shape_of_ours_come_back(
    options: dict[str, Any],
) -> None:
    task = served_tasks.double.options(**options)
    text = task.to_json()
    again = mosaic.Task.from_json(text)
    assert again.to_json() == text
    for name in options:
        assert repr(getattr(again._options, name)) == repr(getattr(task._options, name))


def test_from_json_of_a_shape_that_is_not_ours_is_a_value_error() -> None:
    for option in ({"$made": "eval", "x": 1}, {"$made": "Concurrency", "no": 1}):
        text = json.dumps({"task": "served_tasks:plain", "options": {"store": option}})
        with pytest.raises(ValueError, match="to_json"):
            mosaic.Task.from_json(text)
