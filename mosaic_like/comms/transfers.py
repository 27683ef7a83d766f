"""Large buffers that travel in chunks, without input or output.

Where memory is not shared, a buffer of a gigabyte in one message would keep all that
comes after it waiting. So a message says only how long its buffers are, and they follow
in chunks, between which other messages go. Here is what both ends have to remember; no
sockets, no clock, no asyncio. The rules:

* A transfer is the buffers of one message. Its number is the sender's, one count for
  each peer. The message goes before the first chunk.
* The chunks of one transfer come in order, those of several take turns.
* About WINDOW_BYTES are on their way to a peer at most: the receiver says what it has
  taken out of its link, whether it wanted it or not. So little is kept twice, and what
  a small message waits behind is short.
* Who does not want a transfer any more says so; what is on its way is dropped.
* A link gives everything once and in order, so a chunk that is not the next one is a
  fault of the sender's.
"""

from __future__ import annotations

import contextlib
import mmap
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ProtocolError
from .gathering import Mapped
from .messages import Parts

if TYPE_CHECKING:
    from collections.abc import Sequence

# Measured with two processes on one machine: half as large a chunk costs a fifth of the
# speed, and with twice the window a small call waits twice as long.
CHUNK_BYTES = 256 << 10
WINDOW_BYTES = 1 << 20
APART_BYTES = 1 << 20  # of a payload, from which its buffers go in chunks
_HUGE_BYTES = 4 << 20


class Piece(NamedTuple):
    """A chunk that is to be sent now."""

    transfer: int
    buffer: int  # index
    offset: int  # bytes
    view: memoryview


class _Departing:
    """One transfer to a peer: how far it is."""

    __slots__ = ("buffer", "number", "offset", "views")

    def __init__(self, number: int, views: list[memoryview]) -> None:
        self.number = number
        self.views = views
        self.buffer = 0
        self.offset = 0
        self._skip_empty()

    @property
    def is_over(self) -> bool:
        return self.buffer == len(self.views)

    def next(self, nbytes: int) -> Piece:
        """The next chunk; there is one."""
        view = self.views[self.buffer]
        offset = self.offset
        chunk = view[offset : offset + nbytes]
        piece = Piece(self.number, self.buffer, offset, chunk)
        self.offset += chunk.nbytes
        if self.offset == view.nbytes:
            self.offset = 0
            self.buffer += 1
            self._skip_empty()
        return piece

    def _skip_empty(self) -> None:
        while not self.is_over and not self.views[self.buffer].nbytes:
            self.buffer += 1


class Departures:
    """What goes to one peer in chunks.

    Args:
        chunk_bytes: of each chunk but the last of a buffer.
        window_bytes: on their way, from which on nothing more is sent.

    >>> departures = Departures(chunk_bytes=2, window_bytes=2)
    >>> departures.add([b"abc"])
    Parts(number=1, lengths=[3])
    >>> bytes(departures.next().view), departures.next()
    (b'ab', None)
    >>> departures.taken(2)
    >>> bytes(departures.next().view)
    b'c'
    """

    def __init__(
        self, chunk_bytes: int = CHUNK_BYTES, window_bytes: int = WINDOW_BYTES
    ) -> None:
        self._chunk_bytes = chunk_bytes
        self._window_bytes = window_bytes
        self._number = 0
        self._transfers: deque[_Departing] = deque()  # the first has the next turn
        self.under_way = 0  # bytes sent and not taken

    def __len__(self) -> int:
        """Transfers of which something is still to be sent."""
        return len(self._transfers)

    def add(self, buffers: Sequence[bytes | memoryview]) -> Parts:
        """Another transfer; what its message says of it.

        Args:
            buffers: contiguous memory that nobody changes. It is kept until it is sent.
        """
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        self._number += 1
        departing = _Departing(self._number, views)
        if not departing.is_over:
            self._transfers.append(departing)
        return Parts(self._number, [view.nbytes for view in views])

    def next(self) -> Piece | None:
        """The next chunk to send; None if there is nothing, or it has to wait."""
        if not self._transfers or self.under_way >= self._window_bytes:
            return None
        departing = self._transfers.popleft()
        piece = departing.next(self._chunk_bytes)
        if not departing.is_over:
            self._transfers.append(departing)
        self.under_way += piece.view.nbytes
        return piece

    def taken(self, nbytes: int) -> None:
        """The peer has taken so many bytes more.

        Raises:
            ProtocolError: more than were sent; nothing has changed.
        """
        if not 0 <= nbytes <= self.under_way:
            raise ProtocolError(
                f"{nbytes} bytes were taken, of {self.under_way} on their way"
            )
        self.under_way -= nbytes

    def drop(self, number: int) -> None:
        """The peer does not want the rest; it may have been sent already."""
        for departing in self._transfers:
            if departing.number == number:
                self._transfers.remove(departing)
                return

    def clear(self) -> None:
        """The peer is lost."""
        self._transfers.clear()
        self.under_way = 0


class Memory(mmap.mmap, Mapped):
    """Where a buffer is put together: views on it are given out, and it keeps still.

    Its pages come as they are written; a bytearray would first be filled with zeros.
    """


class Arriving:
    """One transfer from a peer."""

    __slots__ = ("_memory", "left", "lengths", "number", "place")

    def __init__(self, parts: Parts) -> None:
        self.number = parts.number
        self.lengths = parts.lengths
        self.left = sum(parts.lengths)  # bytes that are still to come
        self.place = (0, 0)  # buffer and offset of the next chunk
        self._memory = [_memory(nbytes) for nbytes in parts.lengths]
        self._go_to_next(0, 0)

    def take(self, buffer: int, offset: int, view: memoryview) -> None:
        """Copy a chunk to its place.

        Raises:
            ProtocolError: it is not the next one, or too long.
        """
        nbytes = view.nbytes
        if (
            (buffer, offset) != self.place
            or not nbytes
            or offset + nbytes > self.lengths[buffer]
        ):
            raise ProtocolError(
                f"transfer {self.number}: {nbytes} bytes for {(buffer, offset)} came "
                f"where {self.place} was due, of buffers of {self.lengths} bytes"
            )
        self._memory[buffer][offset : offset + nbytes] = view
        self.left -= nbytes
        self._go_to_next(buffer, offset + nbytes)

    def _go_to_next(self, buffer: int, offset: int) -> None:
        lengths = self.lengths
        while buffer < len(lengths) and offset == lengths[buffer]:
            buffer += 1
            offset = 0
        self.place = buffer, offset

    def views(self) -> tuple[memoryview, ...]:
        """The buffers, read-only, when all is here."""
        return tuple(view.toreadonly() for view in self._memory)


class Arrivals:
    """What comes from one peer in chunks."""

    def __init__(self) -> None:
        self._transfers: dict[int, Arriving] = {}
        self._newest = 0

    def __len__(self) -> int:
        return len(self._transfers)

    def expect(self, parts: Parts) -> Arriving:
        """A message has told of a transfer; it may be complete at once, if empty.

        Raises:
            ProtocolError: it makes no sense.
            OSError: there is no memory for it. Its chunks will be dropped.
        """
        if parts.number <= self._newest or min(parts.lengths, default=0) < 0:
            raise ProtocolError(f"after transfer {self._newest} came {parts}")
        self._newest = parts.number
        arriving = Arriving(parts)
        if arriving.left:
            self._transfers[parts.number] = arriving
        return arriving

    def take(
        self, number: int, buffer: int, offset: int, view: memoryview
    ) -> Arriving | None:
        """A chunk has come; the transfer that is complete by it, if one is.

        Raises:
            ProtocolError: it fits nowhere; its transfer will never be complete.
        """
        arriving = self._transfers.get(number)
        if arriving is None:
            return None  # it is not wanted any more
        arriving.take(buffer, offset, view)
        if arriving.left:
            return None
        return self._transfers.pop(number)

    def drop(self, number: int) -> bool:
        """Nobody wants it any more; whether something was still to come."""
        return self._transfers.pop(number, None) is not None


def _memory(nbytes: int) -> memoryview:
    if not nbytes:
        return memoryview(b"")
    try:
        memory = Memory(-1, nbytes)
    except (OverflowError, ValueError, MemoryError) as error:
        raise OSError(f"there is no memory for {nbytes} bytes: {error}") from None
    if nbytes >= _HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)
