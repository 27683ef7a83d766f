"""Where a tessera or a task is now that was built or made again elsewhere."""

from __future__ import annotations

from .payloads import Extra, Message


class Find(Message, tag=100):
    """Where is this tessera of yours, that is built again? Tell me when it moves."""

    uid: int


class Moved(Message, tag=101):
    """It is there; told again when it is built."""

    uid: int
    life: int
    tessera: int  # its uid in this life
    owner: int  # incarnation
    built: bool


class Ended(Message, tag=102):
    """It will not be built again."""

    uid: int
    error: bytes
    closed: bool = False  # there is its last life, which answers for itself


class Closed(Message, tag=103):
    """This life of your tessera was closed: do not build another."""

    uid: int
    life: int
    why: str = ""  # it was ended by something else than its users
    # If another follows: what has started, as core.verdicts has it.
    remains: bytes = b""


class Retire(Message, tag=109):
    """End this life of my tessera, as a kill does, and say when it is Closed."""

    tessera: int  # its uid in this life
    why: str
    again: bool = False  # another life follows, which wants its checkpoints


class Retired(Message, tag=113):
    """This life of my tessera ends, and another one follows: wait for that.

    Told twice: when it is to end, and when it has. Who hears of its loss is not told.
    """

    uid: int
    life: int
    why: str
    over: bool = False
    remains: bytes = b""  # then: what had started, as Closed says it


class Save(Message, tag=114):
    """Write down all tesserae with you that are built again: our job is to end."""


class Saved(Message, tag=115):
    """The answer."""

    lines: list[str]  # for people: where each of them is


class Seek(Message, tag=104):
    """Where is this task of yours, now that its owner is lost?"""

    uid: int
    lost: int  # incarnation of that


class Keep(Message, tag=116):
    """I hold these tasks of yours that the lost one had: I may ask where they are."""

    uids: list[int]
    lost: int  # incarnation of that
    dropped: bool = False  # I hold them no longer


class Resent(Message, tag=105):
    """The answer: it is mentioned by what comes with this, or nowhere."""

    uid: int
    extra: Extra | None = None
    ended: bool = False  # as was told right before this
