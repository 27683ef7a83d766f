"""The one state machine of a task, and a task as its owner sees it.

States and events are plain ints, because three moves are part of every call; the names
of the ints are the values of ``TaskState``. What is not in the table cannot happen.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec

from ..comms.messages import CALL
from ..errors import InvalidTransitionError

if TYPE_CHECKING:
    from ..comms.messages import Extra, Submit
    from .tessera import Tessera


class TaskState(enum.StrEnum):
    """Where a task is in its life; see the table in this module.

    >>> TaskState.DONE == "done"
    True
    """

    PREPARE = "prepare"
    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABORTED = "aborted"


STATES = tuple(TaskState)
PREPARE, PENDING, QUEUED, RUNNING, DONE, FAILED, CANCELLED, ABORTED = range(8)

EVENTS = (
    "submit",
    "ready",
    "start",
    "done",
    "error",
    "upstream",
    "cancel",
    "abort",
    "lost",
    "retry",
)
(
    SUBMIT_EVENT,
    READY,
    START,
    FINISH,
    ERROR_EVENT,
    UPSTREAM_EVENT,
    CANCEL_EVENT,
    ABORT,
    LOSE,
    RETRY,
) = range(10)

# Every move there is. A task that ends without a value settles: failed and cancelled
# may be retried, done and aborted are the end.
TRANSITIONS: dict[int, dict[int, int]] = {
    PREPARE: {SUBMIT_EVENT: PENDING, CANCEL_EVENT: CANCELLED, ABORT: ABORTED},
    PENDING: {
        READY: QUEUED,
        FINISH: DONE,  # cached or reused; at the caller, which is told only the end
        UPSTREAM_EVENT: FAILED,
        ERROR_EVENT: FAILED,
        LOSE: FAILED,
        CANCEL_EVENT: CANCELLED,
        ABORT: ABORTED,
    },
    QUEUED: {
        START: RUNNING,
        LOSE: PENDING,
        ERROR_EVENT: FAILED,
        CANCEL_EVENT: CANCELLED,
        ABORT: ABORTED,
    },
    RUNNING: {
        FINISH: DONE,
        RETRY: PENDING,
        ERROR_EVENT: FAILED,
        LOSE: FAILED,
        CANCEL_EVENT: CANCELLED,
    },
    DONE: {},
    FAILED: {RETRY: PENDING, ABORT: ABORTED},
    CANCELLED: {RETRY: PENDING, ABORT: ABORTED},
    ABORTED: {},
}
_MOVES = tuple(
    tuple(TRANSITIONS[state].get(event, -1) for event in range(len(EVENTS)))
    for state in range(len(STATES))
)


# Two columns of it, for the moves that every call makes.
STARTED = tuple(moves[START] for moves in _MOVES)
FINISHED = tuple(moves[FINISH] for moves in _MOVES)


def following(state: int, event: int) -> int:
    """The state after an event; InvalidTransitionError if the table has none."""
    new = _MOVES[state][event]
    if new < 0:
        raise InvalidTransitionError(STATES[state], EVENTS[event])
    return new


# Calls that a tessera gets beside those of its methods that users call.
CONSTRUCTOR = "__init__"
CLOSE_METHOD = "__close__"

APART = "~"  # before the number of a function, where several have one name


def function_name(method: str) -> str:
    """The name of a function task, for people."""
    return method.partition(APART)[0]


class Withdrawn(BaseException):
    """Raised around a user's function, never by it: the call is cancelled.

    Args:
        error: what awaiting it raises.
        reason: of its state.
    """

    def __init__(self, error: Exception, reason: str) -> None:
        super().__init__(error, reason)
        self.error = error
        self.reason = reason


class Task(msgspec.Struct, gc=False, eq=False):
    """A call on a tessera, at the runtime where the tessera lives.

    A Struct for the reasons of ``core.call.Call``, and without the message that
    brought it: a worker may have a hundred thousand of them waiting.
    """

    uid: int
    caller: int
    tessera: Tessera
    method: str
    data: bytes
    extra: Extra | None = None
    buffers: Any = None  # of its arguments; then what stands for them
    state: int = PENDING  # or QUEUED from the start, if it lacks nothing
    lane: int = 0
    # Set by the loop, read by the thread that is about to start the call. That thread
    # moves the state first and reads this after; the loop does the reverse. So at least
    # one of the two sees the other, and a cancelled call never runs.
    cancelled: str | None = None
    handed: bool = False  # to the main thread, which runs what it has in order
    raw: Any = None  # what that thread knows of its end before the loop does
    missing: int = 0  # arguments that are not here yet
    arguments: Any = None  # by index of reference: what stands for it
    outcome: Any = None  # Done or Failed
    result: Any = None  # the payload of the outcome, if it is not plain
    size: int = 0  # of the result, where it is not small
    shared: bool = False  # not its maker alone holds it: `holders` counts
    released: bool = False  # nobody but the runtime knows it any more
    rare: Any = None  # what runs it: an asyncio task, a stream of items
    inside: list[int] | None = None  # the calls in which it was made, outermost first
    around: list[int] | None = None  # see `within`
    counted: Any = None  # of the host's memory: what its value takes while it is kept

    def move(self, event: int) -> None:
        """Follow the table."""
        new = _MOVES[self.state][event]
        if new < 0:
            raise InvalidTransitionError(STATES[self.state], EVENTS[event])
        self.state = new

    @property
    def settled(self) -> bool:
        return self.state >= DONE

    @property
    def first_uid(self) -> int:
        """The uid that people know: another is used after each ``retry()``."""
        extra = self.extra
        return self.uid if extra is None or extra.retried is None else extra.retried[0]

    @property
    def earlier(self) -> int:
        """Attempts before it was retried."""
        extra = self.extra
        return 0 if extra is None or extra.retried is None else extra.retried[1]

    @property
    def kind(self) -> int:
        """What it asks of its tessera, as in ``Extra``."""
        extra = self.extra
        return CALL if extra is None else extra.kind

    @property
    def name(self) -> str:
        """For people: tessera and method, or function."""
        return f"{self.tessera.options.name}.{function_name(self.method)}"

    def within(self) -> list[int]:
        """For a call that is made inside it: this one and those around it."""
        around = self.around
        if around is None:
            inside = self.inside
            around = self.around = [self.uid] if inside is None else [*inside, self.uid]
        return around

    def __repr__(self) -> str:
        return f"<Task {self.name} {STATES[self.state]}>"


def received(
    submit: Submit, caller: int, tessera: Tessera, buffers: Any = None
) -> Task:
    """The task of a message."""
    task = Task(
        submit.uid, caller, tessera, submit.method, submit.data, submit.extra, buffers
    )
    task.inside = submit.inside
    return task
