"""Stopping a plain method that runs on the main thread.

The loop's thread sends the main thread a signal; Python runs the handler there, out of
sleeps, lock waits and system calls, and the handler raises into the user's code. It
raises only into the call that is meant, and never while the interpreter is inside code
that holds locks which the loop's thread takes too: those would stay taken for ever.
What is not raised now is tried again by the loop.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from ..comms.messages import FLAG
from ..core.limits import Late, interrupt_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import CodeType, FrameType

    from ..core.task import Task

# Not SIGUSR1: Slurm sends that one before a job's time ends.
SIGNAL = getattr(signal, "SIGRTMIN", signal.SIGUSR2) + (
    3 if hasattr(signal, "SIGRTMIN") else 0
)

# The loop sends it more often than this while a call is to be stopped and is not.
_ALIVE_S = 0.25

_PACKAGE = __name__.partition(".")[0]
# What our modules call the codes of functions that only call the user's: these hold
# nothing meanwhile, and stopping what they call is what they are stopped for.
_PASSING = "PASSING"
_LOCKING = ("logging", "threading", "queue", _PACKAGE)
# Of that code, where a thread stands still: it may be interrupted inside these, which
# give back what they hold. Their locks are the user's own, or the wait would not last.
_WAITING = (
    threading.Condition.wait,
    threading.Condition.wait_for,
    threading.Event.wait,
    threading.Semaphore.acquire,
    threading.Barrier.wait,
    getattr(threading.Barrier, "_wait", None),
    getattr(threading.Barrier, "_enter", None),
    threading.Thread.join,
    getattr(threading.Thread, "_wait_for_tstate_lock", None),
    queue.Queue.get,
    queue.Queue.put,
    queue.Queue.join,
)


class Interrupted(BaseException):
    """Raised into a running plain method; not an Exception, so few catch it."""


class Interrupts:
    """The signal handler of a worker's main thread and whom it is meant for.

    Args:
        runners: the code of the functions inside which user code runs; their local
            ``task`` says for which call.
    """

    def __init__(self, runners: Collection[CodeType]) -> None:
        self._runners = frozenset(runners)
        self._waiting = frozenset(getattr(f, "__code__", None) for f in _WAITING)
        self._target: Task | None = None
        self._sent_s = 0.0  # when, by this process itself
        self._thread = threading.main_thread().ident
        self._handler = self._handle  # always the same object
        self.installed_soon = False
        # What the node asks for, where this process's own loop cannot run: the uid of a
        # call and whether its time is over; see `orders`.
        self.orders: Callable[[], tuple[int, bool]] = lambda: (0, False)

    def install(self) -> None:
        """Take the signal; on the main thread."""
        self.installed_soon = False
        if signal.getsignal(SIGNAL) != self._handler:
            signal.signal(SIGNAL, self._handler)

    @property
    def installed(self) -> bool:
        """The signal is taken, or will be soon; from any thread."""
        return self.installed_soon or signal.getsignal(SIGNAL) == self._handler

    @property
    def pending(self) -> bool:
        """What was sent has not been raised yet."""
        return self._target is not None

    def send(self, task: Task) -> None:
        """Interrupt this call, if it is what the main thread runs; from any thread."""
        self._target = task
        self._sent_s = time.monotonic()
        assert self._thread is not None
        signal.pthread_kill(self._thread, SIGNAL)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code in self._runners:
                break  # above it is only user code
            if frame.f_code not in self._waiting and _holds_locks(frame):
                return
            frame = frame.f_back
        task: Any = None if frame is None else frame.f_locals.get("task")
        if task is None:
            return
        target = self._target
        if target is not None and task is target:
            self._target = None
            if target.cancelled is not None:
                raise Interrupted
        elif self._is_ordered(task):
            raise Interrupted

    def _is_ordered(self, task: Task) -> bool:
        """The node wants that this call ends, and this process's loop cannot run."""
        uid, late = self.orders()
        if task.uid != uid or interrupt_of(task) == FLAG:
            return False
        if task.cancelled is None:
            why = "it held the interpreter, and its node sent the signal"
            task.cancelled = Late(why, final=True) if late else why
            return True
        # Else the loop does the repeating.
        return time.monotonic() - self._sent_s > _ALIVE_S


def _holds_locks(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    if not isinstance(name, str) or name.partition(".")[0] not in _LOCKING:
        return False
    return frame.f_code not in frame.f_globals.get(_PASSING, ())
