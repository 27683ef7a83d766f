"""Large values: what they need, the segments and chunks they travel in, their copies.

Small ones travel in the messages of ``calls``.
"""

from __future__ import annotations

import msgspec

from .payloads import Extra, Message, Place


class Define(Message, tag=40):
    digest: bytes
    blob: bytes


class Adopt(Message, tag=41):
    """Keep this segment open; uid 0: only tell whether you can open it."""

    uid: int
    place: Place
    used: int = 0  # bytes of its memory that were touched
    in_file: bool = False  # it is no memory, but a file


class Returned(Message, tag=42):
    """Nobody holds these segments any more: you may use their memory again."""

    uids: list[int]


class Locate(Message, tag=43):
    """I could not open this segment; where is it now?"""

    uid: int
    content: bool = False  # I can open nothing of yours: send what is in it


class Located(Message, tag=44):
    """The answer: a place, or its content beside the bytes, or why there is neither."""

    uid: int
    place: Place | None = None
    why: str = ""
    extra: Extra | None = None


class Ledger(Message, tag=48):
    """Before it says that it can open yours: count there what you have."""

    place: Place  # of the table of ``core.budget``
    row: int  # yours
    directory: str  # for files where memory is full; empty: none


class Spilled(Message, tag=49):
    """This segment is in a file now, and that is mine: let go of its memory."""

    uid: int
    place: Place
    device: int = 0  # of the segment, as it was
    inode: int = 0


class Copy(Message, tag=45):
    """Keep a copy of this published value, which is mine."""

    uid: int
    data: bytes
    extra: Extra | None = None


class Uncopy(Message, tag=46):
    """These are gone: forget your copies."""

    uids: list[int]


class Copied(Message, tag=47):
    """You can have these from me, who am on your host; or not any more."""

    uids: list[int]
    kept: bool


class Chunk(Message, tag=80):
    """A part of a buffer, in one frame beside the message."""

    transfer: int
    buffer: int  # index
    offset: int  # bytes


class Taken(Message, tag=81):
    """So many bytes of your chunks are off the link: send more."""

    nbytes: int


class Unwanted(Message, tag=82):
    """I do not need the rest of this transfer."""

    transfer: int


class KnownValue(msgspec.Struct, array_like=True, gc=False):
    """A large value, as its owner knows it, or a segment, as its warehouse does."""

    uid: int  # 0: it has none
    name: str = ""  # tessera and method, or the key
    size: int = 0  # bytes
    is_put: bool = False
    spilled: bool = False
    holders: list[int] = []  # incarnations
    segments: list[int] = []  # uids of those that it is in


class AskMemory(Message, tag=56):
    """Which large values are yours?"""

    round: int


class MemoryOf(Message, tag=57):
    """The answer."""

    round: int
    values: list[KnownValue]
    segments: list[KnownValue] = []  # of a warehouse, as all below
    used: list[int] = []  # bytes of memory and of files on the host
    limits: list[int] = []  # of these
