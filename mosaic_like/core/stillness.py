"""Whether the call on a worker's thread stands still, for whatever it waits.

No lock or wait of others can be asked about. But a call that waits uses no processor
time, nor does any thread beside it or any process that it has started: all of them are
looked at, so that one which computes elsewhere is not taken for one that waits.

    WORKING   the call has just begun, or its process has used processor time
    QUIET     not for ``QUIET_S``; from now on its children are looked at, too
    STILL     neither have they, for as long again

Nothing here knows a clock or a process.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

QUIET_S = 0.5
# Of one processor: what the process's own loop may take, and looking at the children.
OWN_SHARE = 0.1
CHILDREN_SHARE = 0.02  # a busy one gets more even where it shares it with many


class Phase(enum.IntEnum):
    WORKING = 0
    QUIET = 1
    STILL = 2


class Stillness:
    """Of the thread for plain methods of one worker."""

    def __init__(self) -> None:
        self.phase = Phase.WORKING
        self.began_s = 0.0  # when the call was first seen
        self._uid = 0
        self._since_s = 0.0  # of what is compared with what is now
        self._own_s = 0.0
        self._children_s = 0.0

    def look(
        self, now_s: float, uid: int, own_s: float, of_children: Callable[[], float]
    ) -> bool:
        """Whether the call stands still; asked several times in each ``QUIET_S``.

        Args:
            now_s: a monotonic time, in seconds.
            uid: of the call on the thread; 0: there is none.
            own_s: processor time of the process until now, in seconds.
            of_children: gives that of its children; takes longer to ask.
        """
        if uid != self._uid:
            self._uid, self.began_s = uid, now_s
            self._begin(Phase.WORKING, now_s, own_s)
        elif not uid:
            return False
        past_s = now_s - self._since_s
        if own_s - self._own_s > OWN_SHARE * max(past_s, QUIET_S):
            self._begin(Phase.WORKING, now_s, own_s)
        elif past_s >= QUIET_S:
            children_s = of_children()
            phase = Phase.STILL
            # Less than before: one has ended whose time nobody has taken over.
            if self.phase is Phase.WORKING or not (
                0 <= children_s - self._children_s <= CHILDREN_SHARE * past_s
            ):
                phase = Phase.QUIET
            self._children_s = children_s
            self._begin(phase, now_s, own_s)
        return self.phase is Phase.STILL

    def _begin(self, phase: Phase, now_s: float, own_s: float) -> None:
        self.phase = phase
        self._since_s, self._own_s = now_s, own_s
