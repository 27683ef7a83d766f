"""Whether what a message says of its payload agrees with itself.

The codec has seen to it that every field is of its type; here is what no type says:
counts that must match, and indices that must lead somewhere. It is asked only for what
is no plain payload. Who may send what is in ``core.senders``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ProtocolError
from ..ids import INCARNATION_BITS
from .messages import ALLOWED, SEGMENT, TASK, Extra

if TYPE_CHECKING:
    from .messages import Known, Reference, SharedBuffers

_INCARNATIONS = 1 << INCARNATION_BITS


def check_extra(extra: Extra, frames: int) -> None:
    """Refuse what could not be read.

    Args:
        extra: of a message that has come.
        frames: how many large buffers came with it.

    Raises:
        ProtocolError: it contradicts itself; what it belongs to is to be dropped.
    """
    if extra.buffers != frames:
        raise ProtocolError(f"{frames} buffers came, expected {extra.buffers}")
    if extra.size < 0:
        raise ProtocolError(f"a value of {extra.size} bytes")
    if extra.retried is not None and min(extra.retried) < 0:
        raise ProtocolError(f"it is said to be {extra.retried}, which nothing can be")
    segments = 0
    for reference in extra.references:
        kind, uid, owner = reference.kind, reference.uid, reference.owner
        if not (0 < owner < _INCARNATIONS and uid >= 0 and TASK <= kind <= ALLOWED):
            raise ProtocolError(f"it mentions {reference}, which nothing can be")
        segments += kind == SEGMENT
    if extra.outputs and not all(
        0 <= index < len(extra.references) for index, _ in extra.outputs
    ):
        raise ProtocolError(f"parts {extra.outputs} of {len(extra.references)} tasks")
    for known in extra.known:
        _check_known(known, extra.references)
    if extra.shared is not None:
        _check_shared(extra.shared, segments)
    if extra.parts is not None and min(extra.parts.lengths, default=0) < 0:
        raise ProtocolError(f"buffers of {extra.parts.lengths} bytes")


def _check_known(known: Known, mentioned: list[Reference]) -> None:
    index = known.index
    if not 0 <= index < len(mentioned):
        raise ProtocolError(f"a value of {index}, where {len(mentioned)} are mentioned")
    if mentioned[index].kind not in (TASK, ALLOWED):
        raise ProtocolError(f"a value of {index}, which is no task")
    if any(reference.kind != SEGMENT for reference in known.references):
        raise ProtocolError("a value that mentions more than segments")
    if known.shared is not None:
        check_extra(Extra(known.references, shared=known.shared), 0)
    elif known.references:
        raise ProtocolError("a value that mentions segments, and is in none")


def _check_shared(shared: SharedBuffers, segments: int) -> None:
    places = shared.places
    if len(places) != segments:
        raise ProtocolError(f"{len(places)} places for {segments} segments")
    for place in places:
        if place.size <= 0:
            raise ProtocolError(f"a segment of {place.size} bytes")
    for index, offset, nbytes in shared.layout:
        if not 0 <= index < segments:
            raise ProtocolError(f"a buffer in segment {index} of {segments}")
        if min(offset, nbytes) < 0 or offset + nbytes > places[index].size:
            raise ProtocolError(
                f"a buffer of {nbytes} bytes at {offset} of {places[index].size}"
            )
