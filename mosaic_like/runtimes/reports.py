"""News of calls that run for long: what their callers show as running.

Two messages make a call, and neither says that it has started: that would be a third
for calls that mostly take microseconds. So the worker looks, each time its timer
passes, at what runs, and tells the caller once when it is the same as a while ago.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..comms.messages import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..core.task import Task

REPORT_AFTER_S = 0.05


class RunningReports:
    """Which calls run, since when they were seen running, and who was told.

    Args:
        running: what runs at this moment.
        tell: sends a message to a runtime, if it is there.
    """

    def __init__(
        self,
        running: Callable[[], Iterable[Task]],
        tell: Callable[[int, Running], None],
    ) -> None:
        self._running = running
        self._tell = tell
        self._seen: dict[int, float] = {}
        self._told: set[int] = set()

    def look(self, now_s: float) -> bool:
        """Tell what is due; whether anything runs, so that it is looked at again."""
        seen: dict[int, float] = {}
        for task in self._running():
            since_s = seen[task.uid] = self._seen.get(task.uid, now_s)
            if now_s - since_s >= REPORT_AFTER_S and task.uid not in self._told:
                self._told.add(task.uid)
                self._tell(task.caller, Running(task.uid, now_s - since_s))
        self._seen = seen
        if self._told:
            self._told.intersection_update(seen)
        return bool(seen)
