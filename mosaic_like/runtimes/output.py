"""What user code prints in a worker, as whole lines on their way to the head.

``sys.stdout`` and ``sys.stderr`` of a worker are ``LineStream``s. A line is passed on
when it ends, and what is left of one when the call ends, so that it is at the head
before the call's result.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .executor import CURRENT

if TYPE_CHECKING:
    from ..core.task import Task

_LONGEST = 64 << 10  # characters of a line that does not end


class LineStream(io.TextIOBase):
    """A text stream whose lines go somewhere.

    Args:
        write_lines: called from any thread with the task that printed, or None, and
            text that ends with a line's end.
        fileno: of the process's own stream, for who asks.
    """

    encoding = "utf-8"
    errors = "replace"

    def __init__(
        self, write_lines: Callable[[Task | None, str], None], fileno: int
    ) -> None:
        super().__init__()
        self._write_lines = write_lines
        self._fileno = fileno
        self._lock = threading.Lock()
        self._parts: dict[int, str] = {}  # by task, the line that has not ended
        self.pending = False  # some line has not ended: asked after each call

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fileno

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() takes a str, not {type(text).__name__}")
        task = CURRENT.get()
        key = 0 if task is None else id(task)
        with self._lock:
            whole = self._parts.pop(key, "") + text
            lines, end, rest = whole.rpartition("\n")
            if len(rest) > _LONGEST:
                lines, end, rest = whole, "\n", ""
            if rest:
                self._parts[key] = rest
            self.pending = bool(self._parts)
        if end:
            self._write_lines(task, lines + end)
        return len(text)

    def flush(self) -> None:
        """Lines go when they end: half a line of one would stand in another's."""

    def finish(self, task: Task) -> None:
        """The call has ended: its last line too."""
        with self._lock:
            rest = self._parts.pop(id(task), "")
            self.pending = bool(self._parts)
        if rest:
            self._write_lines(task, rest + "\n")
