"""The segments that one warehouse keeps: where each is, and what to do with it when.

Who holds a segment is counted in ``holders.py``, as for any object; here is what that
means for the memory. The rules:

* The maker of a segment writes it and announces it (``adopt``); the warehouse opens it,
  so that it outlives its maker. If it cannot, the segment is *borrowed*: it lives as
  long as its maker keeps it.
* Who could not open it where the payload said asks (``locate``). The question may come
  before the announcement, on another link: it waits for that, or for the maker's loss.
* When nobody holds it (``freed``) the maker gets its memory back to use it again; what
  is in a file, or whose maker is gone, is closed.
* ``spill`` takes it out of memory: what reads it meanwhile and after finds it where it
  was. If it is freed while it is being written, it goes when that has ended. When to
  spill says ``excess``: before the memory is full, so that makers find some free.
* Where there is no memory left its maker has written it into a file at once: from its
  announcement on the warehouse has that file.

Nothing is opened or sent here: what to do is returned, in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..errors import InvalidTransitionError
from ..ids import maker

if TYPE_CHECKING:
    from collections.abc import Iterable

STATES = ("expected", "kept", "borrowed", "spilling", "spilled", "freed")
EXPECTED, KEPT, BORROWED, SPILLING, SPILLED, FREED = range(6)

EVENTS = ("adopt", "borrow", "spill", "written", "refused", "free", "adopt file")
ADOPT, BORROW, SPILL, WRITTEN, REFUSED, FREE, ADOPT_FILE = range(7)

# Of the memory limit: from where on, and down to where, is spilled.
SPILL_FROM, SPILL_TO = 0.9, 0.75

# Every move there is. FREED is only for what is still being written.
TRANSITIONS: dict[int, dict[int, int]] = {
    EXPECTED: {ADOPT: KEPT, BORROW: BORROWED, ADOPT_FILE: SPILLED},
    KEPT: {SPILL: SPILLING, FREE: FREED},
    BORROWED: {FREE: FREED},
    SPILLING: {WRITTEN: SPILLED, REFUSED: KEPT, FREE: FREED},
    SPILLED: {FREE: FREED},
    FREED: {WRITTEN: FREED, REFUSED: FREED},
}


class Answer(NamedTuple):
    """Tell who asked where it is, or send its content."""

    to: int
    uid: int
    content: bool


class Missing(NamedTuple):
    """Tell who asked that it is lost."""

    to: int
    uid: int


class Close(NamedTuple):
    """The warehouse has it open and does not need it any more."""

    uid: int


class Return(NamedTuple):
    """Its maker may use the memory again."""

    to: int
    uid: int


class Forget(NamedTuple):
    """It is in a file: its maker is to let go of the memory."""

    to: int
    uid: int


Effect = Answer | Missing | Close | Return | Forget


class Segment:
    """One segment as its warehouse sees it."""

    __slots__ = ("asked", "shared", "size", "state", "uid", "used")

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.size = 0  # bytes
        self.state = EXPECTED
        self.shared = False  # not its maker alone holds it: `holders` counts
        self.asked: list[tuple[int, bool]] = []  # by whom; for its content?
        self.used = 0  # count of the uses of all; the last of this one

    def move(self, event: int) -> None:
        new = TRANSITIONS[self.state].get(event)
        if new is None:
            raise InvalidTransitionError(STATES[self.state], EVENTS[event])
        self.state = new

    def __repr__(self) -> str:
        return f"<Segment {self.uid} {STATES[self.state]}, {self.size} bytes>"


class Store:
    """All segments of one warehouse.

    Args:
        segments: where to keep them, if who counts the holders looks there too.

    Attributes:
        segments: those that were announced and not freed, by uid.
        resident: bytes of them that are in memory.
        orphaned: bytes of these whose makers are gone, and do not count them.
        spilling: bytes of these that are being written to files.
        spilled: bytes of them that are in files.
    """

    def __init__(self, segments: dict[int, Segment] | None = None) -> None:
        self.segments = {} if segments is None else segments
        self.resident = 0
        self.orphaned = 0
        self.spilling = 0
        self.spilled = 0
        self._expected: dict[int, Segment] = {}
        self._freed: dict[int, Segment] = {}  # that are still being written
        self._lost: set[int] = set()
        self._uses = 0

    # -- events ------------------------------------------------------------------------

    def adopt(
        self, uid: int, size: int, *, opened: bool, in_file: bool = False
    ) -> list[Effect]:
        """Its maker has announced it.

        Args:
            uid: of the segment.
            size: bytes.
            opened: the warehouse has opened it.
            in_file: it is in a file already.
        """
        segment = self._expected.pop(uid, None) or Segment(uid)
        segment.size = size
        segment.move((ADOPT_FILE if in_file else ADOPT) if opened else BORROW)
        self.segments[uid] = segment
        self._use(segment)
        effects: list[Effect] = []
        if segment.state == SPILLED:
            self.spilled += size
            effects.append(Forget(maker(uid), uid))
        elif opened:
            self.resident += size
        asked, segment.asked = segment.asked, []
        effects += [self._answer(segment, to, content) for to, content in asked]
        return effects

    def locate(self, uid: int, asker: int, *, content: bool = False) -> list[Effect]:
        """Somebody who holds it could not open it."""
        segment = self.segments.get(uid)
        if segment is not None:
            self._use(segment)
            return [self._answer(segment, asker, content)]
        if maker(uid) in self._lost:
            return [Missing(asker, uid)]
        segment = self._expected.setdefault(uid, Segment(uid))
        segment.asked.append((asker, content))
        return []

    def freed(self, uid: int) -> list[Effect]:
        """Nobody holds it any more."""
        segment = self.segments.pop(uid)
        state = segment.state
        segment.move(FREE)
        if state == SPILLING:
            self._leave_memory(segment)
            self.spilling -= segment.size
            self._freed[uid] = segment
            return []
        if state == SPILLED:
            self.spilled -= segment.size
            return [Close(uid)]
        effects: list[Effect] = []
        if state == KEPT:
            self._leave_memory(segment)
            effects.append(Close(uid))
        if maker(uid) not in self._lost:
            effects.append(Return(maker(uid), uid))
        return effects

    def lost(self, incarnation: int) -> list[Effect]:
        """A runtime is gone: what it has not announced will never come."""
        self._lost.add(incarnation)
        effects: list[Effect] = []
        for segment in self.segments.values():
            if segment.state in (KEPT, SPILLING) and maker(segment.uid) == incarnation:
                self.orphaned += segment.size
        for uid, segment in list(self._expected.items()):
            segment.asked = [a for a in segment.asked if a[0] != incarnation]
            if maker(uid) == incarnation:
                effects += [Missing(to, uid) for to, _ in segment.asked]
                del self._expected[uid]
            elif not segment.asked:
                del self._expected[uid]
        return effects

    # -- memory ------------------------------------------------------------------------

    def excess(self, limit: float) -> list[int]:
        """What to spill now.

        Args:
            limit: bytes of memory that all segments may take.
        """
        staying = self.resident - self.spilling
        if staying <= SPILL_FROM * limit:
            return []
        return self.coldest(staying - int(SPILL_TO * limit))

    def coldest(self, nbytes: int) -> list[int]:
        """What to spill so that so many bytes are free: those used longest ago."""
        kept = [s for s in self.segments.values() if s.state == KEPT]
        chosen = []
        for segment in sorted(kept, key=lambda s: s.used):
            if nbytes <= 0:
                break
            chosen.append(segment.uid)
            nbytes -= segment.size
        return chosen

    def spill(self, uids: Iterable[int]) -> None:
        """They are being written to files."""
        for uid in uids:
            segment = self.segments[uid]
            segment.move(SPILL)
            self.spilling += segment.size

    def written(self, uid: int, *, refused: bool = False) -> list[Effect]:
        """The file is there, or could not be written."""
        freed = self._freed.pop(uid, None)
        if freed is not None:
            freed.move(WRITTEN)
            effects: list[Effect] = [Close(uid)]
            if maker(uid) not in self._lost:
                effects.append(Return(maker(uid), uid))
            return effects
        segment = self.segments[uid]
        segment.move(REFUSED if refused else WRITTEN)
        self.spilling -= segment.size
        if refused:
            return []
        self._leave_memory(segment)
        self.spilled += segment.size
        return [] if maker(uid) in self._lost else [Forget(maker(uid), uid)]

    # -- inside ------------------------------------------------------------------------

    def _leave_memory(self, segment: Segment) -> None:
        self.resident -= segment.size
        if maker(segment.uid) in self._lost:
            self.orphaned -= segment.size

    def _use(self, segment: Segment) -> None:
        self._uses += 1
        segment.used = self._uses

    def _answer(self, segment: Segment, to: int, content: bool) -> Effect:
        if segment.state == BORROWED:
            # It is where its maker has it, as the payload said, or nowhere.
            return Missing(to, segment.uid)
        return Answer(to, segment.uid, content)
