"""What callers and actors of a run did, in files that outlive who wrote them.

Each writer has a file of its own, mapped into memory: a record is there as soon as it
is written, also if its process is killed in the next moment, and to write one takes no
system call. A file is a count of 8 bytes and then records of 24::

    time f64 (monotonic, s) | number u32 | pid u32 | stream u16 | event u8 | detail u8

A *stream* is one caller and one actor; its calls are numbered from 0 in call order.
What a history must be like is not here but in ``checker``.
"""

from __future__ import annotations

import asyncio
import enum
import mmap
import os
import secrets
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mosaic_like.errors import (
    PoisonedCall,
    RemoteError,
    RuntimeDisconnectedError,
    SerializationError,
    TaskCancelledError,
    TaskTimeoutError,
    UpstreamError,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE_BYTES = 4 << 20  # sparse: what is not written takes no space
_COUNT = struct.Struct("<Q")
_RECORD = struct.Struct("<dIIHBB4x")
_LOOK_S = 0.002
_SUFFIX = ".history"


class Event(enum.IntEnum):
    """What is noted, and who notes it."""

    SUBMITTED = 1  # the caller, before the call
    OUTCOME = 2  # the caller; the detail is an Outcome
    STARTED = 3  # the actor, first of all
    ENDED = 4  # the actor, last of all
    MADE = 5  # the actor, in its constructor
    CLOSED = 6  # the actor, in ``__close__``
    FAULT = 7  # the run, right before it does it
    HEALED = 8  # the run, right after it has undone it


class Outcome(enum.IntEnum):
    """How a call ended, as its caller was told."""

    VALUE = 1
    RAISED = 2  # by the method itself
    LOST_NOT_STARTED = 3
    LOST_MAYBE_RAN = 4
    LOST_RESULT = 5
    CANCELLED_NOT_STARTED = 6
    CANCELLED_RUNNING = 7
    LATE_NOT_STARTED = 8
    LATE_RUNNING = 9
    UPSTREAM = 10
    REFUSED = 11  # the tessera is gone or was closed
    BAD_VALUE = 12  # an argument or result that cannot travel
    NO_ROOM = 13  # memory, disk or descriptors are used up
    POISONED = 14  # it had ended its worker too often
    OTHER = 15


_LOST = {
    Verdict.NOT_STARTED: Outcome.LOST_NOT_STARTED,
    Verdict.MAYBE_RAN: Outcome.LOST_MAYBE_RAN,
    Verdict.RAN_RESULT_LOST: Outcome.LOST_RESULT,
}


class AsAsked(Exception):
    """What a method of a run raises when it is told to."""


def outcome_of(error: BaseException | None) -> Outcome:
    """How a call ended that raised this; None: it gave a value."""
    not_started = getattr(error, "verdict", None) is Verdict.NOT_STARTED
    match error:
        case None:
            return Outcome.VALUE
        case AsAsked() | RemoteError():
            return Outcome.RAISED
        case RuntimeDisconnectedError():
            return _LOST[error.verdict]
        case TaskCancelledError() | asyncio.CancelledError():
            cancelled = Outcome.CANCELLED_NOT_STARTED, Outcome.CANCELLED_RUNNING
            return cancelled[not not_started]
        case TaskTimeoutError():
            late = Outcome.LATE_NOT_STARTED, Outcome.LATE_RUNNING
            return late[not not_started]
        case PoisonedCall():
            return Outcome.POISONED
        case UpstreamError():
            return Outcome.UPSTREAM
        case SerializationError():
            return Outcome.BAD_VALUE
        case MemoryError() | OSError():
            return Outcome.NO_ROOM
        case LookupError():
            return Outcome.REFUSED
        case _:
            return Outcome.OTHER


class Record(NamedTuple):
    """One line of a history; sorts by time."""

    time_s: float
    number: int
    pid: int
    stream: int
    event: Event
    detail: int

    @property
    def call(self) -> tuple[int, int]:
        return self.stream, self.number


class Writer:
    """One file, for one process; its methods may be called in any thread."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        name = f"{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        path = self._folder / name
        with path.open("x+b") as file:
            file.truncate(FILE_BYTES)
            self._map = mmap.mmap(file.fileno(), FILE_BYTES)
        self._count = 0
        self._lock = threading.Lock()

    def note(
        self, event: Event, stream: int = 0, number: int = 0, detail: int = 0
    ) -> float:
        """Write one record; the time that it got."""
        if os.getpid() != self._pid:  # a fork: that file is its parent's
            self._begin()
        with self._lock:
            now_s = time.monotonic()
            at = _COUNT.size + self._count * _RECORD.size
            _RECORD.pack_into(
                self._map, at, now_s, number, os.getpid(), stream, event, detail
            )
            self._count += 1
            # Last: a record counts when it is whole.
            _COUNT.pack_into(self._map, 0, self._count)
            return now_s


def _looks(condition: Callable[[], bool], what: str, limit_s: float) -> Iterator[None]:
    """One step for each look that was in vain, until one is not."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"in {limit_s:g} s there was no {what}")
        yield


class Reader:
    """Follows all files of a folder."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._files: dict[str, tuple[mmap.mmap, int]] = {}
        self._records: list[Record] = []

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for mapped, _count in self._files.values():
            mapped.close()
        self._files.clear()

    def records(self) -> list[Record]:
        """All there are by now, in order of time."""
        self._look()
        return sorted(self._records)

    def count(self, event: Event, call: tuple[int, int] | None = None) -> int:
        """How often this has been noted."""
        self._look()
        return sum(r.event is event and call in (None, r.call) for r in self._records)

    async def until(
        self, condition: Callable[[], bool], what: str, limit_s: float = 20.0
    ) -> None:
        """Wait, on a loop, for what only the history tells.

        Raises:
            TimeoutError: it did not come; the text says what was waited for.
        """
        for _ in _looks(condition, what, limit_s):
            await asyncio.sleep(_LOOK_S)

    def wait(
        self, condition: Callable[[], bool], what: str, limit_s: float = 20.0
    ) -> None:
        """The same where the loop is to stand still meanwhile, or there is none.

        Raises:
            TimeoutError: it did not come; the text says what was waited for.
        """
        for _ in _looks(condition, what, limit_s):
            time.sleep(_LOOK_S)

    def _look(self) -> None:
        for name in os.listdir(self._folder):
            if not name.endswith(_SUFFIX):
                continue
            mapped, seen = self._files.get(name, (None, 0))
            if mapped is None:
                path = self._folder / name
                if path.stat().st_size < FILE_BYTES:
                    continue  # just being made
                with path.open("rb") as file:
                    mapped = mmap.mmap(
                        file.fileno(), FILE_BYTES, access=mmap.ACCESS_READ
                    )
            (count,) = _COUNT.unpack_from(mapped, 0)
            for index in range(seen, count):
                found = _RECORD.unpack_from(mapped, _COUNT.size + index * _RECORD.size)
                time_s, number, pid, stream, event, detail = found
                self._records.append(
                    Record(time_s, number, pid, stream, Event(event), detail)
                )
            self._files[name] = mapped, count
