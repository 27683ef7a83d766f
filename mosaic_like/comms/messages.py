"""The closed vocabulary: one Struct for each message that may go over a link.

A batch is a list of these. Every message is validated when it is decoded and is never
unpickled by the runtime that routes it. What most messages do not need stands in
``Extra``, so that the common call is six small fields.

Who sends what to whom:

    joining     Hello ->monitor   Welcome, Refused, Joined, Lost <-monitor
                LossSeen ->all
    leaving     Drain ->monitor   Leaving <-monitor   LeavingSeen ->who leaves
                Inherit, HeldBy ->heir, a warehouse   Inherited <-heir
    calls       Create, Submit, Cancel, Release, Retain, Subscribe, Fetch,
                Credit, Waiting ->owner     Done, Failed, Value, Item, Running <-owner
                Ran, Ending ->caller, before the end   Again ->caller, instead of it
                Waits ->caller     Circle ->where a call waits
                Learn, Recall ->owner     Recalled <-owner: of function tasks
                Interrupt ->node of an owner that does not end a call
    values      Define: a class or function that travels by value, once to each peer
    segments    Adopt, Locate ->warehouse
                Returned, Located, Ledger, Spilled <-warehouse
    copies      Copy, Uncopy between warehouses   Copied <-warehouse
    chunks      Chunk ->   Taken, Unwanted <-     of what is too large for one message
    processes   Exited, Stop, Stopped            between node, monitor and head
                Beat   between who follows each other: core.silence
    barrier     Quiesce, Quiet   between a runtime that waits and all others
    memory      AskMemory   MemoryOf: which large values there are
    output      Output: lines that a method printed or logged
    slots       TakeSlots, FreeSlots, SetLimit ->monitor   TakenSlots <-monitor
    names       Claim, AskNames ->monitor   Claimed, Names <-monitor
                Named, Shared, Unnamed ->monitor   Share <-monitor: with owners
    restarts    Find ->maker   Moved, Ended <-maker   Closed ->maker
                Seek ->caller of a task   Resent <-caller
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 -- msgspec reads it
from typing import Annotated, Any

import msgspec

# How the data of a payload begin that is a pickle; plain values begin otherwise.
PICKLED = 0x80

# Who runs a call looks at the first byte.
Filled = Annotated[bytes, msgspec.Meta(min_length=1)]

# What a Submit asks for.
CALL = 0
GET_ATTRIBUTE = 1
SET_ATTRIBUTE = 2
STREAM = 3  # a generator method: answered by Items, then Done
RESULT_CALL = 4  # a method of a task's value: ``tessera`` is the uid of that task
APPLY = 5  # the first argument, a function, on the others; no tessera
PART = 6  # the first argument's parts, whose keys are the others; no tessera
CLOSE = 7  # the tessera: after what is queued
KILL = 8  # the tessera: now
# These go to a warehouse; their method is the key, if they have one.
PUT = 9  # keep this value for who holds the task
PUT_KEY = 10  # and under a key that is free
GET_KEY = 11  # the value of the task is the one that is under the key now
TAKE_KEY = 12  # the same, None if there is none; its key is taken until it is replaced
REPLACE_KEY = 13  # by the value of the first reference, a task; the second took it
DROP_KEY = 14
DROP = 15  # the value of the task whose uid is in the data
PUBLISH = 16  # that: give all warehouses a copy

# How a plain method that runs is stopped.
FLAG = 0  # it is to look at current_task().cancelled
RAISE = 1  # by an exception
KILL_WORKER = 2  # by that, and with its worker if it does not end

# What a reference points to.
TASK = 0
TESSERA = 1
SEGMENT = 2  # shared memory that a warehouse owns
QUOTED = 3  # a task, as an argument that stands for itself
ALLOWED = 4  # a task, as an argument that may have failed

# How an incarnation ended that is Lost.
DIED = 0
LEFT = 1  # in order
LEFT_LATE = 2  # in order, but calls were cancelled that had not ended in time

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
REASONS = (
    *("error", "cancelled", "timeout", "upstream", "lost", "serialize", "error"),
    "memory",
)


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages."""


class Reference(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A tessera or task that is mentioned in a payload."""

    kind: int
    uid: int
    owner: int  # incarnation of the runtime where it lives


class Place(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Where a segment can be opened: a descriptor of a process on the same host.

    Numbers of processes and descriptors are used again: who opens it compares the rest.
    """

    pid: int
    fd: int
    device: int
    inode: int
    size: int  # bytes
    token: int = 0  # of a file, behind its content; 0: it is memory


class SharedBuffers(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """The large buffers of a payload, where they stand in segments."""

    places: list[Place]  # of the references that are segments, in their order
    layout: list[tuple[int, int, int]]  # of each buffer: which place, offset, bytes


class Parts(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """The large buffers of a payload that follow in chunks: see ``transfers``."""

    number: int  # of the transfer, by its sender's count for this peer
    lengths: list[int]  # bytes of each buffer


class Extra(msgspec.Struct, array_like=True, gc=False):
    """What only some payloads and calls have."""

    references: list[Reference] = []
    definitions: list[bytes] = []  # digests of what must have been Defined before
    buffers: int = 0  # out-of-band frames of this payload, in the order of the batch
    size: int = 0  # bytes of a value that stayed where it was made
    kind: int = CALL
    remaining_s: float | None = None  # of the time that the calls around it have
    ordered: bool = True
    max_retries: int | None = None  # of a method that raises; None: the tessera's
    shared: SharedBuffers | None = None  # instead of buffers beside the bytes
    timeout_s: float | None = None  # that each attempt has
    interrupt: int | None = None  # FLAG, RAISE or KILL; None: the tessera's
    parts: Parts | None = None  # instead of buffers beside the bytes
    retry: bytes = b""  # when it runs again, as ``proxies.retries`` has it
    # Of the tasks of which a call takes only parts: index of the reference, and key.
    outputs: Sequence[tuple[int, int | str]] = ()
    told: bool = False  # its caller wants to hear when attempts begin, and of each
    attempt: int = 1  # the first that is made of it where it is sent


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
    expose: list[str] = []
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


class Member(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A runtime of the cluster, as the monitor announces it."""

    incarnation: int
    uid: str  # head, monitor, node:0, worker:0:1, warehouse:0
    token: bytes  # its random identity on the links
    address: str  # where its ROUTER is bound
    host: str
    pid: int
    tcp: str = ""  # where it is bound for other hosts; empty: nowhere
    machine: str = ""  # the same where sockets and memory are shared: core.reach


# -- joining ---------------------------------------------------------------------------


class Hello(Message, tag=1):
    """A runtime asks to join."""

    protocol: int
    python: str  # major.minor
    kind: str  # head, node, worker, warehouse
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


# -- leaving ---------------------------------------------------------------------------


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


class Inherit(Message, tag=37):
    """This task of mine has ended, and is yours from now on."""

    uid: int
    reason: int  # of its failure; NO_FAILURE: it has a value
    data: bytes
    extra: Extra | None = None


class HeldBy(Message, tag=38):
    """Who holds what you inherit, as of when nobody told me any more: all of it."""

    counts: list[tuple[int, list[tuple[int, int, int]]]]  # uid: holder, granter, count


class Inherited(Message, tag=39):
    """I have all of it."""


# -- calls -----------------------------------------------------------------------------


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


class Waits(Message, tag=23):
    """A call waits for memory for its arguments, or does not any more."""

    uid: int
    waits: bool


class Learn(Message, tag=110):
    """A function that I am about to call; without data: that I call no more."""

    host: int  # the key of what runs my functions at you
    name: Annotated[str, msgspec.Meta(min_length=1)]
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


class Interrupt(Message, tag=22):
    """A call was asked to end, and nothing is heard of it: send its worker the signal.

    A C call that holds the interpreter lets the worker's own loop do nothing.
    """

    uid: int
    owner: int  # incarnation of the worker
    kind: int = CANCELLED  # or TIMEOUT
    kill: bool = False  # end the worker instead


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


# -- segments --------------------------------------------------------------------------


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


class Located(Message, tag=44):
    """The answer: a place, or its content beside the bytes, or why there is neither."""

    uid: int
    place: Place | None = None
    why: str = ""
    extra: Extra | None = None


# -- chunks ----------------------------------------------------------------------------


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


# -- processes -------------------------------------------------------------------------


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


# -- barrier ---------------------------------------------------------------------------


class Quiesce(Message, tag=54):
    """Answer when no call is on its way that was made inside mine up to this one."""

    round: int
    up_to: int


class Quiet(Message, tag=55):
    """The answer: how many such calls I have made since you first asked."""

    round: int
    made: int


# -- memory ----------------------------------------------------------------------------


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


# -- names -----------------------------------------------------------------------------


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


# -- slots -----------------------------------------------------------------------------

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


# -- restarts --------------------------------------------------------------------------


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


class Seek(Message, tag=104):
    """Where is this task of yours, now that its owner is lost?"""

    uid: int
    lost: int  # incarnation of that


class Resent(Message, tag=105):
    """The answer: it is mentioned by what comes with this, or nowhere."""

    uid: int
    extra: Extra | None = None


# -- output ----------------------------------------------------------------------------


class Output(Message, tag=60):
    stream: int  # 1 standard output, 2 standard error, 3 the log of the head
    label: str  # who printed it, such as w0:1 Counter#1
    text: str  # whole lines


AnyMessage = (
    Hello
    | Welcome
    | Refused
    | Joined
    | Lost
    | LossSeen
    | Drain
    | Leaving
    | LeavingSeen
    | Inherit
    | HeldBy
    | Inherited
    | Create
    | Submit
    | Done
    | Failed
    | Cancel
    | Running
    | Again
    | Ran
    | Ending
    | Waits
    | Learn
    | Recall
    | Recalled
    | Subscribe
    | Fetch
    | Value
    | Item
    | Credit
    | Waiting
    | Circle
    | Interrupt
    | Release
    | ReleaseGrants
    | Retain
    | Holding
    | Define
    | Adopt
    | Returned
    | Locate
    | Located
    | Ledger
    | Spilled
    | Copy
    | Uncopy
    | Copied
    | Chunk
    | Taken
    | Unwanted
    | Exited
    | Stop
    | Stopped
    | Beat
    | Quiesce
    | Quiet
    | Output
    | AskMemory
    | MemoryOf
    | Claim
    | Claimed
    | Named
    | Unnamed
    | Share
    | Shared
    | AskNames
    | Names
    | Find
    | Moved
    | Ended
    | Closed
    | Seek
    | Resent
    | TakeSlots
    | TakenSlots
    | FreeSlots
    | SetLimit
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
