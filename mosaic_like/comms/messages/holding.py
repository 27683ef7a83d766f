"""Who holds what: references that are dropped, sent on, counted anew or inherited."""

from __future__ import annotations

from .payloads import Extra, Message


class Release(Message, tag=30):
    """I have dropped these tasks and tesserae that I made myself."""

    uids: list[int]


class ReleaseGrants(Message, tag=31):
    """I have dropped these, each of which was granted to me by a runtime."""

    grants: list[tuple[int, int]]  # uid, granter


class Retain(Message, tag=32):
    """I send a reference to it to this holder."""

    uid: int
    holder: int


class Holding(Message, tag=33):
    """After a loss: I hold so many grants of it that came from the lost one."""

    uid: int
    granter: int
    count: int


class Inherit(Message, tag=37):
    """This task of mine has ended, and is yours from now on."""

    uid: int
    reason: int  # of its failure; NO_FAILURE: it has a value
    data: bytes
    extra: Extra | None = None


class HeldBy(Message, tag=38):
    """Who holds what you inherit, as of when nobody told me any more: all of it."""

    counts: list[tuple[int, list[tuple[int, int, int]]]]  # uid: holder, granter, count
    lost: list[int] = []  # granters among these that I know to be lost


class Inherited(Message, tag=39):
    """I have all of it."""
