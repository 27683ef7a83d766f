"""Whether a runtime of another host is still there, as far as can be told from here.

On one host the kernel tells of each end. Of another host one hears beats, once in
BEAT_S, while all is well. One that is not heard for SUSPECT_S is suspect, which is said
and changes nothing; after LOST_S it is lost, and will not be heard any more, whatever
it goes on to do. It knows that itself: a node that has not heard the monitor for so
long less FENCE_S ends what it runs, so that nothing of it runs when something takes its
place. Where the limit is less than LOST_S the rest is less in the same measure: else
one beat that comes late would be the end of a node.

That a process has ended is known earlier: its kernel closes its connections, and then
refuses those to where it listened. A refusal alone proves nothing, since where there is
no way to a host any more something between may refuse in its place; but that does not
close connections at once. So refusals count only from one whose connection was there
and ended, not by us, while it was still heard.

``Silence`` is one other runtime, as one that listens knows it. Beats and probes are
made elsewhere, and the clock is an argument.
"""

from __future__ import annotations

import enum
import math

BEAT_S = 1.0
SUSPECT_S = 5.0
LOST_S = 15.0
FENCE_S = 2.0
FRESH_S = 3.0  # less than it takes to miss a peer that is cut off (``comms.zeromq``)
REFUSALS = 2  # of so many connections one after the other: nothing listens there


def beat_s(limit_s: float) -> float:
    """How often who is lost after ``limit_s`` is to be heard."""
    return min(BEAT_S, limit_s / LOST_S * BEAT_S)


def fence_s(limit_s: float) -> float:
    """So long before that it ends what it runs: two beats.

    It may have heard the last one up to a beat later than it was heard, and it looks
    once in a beat.
    """
    return min(FENCE_S, limit_s / LOST_S * FENCE_S)


def suspect_s(limit_s: float) -> float:
    """After so long one is suspect that is lost after ``limit_s``."""
    return min(SUSPECT_S, limit_s / 3)


class Presence(enum.Enum):
    """What is to be thought of it."""

    HEARD = enum.auto()
    SUSPECT = enum.auto()
    SILENT = enum.auto()  # for too long
    ENDED = enum.auto()  # its process has

    @property
    def is_lost(self) -> bool:
        """It never comes back from this."""
        return self in (Presence.SILENT, Presence.ENDED)


class Silence:
    """What is known of one runtime.

    Args:
        now_s: seconds of a monotonic clock.
        limit_s: after which it is lost.
        excuses_itself: time in which the listener itself stood still does not count.
            So for who judges others; who is to end itself counts it, since others did
            not stand still.
        beat_s: how often it is looked.

    >>> silence = Silence(0.0)
    >>> [silence.look(s).name for s in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)]
    ['HEARD', 'HEARD', 'HEARD', 'HEARD', 'SUSPECT', 'SUSPECT']
    """

    def __init__(
        self,
        now_s: float,
        limit_s: float = LOST_S,
        *,
        excuses_itself: bool = True,
        beat_s: float = BEAT_S,
    ) -> None:
        self._heard_s = self._looked_s = now_s
        self._limit_s = limit_s
        self._excuses_itself = excuses_itself
        self._beat_s = beat_s
        self._refusals = 0
        self._ended_s = -math.inf  # when a connection did that was there
        self.presence = Presence.HEARD

    def heard(self, now_s: float) -> None:
        """A beat has come."""
        self._heard_s = now_s
        self._refusals = 0

    def may_have_ended(self, now_s: float, *, was_there: bool = True) -> bool:
        """A connection to it has ended now: whether its kernel is to be asked.

        Args:
            now_s: as for all.
            was_there: else it could not be made, which tells nothing unless another one
                has ended shortly before.
        """
        if was_there:
            self._ended_s = now_s
        return now_s - min(self._ended_s, self._heard_s) < FRESH_S

    def refused(self) -> Presence:
        """Its host refused a connection to where it listened."""
        self._refusals += 1
        if self._refusals >= REFUSALS and not self.presence.is_lost:
            self.presence = Presence.ENDED
        return self.presence

    def answered(self) -> None:
        """Its host took one: something listens there."""
        self._refusals = 0

    def look(self, now_s: float) -> Presence:
        """What is to be thought of it now; to be asked once in a beat."""
        stood_still_s = now_s - self._looked_s - self._beat_s
        self._looked_s = now_s
        if self._excuses_itself and stood_still_s > self._beat_s:
            self._heard_s = min(now_s, self._heard_s + stood_still_s)
        if not self.presence.is_lost:
            silent_s = now_s - self._heard_s
            self.presence = Presence.HEARD
            if silent_s >= self._limit_s:
                self.presence = Presence.SILENT
            elif silent_s >= suspect_s(self._limit_s):
                self.presence = Presence.SUSPECT
        return self.presence
