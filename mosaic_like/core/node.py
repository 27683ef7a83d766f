"""When a node replaces those of its processes that ended: its state, without a clock.

A worker that dies comes back soon, but not as often as it likes: what it runs may be
what ends it. The warehouse runs nothing of the user's, and all wait for it, so it is
tried for ever. What could not be forked has run nothing: it is tried again soon.
"""

from __future__ import annotations

from collections import deque

from ..ids import short

MOST = 5  # replacements of all workers of a node in PERIOD_S
PERIOD_S = 60.0
LATE_S = 1.0  # after which a worker is replaced, for people to be told
FORK_AGAIN_S = 0.5
WAREHOUSE_AGAIN_S = 10.0  # where it has died so often that a worker would not come back
FIRST_DELAY_S = 0.05  # doubled with each further one in the period


class Replacements:
    """Counts the replacements of the last minute.

    Args:
        period_s: what a minute is.
    """

    def __init__(self, period_s: float = PERIOD_S) -> None:
        self._period_s = period_s
        self._times: deque[float] = deque()  # those of the last may be to come

    def delay_s(self, now_s: float) -> float | None:
        """After how many seconds to replace a worker that died now; None: do not."""
        times = self._times
        while times and now_s - times[0] > self._period_s:
            times.popleft()
        if len(times) >= MOST:
            return None
        times.append(now_s)
        first: float = FIRST_DELAY_S * 2 ** (len(times) - 1)
        return first

    def later_s(self, now_s: float) -> float:
        """After how many seconds to replace one for which ``delay_s`` gave None.

        That is when there have been fewer in the minute before; it counts from then on.
        """
        at_s = self._times[-MOST] + self._period_s
        self._times.append(at_s)
        return max(at_s - now_s, 0.0)

    def next_s(self, now_s: float, label: str, how: str) -> tuple[float, str]:
        """After how many seconds to replace one that died now, and what to say.

        Args:
            now_s: a monotonic time.
            label: of it.
            how: its process has ended.
        """
        delay_s = self.delay_s(now_s)
        if delay_s is not None:
            return delay_s, ""
        delay_s = self.later_s(now_s)
        told = self.postponed(label, how, delay_s) if delay_s >= LATE_S else ""
        return delay_s, told

    def postponed(self, label: str, how: str, after_s: float) -> str:
        """That a worker is replaced so late, for people.

        Args:
            label: of the worker.
            how: its process has ended.
            after_s: seconds until it is replaced.
        """
        return (
            f"{label} ended ({how}) and is replaced in {after_s:.0f} s only, since "
            f"{MOST} workers were in {self._period_s:.0f} s: see what ended them; what "
            "finds no other worker waits until then"
        )


class Replacing:
    """Of the workers and the warehouse of one node.

    Args:
        period_s: what a minute is for the workers.
    """

    def __init__(self, period_s: float = PERIOD_S) -> None:
        self._workers = Replacements(period_s)
        self._warehouses = Replacements()
        self._has_told_of_warehouse = False
        self._has_told_of_fork = False

    def started(self) -> None:
        """One of this node's processes has joined."""
        self._has_told_of_fork = False

    def died(self, uid: str, how: str, now_s: float) -> tuple[float, str]:
        """One has ended: after how many seconds to start another, and what to say.

        Args:
            uid: of a worker, or of the warehouse.
            how: it has ended, for people.
            now_s: a monotonic time.
        """
        if not uid.startswith("warehouse"):
            return self._workers.next_s(now_s, short(uid), how)
        delay_s = self._warehouses.delay_s(now_s)
        if delay_s is not None:
            self._has_told_of_warehouse = False
            return delay_s, ""
        if self._has_told_of_warehouse:
            return WAREHOUSE_AGAIN_S, ""
        self._has_told_of_warehouse = True
        return WAREHOUSE_AGAIN_S, (
            f"{uid} ended ({how}), the last of {MOST + 1} times in {PERIOD_S:.0f} s, "
            f"and is started again every {WAREHOUSE_AGAIN_S:.0f} s: see what ended it; "
            "values that were put wait for it"
        )

    def not_forked(self, uid: str, how: str) -> tuple[float, str]:
        """The same of one, helpers too, that could not be forked."""
        if self._has_told_of_fork:
            return FORK_AGAIN_S, ""
        self._has_told_of_fork = True
        return FORK_AGAIN_S, (
            f"{short(uid)} {how}: that is tried again every {FORK_AGAIN_S:g} s, and "
            "what needs it waits; see `ulimit -u`, `ulimit -n` and pids.max of the "
            "control group"
        )
