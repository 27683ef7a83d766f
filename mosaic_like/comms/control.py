"""Control messages: those that carry no value, and how large one may be.

Values have limits of their own (memory, files, credits), and some messages have a
number for each object of a program. All others are short by what they are; the names,
keys, tags and reasons in them are bounded where they are given. A longer one comes from
nobody who is honest: it is dropped by who receives it, before a table keeps it.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any

import msgspec

from . import messages as wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Fields whose size is that of a value, a class, or what a worker has left.
_LARGE_FIELDS = ("data", "extra", "blob", "remains", "error")
# What people's code has printed or raised.
_TEXTS = frozenset(
    {wire.Output, wire.Closed, wire.Retire, wire.Retired, wire.Broke, wire.Ending}
)
# Their lists are as long as a cluster is large, a task has tags, or a circle hops.
_SHORT_LISTS = frozenset({wire.LossSeen, wire.SeenBy, wire.TakeSlots, wire.Waiting})


def is_control(kind: type[wire.Message]) -> bool:
    """Whether messages of a kind carry no value, no text of others and no long list."""
    fields = msgspec.structs.fields(kind)
    has_list = any(typing.get_origin(field.type) is list for field in fields)
    return not (
        kind in _TEXTS
        or any(field.name in _LARGE_FIELDS for field in fields)
        or (has_list and kind not in _SHORT_LISTS)
    )


CONTROL: frozenset[Any] = frozenset(
    filter(is_control, typing.get_args(wire.AnyMessage))
)


def oversized(batch: Sequence[Any], limit: int) -> Iterator[tuple[int, int]]:
    """The control messages of a batch that are too large: index and bytes.

    Args:
        batch: that has come; only one of more bytes than the limit can have any.
        limit: bytes of each, as they travel.
    """
    for index, message in enumerate(batch):
        if type(message) in CONTROL:
            nbytes = len(wire.encode([message]))
            if nbytes > limit:
                yield index, nbytes
