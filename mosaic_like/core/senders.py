"""Which kind of runtime may send which message to which: a table, and its look-up.

Membership is the monitor's word alone, the order to end comes down from who started a
process, and names are decided at one place: a message that comes from elsewhere means
nothing, and is dropped by who receives it. Submit, Done, Release, Item and Credit are
not here: they are the hot path, and go between all that own objects. What is in a
message, and what becomes of one that is dropped, is not known here.
"""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..comms import messages as wire

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(enum.Flag):
    """What a runtime is, as its uid says; a helper is a worker."""

    MONITOR = enum.auto()
    NODE = enum.auto()
    HEAD = enum.auto()  # also what only looks, such as mrun status
    WORKER = enum.auto()
    WAREHOUSE = enum.auto()


_KINDS = MappingProxyType(
    {
        "monitor": Kind.MONITOR,
        "node": Kind.NODE,
        "worker": Kind.WORKER,
        "helper": Kind.WORKER,
        "warehouse": Kind.WAREHOUSE,
    }
)

_MONITOR, _NODE, _HEAD = Kind.MONITOR, Kind.NODE, Kind.HEAD
_OF_NODE = Kind.WORKER | Kind.WAREHOUSE
USER = Kind.HEAD | Kind.WORKER  # makes calls, and may be called
_OWNER = USER | Kind.WAREHOUSE
_KEEPER = Kind.WAREHOUSE
_ALL = _OWNER | _MONITOR | _NODE

Routes = tuple[tuple[Kind, Kind], ...]  # from, to
_BETWEEN_OWNERS: Routes = ((_OWNER, _OWNER),)
_FROM_MONITOR: Routes = ((_MONITOR, _ALL),)

ROUTES: Mapping[type[wire.Message], Routes] = MappingProxyType(
    {
        wire.Hello: ((_ALL, _MONITOR),),
        wire.Welcome: _FROM_MONITOR,
        wire.Refused: _FROM_MONITOR,
        wire.Joined: _FROM_MONITOR,
        wire.Lost: _FROM_MONITOR,
        wire.LossSeen: ((_OWNER, _OWNER | _MONITOR),),
        wire.SeenBy: ((_MONITOR, _OWNER),),
        wire.Drain: ((USER | _NODE, _MONITOR),),
        wire.Leaving: _FROM_MONITOR,
        wire.LeavingSeen: ((_OWNER, _OF_NODE),),
        wire.Inherit: ((_OF_NODE, _KEEPER),),
        wire.HeldBy: ((_OF_NODE, _KEEPER),),
        wire.Inherited: ((_KEEPER, _OF_NODE),),
        wire.Create: ((USER, USER),),
        wire.Failed: _BETWEEN_OWNERS,
        wire.Cancel: _BETWEEN_OWNERS,
        wire.Running: _BETWEEN_OWNERS,
        wire.Again: ((USER, USER),),
        wire.Ran: ((USER, USER),),
        wire.Ending: ((USER, USER),),
        wire.Waits: _BETWEEN_OWNERS,
        wire.Learn: ((USER, USER),),
        wire.Transform: ((USER, Kind.WORKER),),
        wire.Recall: ((USER, USER),),
        wire.Recalled: ((USER, USER),),
        wire.Subscribe: _BETWEEN_OWNERS,
        wire.Fetch: _BETWEEN_OWNERS,
        wire.Value: _BETWEEN_OWNERS,
        wire.Waiting: _BETWEEN_OWNERS,  # a warehouse passes them on
        wire.Circle: _BETWEEN_OWNERS,
        wire.Interrupt: ((USER, _NODE),),
        wire.ReleaseGrants: _BETWEEN_OWNERS,
        wire.Retain: _BETWEEN_OWNERS,
        wire.Holding: _BETWEEN_OWNERS,
        wire.Define: _BETWEEN_OWNERS,
        wire.Adopt: ((_OWNER, _KEEPER),),
        wire.Locate: ((_OWNER, _KEEPER),),
        wire.Located: ((_KEEPER, _OWNER),),
        wire.Returned: ((_KEEPER, _OWNER),),
        wire.Ledger: ((_KEEPER, _OWNER),),
        wire.Spilled: ((_KEEPER, _OWNER),),
        wire.Copy: ((_KEEPER, _KEEPER),),
        wire.Uncopy: ((_KEEPER, _KEEPER),),
        wire.Copied: ((_KEEPER, USER),),
        wire.Chunk: _BETWEEN_OWNERS,
        wire.Taken: _BETWEEN_OWNERS,
        wire.Unwanted: _BETWEEN_OWNERS,
        wire.Exited: ((_NODE | _OWNER, _MONITOR), (_MONITOR, _HEAD)),
        wire.Stop: ((_HEAD, _MONITOR), (_MONITOR, _NODE | _HEAD), (_NODE, _OF_NODE)),
        wire.Beat: (
            (_NODE | _HEAD, _MONITOR),
            (_MONITOR, _NODE | _HEAD),
            (_NODE, Kind.WORKER),
            (Kind.WORKER, _NODE),
        ),
        wire.Stopped: ((_OF_NODE, _NODE), (_NODE, _MONITOR), (_MONITOR, _HEAD)),
        wire.Quiesce: ((USER, USER),),
        wire.Quiet: ((USER, USER),),
        wire.Still: ((Kind.WORKER, _NODE),),
        wire.Helped: ((_NODE, USER),),
        wire.AskMemory: _BETWEEN_OWNERS,
        wire.MemoryOf: _BETWEEN_OWNERS,
        wire.Output: ((Kind.WORKER | _NODE, _HEAD),),
        wire.TakeSlots: ((USER, _MONITOR),),
        wire.TakenSlots: ((_MONITOR, USER),),
        wire.FreeSlots: ((USER, _MONITOR),),
        wire.SetLimit: ((USER, _MONITOR),),
        wire.Claim: ((USER, _MONITOR),),
        wire.Named: ((USER, _MONITOR),),
        wire.Unnamed: ((USER, _MONITOR),),
        wire.Shared: ((USER, _MONITOR),),
        wire.AskNames: ((_OWNER, _MONITOR),),
        wire.Claimed: ((_MONITOR, USER),),
        wire.Share: ((_MONITOR, USER),),
        wire.Names: ((_MONITOR, _OWNER),),
        wire.Find: ((USER, USER),),
        wire.Moved: ((USER, USER),),
        wire.Ended: ((USER, USER),),
        wire.Closed: ((USER, USER),),
        wire.Retire: ((USER, USER),),
        wire.Save: ((_HEAD, Kind.WORKER),),
        wire.Saved: ((Kind.WORKER, _HEAD),),
        wire.Retired: ((USER, USER),),
        wire.Seek: ((_OWNER, USER),),
        wire.Keep: ((_OWNER, USER),),
        wire.Resent: ((USER, _OWNER),),
        wire.Bind: ((USER, USER),),
        wire.Broke: ((USER, USER),),
        wire.Unbound: ((USER, USER),),
    }
)

UNCHECKED = frozenset({wire.Submit, wire.Done, wire.Release, wire.Item, wire.Credit})


def kind_of(uid: str) -> Kind:
    """What the runtime of this uid is.

    >>> kind_of("worker:0:1"), kind_of("head:2"), kind_of("look1a2b")
    (<Kind.WORKER: 8>, <Kind.HEAD: 4>, <Kind.HEAD: 4>)
    """
    return _KINDS.get(uid.partition(":")[0], Kind.HEAD)


def may_send(message: type, sender: str, receiver: str) -> bool:
    """Whether a message of this kind from one runtime means something to another.

    Args:
        message: its class.
        sender: uid of who sent it.
        receiver: uid of who has got it.
    """
    if message in UNCHECKED:
        return True
    routes = ROUTES.get(message)
    if routes is None:
        return True  # not so: a test sees that each kind of message is here
    one, other = kind_of(sender), kind_of(receiver)
    if not any(one in froms and other in tos for froms, tos in routes):
        return False
    if message is wire.Stop and one is Kind.NODE:
        return sender.split(":")[1:2] == receiver.split(":")[1:2]  # its own children
    return True
