"""What the parts of the executor share: its port to the runtime, and how calls end.

Nothing here runs user code, and nothing here has a state.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, Protocol

from ..comms import messages as wire
from ..comms.serialization import PLAIN, Payload
from ..core.limits import Late, reason_of
from ..core.task import CANCELLED, Task, Withdrawn
from ..errors import MemoryOverflowError, SerializationError, TaskCancelledError
from .interrupts import Interrupted
from .retrying import Later
from .streams import Paused, Yielded

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from ..core.streams import Producer

CURRENT: contextvars.ContextVar[Task | None] = contextvars.ContextVar(
    "mosaic_like.task", default=None
)
set_current = CURRENT.set

# Of the names that begin with an underscore, those that proxies forward.
FORWARDED = frozenset(
    (
        "__call__",
        "__getitem__",
        "__setitem__",
        "__delitem__",
        "__contains__",
        "__aiter__",
        "__aenter__",
        "__aexit__",
    )
)

SCALARS = PLAIN - {bytes}  # which marshal dumps, without the serializer


class Port(Protocol):
    """What the runtime does for the executor."""

    talk: tuple[Any, Any, Any]  # containers of what is printed and not yet sent

    def load_call(self, task: Task) -> tuple[Sequence[Any], dict[str, Any]]: ...

    def load_class(self, task: Task) -> type: ...

    def dump_result(self, value: Any) -> bytes | Payload: ...

    def dump_error(self, error: BaseException, task: Task) -> bytes: ...

    def cancelled(self, task: Task, *, started: bool) -> bytes: ...

    def tell(self, task: Task, message: wire.Message) -> None:
        """Tell its caller something, before its end; from any thread."""

    def failure(self, task: Task, reason: int, why: Any) -> bytes: ...

    def completed(self, task: Task, outcome: Outcome) -> None:
        """From any thread: the task has ended."""

    def completed_run(self, run: list[Task]) -> None:
        """From the loop's: these have ended; their outcomes are set."""

    def may_hand_back(self, task: Task) -> bool:
        """Its submitter may run it elsewhere: nobody else has heard where it is."""

    def retry_later(self, task: Task, attempt: int, delay_s: float) -> bool:
        """The next attempt of a call waits; False: it is to end."""

    def retry_now(self, task: Task, attempt: int) -> bool:
        """It begins; True: at once."""

    def producer(self, task: Task) -> Producer:
        """Of a call that asks for a stream; from any thread."""

    def checkpoint(self, task: Task) -> None:
        """Write down the state of its tessera; on the thread that runs it."""

    def restore(self, task: Task, instance: Any) -> None:
        """Give what was built again the state that was written down last."""


# -- outcomes --------------------------------------------------------------------------


class Built:
    """The constructor returned."""

    __slots__ = ("instance",)

    def __init__(self, instance: Any) -> None:
        self.instance = instance


class Raised:
    """The task ended without a value."""

    __slots__ = ("error", "reason")

    def __init__(self, reason: int, error: Any) -> None:
        self.reason = reason
        self.error = error  # as bytes; of AGAIN: which attempt, and seconds until then


class Handed:
    """The plain method returned a coroutine: the loop goes on with it."""

    __slots__ = ("coroutine", "ended")

    def __init__(self, coroutine: Any) -> None:
        self.coroutine = coroutine
        self.ended: threading.Event | None = None  # set then, if a thread waits for it


class Retrying:
    """No outcome yet: the next attempt begins."""

    __slots__ = ("attempt",)

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt


Outcome = (
    bytes | Payload | Built | Raised | Handed | Retrying | Later | Paused | Yielded
)
GOING_ON = (Handed, Later)  # on the loop, for a thread that has got this far
# With these the call goes on.
UNFINISHED = frozenset((Handed, Retrying, Later, Paused, Yielded))


# -- what comes of an exception --------------------------------------------------------


class ArgumentFailed(Exception):
    """An argument turned out to have failed when the call was about to start."""

    def __init__(self, argument: Any, reason: int) -> None:
        super().__init__(reason)
        self.argument = argument
        self.reason = reason


def is_stop(task: Task, error: BaseException) -> bool:
    """What was raised says only that the call was to end."""
    if isinstance(error, (Interrupted, asyncio.CancelledError)):
        return True
    why = task.cancelled
    return why is not None and (
        type(why) is Late or isinstance(error, TaskCancelledError)
    )


def cannot_travel(port: Port, task: Task, error: BaseException) -> Raised | None:
    """What comes of a value that cannot be sent: to try again is of no use."""
    if isinstance(error, MemoryOverflowError):
        return Raised(wire.MEMORY, port.dump_error(error, task))
    if isinstance(error, SerializationError):
        return Raised(wire.SERIALIZE, port.dump_error(error, task))
    return None


def cancelled(port: Port, task: Task, *, started: bool) -> Raised:
    """What comes of a call that was to end, and did."""
    reason = reason_of(task.cancelled)
    return Raised(reason, port.cancelled(task, started=started))


def failed(port: Port, task: Task, error: BaseException) -> Raised:
    """What comes of the last attempt of a call, which has raised."""
    if is_stop(task, error):
        return cancelled(port, task, started=True)
    if isinstance(error, Withdrawn):
        port.tell(task, wire.Ending(task.uid, CANCELLED, error.reason))
        return Raised(wire.CANCELLED, port.dump_error(error.error, task))
    return Raised(wire.ERROR, port.dump_error(error, task))
