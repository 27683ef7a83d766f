"""A tessera where it lives: its life, its mailbox and what of it is running.

Calls start in the order in which each caller made them, one at a time unless the
tessera is asynchronous. A call that waits for its arguments holds back only the later
calls of its own caller. Where calls may run is a *lane*:

    MAIN    plain methods, on the worker's main thread
    LOOP    coroutines and generators, on its loop
    INLINE  plain methods that run on the loop (``inline``, ``is_async``)
    THREAD  the tessera's own thread

Plain calls go ahead into the queue of their thread, which runs one after the other, as
long as nothing of the tessera runs elsewhere: to wait for each to finish would cost
two hand-overs between threads for every call.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import InvalidTransitionError
from .task import QUEUED, READY, Task

if TYPE_CHECKING:
    from ..comms.messages import Options, Submit

MAIN, LOOP, INLINE, THREAD = range(4)
# The lanes whose threads run what they are given one after the other.
_SERIAL = (True, False, False, True)

DEFAULT_CONCURRENCY = 1000


class TesseraState(enum.StrEnum):
    """The life of a tessera."""

    PENDING = "pending"  # its constructor has not started
    LISTENING = "listening"
    CLOSING = "closing"  # no new calls; what is queued ends, then __close__
    STOPPED = "stopped"
    FAILED = "failed"  # its constructor raised
    LOST = "lost"  # its runtime is gone; only callers see this


TRANSITIONS: dict[TesseraState, dict[str, TesseraState]] = {
    TesseraState.PENDING: {
        "built": TesseraState.LISTENING,
        "error": TesseraState.FAILED,
        "close": TesseraState.CLOSING,
        "lost": TesseraState.LOST,
    },
    TesseraState.LISTENING: {
        "close": TesseraState.CLOSING,
        "lost": TesseraState.LOST,
    },
    TesseraState.CLOSING: {
        "built": TesseraState.CLOSING,
        "error": TesseraState.FAILED,
        "closed": TesseraState.STOPPED,
        "lost": TesseraState.LOST,
    },
    TesseraState.STOPPED: {},
    TesseraState.FAILED: {"close": TesseraState.FAILED},
    TesseraState.LOST: {},
}


class Runner(Protocol):
    """Runs user code; the end of a task is told to ``WorkerState.finished``."""

    def lane(self, tessera: Tessera, submit: Submit, /) -> int:
        """Where this call of a tessera that is built runs."""

    def start(self, task: Task, /) -> None:
        """Run the task on its lane."""


class Tessera:
    """One object and its mailbox."""

    __slots__ = (
        "active",
        "blocked",
        "closing",
        "error",
        "instance",
        "lane",
        "lanes",
        "limit",
        "maker",
        "numbers",
        "options",
        "queue",
        "runner",
        "state",
        "thread",
        "uid",
    )

    def __init__(self, uid: int, maker: int, options: Options, runner: Runner) -> None:
        self.uid = uid
        self.maker = maker
        self.options = options
        self.runner = runner
        self.state = TesseraState.PENDING
        self.instance: Any = None
        self.lanes: dict[str, int] = {}  # of each method, found when first called
        self.queue: deque[Task] = deque()  # whose arguments are here, in order
        self.blocked: dict[int, deque[Task]] = {}  # by caller, the first lacks some
        self.numbers: dict[int, int] = {}  # of the next call, by caller
        self.active = 0  # started and not finished
        self.lane = MAIN  # of those
        self.limit = 1
        if options.is_async:
            self.limit = options.max_concurrency or DEFAULT_CONCURRENCY
        self.error: bytes | None = None  # of the constructor
        self.closing: Task | None = None  # the call that closes it
        self.thread: Any = None

    def move(self, event: str) -> None:
        """Follow the table of this module."""
        new = TRANSITIONS[self.state].get(event)
        if new is None:
            raise InvalidTransitionError(self.state, event)
        self.state = new

    # -- the mailbox -------------------------------------------------------------------

    def enqueue(self, task: Task) -> None:
        """Take a call; start it if nothing is before it."""
        if self.blocked:
            line = self.blocked.get(task.caller)
            if line is not None and not _unordered(task):
                line.append(task)
                return
        if task.missing:
            if _unordered(task):
                return  # `arguments_here` enqueues it
            self.blocked[task.caller] = deque((task,))
            return
        task.move(READY)
        if self.queue or not self._may_start(task):
            self.queue.append(task)
        else:
            self._start(task)

    def arguments_here(self, task: Task) -> None:
        """The last argument of a call has come: it and what waited behind it go on."""
        line = self.blocked.get(task.caller)
        if line is None or task not in line:
            if not task.settled:  # unordered: it waits alone
                task.move(READY)
                self.queue.append(task)
                self.dispatch()
            return
        while line and not line[0].missing:
            ready = line.popleft()
            if not ready.settled:
                ready.move(READY)
                self.queue.append(ready)
        if not line:
            del self.blocked[task.caller]
        self.dispatch()

    def dispatch(self) -> None:
        """Start what may start now, in order."""
        queue = self.queue
        while queue:
            task = queue[0]
            if task.state != QUEUED:  # cancelled while it waited
                queue.popleft()
            elif self._may_start(task):
                queue.popleft()
                self._start(task)
            else:
                return

    def finished(self) -> None:
        """A started call has ended."""
        self.active -= 1
        if self.queue:
            self.dispatch()

    def remove(self, task: Task) -> None:
        """Take a cancelled call out of the mailbox."""
        line = self.blocked.get(task.caller)
        if line is not None and task in line:
            line.remove(task)
            if line and not line[0].missing:
                self.arguments_here(line[0])
            elif not line:
                del self.blocked[task.caller]
        elif task in self.queue:
            self.queue.remove(task)

    def waiting(self) -> list[Task]:
        """All calls that have not started, those in a thread's queue not counted."""
        return [*self.queue, *(task for line in self.blocked.values() for task in line)]

    def _may_start(self, task: Task) -> bool:
        if self.instance is None:
            return False  # the constructor has not ended
        submit = task.submit
        lane = self.lanes.get(submit.method)
        if lane is None:
            lane = self.lanes[submit.method] = self.runner.lane(self, submit)
        task.lane = lane
        if not self.active:
            return True
        if _SERIAL[lane]:
            return self.lane == lane
        return self.active < self.limit

    def _start(self, task: Task) -> None:
        self.active += 1
        self.lane = task.lane
        self.runner.start(task)


def _unordered(task: Task) -> bool:
    extra = task.submit.extra
    return extra is not None and not extra.ordered
