"""The journal of a worker: what it has started and finished, in a file of its node.

A mapped file in the run directory. The thread that runs a call stores its uid there
immediately before and after user code: two stores of eight bytes, which the kernel
keeps whatever becomes of the process. The node reads it when the worker has ended; what
it proves is in ``core.verdicts``.

    bytes 0      header: magic, slots used, overflow, characters said, makers, how many
                 ``__close__`` run, two that are free, then pairs of maker and the
                 largest uid of its tesserae that are gone
    bytes 512    the last lines that were printed or logged, as a ring
    bytes 8704   uids of calls beside which others may run, while they do; 0: free
    bytes 16896  slots of 96 bytes: tessera, caller (0: free), started, finished,
                 irregular, settled, label

The first slot is for what needs no note. A *mark* is the index of ``started`` of a
slot, counted in integers of eight bytes; ``finished`` is the next one. For a call whose
uid is less than one that has started see ``behind``.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import threading
from typing import TYPE_CHECKING

from ..core.verdicts import Mark, Remains
from ..ids import maker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..core.task import Task
    from ..core.tessera import Tessera

_MAGIC = 0x6D6F7361696A3031
# Integers of the header.
_USED, _OVERFLOW, _SAID, _MAKERS, _CLOSING, _PAIRS = 1, 2, 3, 4, 5, 8
_MOST_MAKERS = 28
_TEXT = 512  # bytes
_TEXT_BYTES = 8192
_RUNNING = _TEXT + _TEXT_BYTES
_SLOTS = _RUNNING + 8192
_SLOT_BYTES = 96
_LABEL_BYTES = 48
_SLOT = struct.Struct(f"<6q{_LABEL_BYTES}s")
_FIRST_BYTES = 64 << 10
_MOST_BYTES = 8 << 20
_TESSERA, _CALLER, _IRREGULAR, _SETTLED = -2, -1, 2, 3  # from a mark
_NOWHERE = _SLOTS // 8 + 2  # the mark of the first slot
_FAULT_BYTES = 16 << 10


class Journal:
    """Written by all threads of a worker; stores into ``view`` need no lock.

    Args:
        fd: of an empty file, which is taken over; None: what is noted is lost.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._fd = fd
        # What is printed inside a garbage collection may come while it is held.
        self._lock = threading.RLock()
        self._free: list[int] = []
        self._used = 1
        self._makers: dict[int, int] = {}  # where the header has them
        self._places: list[int] = []  # of calls that run, which are free again
        self._next_place = _RUNNING // 8
        self.view = memoryview(bytearray(_SLOTS + _SLOT_BYTES)).cast("q")
        self._bytes = self.view.cast("B")
        if fd is not None:
            try:
                self._grow(_FIRST_BYTES)
            except OSError:
                self.close()  # a full disk must not end the worker
                return
            self.view[_USED] = 1
            self.view[0] = _MAGIC

    @classmethod
    def create(cls, path: str) -> Journal:
        """A journal in a new file; one that notes nothing if that cannot be made."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return cls(os.open(path, flags, 0o600))
        except OSError:
            return cls()

    def _grow(self, size: int) -> None:
        assert self._fd is not None
        # Reserved: a store into a hole would be SIGBUS on a disk that is full.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._fd, 0, size)
        else:  # macOS
            os.ftruncate(self._fd, size)
        # Who stores into the old view stores into the same pages.
        whole = memoryview(mmap.mmap(self._fd, size))
        self._bytes, self.view = whole, whole.cast("q")

    def close(self) -> None:
        """Nothing is noted any more, also in a child that user code forked."""
        self.view = memoryview(bytearray(len(self.view) * 8)).cast("q")
        self._bytes = self.view.cast("B")
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    # -- marks -------------------------------------------------------------------------

    def mark(self, task: Task) -> int:
        """The mark of a task's stream, made when it is the first of it.

        It is kept at the tessera, as long as the same caller calls: who starts a call
        looks there first.
        """
        tessera, caller = task.tessera, task.caller
        with self._lock:
            mark = self._find(tessera, caller)
            if not mark:
                mark = self._new(tessera, caller)
                if tessera.marks is not None:
                    tessera.marks[caller] = mark
                elif tessera.mark:
                    tessera.marks = {tessera.marked: tessera.mark, caller: mark}
            tessera.marked, tessera.mark = caller, mark
        return mark

    def start(self, task: Task) -> None:
        """A call is about to run; where it is not short, this is what is inlined."""
        tessera = task.tessera
        mark = tessera.mark if tessera.marked == task.caller else self.mark(task)
        view = self.view
        if task.uid > view[mark]:
            view[mark] = task.uid
        else:
            self.behind(task, mark)

    def behind(self, task: Task, mark: int) -> None:
        """A call starts whose uid is not larger than that of one before it.

        While it runs ``finished`` has its uid, negative. Where one runs at a time, the
        one with the largest has ended, which nothing would tell any more.
        """
        self.view[mark + 1] = -task.uid
        self.view[mark + _SETTLED] = self.view[mark]

    def enter(self, task: Task) -> int:
        """A call is about to run beside others, on the loop; its place, for ``leave``.

        Of each stream only the last that has started is known otherwise.
        """
        if self._places:
            place = self._places.pop()
        elif self._fd is not None and self._next_place < _SLOTS // 8:
            place = self._next_place
            self._next_place += 1
        else:
            return 0
        self.view[place] = task.uid
        return place

    def leave(self, place: int) -> None:
        """It runs no longer; 0: there was no place for it."""
        if place:
            self.view[place] = 0
            self._places.append(place)

    def finish(self, task: Task) -> None:
        """A call has ended whose stream may not be the last that was looked for."""
        with self._lock:
            mark = self._find(task.tessera, task.caller)
            if mark:
                self.view[mark + 1] = task.uid

    def untold(self, task: Task) -> None:
        """If it was the last that ran, nothing says any more that it ran to its end."""
        with self._lock:
            mark = self._find(task.tessera, task.caller)
            if mark and mark != _NOWHERE and self.view[mark + 1] == task.uid:
                self.view[mark + _IRREGULAR] = 1
                self.view[mark + _SETTLED] = self.view[mark]
                self.view[mark + 1] = 0

    def built_again(self, task: Task) -> None:
        """A construction has ended whose uid is larger than those of calls to come."""
        with self._lock:
            mark = self._find(task.tessera, task.caller)
            if mark and mark != _NOWHERE:
                self.view[mark] = self.view[mark + 1] = 0

    def irregular(self, task: Task) -> None:
        """Not all calls of its stream up to the last one that started have run."""
        with self._lock:
            mark = self._find(task.tessera, task.caller)
            if not mark:
                mark = self._new(task.tessera, task.caller)
                tessera = task.tessera
                if tessera.mark:
                    marks = tessera.marks or {tessera.marked: tessera.mark}
                    tessera.marks = {**marks, task.caller: mark}
                else:
                    tessera.marked, tessera.mark = task.caller, mark
            if mark != _NOWHERE:
                self.view[mark + _IRREGULAR] = 1

    def closing(self, change: int) -> None:
        """So many more ``__close__`` run: what holds the loop may be one of them."""
        with self._lock:
            self.view[_CLOSING] += change

    def gone(self, tessera: Tessera) -> None:
        """No call of it will run any more."""
        with self._lock:
            marks = {tessera.marked: tessera.mark} if tessera.mark else {}
            marks.update(tessera.marks or {})
            tessera.marked, tessera.mark, tessera.marks = -1, 0, None
            used = [mark for mark in marks.values() if mark != _NOWHERE]
            if used:
                self._note_gone(tessera.uid)  # first: else it would look as never made
                for mark in used:
                    self.view[mark + _CALLER] = 0
                self._free += used

    def _find(self, tessera: Tessera, caller: int) -> int:
        if tessera.marked == caller:
            return tessera.mark
        return 0 if tessera.marks is None else tessera.marks.get(caller, 0)

    def _new(self, tessera: Tessera, caller: int) -> int:
        if self._fd is None or not caller:
            return _NOWHERE
        if self._free:
            mark = self._free.pop()
        else:
            end = _SLOTS + (self._used + 1) * _SLOT_BYTES
            if end > len(self._bytes):
                try:
                    if len(self._bytes) >= _MOST_BYTES:
                        raise OSError
                    self._grow(2 * len(self._bytes))
                except OSError:
                    self.view[_OVERFLOW] = 1
                    return _NOWHERE
            mark = _NOWHERE + self._used * _SLOT_BYTES // 8
            self._used += 1
            self.view[_USED] = self._used
        irregular = tessera.options.is_async or not tessera.uid
        label = tessera.options.name.encode()[:_LABEL_BYTES]
        start = (mark + _TESSERA) * 8
        # The caller last: it makes the slot one that counts.
        _SLOT.pack_into(self._bytes, start, tessera.uid, 0, 0, 0, irregular, 0, label)
        self.view[mark + _CALLER] = caller
        return mark

    def _note_gone(self, tessera: int) -> None:
        by = maker(tessera)
        place = self._makers.get(by)
        if place is None:
            if len(self._makers) == _MOST_MAKERS:
                self.view[_OVERFLOW] = 1
                return
            place = self._makers[by] = _PAIRS + 2 * len(self._makers)
            self.view[place + 1] = tessera
            self.view[place] = by
            self.view[_MAKERS] = len(self._makers)
        elif tessera > self.view[place + 1]:
            self.view[place + 1] = tessera

    def remains(self) -> Remains:
        """What would be read if the worker ended now."""
        with self._lock:
            return read(bytes(self._bytes))

    # -- lines -------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Keep the end of what was printed or logged."""
        if self._fd is None:
            return
        data = text.encode("utf-8", "backslashreplace")[-_TEXT_BYTES:]
        with self._lock:
            said = self.view[_SAID]
            place = said % _TEXT_BYTES
            first = data[: _TEXT_BYTES - place]
            rest = data[len(first) :]
            begin = _TEXT + place
            self._bytes[begin : begin + len(first)] = first
            self._bytes[_TEXT : _TEXT + len(rest)] = rest
            self.view[_SAID] = said + len(data)


def paths(directory: str, pid: int) -> tuple[str, str]:
    """Of the journal of a worker, and of what faulthandler writes."""
    return os.path.join(directory, f"j{pid}"), os.path.join(directory, f"f{pid}")


def read(data: bytes) -> Remains:
    """What a journal says; nothing if it is none, or was not begun."""
    if len(data) < _SLOTS + _SLOT_BYTES:
        return Remains()
    header = memoryview(data)[:_TEXT].cast("q")
    if header[0] != _MAGIC:
        return Remains()
    remains = Remains(complete=not header[_OVERFLOW])
    remains.running = [
        uid for uid in memoryview(data)[_RUNNING:_SLOTS].cast("q") if uid
    ]
    makers = min(header[_MAKERS], _MOST_MAKERS)
    for place in range(_PAIRS, _PAIRS + 2 * makers, 2):
        remains.gone.append((header[place], header[place + 1]))
    end = min(_SLOTS + header[_USED] * _SLOT_BYTES, len(data))
    end -= (end - _SLOTS) % _SLOT_BYTES
    slots: Iterable[tuple[int, int, int, int, int, int, bytes]]
    slots = _SLOT.iter_unpack(memoryview(data)[_SLOTS + _SLOT_BYTES : end])
    for *known, irregular, settled, label in slots:
        tessera, caller, started, finished = known
        if caller:
            name = label.rstrip(b"\0").decode("utf-8", "ignore")
            remains.marks.append(
                Mark(tessera, caller, started, finished, bool(irregular), name, settled)
            )
    said = header[_SAID]
    text = data[_TEXT:_RUNNING]
    if said > _TEXT_BYTES:
        place = said % _TEXT_BYTES
        text = (text[place:] + text[:place]).partition(b"\n")[2]
    else:
        text = text[:said]
    remains.lines = text.decode("utf-8", "replace")
    return remains


def collect(directory: str, pid: int) -> Remains:
    """Read what a worker that has ended left, and remove it."""
    remains = Remains()
    journal, fault = paths(directory, pid)
    with contextlib.suppress(OSError), open(journal, "rb") as file:
        remains = read(file.read(_MOST_BYTES))
    with contextlib.suppress(OSError), open(fault, "rb") as file:
        remains.fault = file.read(_FAULT_BYTES).decode("utf-8", "replace")
    remove(directory, pid)
    return remains


def printing(directory: str, pid: int) -> str:
    """Of which tessera a call prints, in a worker that lives; empty: nobody can tell.

    The only one of which a call runs; if none does any more, the only one there is.
    """
    data = b""
    with contextlib.suppress(OSError), open(paths(directory, pid)[0], "rb") as file:
        data = file.read(_MOST_BYTES)
    marks = read(data).marks
    labels = {mark.label for mark in marks if mark.runs}
    labels = labels or {mark.label for mark in marks}
    return labels.pop() if len(labels) == 1 else ""


def is_closing(directory: str, pid: int) -> bool:
    """Whether a ``__close__`` runs in a worker that lives."""
    data = b""
    with contextlib.suppress(OSError), open(paths(directory, pid)[0], "rb") as file:
        data = file.read(_TEXT)
    return len(data) == _TEXT and memoryview(data).cast("q")[_CLOSING] > 0


def remove(directory: str, pid: int) -> None:
    """Remove it unread."""
    for path in paths(directory, pid):
        with contextlib.suppress(OSError):
            os.unlink(path)
