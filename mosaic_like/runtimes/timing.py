"""The times of one attempt, for a caller who wants them: where each part began.

They are those of TaPS: wall-clock time at the start, later ones by the monotonic clock
from there, so that they never go back. What has not begun when an attempt fails has the
time at which that ended.
"""

from __future__ import annotations

import socket
import time

from ..comms.messages import Ran

# In the order of their moments; ``proxies.records`` has the names.
EXECUTION, INPUT, INPUT_END, TASK = range(4)
TASK_END, RESULT, RESULT_END, EXECUTION_END = range(4, 8)


class Clock:
    """Of one attempt; made when that begins."""

    __slots__ = ("_start_s", "_times", "_zero_s")

    def __init__(self) -> None:
        self._start_s = time.time()
        self._zero_s = time.perf_counter()
        self._times = [self._start_s]

    def mark(self, *moments: int) -> None:
        """These begin now, in this order."""
        now_s = self._start_s + time.perf_counter() - self._zero_s
        assert moments[0] == len(self._times), "each once, in order"
        self._times += [now_s] * len(moments)

    def end(self) -> list[float]:
        """The attempt has ended, however: all times."""
        now_s = self._start_s + time.perf_counter() - self._zero_s
        return self._times + [now_s] * (EXECUTION_END + 1 - len(self._times))


def ran(uid: int, attempt: int, times: list[float]) -> Ran:
    """The message about an attempt that ran here."""
    return Ran(uid, attempt, socket.gethostname(), times)
