"""Payloads that are more than bytes, as the states see them: sent, and arrived.

What is in them is pickled, and is nobody's business here; see comms/serialization.py.
"""

from __future__ import annotations

from typing import Any

from ..comms.messages import Extra, Reference


class Arrived:
    """A payload that came with a message and is not plain bytes."""

    __slots__ = ("buffers", "data", "grants", "shared", "size")

    def __init__(
        self, data: bytes, buffers: Any = (), grants: Any = (), size: int = 0
    ) -> None:
        self.data = data
        self.buffers = buffers
        self.grants = grants  # by index of reference; kept as long as the payload
        self.size = size  # of a value that stayed where it was made
        # Its segments, or its chunks: while ``size`` is not zero some are not here.
        self.shared: Any = None

    @property
    def nbytes_copied(self) -> int:
        """That reading it takes beside what is shared: of a pickle in shared memory."""
        return 0 if self.shared is None else self.shared.nbytes_copied


def references(payload: Any) -> list[Reference]:
    """What a payload mentions, as it goes over the wire."""
    return [Reference(h.kind, h.uid, h.owner) for h in payload.handles]


def extra_of(payload: Any, extra: Extra | None) -> Extra:
    """What a message must say of a payload that is not plain."""
    if extra is None:
        extra = Extra()
    else:
        extra.known = []  # it may have gone elsewhere before
    extra.references = references(payload)
    if payload.definitions:
        extra.definitions = list(payload.definitions)
    if payload.outputs:
        extra.outputs = payload.outputs
    if payload.buffers:
        extra.buffers = len(payload.buffers)
    elif payload.shared is not None:
        extra.shared = payload.shared.wire
    return extra
