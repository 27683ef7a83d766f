"""How things are named on the wire and for people.

The monitor numbers each start of each runtime: its *incarnation*, never used again
while the cluster lives. Every tessera and every task has one integer for its uid: the
incarnation of the runtime that made it, then a count. Both grow, so that of two uids
from one runtime the larger is the younger.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER_BITS = 40
INCARNATION_BITS = 23  # together 63: fits a signed 64-bit integer on the wire

# The monitor is there before anybody can number it.
MONITOR_INCARNATION = 1
MRUN = "mrun"  # its uid: a member that is no head, since it runs nothing itself

_SHORT = {"worker": "w", "helper": "h", "node": "n"}


def uids(incarnation: int) -> Iterator[int]:
    """All uids that the runtime of this incarnation may give, in order."""
    return itertools.count((incarnation << NUMBER_BITS) + 1)


def maker(uid: int) -> int:
    """The incarnation of the runtime that made this uid."""
    return uid >> NUMBER_BITS


def number(uid: int) -> int:
    """The count within the runtime that made this uid."""
    return uid & ((1 << NUMBER_BITS) - 1)


def short(runtime_uid: str) -> str:
    """How people see a runtime's uid.

    >>> short("worker:0:1"), short("node:0"), short("head")
    ('w0:1', 'n0', 'head')
    """
    kind, colon, indices = runtime_uid.partition(":")
    return _SHORT[kind] + indices if colon and kind in _SHORT else runtime_uid


def task_name(uid: int) -> str:
    """A uid as text, for errors and logs.

    >>> task_name((3 << NUMBER_BITS) + 17)
    '3-17'
    """
    return f"{maker(uid)}-{number(uid)}"
