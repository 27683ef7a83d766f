"""Whose turn it is to be given a function task: windows of workers that get any.

One that is to leave is not here any more, though it has tasks yet.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .window import Window


class Turns:
    """The windows of one queue that are given tasks."""

    def __init__(self) -> None:
        self._windows: deque[Window] = deque()

    def add(self, window: Window) -> None:
        """A worker can be given tasks."""
        self._windows.append(window)

    def remove(self, window: Window) -> None:
        """It gets no more."""
        if window in self._windows:
            self._windows.remove(window)

    def of(self, owner: int) -> list[Window]:
        """Those of one worker, by its incarnation."""
        return [window for window in self._windows if window.owner == owner]

    def widen(self, size: int) -> None:
        """So many tasks may go to a worker together."""
        for window in self._windows:
            window.size = max(window.size, size)

    def next(self) -> Window | None:
        """The next that is idle, or else has the most room; None: there is no room."""
        windows = self._windows
        found = None
        for _ in range(len(windows)):
            window = windows[0]
            windows.rotate(-1)
            if window.takes_some():
                if window.is_idle:
                    return window
                if found is None or window.load < found.load:
                    found = window
        return found
