"""What is known of the calls of a worker that died, from what it left behind.

A worker notes for each stream (tessera and caller) the largest uid that it has started
and the last that it has finished, before and after user code runs. Uids of one stream
grow in the order in which its calls start, so a call with a larger uid than any that
was started has not run: that is proof, and never wrong. What has run is told as long
as the stream was *regular*: one call at a time, none of which ended without having
started. Calls that run beside others are noted one by one, so that it is known which
of them ran at the moment of the death.

How these marks are written and read is in ``runtimes.journal``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..errors import Verdict
from ..ids import maker

if TYPE_CHECKING:
    from collections.abc import Container, Iterable


class Mark(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One stream as the journal has it."""

    tessera: int
    caller: int  # incarnation
    started: int  # largest uid, 0 for none
    finished: int  # last uid; negative: that one runs, though a larger one has started
    irregular: bool
    label: str  # of the tessera, such as Counter#1
    settled: int = 0  # largest uid when a smaller one started

    @property
    def running(self) -> int:
        """Uid of the call that ran, if one call ran at a time; 0: none did."""
        if self.finished < 0:
            return -self.finished
        return 0 if self.started in (self.finished, self.settled) else self.started

    @property
    def runs(self) -> bool:
        """It is certain that ``running`` has not finished."""
        return not self.irregular and self.running != 0


class Remains(msgspec.Struct, array_like=True):
    """What a dead worker has left.

    Of a tessera that is gone nothing is kept, but by its maker the largest uid of those
    that are: a stream without a mark to a younger tessera has had no call started.
    """

    marks: list[Mark] = []
    gone: list[tuple[int, int]] = []  # maker, largest uid of its tesserae
    complete: bool = False  # there are marks for all streams
    fault: str = ""  # what faulthandler wrote
    lines: str = ""  # the last that it printed or logged
    memory: str = ""  # how it is known that it was killed for want of memory
    running: list[int] = []  # uids of calls beside which others may have run


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Remains)


def encode(remains: Remains) -> bytes:
    return _encoder.encode(remains)


def decode(data: bytes) -> Remains:
    """The remains from bytes; nothing is known from what cannot be read."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Remains()


def of_leaver(remains: Remains) -> Remains:
    """What counts of one that leaves in order, for who has not heard all of it.

    Calls were refused there between those that ran, so that nothing is concluded from
    a call that was made later; and no call, nor what was printed, has to do with its
    end.
    """
    marks = [
        msgspec.structs.replace(
            mark, finished=max(0, mark.finished), irregular=True, settled=mark.started
        )
        for mark in remains.marks
    ]
    return Remains(marks, remains.gone, remains.complete)


class Verdicts:
    """Judges the calls of one caller, all of which end by the same death.

    Args:
        remains: of the runtime that died.
        me: incarnation of the caller.
        calls: its calls there that have not ended, as tessera and uid, in the order in
            which they were made.
        building: uids of those of them that build a tessera.
    """

    def __init__(
        self,
        remains: Remains,
        me: int,
        calls: Iterable[tuple[int, int]],
        building: Container[int] = (),
    ) -> None:
        self._complete = remains.complete
        self._marks = {m.tessera: m for m in remains.marks if m.caller == me}
        self._there = {m.tessera for m in remains.marks}
        self._gone = dict(remains.gone)
        self._running = set(remains.running)
        self._building = building
        # Threads of a program may make calls at once, whose uids are then not in the
        # order of the stream: of what started before a call nothing is concluded there.
        self._confused: set[int] = set()
        self._waiting: set[int] = set()
        last: dict[int, int] = {}
        for tessera, uid in calls:
            if uid < last.get(tessera, 0):
                self._confused.add(tessera)
            last[tessera] = uid
            self._waiting.add(uid)

    def of(self, tessera: int, uid: int) -> Verdict:
        """Whether a call of this caller has run."""
        mark = self._marks.get(tessera)
        if mark is None:
            return self._unmarked(tessera)
        if uid > mark.started:
            return Verdict.NOT_STARTED
        if mark.started in self._building and uid != mark.started:
            # Where a tessera is built again that has a larger uid than the calls that
            # moved: they start when it has ended, and the mark is set back first.
            return Verdict.NOT_STARTED
        if uid == mark.finished:
            return Verdict.RAN_RESULT_LOST
        if (
            uid < mark.started
            and not mark.irregular
            and tessera not in self._confused
            and mark.started in self._waiting
        ):
            return Verdict.RAN_RESULT_LOST
        return Verdict.MAYBE_RAN

    def ran(self, tessera: int, uid: int) -> bool:
        """The call ran at the moment of the death, as far as is known.

        It had started for certain; where calls overlap it may have just ended.
        """
        mark = self._marks.get(tessera)
        return uid in self._running or (mark is not None and mark.running == uid)

    def _unmarked(self, tessera: int) -> Verdict:
        if self._complete and (
            tessera in self._there or tessera > self._gone.get(maker(tessera), 0)
        ):
            return Verdict.NOT_STARTED
        return Verdict.MAYBE_RAN
