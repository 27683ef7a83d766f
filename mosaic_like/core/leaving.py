"""Who leaves in order: when it may go on to its end, and whom it does not run any more.

    Drain ->monitor         somebody wants it to leave
    Leaving <-monitor       to all: nothing is placed there from now on
    LeavingSeen ->it        from each: so no construction of mine is on its way to you,
                            calls after this number were made knowing it, and from now
                            on I keep who holds what of yours, for your heir
      its calls end; the tesserae close, the last made first
    Inherit, HeldBy ->heir  what has ended there and is held: values, then all counts
    Inherited <-heir
    Exited ->monitor        it has left
    Lost <-monitor          to all: what was kept goes to the heir, which owns it now

What somebody says of holders before its LeavingSeen is counted by who leaves, all later
by the heir, in the order in which it was said. So the counts of ``holders`` are as
exact as if it had never moved. One that joins meanwhile is waited for as well, one that
is lost is not.

Two may leave at once, and one have chosen the other, of which it did not know then. Who
is chosen so hands on only when the first has left: the model of counting, in the tests,
has both, and finds what goes wrong without that.

What is waited for besides, and how long, is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..comms import messages as wire
from ..ids import maker

if TYPE_CHECKING:
    from collections.abc import Iterable


class Drained(str):
    """Why a call does not run: its runtime is leaving; text for people."""

    __slots__ = ()


class Departure:
    """What one that leaves knows of the others.

    Args:
        live: all others that call and hold things.
    """

    def __init__(self, live: Iterable[int]) -> None:
        self._waited = set(live)
        self._up_to: dict[int, int] = {}
        self.closing = False  # all calls have ended: no further one runs

    @property
    def waited(self) -> frozenset[int]:
        """Those who have not answered."""
        return frozenset(self._waited)

    def joined(self, incarnation: int) -> None:
        """Somebody has come, and is told by the monitor as all were."""
        if incarnation not in self._up_to:
            self._waited.add(incarnation)

    def lost(self, incarnation: int) -> None:
        """It will say nothing any more."""
        self._waited.discard(incarnation)

    def seen(self, incarnation: int, up_to: int) -> None:
        """LeavingSeen has come."""
        self._up_to.setdefault(incarnation, up_to)
        self._waited.discard(incarnation)

    def refuses(self, message: wire.Submit) -> bool:
        """Whether a call on a tessera is not to run.

        Those run that were made before their caller knew, and those made inside of
        such calls, which could not end without; but none once all is closing.
        """
        extra = message.extra
        if extra is not None and extra.kind >= wire.CLOSE:
            return False
        if self.closing:
            return True
        root = message.inside[0] if message.inside else message.uid
        up_to = self._up_to.get(maker(root))
        return up_to is not None and root > up_to
