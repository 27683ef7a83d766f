"""Who is in the cluster: joining, being lost, leaving, ending; and what they print.

What is inherited from one that leaves is in ``holding``.
"""

from __future__ import annotations

import msgspec

from .payloads import Message

# How an incarnation ended that is Lost.
DIED = 0
LEFT = 1  # in order
LEFT_LATE = 2  # in order, but calls were cancelled that had not ended in time


class Member(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A runtime of the cluster, as the monitor announces it."""

    incarnation: int
    uid: str  # head, monitor, node:0, worker:0:1, helper:0:0, warehouse:0
    token: bytes  # its random identity on the links
    address: str  # where its ROUTER is bound
    host: str
    pid: int
    tcp: str = ""  # where it is bound for other hosts; empty: nowhere
    machine: str = ""  # the same where sockets and memory are shared: core.reach


class Hello(Message, tag=1):
    """A runtime asks to join."""

    protocol: int
    python: str  # major.minor
    kind: str  # head, node, worker, helper, warehouse
    uid: str  # asked for; empty: the monitor chooses
    token: bytes
    address: str
    host: str
    pid: int
    tcp: str = ""  # this and the next as of Member
    machine: str = ""


class Welcome(Message, tag=2):
    """The answer to Hello: who you are and who is here."""

    me: Member
    members: list[Member]
    settings: bytes  # msgpack of what all runtimes of the cluster share
    # For a node that was not started by the program: where that finds its modules.
    path: list[str] = []
    cwd: str = ""


class Refused(Message, tag=3):
    """The answer to a Hello that cannot be let in."""

    why: str


class Joined(Message, tag=4):
    member: Member


class Lost(Message, tag=6):
    """An incarnation will never be heard again: it ended, in order or not."""

    incarnation: int
    uid: str
    cause: str
    remains: bytes = b""  # of a worker, see core.verdicts
    left: int = DIED
    heir: int = 0  # of one that has left: who owns now what it owned; 0: nobody


class LossSeen(Message, tag=7):
    """I drop what the lost one sent, and have said all that I hold from it."""

    incarnation: int
    tell: list[int] = []  # the monitor: owners to which I never said a thing


class SeenBy(Message, tag=9):
    """These have said LossSeen, by way of the monitor: see core.relays."""

    incarnation: int
    runtimes: list[int]


class Drain(Message, tag=58):
    """Let this runtime leave in order: a worker, or a node with all that is on it."""

    incarnation: int
    timeout_s: float | None  # that its calls have; None: as long as they take
    replace: bool = False  # nobody asked the cluster for one less


class Leaving(Message, tag=5):
    """It will leave: put nothing there any more, and say so to it."""

    incarnation: int
    timeout_s: float | None
    replace: bool = False


class LeavingSeen(Message, tag=8):
    """I put nothing there any more, nor tell who holds what: your heir will hear it."""

    up_to: int  # later calls of mine than this one were made knowing it


class Exited(Message, tag=50):
    """A node: this child of mine has ended."""

    uid: str
    pid: int
    how: str  # killed by SIGKILL, exit status 3
    remains: bytes = b""  # of a worker, see core.verdicts
    left: int = DIED  # this and the next as of Lost
    heir: int = 0


class Stop(Message, tag=51):
    """End in order: to the monitor, all of the cluster; to others, yourself."""

    why: str
    hurry: bool = False  # nobody waits for it any more: the program has died
    orphaned: bool = False  # the monitor is gone: who waits gets MonitorLost


class Beat(Message, tag=53):
    """I am still there; between the monitor and members on other hosts."""


class Stopped(Message, tag=52):
    """All that I had to stop has stopped."""

    lines: list[str]  # what could not be closed, for people
    why: str = ""  # if nobody had asked for it


class Output(Message, tag=60):
    stream: int  # 1 standard output, 2 standard error, 3 the log of the head, 4 records
    label: str  # who printed it, such as w0:1 Counter#1
    text: str  # whole lines
