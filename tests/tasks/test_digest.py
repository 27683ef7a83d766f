"""Digests of values: equal where the values are, the same in every process."""

from __future__ import annotations

import abc
import dataclasses
import datetime
import enum
import functools
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mosaic_like.tasks.digest import Unhashable, digest_of

CASES = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@dataclasses.dataclass
class Point:
    x: float
    y: float


def _copied(value: Any) -> Any:
    """Equal, with its dicts the other way round."""
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in reversed(value.items())}
    if isinstance(value, list | tuple):
        return type(value)(map(_copied, value))
    return value


@CASES
@given(PLAIN)
def test_the_order_of_a_dict_does_not_count(value: Any) -> None:
    assert digest_of(value) == digest_of(_copied(value))


@CASES
@given(PLAIN, PLAIN)
def test_values_that_look_different_have_different_digests(one: Any, two: Any) -> None:
    assert (digest_of(one) == digest_of(two)) == (digest_of([one]) == digest_of([two]))
    if repr(_sorted(one)) != repr(_sorted(two)):
        assert digest_of(one) != digest_of(two)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _sorted(value[k]) for k in sorted(value)}
    if isinstance(value, list | tuple):
        return type(value)(map(_sorted, value))
    return value


def test_sharing_one_object_does_not_count() -> None:
    part = [1, 2]
    assert digest_of([part, part]) == digest_of([[1, 2], [1, 2]])


def test_a_value_in_itself_has_a_digest() -> None:
    one: list[Any] = [1]
    one.append(one)
    two: list[Any] = [1]
    two.append(two)
    assert digest_of(one) == digest_of(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ([1, 2], (1, 2)),
        (["ab", "c"], ["a", "bc"]),
        ([[1], 2], [[1, 2]]),
        ({1}, frozenset({1})),
        (1, True),
        (b"a", bytearray(b"a")),
        (Point(1, 2), Point(2, 1)),
        (np.zeros(4), np.zeros((2, 2))),
        (np.zeros(4), np.zeros(4, "f4")),
        (np.float64(1), 1.0),
        (Path("a"), "a"),
        (len, max),
    ],
)
def test_what_is_not_the_same_differs(one: Any, two: Any) -> None:
    assert digest_of(one) != digest_of(two)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Point(1.0, 2.0),
        lambda: datetime.datetime(2020, 1, 2),
        lambda: np.arange(6).reshape(2, 3),
        lambda: np.arange(12).reshape(3, 4).T[::2],
        lambda: np.array([{"a": 1}, None], dtype=object),
        lambda: np.array(["2020-01-01"], dtype="datetime64[D]"),
        lambda: np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]),
        lambda: range(3),
        lambda: {Path("a"), Path("b")},
        lambda: Point,
        lambda: [len, "".join],
    ],
)
def test_what_is_made_twice_alike_has_one_digest(make: Any) -> None:
    assert digest_of(make()) == digest_of(make())


def test_code_counts_and_its_place_does_not() -> None:
    def compiled(source: str, file: str) -> Any:
        scope: dict[str, Any] = {}
        exec(compile(source, file, "exec"), scope)
        return scope["f"]

    one = compiled("def f(x): return x + 1", "a.py")
    assert digest_of(one) == digest_of(compiled("\n\ndef f(x): return x + 1", "b.py"))
    assert digest_of(one) != digest_of(compiled("def f(x): return x + 2", "a.py"))
    assert digest_of(one) != digest_of(compiled("def f(x=1): return x + 1", "a.py"))


def test_closures_count_by_what_is_in_them() -> None:
    def adder(n: int) -> Any:
        return lambda x: x + n

    assert digest_of(adder(1)) == digest_of(adder(1))
    assert digest_of(adder(1)) != digest_of(adder(2))


def _with_attribute(v: Any) -> type:
    class Params:
        lr = v

    return Params


def _with_property(v: Any) -> type:
    class Params:
        @property
        def lr(self) -> Any:
            return v

    return Params


def _with_cached_property(v: Any) -> type:
    class Params:
        @functools.cached_property
        def lr(self) -> Any:
            return v

    return Params


def _with_base(v: Any) -> type:
    class Inner(_with_attribute(v)):  # type: ignore[misc]  # a class made here
        pass

    return Inner


def _dataclass(v: Any) -> type:
    @dataclasses.dataclass
    class Params:
        lr: float = v
        more: list[int] = dataclasses.field(default_factory=list)

    return Params


def _enum(v: Any) -> type:
    class Kind(enum.Enum):
        ONE = v

    return Kind


def _abstract(v: Any) -> type:
    class Params(abc.ABC):  # noqa: B024 -- what matters is what ABC keeps there
        __slots__ = ("x",)
        lr = v

    return Params


def _in_a_cycle(v: Any) -> type:
    class One:
        lr = v

    class Two:
        one = One

    One.two, One.me = Two, One()  # type: ignore[attr-defined]  # as it may be
    return One


@pytest.mark.parametrize(
    "make",
    [
        _with_attribute,
        _with_property,
        _with_cached_property,
        _with_base,
        _dataclass,
        _enum,
        _abstract,
        _in_a_cycle,
    ],
)
def test_all_of_a_class_that_travels_by_value_counts(make: Any) -> None:
    assert digest_of(make(1)) == digest_of(make(1))
    assert digest_of(make(1)) != digest_of(make(2))
    if make is not _enum:
        one, same, other = (make(v).__new__(make(v)) for v in (1, 1, 2))
        assert digest_of(one) == digest_of(same) != digest_of(other)


def test_a_class_has_one_digest_wherever_it_is_mentioned() -> None:
    def kinds() -> list[type]:
        return [_in_a_cycle(1), _with_base(2), _dataclass(3)]

    one, two = kinds(), kinds()
    assert digest_of([one, set(one), one[0]]) == digest_of([two, set(two), two[0]])


def test_a_lock_of_a_class_is_refused_with_the_name_of_the_class() -> None:
    with pytest.raises(Unhashable, match=r"the class .*Params: a lock"):
        digest_of(_with_attribute(threading.Lock()))


def test_a_function_that_calls_itself_has_a_digest() -> None:
    def outer() -> Any:
        def inner(n: int) -> int:
            return inner(n - 1) if n else 0

        return inner

    assert digest_of(outer()) == digest_of(outer())


@pytest.mark.parametrize("value", [threading.Lock(), (n for n in [1]), sys._getframe()])
def test_what_has_no_content_is_refused_by_name(value: Any) -> None:
    with pytest.raises(Unhashable, match=type(value).__name__):
        digest_of([{"deep": value}])


def test_a_lock_in_a_closure_is_refused_with_the_name_of_the_variable() -> None:
    lock = threading.Lock()

    def locked() -> None:
        lock.acquire()

    with pytest.raises(Unhashable, match=r"'lock' of .*locked"):
        digest_of(locked)


def test_what_is_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Unhashable, match="nested"):
        digest_of(deep)
    while deep:  # or freeing it would recurse
        deep = deep.pop()


def test_another_process_gets_the_same_digest() -> None:
    code = (
        "from pathlib import Path\n"
        "from mosaic_like.tasks.digest import digest_of\n"
        "print(digest_of([{'a', 'b', 'c'}, {'x': Path('y')}, lambda n: n in {'p', 'q'},"
        " len]))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
