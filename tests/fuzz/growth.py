"""What a runtime has in its tables, found without knowing them.

All containers that hang on attributes of the package's own objects are measured, so a
table that somebody adds tomorrow is watched too.
"""

from __future__ import annotations

from collections import deque
from typing import Any

_CONTAINERS = (dict, list, set, deque, bytearray)
_OWN = "mosaic_like"
_NOT_INTO = ("Config", "Logger")


def sizes(root: Any) -> dict[str, int]:
    """The length of each container, by the path of attributes that leads to it."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    waiting: deque[tuple[str, Any]] = deque([("", root)])
    while waiting:
        path, thing = waiting.popleft()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        for name, value in _attributes(thing):
            where = f"{path}.{name}" if path else name
            if isinstance(value, _CONTAINERS):
                if id(value) not in seen:
                    seen.add(id(value))
                    found[where] = len(value)
            elif _is_own(value):
                waiting.append((where, value))
    return found


def grown(
    before: dict[str, int], after: dict[str, int], allowed: set[str]
) -> list[str]:
    """What is larger than it was, but for paths that end with one of these names."""
    return [
        f"{path}: {before.get(path, 0)} -> {size}"
        for path, size in after.items()
        if size > before.get(path, 0) and path.rpartition(".")[2] not in allowed
    ]


def _is_own(value: Any) -> bool:
    kind = type(value)
    if isinstance(value, type) or kind.__name__ in _NOT_INTO:
        return False
    return kind.__module__.partition(".")[0] == _OWN


def _attributes(thing: Any) -> list[tuple[str, Any]]:
    pairs = list(getattr(thing, "__dict__", {}).items())
    for cls in type(thing).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__weakref__", "__dict__"):
                value = getattr(thing, name, None)
                if value is not None:
                    pairs.append((name, value))
    return pairs
