"""Arguments that are plain, or tasks themselves: the common call of a graph.

They need no pickle: the plain ones go through marshal as always, and where a task
stood, its place and the index of its reference are noted beside them. The bytes begin
with ``DIRECT``, as no pickle and nothing of marshal does.
"""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any

from .gathering import Handle, Payload, Referent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DIRECT = 1
_DIRECT = bytes((DIRECT,))


def dump(args: tuple[Any, ...]) -> Payload:
    """The payload of arguments that are plain or Referents that stand for a value."""
    values: list[Any] = []
    places: list[tuple[int, int]] = []
    handles: list[Handle] = []
    known: dict[int, int] = {}  # uid: index
    for value in args:
        if isinstance(value, Referent):
            handle = value.__reference__()[0]
            index = known.setdefault(handle.uid, len(handles))
            if index == len(handles):
                handles.append(handle)
            places.append((len(values), index))
            value = None  # marshal cannot take what it stands for
        values.append(value)
    data = _DIRECT + marshal.dumps((values, places), 2)
    return Payload(data, tuple(handles))


def load(
    data: bytes, arguments: Sequence[Any], value_of: Callable[[Any], Any]
) -> list[Any]:
    """The arguments; ``value_of`` gives the value of one of those that are tasks."""
    values: list[Any]
    values, places = marshal.loads(data[1:])
    for place, index in places:
        values[place] = value_of(arguments[index])
    return values
