"""What the monitor keeps for all: which names are taken, and which slots."""

from __future__ import annotations

import msgspec

from .payloads import Message


class NameEntry(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A name that is taken."""

    name: str
    cls: str  # module and qualified name
    owner: int  # incarnation; 0 while it is being made
    detached: bool


class Claim(Message, tag=70):
    """I want the tessera of this name; if there is none I make it, with this uid."""

    name: str
    cls: str  # module and qualified name
    tessera: int
    detached: bool
    restarts: bool = False  # it is built again, and its maker answers for it


class Claimed(Message, tag=71):
    """The answer: make it, you hold that one, or why not."""

    claim: int  # uid of the Claim
    tessera: int
    owner: int  # 0: you are to make it
    built: bool = False
    why: str = ""


class Named(Message, tag=72):
    """The tessera of a name has come to me."""

    name: str
    tessera: int


class Unnamed(Message, tag=73):
    """The tessera of a name is gone, or will never be."""

    name: str
    tessera: int


class Share(Message, tag=74):
    """Let this runtime hold your tessera of that name."""

    name: str
    tessera: int
    holder: int
    claim: int


class Shared(Message, tag=75):
    """It holds it."""

    name: str
    tessera: int
    claim: int
    built: bool  # its constructor has ended


class AskNames(Message, tag=76):
    """Which names are taken?"""


class Names(Message, tag=77):
    """The answer."""

    entries: list[NameEntry]


OF_TAG = -1  # or less: as many slots as ``limits`` gives this tag


class Slot(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One of the slots of a name; see ``core.slots``."""

    name: str
    limit: int = OF_TAG


class TakeSlots(Message, tag=90):
    """I want these for a task of mine, all together."""

    number: int  # which no other request of mine has
    wants: list[Slot]
    wait: bool  # until they are free


class TakenSlots(Message, tag=91):
    """The answer: you have them, or not all are free."""

    number: int
    taken: bool


class FreeSlots(Message, tag=92):
    """These requests are over, whether they were answered or not."""

    numbers: list[int]


class SetLimit(Message, tag=93):
    """A tag has so many slots; None: as many as are wanted."""

    name: str
    limit: int | None
