"""How a tree of dicts, lists and arrays stands in an HDF5 file.

What follows is also for those who read such a file by other programs. Nothing is read
or written here but the marks of single objects.

    dict, Struct            group, members by key, in their order
    list, tuple             group, members "0", "1", ...; of plain scalars of one kind,
                            and not empty: one dataset
    array, NumPy scalar     dataset; times are 64-bit integers, texts are UTF-8
    int, float, bool,
    complex, str            dataset without dimensions; an int beyond 64 bits is a text,
                            a text that HDF5 cannot hold is unsigned bytes
    bytes                   dataset of unsigned bytes
    None                    dataset without a value

The attribute ``mosaic`` of each is its kind, except for dicts, arrays and NumPy
scalars. So files that others made are read as dicts and arrays. In a key "/", "%", NUL,
a lone "." and what is no UTF-8 are "%" and four hex digits; an empty key is "%".
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Any

from ..types import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Keys = tuple[str | int, ...]  # a path in a tree, for errors

MARK = "mosaic"
DTYPE = "mosaic_dtype"  # NumPy's, where HDF5 has no such type

INT64 = range(-(1 << 63), 1 << 63)
_ESCAPED = re.compile("[/%\0\ud800-\udfff]|^\\.$")


class Kind(enum.StrEnum):
    """What an object of the file was in Python; these words stand in the file."""

    DICT = "dict"
    STRUCT = "struct"
    WRITE_ONCE = "write-once struct"
    LIST = "list"
    TUPLE = "tuple"
    ARRAY = "array"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    COMPLEX = "complex"
    STR = "str"
    BYTES = "bytes"
    NONE = "none"


MAPPINGS = (Kind.DICT, Kind.STRUCT, Kind.WRITE_ONCE)
SEQUENCES = (Kind.LIST, Kind.TUPLE)
SCALARS: Mapping[type, Kind] = {
    int: Kind.INT,
    float: Kind.FLOAT,
    bool: Kind.BOOL,
    complex: Kind.COMPLEX,
    str: Kind.STR,
    bytes: Kind.BYTES,
    type(None): Kind.NONE,
}


def at(path: Keys) -> str:
    """A place in a tree as one would write it: ``['model']['shots'][3]``."""
    return "".join(f"[{key!r}]" for key in path) or "the top"


def kind_of(found: Any, path: Keys) -> Kind:
    """What an object of the file was in Python."""
    kind = found.attrs.get(MARK)
    if kind is None:
        if not hasattr(found, "shape"):
            return Kind.DICT
        return Kind.NONE if found.shape is None else Kind.ARRAY
    try:
        return Kind(kind)
    except ValueError:
        raise OSError(
            f"{at(path)}: of kind {kind!r}, which a newer mosaic_like must have written"
        ) from None


def mark(group: Any, value: Mapping[str, Any]) -> None:
    """Say of a group what its mapping was."""
    if isinstance(value, Struct):
        is_once = value.__getstate__()[1]
        kind = Kind.WRITE_ONCE if is_once else Kind.STRUCT
        group.attrs[MARK] = kind.value


def name_of(key: str) -> str:
    return _ESCAPED.sub(lambda found: f"%{ord(found[0]):04x}", key) or "%"


def key_of(name: str) -> str:
    if name == "%":
        return ""
    return re.sub("%([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), name)


def is_text(value: str) -> bool:
    """HDF5 holds it: texts there end at the first NUL."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def kind_of_items(value: Sequence[Any]) -> Kind:
    return Kind.LIST if isinstance(value, list) else Kind.TUPLE


def is_flat(value: Sequence[Any]) -> bool:
    """One dataset can hold it."""
    if not value:
        return False
    kind = type(value[0])
    if kind not in (int, float, bool, complex, str):
        return False
    if any(type(item) is not kind for item in value):
        return False
    if kind is int:
        return all(item in INT64 for item in value)
    return kind is not str or all(map(is_text, value))
