"""What calls wait for, chains of such waits, and when no call is on its way."""

from __future__ import annotations

import msgspec

from .payloads import Message


class Waits(Message, tag=23):
    """A call waits for memory for its arguments, or does not any more."""

    uid: int
    waits: bool


class Hop(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A call that waits for the next one in a chain; see ``core.cycles``."""

    uid: int
    at: int  # incarnation of the runtime where it is
    kind: int
    stamp: int  # of the wait, if it is one
    tessera: int
    certain: bool
    depth: int  # inside how many calls it was made
    name: str  # of tessera and method


class Waiting(Message, tag=21):
    """What a call waits for, at last or by way of others, is this call."""

    uid: int
    asker: int  # incarnation of the runtime where the first one is
    number: int  # of its rounds
    strict: bool  # look closer at what is certain
    hops: list[Hop]  # from the first one to here


class Circle(Message, tag=24):
    """A chain has led back to where it began: end the wait, or run the call."""

    uid: int
    stamp: int = 0  # of the wait that raises CycleError
    top: int = 0  # instead: the call that blocks the main thread, on which it is to run
    text: str = ""


class Quiesce(Message, tag=54):
    """Answer when no call is on its way that was made inside mine up to this one."""

    round: int
    up_to: int


class Quiet(Message, tag=55):
    """The answer: how many such calls I have made since you first asked."""

    round: int
    made: int


class Still(Message, tag=61):
    """The call on my thread for plain methods stands still, or does no longer."""

    for_s: float | None  # since it began; None: none does
    behind: list[int] = []  # incarnations of the submitters of tasks that lie behind it


class Helped(Message, tag=62):
    """You may submit function tasks to this runtime, too, or no longer."""

    helper: int  # incarnation
    may: bool
