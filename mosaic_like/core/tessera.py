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

from ..comms.messages import PICKLED
from ..errors import InvalidTransitionError
from .task import CONSTRUCTOR, PENDING, QUEUED, READY, Task

if TYPE_CHECKING:
    from ..comms.messages import Options

MAIN, LOOP, INLINE, THREAD = range(4)
# The lanes whose threads run what they are given one after the other.
_SERIAL = (True, False, False, True)

# An empty deque takes 600 bytes, a dict 64, and most tesserae are idle. Nothing is put
# into these.
_NONE_QUEUED: deque[Task] = deque()
_NONE_BLOCKED: dict[int, deque[Task]] = {}
NONE_NUMBERED: dict[int, int] = {}

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

    def lane(self, tessera: Tessera, method: str, /) -> int:
        """Where this method of a tessera that is built runs."""

    def start(self, task: Task, /) -> None:
        """Run the task on its lane."""

    def start_run(self, run: list[Task], /) -> None:
        """Run tasks of one caller, tessera and lane, in order; MAIN or INLINE."""

    def construct(self, task: Task, /) -> None:
        """Run the task that is a constructor."""


class Tessera:
    """One object and its mailbox."""

    __slots__ = (
        "_dispatching",
        "active",
        "blocked",
        "closing",
        "error",
        "instance",
        "lane",
        "lanes",
        "limit",
        "maker",
        "mark",
        "marked",
        "marks",
        "numbers",
        "options",
        "queue",
        "reserved",
        "runner",
        "shared",
        "state",
        "thread",
        "uid",
    )

    def __init__(self, uid: int, maker: int, options: Options, runner: Runner) -> None:
        self.uid = uid
        self.maker = maker
        self.shared = False  # not its maker alone holds it: `holders` counts
        self.options = options
        self.runner = runner
        self.state = TesseraState.PENDING
        self.instance: Any = None
        self.lanes: dict[str, int] = {}  # of each method, found when first called
        self.queue = _NONE_QUEUED  # whose arguments are here, in order
        self.blocked = _NONE_BLOCKED  # by caller, the first lacks some
        self.numbers = NONE_NUMBERED  # of the next call, by caller
        self._dispatching = False
        self.active = 0  # started and not finished
        self.lane = MAIN  # of those
        self.limit = 1
        if options.is_async:
            self.limit = options.max_concurrency or DEFAULT_CONCURRENCY
        # Why it has ended, but in order: of the constructor, or as text.
        self.error: bytes | str | None = None
        self.reserved: object = None  # memory, given back with this
        self.closing: Task | None = None  # the call that closes it
        # Where the journal notes the calls of the caller whose call started last, and
        # those of others, if there are any.
        self.marked = -1
        self.mark = 0
        self.marks: dict[int, int] | None = None
        self.thread: Any = None

    def move(self, event: str) -> None:
        """Follow the table of this module."""
        new = TRANSITIONS[self.state].get(event)
        if new is None:
            raise InvalidTransitionError(self.state, event)
        self.state = new

    def fails(self, error: bytes) -> None:
        """Its construction has failed: of that, unless it was ended from outside."""
        if self.error is None:
            self.error = error

    # -- the mailbox -------------------------------------------------------------------

    def enqueue(self, task: Task) -> None:
        """Take a call; start it if nothing is before it."""
        if self.blocked:
            line = self.blocked.get(task.caller)
            if line is not None and not _unordered(task):
                task.state = PENDING  # it was taken for ready, and is not
                line.append(task)
                return
        if task.missing:
            if self.blocked is _NONE_BLOCKED:
                self.blocked = {}
            self.blocked[_line(task)] = deque((task,))
            return
        if task.state != QUEUED:
            task.move(READY)
        if self.queue or not self._may_start(task):
            self._append(task)
        else:
            self.active += 1
            self.lane = task.lane
            self.runner.start(task)

    def extend(self, run: list[Task]) -> None:
        """Take calls that lack nothing, behind those that are here."""
        if self.queue is _NONE_QUEUED:
            self.queue = deque(run)
        else:
            self.queue.extend(run)
        self.dispatch()

    def _append(self, task: Task) -> None:
        if self.queue is _NONE_QUEUED:
            self.queue = deque()
        self.queue.append(task)

    def arguments_here(self, task: Task) -> None:
        """The last argument of a call has come: it and what waited behind it go on."""
        line = self.blocked.get(_line(task))
        if line is None:
            return
        while line and not line[0].missing:
            ready = line.popleft()
            if ready.state != QUEUED:
                ready.move(READY)
            self._append(ready)
        if not line:
            self._unblocked(task)
        self.dispatch()

    def _unblocked(self, task: Task) -> None:
        del self.blocked[_line(task)]
        if self.closing is not None:
            self.close(self.closing)

    def close(self, task: Task) -> None:
        """Take the call that closes it: the last, after those that lack arguments."""
        self.closing = task
        if not self.blocked and task.state == PENDING:
            task.move(READY)
            self._append(task)
            self.dispatch()

    def dispatch(self) -> None:
        """Start what may start now, in order."""
        if self._dispatching:
            return  # a call ended where it was started: the loop below goes on
        self._dispatching = True
        queue = self.queue
        try:
            while queue:
                task = queue[0]
                if task.state != QUEUED:  # cancelled while it waited
                    queue.popleft()
                elif self._may_start(task):
                    queue.popleft()
                    self._start(task)
                else:
                    return
        finally:
            self._dispatching = False

    def next_coroutine(self, caller: int) -> Task | None:
        """Take the next call if it follows on a coroutine call that has ended.

        For who runs one after the other and tells later that they have ended. None if
        there is none, or it is not of the common kind or of another caller: then it is
        dispatched.
        """
        queue = self.queue
        if queue:
            task = queue[0]
            if (
                task.state == QUEUED
                and task.extra is None
                and task.caller == caller
                and task.data[0] != PICKLED
                and task.method[0] != "_"
                and self.lanes.get(task.method) == LOOP
            ):
                queue.popleft()
                self.active += 1
                task.lane = LOOP
                return task
        return None

    def finished(self) -> None:
        """A started call has ended."""
        self.active -= 1
        if self.queue:
            self.dispatch()

    def pause(self) -> None:
        """A started call waits for its next attempt.

        Where calls run in order it keeps its place; where they overlap, no room.
        """
        if self.options.is_async:
            self.limit += 1
            self.dispatch()
        else:
            self.lane = LOOP  # nothing goes ahead into the queue of a thread

    def unpause(self, task: Task) -> None:
        """It waits no longer: it has ended, or goes on."""
        if self.options.is_async:
            self.limit -= 1
        else:
            self.lane = task.lane

    def resume(self, task: Task) -> bool:
        """It goes on; True: at once, on its lane. Else it starts when there is room."""
        self.unpause(task)
        if not self.options.is_async:
            return True
        self.active -= 1
        self.put_first(task)
        return False

    def put_first(self, task: Task) -> None:
        """A call goes before all that wait; it starts when there is room."""
        if self.queue is _NONE_QUEUED:
            self.queue = deque()
        self.queue.appendleft(task)
        self.dispatch()

    def waits(self, task: Task) -> bool:
        """It is in the mailbox, and not in the queue of a thread."""
        if task.state != QUEUED:
            return task.state == PENDING
        is_new = not task.lane and task.method != CONSTRUCTOR
        return is_new or task in self.queue  # which is a search: some call it in masses

    def remove(self, task: Task) -> None:
        """Take a cancelled call out of the mailbox."""
        line = self.blocked.get(_line(task))
        if line is not None and task in line:
            line.remove(task)
            if line and not line[0].missing:
                self.arguments_here(line[0])
            elif not line:
                self._unblocked(task)
        elif task in self.queue:
            self.queue.remove(task)
            self.dispatch()

    def clear(self) -> list[Task]:
        """Take out all calls that have not started, but not the one that closes it."""
        closing = self.closing
        taken = [task for task in self.waiting() if task is not closing]
        kept = [task for task in self.queue if task is closing]
        self.queue = deque(kept) if kept else _NONE_QUEUED
        self.blocked = _NONE_BLOCKED
        if closing is not None:
            self.close(closing)
        return taken

    def waiting(self) -> list[Task]:
        """All calls that have not started, those in a thread's queue not counted."""
        lines = [task for task in self.queue if task.state == QUEUED]
        lines += [task for line in self.blocked.values() for task in line]
        if self.closing is not None and self.closing.state == PENDING:
            lines.append(self.closing)
        return lines

    def _may_start(self, task: Task) -> bool:
        if self.instance is None:
            return False  # the constructor has not ended
        lane = self.lanes.get(task.method)
        if lane is None:
            lane = self.lanes[task.method] = self.runner.lane(self, task.method)
        task.lane = lane
        if not self.active:
            return True
        if _SERIAL[lane]:
            return self.lane == lane
        if _SERIAL[self.lane] or self.active >= self.limit:
            return False
        return task is not self.closing  # which goes when all others have ended

    def _start(self, task: Task) -> None:
        self.active += 1
        self.lane = task.lane
        self.runner.start(task)


def _unordered(task: Task) -> bool:
    extra = task.extra
    return extra is not None and not extra.ordered


def _line(task: Task) -> int:
    """In which line of ``blocked`` it waits: its caller's, or alone in its own."""
    return -task.uid if _unordered(task) else task.caller
