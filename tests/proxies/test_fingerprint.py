"""Marks of values: equal as long as nothing was changed in place."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.proxies.fingerprint import Fingerprint
from mosaic_like.proxies.outputs import TaskOutput

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


class Handle:
    kind = 1

    def __init__(self, uid: int) -> None:
        self.uid = uid


class Task:
    def __init__(self, uid: int) -> None:
        self.uid = uid

    def __reference__(self) -> Any:
        return Handle(self.uid), ("task",)


@given(PLAIN)
def test_a_value_that_was_not_changed_has_the_same_mark(value: Any) -> None:
    assert Fingerprint(value) == Fingerprint(value)


@given(st.lists(st.integers(0, 9), min_size=1), st.data())
def test_a_change_anywhere_gives_another_mark(items: list[int], data: Any) -> None:
    array = np.array(items)
    value = {"list": items, "array": array}
    before = Fingerprint(value)
    place = data.draw(st.integers(0, len(items) - 1))
    if data.draw(st.booleans()):
        items[place] += 1
    else:
        array[place] += 1
    assert before != Fingerprint(value)


def test_numbers_that_compare_oddly_are_known_by_what_they_are() -> None:
    assert Fingerprint(float("nan")) == Fingerprint(float("nan"))
    assert Fingerprint(0.0) != Fingerprint(-0.0)
    assert Fingerprint(1) != Fingerprint(True)


def test_memory_that_nobody_can_write_is_known_by_its_place() -> None:
    array = np.ones(100_000)
    array.flags.writeable = False
    twin = array.copy()
    twin.flags.writeable = False
    assert Fingerprint(array) == Fingerprint(array)
    assert Fingerprint(array) != Fingerprint(twin)
    whole = np.ones(10)
    window = whole[2:]  # a view of what can be written is looked into
    window.flags.writeable = False
    before = Fingerprint(window)
    whole[3] = 5
    assert before != Fingerprint(window)


def test_the_parts_of_one_task_are_told_apart() -> None:
    make: Callable[[int, Any], Any] = lambda uid, key: TaskOutput(Task(uid), key)  # type: ignore[arg-type] # noqa: E731 -- a stand-in
    assert Fingerprint(make(1, 0)) == Fingerprint(make(1, 0))
    assert Fingerprint([make(1, 0)]) != Fingerprint([make(1, 1)])
    assert Fingerprint([make(1, 0)]) != Fingerprint([make(1, "0")])
    assert Fingerprint([make(1, 0)]) != Fingerprint([make(2, 0)])


def test_what_cannot_be_pickled_is_known_by_being_the_same() -> None:
    other = threading.Lock()
    assert Fingerprint(other) == Fingerprint(other)
    assert Fingerprint(other) != Fingerprint(threading.Lock())
