"""The closed vocabulary: one Struct for each message that may go over a link.

A batch is a list of these. Every message is validated when it is decoded and is never
unpickled by the runtime that routes it. The kinds are in the files of this package, by
idea; others get them from here, as ``wire.Submit``.

Who sends what to whom:

    joining     Hello ->monitor   Welcome, Refused, Joined, Lost <-monitor
                LossSeen ->all, or by way of the monitor, SeenBy
    leaving     Drain ->monitor   Leaving <-monitor   LeavingSeen ->who leaves
                Inherit, HeldBy ->heir, a warehouse   Inherited <-heir
    calls       Create, Submit, Cancel, Release, Retain, Subscribe, Fetch,
                Credit, Waiting ->owner     Done, Failed, Value, Item, Running <-owner
                Ran, Ending ->caller, before the end   Again ->caller, instead of it
                Waits ->caller     Circle ->where a call waits
                Learn, Recall ->owner     Recalled <-owner: of function tasks
                Interrupt ->node of an owner that does not end a call
                Transform ->worker: of values on their way
    values      Define: a class or function that travels by value, once to each peer
    segments    Adopt, Locate ->warehouse
                Returned, Located, Ledger, Spilled <-warehouse
    copies      Copy, Uncopy between warehouses   Copied <-warehouse
    chunks      Chunk ->   Taken, Unwanted <-     of what is too large for one message
    processes   Exited, Stop, Stopped            between node, monitor and head
                Beat   between who follows each other: core.silence
    barrier     Quiesce, Quiet   between a runtime that waits and all others
    helpers     Still ->node   Helped <-node: core.helpers
    memory      AskMemory   MemoryOf: which large values there are
    output      Output: lines that a method printed or logged
    slots       TakeSlots, FreeSlots, SetLimit ->monitor   TakenSlots <-monitor
    names       Claim, AskNames ->monitor   Claimed, Names <-monitor
                Named, Shared, Unnamed ->monitor   Share <-monitor: with owners
    restarts    Find ->maker   Moved, Ended <-maker   Closed ->maker
                Retire ->worker   Retired <-maker
                Save ->worker   Saved <-worker: at a job's deadline
                Seek, Keep ->caller of a task   Resent <-caller
    bonds       Bind ->owner   Bind, Broke, Unbound between owners: core.bonds
"""

# mypy: implicit-reexport
# ruff: noqa: F401 -- this is the door: what is imported here is for others

from __future__ import annotations

from .bonds import Bind, Broke, Unbound
from .calls import (
    AGAIN,
    CANCELLED,
    ERROR,
    FLAG,
    GONE,
    KILL_WORKER,
    LOST,
    MEMORY,
    MOVED,
    NO_FAILURE,
    RAISE,
    REASONS,
    SERIALIZE,
    TIMEOUT,
    UPSTREAM,
    Again,
    Cancel,
    Create,
    Credit,
    Done,
    Ending,
    Failed,
    Fetch,
    Interrupt,
    Item,
    Learn,
    Options,
    Ran,
    Recall,
    Recalled,
    Running,
    Submit,
    Subscribe,
    Supervised,
    Transform,
    Value,
)
from .codec import PROTOCOL, AnyMessage, decode, encode
from .holding import HeldBy, Holding, Inherit, Inherited, Release, ReleaseGrants, Retain
from .members import (
    DIED,
    LEFT,
    LEFT_LATE,
    Beat,
    Drain,
    Exited,
    Hello,
    Joined,
    Leaving,
    LeavingSeen,
    LossSeen,
    Lost,
    Member,
    Output,
    Refused,
    SeenBy,
    Stop,
    Stopped,
    Welcome,
)
from .moving import (
    Closed,
    Ended,
    Find,
    Keep,
    Moved,
    Resent,
    Retire,
    Retired,
    Save,
    Saved,
    Seek,
)
from .payloads import (
    ALLOWED,
    APPLY,
    CALL,
    CLOSE,
    DROP,
    DROP_KEY,
    GET_ATTRIBUTE,
    GET_KEY,
    KILL,
    PART,
    PICKLED,
    PUBLISH,
    PUT,
    PUT_KEY,
    QUOTED,
    REPLACE_KEY,
    RESULT_CALL,
    SEGMENT,
    SET_ATTRIBUTE,
    STREAM,
    TAKE_KEY,
    TASK,
    TESSERA,
    Extra,
    Filled,
    Known,
    Message,
    Parts,
    Place,
    Reference,
    SharedBuffers,
)
from .registers import (
    OF_TAG,
    AskNames,
    Claim,
    Claimed,
    FreeSlots,
    Named,
    NameEntry,
    Names,
    SetLimit,
    Share,
    Shared,
    Slot,
    TakenSlots,
    TakeSlots,
    Unnamed,
)
from .values import (
    Adopt,
    AskMemory,
    Chunk,
    Copied,
    Copy,
    Define,
    KnownValue,
    Ledger,
    Locate,
    Located,
    MemoryOf,
    Returned,
    Spilled,
    Taken,
    Uncopy,
    Unwanted,
)
from .waiting import Circle, Helped, Hop, Quiesce, Quiet, Still, Waiting, Waits
