"""The segments that this runtime has made: to write into, on loan, and to use again.

    fresh ── taken ──> on loan (adopted by the warehouse) ── returned ──> free ── taken
                              │ warehouse lost                              │ idle, or
                              └──> left ── nobody here needs it ──> closed <┘ too many

Memory that was touched before takes a copy in a seventh of the time of fresh memory, so
what comes back is kept for a while. ``take`` may be called on any thread, all else on
the loop's; there is no lock, because each step on what both use is one operation of a
list or dict. No messages are sent from here.

All memory that is here is counted in the ledger of the host (``core/budget.py``). Where
there is no more a segment is a file from the beginning, which the warehouse takes over
and which is forgotten here (``spilled``).
"""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

from ..core.budget import Account
from ..errors import MemoryOverflowError
from ..sizes import size_text
from .segments import create, place_of, size_class, write
from .spill import create_file, file_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..comms.messages import Place
    from .mapping import Mapping

FREE_BYTES = 512 << 20  # kept free at most, of touched memory
# This part of the descriptors of a process, after those of its links, may be segments
# on loan, and as many free ones.
_FD_SHARE = 4
_FD_OTHERS = 48


class Segment:
    """One of this runtime's own.

    Args:
        size: bytes, as others see it.
        directory: of the file that it is; empty: it is memory.
    """

    __slots__ = (
        "_mapping",
        "counted",
        "fd",
        "held",
        "idle_since_s",
        "in_file",
        "owner",
        "place",
        "size",
        "touched",
    )

    def __init__(self, size: int, directory: str = "") -> None:
        self.size = size
        self.in_file = bool(directory)
        self.fd = create_file(directory, size) if directory else create(size)
        self.counted = 0  # bytes, in the ledger
        self.place: Place = file_place(self.fd) if directory else place_of(self.fd)
        self.touched = 0  # bytes from its beginning whose pages are there
        self.held = False  # by a payload here, which may still be sent
        self.owner = 0  # incarnation of the warehouse that has adopted it
        self.idle_since_s = 0.0
        self._mapping: Mapping | None = None

    def fill(self, parts: Iterable[tuple[int, memoryview]], nbytes: int) -> None:
        """Copy buffers to their offsets; both ways let go of the GIL."""
        if nbytes > self.touched:
            for offset, view in parts:
                write(self.fd, view, offset)
            self.touched = nbytes
            return
        from .mapping import Mapping

        if self._mapping is None:
            self._mapping = Mapping(self.fd, self.size, writable=True)
            self._mapping.populate(self.touched)
        for offset, view in parts:
            self._mapping.fill(offset, view)

    def close(self) -> None:
        """Others that have it open or mapped keep it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        self._mapping = None


class Stock:
    """All segments of one runtime.

    Args:
        free_bytes: kept free at most.
        no_room: called, from any thread, with why a value stays in memory for which
            there is none.
    """

    def __init__(
        self,
        free_bytes: int = FREE_BYTES,
        no_room: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._free_bytes = free_bytes
        self._no_room = no_room
        self.account = Account()
        self.directory = ""  # for files; empty: there are none
        self._free: dict[int, list[Segment]] = {}  # by size; the last used last
        self.on_loan: dict[int, Segment] = {}  # by uid
        # Of a warehouse that is lost: nobody would say when they are not needed.
        self._left: list[tuple[float, Segment]] = []
        self.made = 0  # segments that had to be created
        self.bytes_copied = 0
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = max(4, (soft - _FD_OTHERS) // _FD_SHARE)

    def take(
        self, uid: int, owner: int, parts: Sequence[tuple[int, memoryview]], nbytes: int
    ) -> Segment:
        """Copy buffers into a segment, which is on loan from now on.

        Args:
            uid: of this use of it.
            owner: incarnation of the warehouse that will adopt it.
            parts: offset and contiguous memory of each buffer.
            nbytes: up to where they reach.

        Raises:
            OSError: there is none: too many are on loan, or the system refuses.
            MemoryOverflowError: the value is larger than all that there may ever be.
        """
        size = size_class(nbytes)
        segment = self._find(size, nbytes)
        try:
            segment.fill(parts, nbytes)
        except OSError as error:
            in_file = segment.in_file
            self._end(segment)
            if not in_file:
                raise
            segment = self._beyond(size, nbytes, f"writing a file failed: {error}")
            segment.fill(parts, nbytes)
        except BaseException:
            self._end(segment)
            raise
        segment.owner = owner
        segment.held = True
        self.bytes_copied += nbytes
        self.on_loan[uid] = segment
        return segment

    def _find(self, size: int, nbytes: int) -> Segment:
        for candidate in (size, 2 * size):
            try:
                segment = self._free[candidate].pop()
            except (KeyError, IndexError):
                continue
            more = nbytes - segment.counted
            if more <= 0:
                return segment
            if self.account.take_memory(more):
                segment.counted = nbytes
                return segment
            self._end(segment)
        if len(self.on_loan) >= self._most:
            raise OSError(
                f"{len(self.on_loan)} segments are in use, about a quarter of the "
                "descriptors that this process may open: raise 'ulimit -n', or drop "
                "values"
            )
        if self.account.take_memory(nbytes):
            return self._create(size, nbytes)
        for free in list(self._free.values()):
            for segment in list(free):
                self._close(segment)
        if self.account.take_memory(nbytes):
            return self._create(size, nbytes)
        return self._create_file(size, nbytes)

    def _create(self, size: int, nbytes: int) -> Segment:
        """Memory that is counted already."""
        try:
            segment = Segment(size)
        except BaseException:
            self.account.give(memory=nbytes)
            raise
        self.made += 1
        segment.counted = nbytes
        return segment

    def _create_file(self, size: int, nbytes: int) -> Segment:
        """There is no memory: a file, if that is possible."""
        memory, files = self.account.limits
        if nbytes > max(memory, files):
            raise MemoryOverflowError(
                f"a value of {size_text(nbytes)} is larger than all the memory that "
                f"values may take on this host, {size_text(memory)} (option memory=), "
                f"and than all their files, {size_text(files)} (spill_limit=): raise "
                "one of them, or pass it in parts"
            )
        if not self.directory:
            return self._beyond(size, nbytes, "there is no disk to spill to")
        if not self.account.take_file(nbytes):
            why = f"the files may take {size_text(files)} (spill_limit=)"
            return self._beyond(size, nbytes, why)
        try:
            segment = Segment(size, self.directory)
        except OSError as error:
            self.account.give(files=nbytes)
            return self._beyond(size, nbytes, f"making a file failed: {error}")
        self.made += 1
        segment.counted = nbytes
        return segment

    def _beyond(self, size: int, nbytes: int, why: str) -> Segment:
        """Memory although there is none left: to stop here would help nobody."""
        self._no_room(why)
        self.account.take_memory(nbytes, anyhow=True)
        return self._create(size, nbytes)

    def _end(self, segment: Segment) -> None:
        segment.close()
        counted, segment.counted = segment.counted, 0
        if segment.in_file:
            self.account.give(files=counted)
        else:
            self.account.give(memory=counted)

    @property
    def free_bytes(self) -> int:
        """Touched memory that waits to be used again."""
        return sum(s.touched for free in list(self._free.values()) for s in list(free))

    def returned(self, uid: int, now_s: float) -> None:
        """Nobody holds it any more: keep it for the next value, if there is room."""
        segment = self.on_loan.pop(uid, None)
        if segment is None:
            return
        if segment.touched > self._free_bytes or not self.account.relaxed:
            self._end(segment)
            return
        segment.idle_since_s = now_s
        self._free.setdefault(segment.size, []).append(segment)
        while (
            sum(map(len, self._free.values())) > self._most
            or self.free_bytes > self._free_bytes
        ):
            self._close_oldest()

    def _close_oldest(self) -> None:
        firsts = [free[0] for free in self._free.values() if free]
        if firsts:
            oldest = min(firsts, key=lambda s: s.idle_since_s)
            self._close(oldest)

    def _close(self, segment: Segment) -> None:
        try:
            self._free[segment.size].remove(segment)
        except ValueError:
            return  # taken by another thread
        self._end(segment)

    def spilled(self, uid: int, place: Place) -> None:
        """It is in a file of the warehouse now: forget it.

        Args:
            uid: of its use.
            place: where it is, for payloads that are still to be sent from here.
        """
        segment = self.on_loan.pop(uid, None)
        if segment is not None:
            segment.place = place
            self._end(segment)

    def lost(self, owner: int, now_s: float) -> bool:
        """The warehouse is gone, and with it who says when a segment is free.

        What is on its way is opened soon; after that those who need it have it mapped.

        Returns:
            Whether some are left, to be trimmed later.
        """
        for uid, segment in list(self.on_loan.items()):
            if segment.owner == owner:
                del self.on_loan[uid]
                self._left.append((now_s, segment))
        return bool(self._left)

    def trim(self, before_s: float) -> bool:
        """Close what was not used since; whether there is more to close later."""
        for free in list(self._free.values()):
            for segment in list(free):
                if segment.idle_since_s <= before_s:
                    self._close(segment)
        left, self._left = self._left, []
        for since_s, segment in left:
            if segment.held or since_s > before_s:
                self._left.append((since_s, segment))
            else:
                self._end(segment)
        return bool(self._left) or any(self._free.values())

    def close(self) -> None:
        """The end of the runtime."""
        self.account.detach()
        for segment in list(self.on_loan.values()):
            segment.close()
        self.on_loan.clear()
        for _, segment in self._left:
            segment.close()
        self._left.clear()
        for free in list(self._free.values()):
            while free:
                free.pop().close()
