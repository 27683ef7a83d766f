"""Tesserae and their calls, from Create to how a call ends, and function tasks.

How what a call waits for is followed is in ``waiting``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from .payloads import Extra, Filled, Message

# How a plain method that runs is stopped.
FLAG = 0  # it is to look at current_task().cancelled
RAISE = 1  # by an exception
KILL_WORKER = 2  # by that, and with its worker if it does not end

# Why a task Failed.
NO_FAILURE = -1  # of Inherit
ERROR = 0
CANCELLED = 1
TIMEOUT = 2
UPSTREAM = 3
LOST = 4
SERIALIZE = 5
GONE = 6
MEMORY = 7
AGAIN = 8  # never told so: an attempt has failed, see Again
MOVED = 9  # not here: its caller knows; if that cannot be asked, it is cancelled
REASONS = (
    *("error", "cancelled", "timeout", "upstream", "lost", "serialize", "error"),
    "memory",
)


class Supervised(msgspec.Struct, array_like=True, gc=False):
    """Of a tessera that is built again when its worker is lost; see core.restarts."""

    uid: int  # in all its lives; of who made it
    most: int  # restarts
    within_s: float | None = None  # of which only the latest count; None: all
    life: int = 0  # which one this is
    idempotent: bool = False  # calls that may have run are made again
    checkpoint_calls: int = 0  # its state is written down after so many; 0: not
    checkpoint_s: float = 0.0  # the same for seconds


class Options(msgspec.Struct, array_like=True, gc=False):
    """How a tessera runs its methods."""

    name: str  # for people, such as Counter#1
    is_async: bool = False
    max_concurrency: int | None = None
    inline: bool = False
    thread: bool = False
    expose: tuple[str, ...] = ()
    max_retries: int = 0
    timeout_s: float | None = None  # of each call
    interrupt: int = RAISE
    unique: str = ""  # the name under which it is found; empty: it has none
    detached: bool = False  # it outlives its maker
    retry: bytes = b""  # as of Extra
    # Its calls have nothing in common: one may run while another waits.
    stateless: bool = False
    memory: int = 0  # bytes of the host's that are its own for its life
    supervised: Supervised | None = None


class Create(Message, tag=10):
    uid: int  # of the task that is the construction
    tessera: int
    cls: bytes  # pickled; by reference, or a digest
    data: Filled
    options: Options
    extra: Extra | None = None
    inside: list[int] | None = None  # as of Submit


class Submit(Message, tag=11):
    uid: int
    tessera: int
    number: int  # in the stream of this caller to this tessera, without gaps
    method: Annotated[str, msgspec.Meta(min_length=1)]
    data: Filled
    extra: Extra | None = None
    inside: list[int] | None = None  # the calls in which it was made, outermost first


class Done(Message, tag=12):
    uid: int
    data: bytes
    extra: Extra | None = None


class Failed(Message, tag=13):
    uid: int
    reason: int
    data: bytes
    extra: Extra | None = None


class Cancel(Message, tag=14):
    uid: int
    reason: str
    kind: int = CANCELLED  # or TIMEOUT: its caller's clock says so
    attempt: int = 0  # of a TIMEOUT: which one is over; 0: all that there may be


class Running(Message, tag=15):
    """A call that has been running for a while, or waits for its next attempt."""

    uid: int
    for_s: float
    attempt: int = 1
    delay_s: float | None = None  # until this attempt begins; None: it runs


class Ran(Message, tag=27):
    """How an attempt of a call went whose caller wants to know; goes before its end."""

    uid: int
    attempt: int
    host: str
    times: list[float]  # seconds since the epoch, as ``proxies.records`` names them


class Again(Message, tag=29):
    """A function task has failed and is to run again: wait, and send it anew."""

    uid: int
    attempt: int  # the one that is to be made
    delay_s: float


class Ending(Message, tag=28):
    """Why a call is about to end as it will; goes before its end."""

    uid: int
    state: int  # in which it will; another does not count
    reason: str


class Interrupt(Message, tag=22):
    """A call was asked to end, and nothing is heard of it: send its worker the signal.

    A C call that holds the interpreter lets the worker's own loop do nothing.
    """

    uid: int
    owner: int  # incarnation of the worker
    kind: int = CANCELLED  # or TIMEOUT
    kill: bool = False  # end the worker instead


class Learn(Message, tag=110):
    """A function that I am about to call; without data: that I call no more."""

    host: int  # the key of what runs my functions at you
    name: Annotated[str, msgspec.Meta(min_length=1)]
    data: bytes
    extra: Extra | None = None


class Transform(Message, tag=63):
    """A transformer of values that I use; without data: that I use no more."""

    uid: int
    data: bytes
    extra: Extra | None = None


class Recall(Message, tag=111):
    """Give back those of my function tasks that have not started: they go elsewhere."""

    uids: list[int]


class Recalled(Message, tag=112):
    """The answer: of those asked for these have not started, and never will here."""

    asked: list[int]
    taken: list[int]


class Subscribe(Message, tag=16):
    """Tell me when this task has ended."""

    uid: int


class Fetch(Message, tag=17):
    """Send me the value that stayed with you."""

    uid: int


class Value(Message, tag=18):
    uid: int
    data: bytes
    extra: Extra | None = None


class Item(Message, tag=19):
    """What a generator yielded."""

    uid: int
    number: int
    data: bytes
    extra: Extra | None = None


class Credit(Message, tag=20):
    """The consumer of a stream takes this many more items; none: it has gone."""

    uid: int
    items: int
