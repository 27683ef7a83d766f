"""Large buffers that travel in chunks, without input or output.

Where memory is not shared, a buffer of a gigabyte in one message would keep all that
comes after it waiting. So a message says only how long its buffers are, and they follow
in chunks, between which other messages go. Here is what both ends have to remember; no
sockets, no clock, no asyncio. The rules:

* A transfer is the buffers of one message. Its number is the sender's, one count for
  each peer. The message goes before the first chunk.
* The chunks of one transfer come in order, those of several take turns.
* Few are on their way at a time: the receiver says what it has taken out of its link,
  whether it wanted it or not. So little is kept twice, and what a small message waits
  behind is short. One chunk is always allowed, and more if that makes it faster: as
  long as each is taken about as soon as one that is alone, it is the way that takes
  the time, and if not, chunks wait for each other. (TCP Vegas decides so.)
* Who does not want a transfer any more says so; what is on its way is dropped.
* A link gives everything once and in order, so a chunk that is not the next one is a
  fault of the sender's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ProtocolError
from .messages import Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Between two processes of a busy machine with two cores 256 KiB were as fast, 64 KiB
# half as fast; a small call beside them took 4 times its idle time, 6 with 256 KiB, and
# 20 with four chunks of that on the way.
CHUNK_BYTES = 128 << 10
WINDOW_BYTES = 8 << 20  # at most
APART_BYTES = 1 << 20  # of a payload, from which its buffers go in chunks

# A chunk was taken as if it were alone if that took no more than so many times as long
# as one that was; it waited for others if it took more than so many times as long.
_SOON = 1.25
_CROWDED = 1.75
_SLOWLY = 16  # chunks
_GROW = 8  # chunks that were taken soon, for each that more may be on the way


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
        most_bytes: on their way, from which on nothing more is sent in any case.

    >>> departures = Departures(chunk_bytes=2)
    >>> departures.add([b"abc"])
    Parts(number=1, lengths=[3])
    >>> bytes(departures.next(0.0).view), departures.next(0.0)
    (b'ab', None)
    >>> departures.taken(2, 0.1)
    >>> bytes(departures.next(0.1).view)
    b'c'
    """

    def __init__(
        self, chunk_bytes: int = CHUNK_BYTES, most_bytes: int = WINDOW_BYTES
    ) -> None:
        self._chunk_bytes = chunk_bytes
        self._most_bytes = most_bytes
        self.window_bytes = chunk_bytes  # on their way, from which on nothing is sent
        # Not taken: bytes, when sent, and whether nothing else was on its way.
        self._sent: deque[tuple[int, float, bool]] = deque()
        self._alone_s = 0.0  # from sending one alone to hearing that it was taken
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

    def next(self, now_s: float) -> Piece | None:
        """The next chunk to send; None if there is nothing, or it has to wait.

        Args:
            now_s: by any clock.
        """
        if not self._transfers or self.under_way >= self.window_bytes:
            return None
        departing = self._transfers.popleft()
        piece = departing.next(self._chunk_bytes)
        if not departing.is_over:
            self._transfers.append(departing)
        nbytes = piece.view.nbytes
        self._sent.append((nbytes, now_s, not self.under_way))
        self.under_way += nbytes
        return piece

    def taken(self, nbytes: int, now_s: float) -> None:
        """The peer has taken another chunk.

        Args:
            nbytes: of the chunk.
            now_s: by the clock of ``next``.

        Raises:
            ProtocolError: it was not sent so; nothing has changed.
        """
        if not self._sent or self._sent[0][0] != nbytes:
            raise ProtocolError(
                f"{nbytes} bytes were taken, of {self.under_way} on their way"
            )
        _, sent_s, was_alone = self._sent.popleft()
        took_s = now_s - sent_s
        self.under_way -= nbytes
        if nbytes < self._chunk_bytes:
            return  # the end of a buffer, which is soon taken
        alone_s = self._alone_s
        if not alone_s or took_s < alone_s:
            self._alone_s = alone_s = took_s
        elif was_alone:  # slowly: it may have waited for something else
            self._alone_s = alone_s = alone_s + (took_s - alone_s) / _SLOWLY
        if took_s <= _SOON * alone_s:
            grown = self.window_bytes + self._chunk_bytes // _GROW
            self.window_bytes = min(grown, self._most_bytes)
        elif took_s > _CROWDED * alone_s:
            shrunk = self.window_bytes - self._chunk_bytes
            self.window_bytes = max(shrunk, self._chunk_bytes)

    def drop(self, number: int) -> None:
        """The peer does not want the rest; it may have been sent already."""
        for departing in self._transfers:
            if departing.number == number:
                self._transfers.remove(departing)
                return


class Arriving:
    """One transfer from a peer."""

    __slots__ = ("_memory", "left", "lengths", "number", "place")

    def __init__(self, parts: Parts, allocate: Callable[[int], memoryview]) -> None:
        self.number = parts.number
        self.lengths = parts.lengths
        self.left = sum(parts.lengths)  # bytes that are still to come
        self.place = (0, 0)  # buffer and offset of the next chunk
        self._memory = [allocate(nbytes) for nbytes in parts.lengths]
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
    """What comes from one peer in chunks.

    Args:
        allocate: makes memory for a buffer; OSError if there is none.
    """

    def __init__(self, allocate: Callable[[int], memoryview] | None = None) -> None:
        self._allocate = allocate or plain_memory
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
        arriving = Arriving(parts, self._allocate)
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


def plain_memory(nbytes: int) -> memoryview:
    """Memory that is used once."""
    return memoryview(bytearray(nbytes))
