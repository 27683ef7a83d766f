"""Stopping a plain method that runs on the main thread.

The loop's thread sends the main thread a signal; Python runs the handler there, out of
sleeps, lock waits and system calls, and the handler raises into the user's code. It
raises only into the call that is meant, and never while the interpreter is inside code
that holds locks which the loop's thread takes too: those would stay taken for ever.
What is not raised now is tried again by the loop.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.task import Task

# Not SIGUSR1: Slurm sends that one before a job's time ends.
SIGNAL = getattr(signal, "SIGRTMIN", signal.SIGUSR2) + (
    3 if hasattr(signal, "SIGRTMIN") else 0
)

_PACKAGE = __name__.partition(".")[0]
_LOCKING = ("logging", "threading", "queue", _PACKAGE)


class Interrupted(BaseException):
    """Raised into a running plain method; not an Exception, so few catch it."""


class Interrupts:
    """The signal handler of a worker's main thread and whom it is meant for."""

    def __init__(self) -> None:
        self.current: Task | None = None  # that the main thread runs
        self._target: Task | None = None
        self._thread = threading.main_thread().ident

    def install(self) -> None:
        """Take the signal; on the main thread."""
        signal.signal(SIGNAL, self._handle)

    def send(self, task: Task) -> bool:
        """From the loop's thread: False when the task does not run there any more."""
        if self.current is not task:
            return False
        self._target = task
        assert self._thread is not None
        signal.pthread_kill(self._thread, SIGNAL)
        return True

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        target = self._target
        if target is None or target is not self.current or target.cancelled is None:
            return
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module.partition(".")[0] in _LOCKING:
                if frame.f_code.co_name == "_call_user":
                    break  # the runner: only user code is above it
                return
            frame = frame.f_back
        self._target = None
        raise Interrupted
