"""When a call may go to its peer, and how it becomes a message.

A stream has credit for calls (``call.CALL_CREDIT``), a peer for bytes. What does not go
now waits in ``held``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms.messages import Submit
from .call import rare
from .payloads import extra_of

if TYPE_CHECKING:
    from ..comms.messages import Extra
    from .call import Call
    from .outbox import Outbox

BYTE_CREDIT = 256 << 20  # of arguments on their way to one runtime
# Smaller ones are not counted: the calls' own credit bounds them.
COUNTED_BYTES = 4096


def fits(outbox: Outbox, payload: Any) -> bool:
    """Whether the peer may be sent a payload: bytes always, more if there is room."""
    if type(payload) is bytes:
        return True
    for handle in payload.handles:
        if not handle.owner:
            return False  # mentions a tessera that has no place yet
    bytes_out = outbox.bytes_out
    return not bytes_out or bytes_out + payload.nbytes <= BYTE_CREDIT


def send(call: Call, payload: Any, extra: Extra | None) -> None:
    """Send a call that has credit; ``submit`` does it by itself for plain bytes."""
    stream = call.stream
    outbox = stream.outbox
    assert outbox is not None
    stream.credit -= 1
    number = stream.number
    stream.number = number + 1
    data = payload
    if type(payload) is not bytes:
        data = payload.data
        extra = extra_of(payload, extra)
        size: int = payload.nbytes
        if size > COUNTED_BYTES:
            rare(call).nbytes = size
            outbox.bytes_out += size
    message = Submit(
        call.uid, stream.tessera, number, call.method, data, extra, call.inside
    )
    outbox.send(message, None if type(payload) is bytes else payload)
