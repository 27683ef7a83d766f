"""Which of its dead workers a node replaces, and when: its state, without a clock."""

from __future__ import annotations

from collections import deque

MOST = 5  # replacements of all workers of a node in PERIOD_S
PERIOD_S = 60.0
FIRST_DELAY_S = 0.05  # doubled with each further one in the period


class Replacements:
    """Counts the replacements of the last minute."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def delay_s(self, now_s: float) -> float | None:
        """After how many seconds to replace a worker that died now; None: do not."""
        times = self._times
        while times and now_s - times[0] > PERIOD_S:
            times.popleft()
        if len(times) >= MOST:
            return None
        times.append(now_s)
        first: float = FIRST_DELAY_S * 2 ** (len(times) - 1)
        return first
