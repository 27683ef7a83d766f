"""The closed vocabulary: one Struct for each message that may go over a link.

A batch is a list of these. Every message is validated when it is decoded and is never
unpickled by the runtime that routes it. What most messages do not need stands in
``Extra``, so that the common call is six small fields.

Who sends what to whom:

    joining     Hello ->monitor   Welcome, Refused, Joined, Lost <-monitor
                LossSeen ->all
    calls       Create, Submit, Cancel, Release, Retain, Subscribe, Fetch,
                Credit, Waiting ->owner     Done, Failed, Value, Item, Running <-owner
    values      Define: a class or function that travels by value, once to each peer
    processes   Exited, Stop, Stopped            between node, monitor and head
    barrier     Quiesce, Quiet   between a runtime that waits and all others
    output      Output: lines that a method printed or logged
"""

from __future__ import annotations

from typing import Any

import msgspec

# What a Submit asks for.
CALL = 0
GET_ATTRIBUTE = 1
SET_ATTRIBUTE = 2
STREAM = 3  # a generator method: answered by Items, then Done
RESULT_CALL = 4  # a method of a task's value: ``tessera`` is the uid of that task
CLOSE = 5  # the tessera: after what is queued
KILL = 6  # the tessera: now

# What a reference points to.
TASK = 0
TESSERA = 1

# Why a task Failed.
ERROR = 0
CANCELLED = 1
TIMEOUT = 2
UPSTREAM = 3
LOST = 4
SERIALIZE = 5
GONE = 6
REASONS = ("error", "cancelled", "timeout", "upstream", "lost", "serialize", "error")


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages."""


class Reference(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A tessera or task that is mentioned in a payload."""

    kind: int
    uid: int
    owner: int  # incarnation of the runtime where it lives


class Extra(msgspec.Struct, array_like=True, gc=False):
    """What only some payloads and calls have."""

    references: list[Reference] = []
    definitions: list[bytes] = []  # digests of what must have been Defined before
    buffers: int = 0  # out-of-band frames of this payload, in the order of the batch
    size: int = 0  # bytes of a value that stayed where it was made
    kind: int = CALL
    ancestors: list[
        int
    ] = []  # the calls inside which this one was made, outermost first
    remaining_s: float | None = None  # of the time that the caller has for it
    ordered: bool = True
    max_retries: int | None = None  # of a method that raises; None: the tessera's


class Options(msgspec.Struct, array_like=True, gc=False):
    """How a tessera runs its methods."""

    name: str  # for people, such as Counter#1
    is_async: bool = False
    max_concurrency: int | None = None
    inline: bool = False
    thread: bool = False
    expose: list[str] = []
    max_retries: int = 0


class Member(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A runtime of the cluster, as the monitor announces it."""

    incarnation: int
    uid: str  # head, monitor, node:0, worker:0:1
    token: bytes  # its random identity on the links
    address: str  # where its ROUTER is bound
    host: str
    pid: int


# -- joining ---------------------------------------------------------------------------


class Hello(Message, tag=1):
    """A runtime asks to join."""

    protocol: int
    python: str  # major.minor
    kind: str  # head, node, worker
    uid: str  # asked for; empty: the monitor chooses
    token: bytes
    address: str
    host: str
    pid: int


class Welcome(Message, tag=2):
    """The answer to Hello: who you are and who is here."""

    me: Member
    members: list[Member]
    settings: bytes  # msgpack of what all runtimes of the cluster share


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


class LossSeen(Message, tag=7):
    """I drop what the lost one sent, and have said all that I hold from it."""

    incarnation: int


# -- calls -----------------------------------------------------------------------------


class Create(Message, tag=10):
    uid: int  # of the task that is the construction
    tessera: int
    cls: bytes  # pickled; by reference, or a digest
    data: bytes
    options: Options
    extra: Extra | None = None


class Submit(Message, tag=11):
    uid: int
    tessera: int
    number: int  # in the stream of this caller to this tessera, without gaps
    method: str
    data: bytes
    extra: Extra | None = None


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


class Running(Message, tag=15):
    """A call that has been running for a while."""

    uid: int
    for_s: float


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


class Waiting(Message, tag=21):
    """My main thread is blocked until this call ends, and can run nothing for you."""

    uid: int


# -- who holds what --------------------------------------------------------------------


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


# -- values ----------------------------------------------------------------------------


class Define(Message, tag=40):
    digest: bytes
    blob: bytes


# -- processes -------------------------------------------------------------------------


class Exited(Message, tag=50):
    """A node: this child of mine has ended."""

    uid: str
    pid: int
    how: str  # killed by SIGKILL, exit status 3


class Stop(Message, tag=51):
    """End in order: to the monitor, all of the cluster; to others, yourself."""

    why: str
    hurry: bool = False  # nobody waits for it any more: the program has died


class Stopped(Message, tag=52):
    """All that I had to stop has stopped."""

    lines: list[str]  # what could not be closed, for people


# -- barrier ---------------------------------------------------------------------------


class Quiesce(Message, tag=54):
    """Answer when no call is on its way that was made inside mine up to this one."""

    round: int
    up_to: int


class Quiet(Message, tag=55):
    """The answer: how many such calls I have made since you first asked."""

    round: int
    made: int


# -- output ----------------------------------------------------------------------------


class Output(Message, tag=60):
    stream: int  # 1 standard output, 2 standard error
    label: str  # who printed it, such as w0:1 Counter#1
    text: str  # whole lines


AnyMessage = (
    Hello
    | Welcome
    | Refused
    | Joined
    | Lost
    | LossSeen
    | Create
    | Submit
    | Done
    | Failed
    | Cancel
    | Running
    | Subscribe
    | Fetch
    | Value
    | Item
    | Credit
    | Waiting
    | Release
    | ReleaseGrants
    | Retain
    | Holding
    | Define
    | Exited
    | Stop
    | Stopped
    | Quiesce
    | Quiet
    | Output
)

PROTOCOL = 1

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[AnyMessage])


def encode(batch: list[Any], reserve: int = 0) -> bytearray:
    """A batch as bytes, after ``reserve`` bytes left free for the link's header."""
    body = bytearray(reserve)
    _encoder.encode_into(batch, body, reserve)
    return body


def decode(body: bytes | memoryview) -> list[Any]:
    """A batch from bytes; raises msgspec.DecodeError if it is not one."""
    try:
        return _decoder.decode(body)
    except UnicodeDecodeError as error:  # msgspec lets this one through
        raise msgspec.DecodeError(str(error)) from None
