"""``Struct``: an attribute dictionary that may be write-once."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.types import Struct

_TREES = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
        ),
        max_leaves=10,
    ),
    max_size=4,
)


def test_a_field_is_an_attribute_and_an_item() -> None:
    s = Struct(a=1)
    s.b = 2
    s["c"] = 3
    assert (s["a"], s.b, s.c) == (1, 2, 3)
    del s.a
    del s["b"]
    assert s == {"c": 3}
    assert list(s) == ["c"]
    assert "c" in s
    assert len(s) == 1


def test_it_is_a_mapping_wherever_one_is_taken() -> None:
    s = Struct({"a": 1}, [("b", 2)], b=3)
    assert dict(s) == {"a": 1, "b": 3}
    assert dict(**s) == dict(s)
    s.update({"a": 5}, c=6)
    assert s.pop("c") == 6
    assert s.get("c", 7) == 7
    assert s.setdefault("d", 8) == 8
    assert list(s.items()) == [("a", 5), ("b", 3), ("d", 8)]


def test_dicts_become_structs_wherever_they_are_put_in() -> None:
    s = Struct(a={"b": {"c": 1}}, rows=[{"plain": True}])
    assert s.a.b.c == 1
    assert type(s.rows[0]) is dict
    s.d = {"e": 2}
    assert s.d.e == 2
    s.setdefault("f", {}).g = 3
    assert s.f.g == 3
    s.numbered = {1: "one"}  # no string keys: it stays what it is
    assert type(s.numbered) is dict


def test_names_of_methods_can_be_fields_as_items() -> None:
    s = Struct(items=3, self=4, keys=5, write_once=6)
    assert (s["items"], s.self, s["keys"], s["write_once"]) == (3, 4, 5, 6)
    assert dict(s) == {"items": 3, "self": 4, "keys": 5, "write_once": 6}
    assert Struct(s) == s
    with pytest.raises(AttributeError, match=r"s\['items'\] = "):
        setattr(s, "items", 4)  # noqa: B010 - mypy knows that it is a method
    s.register = 7  # a name of its metaclass is free
    assert s.register == 7


def test_a_field_that_is_not_there_is_told_with_those_that_are() -> None:
    s = Struct(velocity=1)
    with pytest.raises(AttributeError, match="no field 'velocty'; there are 'velo"):
        _ = s.velocty
    with pytest.raises(KeyError, match="there are 'velocity'"):
        _ = s["velocty"]
    with pytest.raises(AttributeError, match="no field 'x'"):
        del s.x
    with pytest.raises(KeyError, match="it has none"):
        del Struct()["x"]
    assert not hasattr(s, "x")
    assert getattr(s, "x", 0) == 0


def test_a_key_that_is_no_string_is_refused() -> None:
    with pytest.raises(TypeError, match="strings, found 1"):
        Struct({1: 2})  # type: ignore[arg-type] # what is tested


def test_a_write_once_field_is_neither_changed_nor_deleted() -> None:
    s = Struct.write_once(a=1, deep={"b": 2})
    s.c = 3
    for change in (
        lambda: setattr(s, "a", 2),
        lambda: s.update(c=4),
        lambda: s.pop("a"),
        lambda: s.clear(),
        lambda: delattr(s, "a"),
        lambda: setattr(s.deep, "b", 3),
    ):
        with pytest.raises(ValueError, match=r"write-once Struct .*make a new one"):
            change()
    assert s == {"a": 1, "deep": {"b": 2}, "c": 3}
    with pytest.raises(ValueError, match="'a' of a write-once Struct is set already"):
        Struct.write_once({"a": 1}, a=2)
    s.setdefault("a", 5)  # it is there: nothing is set


def test_a_copy_by_the_constructor_can_be_changed() -> None:
    s = Struct.write_once(a=1)
    changed = Struct(s, a=2)
    assert (s.a, changed.a) == (1, 2)
    changed.a = 3


@pytest.mark.parametrize("once", [False, True])
def test_copies_share_no_fields_and_keep_their_kind(once: bool) -> None:
    class Grid(Struct):
        shape: tuple[int, int]

    make = Grid.write_once if once else Grid
    s = make(shape=(1, 2), rows=[1])
    for made in (s.copy(), copy.copy(s), copy.deepcopy(s)):
        assert type(made) is Grid
        assert made == s
        made.new = 1
        assert "new" not in s
        assert repr(made).startswith("Grid.write_once(" if once else "Grid(")
    assert copy.copy(s).rows is s.rows
    assert copy.deepcopy(s).rows is not s.rows


@given(_TREES)
def test_it_is_equal_after_pickling_and_as_a_dict(tree: dict[str, Any]) -> None:
    for s in (Struct(tree), Struct.write_once(tree)):
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            back = pickle.loads(pickle.dumps(s, protocol))
            assert back == s
            assert repr(back) == repr(s)
        assert s.to_dict() == tree
        assert type(s.to_dict()) is dict


def test_one_that_holds_itself_can_be_shown_and_pickled() -> None:
    s = Struct()
    s.me = s
    assert repr(s) == "Struct(me=...)"
    back = pickle.loads(pickle.dumps(s))
    assert back.me is back


def test_completion_offers_fields_that_can_be_written_with_a_dot() -> None:
    names = dir(Struct({"a": 1, "not a name": 2}))
    assert "a" in names
    assert "not a name" not in names
    assert repr(Struct({"not a name": 2})) == "Struct({'not a name': 2})"
