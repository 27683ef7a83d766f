"""Reads a tree, or a part of it, back from a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..types import Struct
from .layout import (
    DTYPE,
    MAPPINGS,
    MARK,
    SCALARS,
    SEQUENCES,
    Keys,
    Kind,
    at,
    key_of,
    kind_of,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def part(h5py: Any, group: Any, keys: Keys) -> Any:
    """The value at a path from the top.

    Raises:
        LookupError: there is none.
    """
    found = group
    for depth, key in enumerate(keys):
        here = keys[:depth]
        kind = kind_of(found, here)
        if kind in SEQUENCES and isinstance(found, h5py.Dataset):
            found = read(h5py, found, here)
            return _item(found, key, keys[depth + 1 :], here)
        name = ""
        if kind in MAPPINGS and isinstance(key, str):
            name = name_of(key)
        elif kind in SEQUENCES and isinstance(key, int):
            name = str(
                range(len(found))[key] if -len(found) <= key < len(found) else ""
            )
        if not name or name not in found:
            raise LookupError(
                f"there is no {at(keys[: depth + 1])}{_there(found, here)}"
            )
        found = found[name]
    return read(h5py, found, keys)


def _item(items: Sequence[Any], key: str | int, rest: Keys, path: Keys) -> Any:
    if rest or not isinstance(key, int) or not -len(items) <= key < len(items):
        raise LookupError(
            f"there is no {at((*path, key, *rest))}: {at(path)} has {len(items)} items"
        )
    return items[key]


def _there(found: Any, path: Keys) -> str:
    kind = kind_of(found, path)
    if kind in SEQUENCES:
        return f": {at(path)} has {len(found)} items"
    if kind in MAPPINGS:
        names = ", ".join(repr(key_of(name)) for name in list(found)[:10])
        return f": {at(path)} has {names or 'nothing'}"
    return f": {at(path)} has no parts ({kind})"


def read(h5py: Any, found: Any, path: Keys) -> Any:
    """An object of the file as the value that it was."""
    kind = kind_of(found, path)
    match kind:
        case Kind.DICT | Kind.STRUCT | Kind.WRITE_ONCE:
            members = {
                key: read(h5py, member, (*path, key)) for key, member in _members(found)
            }
            if kind is Kind.DICT:
                return members
            return (Struct if kind is Kind.STRUCT else Struct.write_once)(members)
        case Kind.LIST | Kind.TUPLE:
            make = list if kind is Kind.LIST else tuple
            if isinstance(found, h5py.Dataset):
                return make(_texts(h5py, found).tolist())
            return make(
                read(h5py, found[str(index)], (*path, index))
                for index in range(len(found))
            )
        case Kind.ARRAY:
            return _read_array(h5py, found)
        case Kind.NONE:
            return None
        case Kind.STR if found.shape:
            return found[()].tobytes().decode(errors="surrogatepass")
        case Kind.BYTES:
            return found[()].tobytes()
        case Kind.INT | Kind.FLOAT | Kind.BOOL | Kind.COMPLEX | Kind.STR:
            make_scalar = {k: t for t, k in SCALARS.items()}[kind]
            return make_scalar(_texts(h5py, found))


def _members(group: Any) -> Iterator[tuple[str, Any]]:
    for name in group:
        yield key_of(name), group[name]


def _texts(h5py: Any, found: Any) -> Any:
    """What a dataset holds, texts as str."""
    text = h5py.check_string_dtype(found.dtype)
    return found[()] if text is None else found.asstr()[()]


def _read_array(h5py: Any, found: Any) -> Any:
    import numpy

    text = h5py.check_string_dtype(found.dtype)
    # Fixed lengths are NumPy's own S; others, without our mark, are lists of texts.
    if text is not None and text.length is None:
        value = numpy.asarray(found.asstr(errors="surrogateescape")[()], object)
    else:
        value = found[...]  # and not [()], which loses the order of bytes
    dtype = found.attrs.get(DTYPE)
    if dtype is not None:
        value = value.astype(dtype)
    return value if found.shape or MARK in found.attrs else value[()]
