"""A call as a holder of its proxy sees it, and the stream that it goes over.

Only what they are: what becomes of them is decided in ``caller`` and its parts. Both
are small, since there may be a hundred thousand of either.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from ..ids import task_name
from .task import DONE, PENDING, RUNNING, function_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .dispatch import FunctionQueue
    from .outbox import Outbox

FOREIGN = "task"  # label of the streams to ask others of tasks that they made

CALL_CREDIT = 10_000  # calls of one stream that are on their way or not finished

KILLED = "it was killed"  # why calls of a tessera end

# Whether the owner is still to be told that the proxy is gone.
HELD, DROPPED, RELEASED = range(3)
# Whether it stands in the line of its stream; or was taken out of it when it ended, and
# nobody else has heard of it.
NEVER_IN_LINE, IN_LINE, OUT_OF_LINE = range(3)


class Call(msgspec.Struct, gc=False, eq=False):
    """One task as a holder of its proxy sees it.

    A Struct, and unknown to the garbage collector, because one is made for each call:
    a hundred thousand that are outstanding would be walked again and again. Nothing
    that it refers to leads back to it once it has settled.
    """

    uid: int
    stream: Stream
    method: str
    code: Any  # where it was called: turned into a line when printed
    instruction: int
    submitted_s: float
    state: int = PENDING
    # Once settled: plain bytes, an Arrived payload, or an error as bytes.
    result: Any = None
    waiters: Any = None  # None, or a list of callables
    hold: int = HELD
    settled_s: float = 0.0
    rare: Any = None  # a Rare, made when needed
    inside: list[int] | None = None  # the calls in which it was made, outermost first
    line: int = NEVER_IN_LINE
    mentioned: bool = False  # in a payload: others may hear of it

    @property
    def root(self) -> int:
        """The outermost call inside which it was made; 0: inside none."""
        return 0 if self.inside is None else self.inside[0]

    @property
    def parent(self) -> int:
        """The innermost."""
        return 0 if self.inside is None else self.inside[-1]

    @property
    def owner(self) -> int:
        """Incarnation of the runtime where the task is; 0 while that is not known."""
        return self.stream.owner

    @property
    def began_before(self) -> bool:
        """It has begun, and is to begin again: what is next does not tell all of it."""
        return self.rare is not None and self.rare.attempt > 1

    @property
    def settled(self) -> bool:
        return self.state >= DONE

    @property
    def first_uid(self) -> int:
        """The uid that people know: another is used after each ``retry()``."""
        rare = self.rare
        return self.uid if rare is None else rare.first_uid or self.uid

    @property
    def reason(self) -> str | None:
        """Why it is in its state, as far as it is known here."""
        rare = self.rare
        if rare is None:
            return None
        if rare.told is not None and rare.told[0] == self.state:
            return str(rare.told[1])
        found: str | None = rare.reason
        return found

    @property
    def shown_state(self) -> int:
        """Its state, or RUNNING where its owner has said so."""
        is_running = self.state == PENDING and self.rare is not None
        return RUNNING if is_running and self.rare.running_s else self.state

    @property
    def name(self) -> str:
        """Tessera and method, or function; of others' tasks, what is known here."""
        about = None if self.rare is None else self.rare.about
        if about is not None and about.run_name is not None:
            return str(about.run_name)
        stream = self.stream
        if stream.queue is not None or (self.rare is not None and self.rare.connected):
            return function_name(self.method)
        if stream.label == FOREIGN:
            return f"{self.method or FOREIGN} {task_name(self.uid)}"
        return f"{stream.label}.{self.method}"


class Rare:
    """What few calls have."""

    __slots__ = (
        "about",
        "attempt",
        "cached",
        "connected",
        "copy",
        "deaths",
        "earlier",
        "error",
        "fetched",
        "first_uid",
        "grant",
        "guard",
        "heir",
        "idempotent",
        "interrupt",
        "items",
        "lost_s",
        "nbytes",
        "origin",
        "pending_fetch",
        "place",
        "proxies",
        "reason",
        "running_s",
        "sought",
        "stored",
        "told",
        "unheard",
        "value",
        "watched",
    )

    def __init__(self) -> None:
        self.grant: Any = None  # of a task that another runtime made
        self.nbytes = 0  # of its arguments, while they count
        self.reason: str | None = None
        self.running_s: float | None = None  # last reported by the worker
        self.told: tuple[int, str] | None = None  # a state, and the reason if it is so
        self.about: Any = None  # what a task's policy says of it: proxies.records.About
        self.origin = 0  # uid of the call that made its value, if that is another's
        self.stored: Any = None  # what its value is in any run: tasks.planning.Stored
        self.guard: Any = None  # of a function task: asked before each further attempt
        self.watched: Any = None  # what keeps all that is heard of it, if anything does
        self.error: BaseException | None = None  # rebuilt
        self.cached = False
        self.value: Any = None  # unpickled
        self.items: Any = None  # of a remote stream
        self.fetched = False
        self.pending_fetch = False
        self.unheard = False  # failed and nobody has asked
        self.attempt = 1  # last reported by the worker
        self.interrupt: int | None = None  # how it is stopped, if it says so
        self.copy: Any = None  # memory for its value, which a call here takes
        self.heir: Any = None  # has its value, since the runtime that had it is lost
        self.idempotent = False  # it may run again when its worker was lost
        self.deaths: tuple[str, ...] = ()  # of workers that ran it
        self.lost_s = 0.0  # when its worker was lost, and it was to go to another
        # For how many reasons others may ask for it: it is held until there is none.
        self.sought = 0
        self.place = 0  # incarnation of the worker where alone it may run
        self.connected = False  # it waits for others, or others wait for it
        self.first_uid = 0  # before it was retried
        self.earlier = 0  # attempts before it was retried
        self.proxies = 0  # further ones, beside the first


def rare(call: Call) -> Rare:
    """The rare part of a call, made when first needed."""
    if call.rare is None:
        call.rare = Rare()
    return call.rare  # type: ignore[no-any-return]


# A call, its payload, its extra, and the handle of its tessera.
HeldCall = tuple[Call, Any, Any, Any]
# An empty deque takes 600 bytes, and few streams hold anything. Nothing is put into it.
NONE_HELD: deque[HeldCall] = deque()


class Stream:
    """What this runtime sends to one tessera."""

    __slots__ = (
        "__weakref__",
        "credit",
        "error",
        "held",
        "label",
        "methods",
        "number",
        "options",
        "outbox",
        "owner",
        "queue",
        "tessera",
        "watchers",
    )

    def __init__(self, tessera: int, label: str) -> None:
        self.tessera = tessera
        self.label = label  # for people, such as Counter#1
        self.owner = 0
        self.outbox: Outbox | None = None
        self.number = 0
        self.credit = CALL_CREDIT
        # The last of each is the handle of the tessera: a held call holds its target.
        self.held = NONE_HELD
        self.error: Any = None  # of the construction or the loss
        self.watchers: Sequence[Callable[[], None]] = ()  # waiting for credit
        # Of all calls that have none of their own: timeout, interrupt.
        self.options: dict[str, Any] | None = None
        # Of function tasks: decides which of them go over this stream, and when.
        self.queue: FunctionQueue | None = None
