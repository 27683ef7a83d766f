"""Values kept in a directory or an object: keys, bytes, and what is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like.errors import SerializationError
from mosaic_like.tasks.attempt import MISSING, KeptHere
from mosaic_like.tasks.storage import (
    DirectoryStore,
    JsonSerializer,
    Kept,
    PickleSerializer,
    key_from,
    serializer_of,
    store_of,
)


class Shelf(dict[str, bytes]):
    """The least that a store is."""

    def put(self, key: str, data: bytes) -> None:
        self[key] = data

    def get(self, key: str, default: Any = None) -> Any:
        return self[key]

    def delete(self, key: str) -> None:
        del self[key]


def test_a_value_is_written_whole_and_for_its_user_alone(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "values")
    store.put("a/b", b"one")
    store.put("a/b", b"two")
    file = tmp_path / "values" / "a" / "b"
    assert file.read_bytes() == b"two"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert os.listdir(file.parent) == ["b"]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a", b"one")
    with pytest.raises(TypeError):
        store.put("a", "no bytes")  # type: ignore[arg-type]  # the mistake
    assert store.get("a") == b"one"
    assert os.listdir(tmp_path) == ["a"]


def test_what_is_not_there_is_a_key_error(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    assert "a" not in store
    with pytest.raises(KeyError):
        store.get("a")
    with pytest.raises(KeyError):
        store.stored_at("a")
    store.delete("a")


@pytest.mark.parametrize(
    "key",
    ["", "..", "../a", "a/../../b", "/etc/passwd", "a//b", "a/.", "a\0", "x" * 300],
)
def test_a_key_outside_the_store_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="store_key"):
        DirectoryStore(tmp_path).put(key, b"")


def test_a_key_that_leads_out_by_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads out of the store"):
        DirectoryStore(tmp_path / "store").put("link/a", b"")


@settings(deadline=None)
@given(st.text(max_size=30))
def test_no_key_ever_leads_out(key: str) -> None:
    store = DirectoryStore("/nowhere/store")
    try:
        file = store.file(key)
    except (ValueError, UnicodeEncodeError):
        return
    assert Path(os.path.normpath(file)).is_relative_to("/nowhere/store")
    assert file != store.path


def test_a_store_is_a_path_or_has_four_methods(tmp_path: Path) -> None:
    assert isinstance(store_of(str(tmp_path)), DirectoryStore)
    assert isinstance(store_of(tmp_path), DirectoryStore)
    shelf = Shelf()
    assert store_of(shelf) is shelf
    assert store_of(None) is None


@pytest.mark.parametrize("bad", [3, object(), Shelf])
def test_what_is_no_store_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="option 'store'"):
        store_of(bad)


@pytest.mark.parametrize(("bad", "kind"), [("yaml", ValueError), (3, TypeError)])
def test_what_is_no_serializer_is_refused(bad: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="option 'serializer'"):
        serializer_of(bad)


@pytest.mark.parametrize("serializer", [PickleSerializer(), JsonSerializer()])
def test_a_value_comes_back_as_it_was(serializer: Any) -> None:
    kept = Kept(Shelf(), "k", serializer)
    kept.write({"a": [1, "ü", None]}, "f")
    assert kept.read() == {"a": [1, "ü", None]}


def test_a_function_of_a_script_can_be_pickled() -> None:
    kept = Kept(Shelf(), "k", PickleSerializer())
    kept.write(lambda x: x + 1, "f")
    assert kept.read()(1) == 2


def test_a_value_that_the_serializer_cannot_say_is_named() -> None:
    with pytest.raises(SerializationError, match=r"value of f, a set.*'json'"):
        Kept(Shelf(), "k", JsonSerializer()).write({1}, "f")


def test_a_stored_value_is_there_until_it_expires(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    kept = Kept(store, "k", PickleSerializer())
    assert not kept.is_there(0.0, None)
    kept.write(1, "f")
    os.utime(store.file("k"), (100.0, 100.0))
    assert kept.is_there(1e12, None)
    assert kept.is_there(104.0, 5.0)
    assert not kept.is_there(105.0, 5.0)


@pytest.mark.parametrize("serializer", [PickleSerializer(), JsonSerializer()])
def test_a_value_that_cannot_be_read_is_a_miss(serializer: Any) -> None:
    shelf = Shelf()
    kept = Kept(shelf, "k", serializer)
    here = KeptHere(kept, None, may_read=True)
    assert here.read() is MISSING
    kept.write(1, "f")
    assert here.read() == 1
    assert KeptHere(kept, None, may_read=False).read() is MISSING
    for spoiled in (b"", b"spoiled", b"{", b"\x80\x05"):
        shelf["k"] = spoiled
        assert here.read() is MISSING


@pytest.mark.parametrize("key", ["k", "a/b", "x" * 255])
def test_a_value_of_another_call_under_the_same_key_is_a_miss(
    tmp_path: Path, key: str
) -> None:
    store = DirectoryStore(tmp_path)

    def kept(owner: str | None) -> Kept:
        return Kept(store, key, JsonSerializer(), owner)

    def read(owner: str) -> Any:
        return KeptHere(kept(owner), None, may_read=True).read()

    kept("one").write(1, "f")
    assert store.get(key) == b"1", "what is beside a value is not in it"
    assert (read("one"), read("two")) == (1, MISSING)
    kept("two").write(2, "f")
    assert (read("one"), read("two")) == (MISSING, 2)
    kept(None).write(3, "f")
    assert read("two") is MISSING, "whoever wrote has not said whose it is"


def test_a_value_that_another_wrote_in_between_is_a_miss() -> None:
    shelf = Shelf()
    kept = Kept(shelf, "k", JsonSerializer(), "one")
    kept.write(1, "f")
    shelf["k"] = b"2"  # and whose it is comes next
    with pytest.raises(LookupError, match="another call"):
        kept.read()


@pytest.mark.parametrize("error", [OSError(13, "no"), RuntimeError("no")])
def test_a_store_that_cannot_be_written_is_named_with_the_task(
    error: Exception,
) -> None:
    class Full(Shelf):
        def put(self, key: str, data: bytes) -> None:
            raise error

        def __repr__(self) -> str:
            return "<the full shelf>"

    with pytest.raises(type(error)) as caught:
        Kept(Full(), "k", JsonSerializer()).write(1, "load")
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert "value of load cannot be kept in store=<the full shelf>" in text


def test_a_store_that_cannot_be_asked_has_nothing() -> None:
    class Broken(Shelf):
        def __contains__(self, key: object) -> bool:
            raise OSError("no network")

    assert not Kept(Broken(), "k", PickleSerializer()).is_there(0.0, None)


def test_a_store_key_is_made_of_parameters_and_info() -> None:
    found = key_from(
        "{info.name}/{parameters[x]}-{parameters.x:03d}", {"x": 7}, {"name": "f"}
    )
    assert found == "f/7-007"


@pytest.mark.parametrize("template", ["{parameters[y]}", "{y}", "{info.y}", "{}"])
def test_a_store_key_of_what_is_not_there_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="mentions"):
        key_from(template, {"x": 1}, {"name": "f"})
