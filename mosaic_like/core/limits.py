"""Until when calls may take: deadlines, and what is done about those that do not end.

No clock is here: who asks says what time it is, in seconds that only ever grow. Two
sides watch a call. Its *owner* stops it at its deadline and, when it has not ended
``GRACE_S`` later, lets its waiters go. Its *caller* does the same a little later, in
case the owner cannot answer: its process is frozen, or a C call holds its interpreter.

    deadline, cancel      the owner asks the call to end
    + NUDGE_S             the caller asks the node to send the signal, again and again
    + GRACE_S             the owner tells the end; the call may go on, alone
    + PATIENCE_S          the caller waits no longer for the owner's word
"""

from __future__ import annotations

import enum
import heapq
import math
from typing import TYPE_CHECKING

from ..comms import messages as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .task import Task

GRACE_S = 1.0
NUDGE_S = 0.3
NUDGE_AGAIN_S = 0.1
PATIENCE_S = 1.3


class Late(str):
    """Why a call is to end, where its time is over; text for people."""

    __slots__ = ("final",)
    final: bool  # the time of the calls around it is over too: no further attempt

    def __new__(cls, why: str, *, final: bool = False) -> Late:
        late = super().__new__(cls, why)
        late.final = final
        return late


class Orphaned(str):
    """Why a call is to end, where its cluster is lost; text for people."""

    __slots__ = ()


def reason_of(why: str | None) -> int:
    """For ``messages.Failed``: why a call that was asked to end has ended."""
    if type(why) is Late:
        return wire.TIMEOUT
    return wire.LOST if type(why) is Orphaned else wire.CANCELLED


def interrupt_of(task: Task) -> int:
    """How a plain method is stopped: FLAG, RAISE or KILL."""
    extra = task.extra
    if extra is not None and extra.interrupt is not None:
        return extra.interrupt
    return task.tessera.options.interrupt


class Deadlines:
    """Moments by the uid of what they are for; the earliest is known at once."""

    __slots__ = ("_at", "_heap")

    def __init__(self) -> None:
        self._at: dict[int, float] = {}
        # Entries that are not in `_at`, or not with this moment, are old ones.
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, uid: int) -> bool:
        return uid in self._at

    def get(self, uid: int) -> float | None:
        """When it is due; None: never."""
        return self._at.get(uid)

    def set(self, uid: int, at_s: float) -> None:
        """It is due then, and not when it was before."""
        self._at[uid] = at_s
        heapq.heappush(self._heap, (at_s, uid))
        if len(self._heap) > 2 * len(self._at) + 64:
            # Those that ended in time leave theirs behind: most do, by far.
            self._heap = [(at_s, uid) for uid, at_s in self._at.items()]
            heapq.heapify(self._heap)

    def drop(self, uid: int) -> None:
        """It is never due."""
        self._at.pop(uid, None)

    @property
    def first_s(self) -> float | None:
        """The earliest moment; None: there is none."""
        heap = self._heap
        while heap and self._at.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now_s: float) -> list[int]:
        """Take out what is due by now, the earliest first."""
        found = []
        while (first_s := self.first_s) is not None and first_s <= now_s:
            uid = heapq.heappop(self._heap)[1]
            del self._at[uid]
            found.append(uid)
        return found


class Step(enum.IntEnum):
    """What a caller does about a call that was asked to end and has not."""

    NUDGE = 0  # have its node send the signal
    GIVE_UP = 1  # wait for it no longer


class Pursuit:
    """The caller's side: the calls that were asked to end, until they have."""

    __slots__ = ("_asked", "_steps")

    def __init__(self) -> None:
        self._steps = Deadlines()
        self._asked: dict[int, tuple[float, str]] = {}  # when to give up, and why

    def __len__(self) -> int:
        return len(self._steps)

    def __contains__(self, uid: int) -> bool:
        """It was asked to end, and neither has nor goes on."""
        return uid in self._asked

    def __iter__(self) -> Iterator[int]:
        """By uid, in the order in which they were asked."""
        return iter(self._asked)

    def why(self, uid: int) -> str:
        """For what it was asked to end."""
        return self._asked[uid][1]

    def begin(self, uid: int, why: str, now_s: float) -> None:
        """It was asked to end, now; asked again, nothing changes."""
        if uid not in self._asked:
            self._asked[uid] = now_s + PATIENCE_S, why
            self._steps.set(uid, now_s + NUDGE_S)

    def ended(self, uid: int) -> None:
        """It has ended, or goes on."""
        self._asked.pop(uid, None)
        self._steps.drop(uid)

    @property
    def first_s(self) -> float | None:
        """When the next step is due."""
        return self._steps.first_s

    def due(self, now_s: float) -> list[tuple[int, Step, str]]:
        """The steps to take now, and why; the last one for a call forgets it."""
        steps = []
        for uid in self._steps.due(now_s):
            give_up_s, why = self._asked[uid]
            if now_s >= give_up_s:
                del self._asked[uid]
                steps.append((uid, Step.GIVE_UP, why))
            else:
                steps.append((uid, Step.NUDGE, why))
                self._steps.set(uid, min(now_s + NUDGE_AGAIN_S, give_up_s))
        return steps


class Limit:
    """The time that one call has, at its owner.

    Args:
        uid: of the call.
        attempt_s: seconds that each attempt has; None: no limit of its own.
        final_s: the moment at which the time of the calls around it is over, or None.
    """

    __slots__ = ("attempt_s", "deadline_s", "final_s", "uid")

    def __init__(
        self, uid: int, attempt_s: float | None, final_s: float | None, now_s: float
    ) -> None:
        self.uid = uid
        self.attempt_s = attempt_s
        self.final_s = final_s
        self.deadline_s = now_s
        self.again(now_s)

    def again(self, now_s: float) -> None:
        """An attempt begins now."""
        ends = [] if self.attempt_s is None else [now_s + self.attempt_s]
        if self.final_s is not None:
            ends.append(self.final_s)
        assert ends, "who has no limit has no Limit"
        self.deadline_s = min(ends)

    def pause(self) -> None:
        """No attempt runs: only the time of the calls around it goes on."""
        self.deadline_s = math.inf if self.final_s is None else self.final_s

    def why(self, now_s: float) -> Late:
        """What is said of it when its time is over."""
        final = self.final_s is not None and self.final_s <= now_s
        if self.deadline_s == self.final_s:
            return Late("the time of the call that made it is over", final=final)
        return Late(f"timeout={self.attempt_s:g}", final=final)


class Limits:
    """The limits of one runtime's calls.

    Few calls are told to it when they end: those that did are swept out as it grows.

    Args:
        is_open: whether a call has not ended.
    """

    __slots__ = ("_deadlines", "_is_open", "_sweep_at", "by_uid")

    def __init__(self, is_open: Callable[[int], bool]) -> None:
        self._is_open = is_open
        self.by_uid: dict[int, Limit] = {}
        self._deadlines = Deadlines()
        self._sweep_at = 64

    def __len__(self) -> int:
        return len(self.by_uid)

    def get(self, uid: int) -> Limit | None:
        """That of a call; None: it may take for ever."""
        return self.by_uid.get(uid)

    def add(self, limit: Limit) -> None:
        """Watch a call."""
        if len(self.by_uid) >= self._sweep_at:
            for uid in [u for u in self.by_uid if not self._is_open(u)]:
                del self.by_uid[uid]
                self._deadlines.drop(uid)
            self._sweep_at = 2 * len(self.by_uid) + 64
        self.by_uid[limit.uid] = limit
        self._deadlines.set(limit.uid, limit.deadline_s)

    def again(self, uid: int, now_s: float) -> None:
        """Another attempt of a call begins now."""
        limit = self.by_uid.get(uid)
        if limit is not None:
            limit.again(now_s)
            self._deadlines.set(uid, limit.deadline_s)

    def pause(self, uid: int) -> None:
        """A call waits for its next attempt, which has a time of its own."""
        limit = self.by_uid.get(uid)
        if limit is not None:
            limit.pause()
            if limit.final_s is None:
                self._deadlines.drop(uid)
            else:
                self._deadlines.set(uid, limit.final_s)

    @property
    def first_s(self) -> float | None:
        """The earliest deadline."""
        return self._deadlines.first_s

    def due(self, now_s: float) -> list[Limit]:
        """Those that are over now, of calls that have not ended."""
        found = []
        for uid in self._deadlines.due(now_s):
            if self._is_open(uid):
                found.append(self.by_uid[uid])
            else:
                del self.by_uid[uid]
        return found
