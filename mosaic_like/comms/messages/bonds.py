"""Messages between those who answer for tesserae that end together; see core.bonds."""

from __future__ import annotations

from .payloads import Message


class Bind(Message, tag=106):
    """Your tessera is to end when that one fails: who binds says it to both sides."""

    uid: int
    other: int
    owner: int  # incarnation of who answers for the other
    label: str  # of the other, for people
    answer: bool = True  # tell the other side that you have heard it


class Broke(Message, tag=107):
    """My tessera has failed: end yours."""

    uid: int  # yours
    other: int
    why: str


class Unbound(Message, tag=108):
    """My tessera was closed: it is bound to yours no longer."""

    uid: int  # yours
    other: int
