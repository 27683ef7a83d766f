"""Values that a runtime has of the tasks that a call takes, and sends with the call.

Who runs the call need not ask the owners then: that costs a round trip, and an owner
may be long in answering, while C code there holds the interpreter, or be lost. Small
values go as they are, and for large ones where their segments are. What lies between
stays with its owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..comms.messages import ALLOWED, SEGMENT, TASK, Known, Reference
from ..core.payloads import Arrived
from ..core.senders import Kind, kind_of
from ..core.task import DONE
from .incoming import Incoming

if TYPE_CHECKING:
    from .peer import Peer
    from .sharing import Sharing

# Of small values in one batch: many calls may take the same, and if all had it with
# them it would cost more than that a few ask.
BATCH_BYTES: Final = 64 << 10
# A warehouse keeps values, and its way of reading them is its own.
_READERS = Kind.HEAD | Kind.WORKER


def known_values(handles: tuple[Any, ...], peer: Peer, sharing: Sharing) -> list[Known]:
    """Those of the tasks that a payload mentions.

    Args:
        handles: what the payload mentions, by index.
        peer: to which it goes, with the batch that it gathers.
        sharing: of who sends it.
    """
    known: list[Known] = []
    for index, handle in enumerate(handles):
        if handle.kind not in (TASK, ALLOWED) or handle.owner == peer.incarnation:
            continue
        call = handle.proxy._call
        if call.state != DONE or not kind_of(peer.uid) & _READERS:
            continue
        value = call.result
        if type(value) is bytes:
            if peer.known_bytes + len(value) <= BATCH_BYTES:
                peer.known_bytes += len(value)
                known.append(Known(index, value))
        elif peer.shares_memory and _in_segments(value, sharing):
            shared = value.shared
            segments = [Reference(SEGMENT, h.uid, h.owner) for h in shared.handles]
            known.append(Known(index, value.data, segments, shared.wire))
    return known


def _in_segments(value: Any, sharing: Sharing) -> bool:
    """All of it is, so that nobody has to make a copy; and it mentions nothing."""
    return (
        type(value) is Arrived
        and type(value.shared) is Incoming
        and not value.size
        and not value.nbytes_copied
        and not any(value.grants)
        and all(map(sharing.is_kept, value.shared.handles))
    )
