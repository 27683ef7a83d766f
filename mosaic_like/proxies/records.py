"""What is known of a task, for people and for files: info, times and transitions.

The fields are those of TaPS, and some more. ``Watched`` keeps what is heard of one call
while somebody wants to know; a call that nobody watches has none. The value of a task
is never fetched for this.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
from typing import TYPE_CHECKING, Any

from ..comms.exceptions import load_error
from ..core.task import CANCELLED, DONE, STATES, TaskState
from ..ids import task_name
from .history import Transition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..comms.messages import Ran
    from ..core.call import Call


@dataclasses.dataclass(frozen=True, slots=True)
class ExceptionInfo:
    """The exception that a task ended with, as text."""

    type: str
    message: str
    traceback: str


@dataclasses.dataclass(frozen=True, slots=True)
class ExecutionInfo:
    """Where and when an attempt of a task ran: seconds since the epoch, in order.

    ``input_transform``: its arguments were unpickled, and fetched if they were not
    there; ``task``: the function itself; ``result_transform``: its value was pickled.
    """

    hostname: str
    execution_start_time: float
    execution_end_time: float
    task_start_time: float
    task_end_time: float
    input_transform_start_time: float
    input_transform_end_time: float
    result_transform_start_time: float
    result_transform_end_time: float
    attempt: int = 1


# In the order in which the worker takes them.
_MOMENTS = (
    "execution_start_time",
    "input_transform_start_time",
    "input_transform_end_time",
    "task_start_time",
    "task_end_time",
    "result_transform_start_time",
    "result_transform_end_time",
    "execution_end_time",
)


@dataclasses.dataclass(frozen=True, slots=True)
class TaskInfo:
    """What is known of a task: ``task.info``.

    ``execution`` is of the last attempt and ``attempts`` of all, where tasks are
    recorded or ``on_state`` is given; without that the workers are not asked.
    ``value`` is what ``cancel_if`` was told of a task that it cancelled.
    """

    task_id: str
    name: str
    parent_task_ids: list[str]
    submit_time: float
    received_time: float | None = None
    success: bool | None = None
    exception: ExceptionInfo | None = None
    execution: ExecutionInfo | None = None
    state: TaskState = TaskState.PENDING
    reason: str | None = None
    attempt: int = 1
    tags: list[str] = dataclasses.field(default_factory=list)
    runtime_id: str = ""
    attempts: list[ExecutionInfo] = dataclasses.field(default_factory=list)
    value: Any = None

    def asdict(self) -> dict[str, Any]:
        """As a dict of what JSON can say; without ``value``."""
        found = dataclasses.asdict(dataclasses.replace(self, value=None))
        del found["value"]
        found["state"] = str(self.state)
        return found


class About:
    """What a call is known by beside itself.

    Args:
        run_name: instead of its name.
        tags: of the task, and of where it was submitted.
        parents: names of the tasks that it takes.
    """

    __slots__ = ("parents", "run_name", "tags")

    def __init__(
        self,
        run_name: str | None = None,
        tags: Iterable[str] = (),
        parents: Iterable[str] = (),
    ) -> None:
        self.run_name = run_name
        self.tags = sorted(tags)
        self.parents = list(parents)


def parents_of(payload: Any) -> list[str]:
    """The names of the tasks that the arguments mention, first seen first."""
    if type(payload) is bytes:
        return []
    proxies = [getattr(handle, "proxy", None) for handle in payload.handles]
    found = [task_name(proxy._call.first_uid) for proxy in proxies if proxy is not None]
    return list(dict.fromkeys(found))


class Watched:
    """All that is heard of one call.

    Args:
        then: called with the call and each transition.
    """

    __slots__ = ("_last", "_then", "attempts", "transitions")

    def __init__(self, then: Iterable[Callable[[Call, Transition], Any]] = ()) -> None:
        self._then = list(then)
        self._last: tuple[TaskState, str | None, int] | None = None
        self.transitions: list[Transition] = []
        self.attempts: list[ExecutionInfo] = []

    def add(self, *then: Callable[[Call, Transition], Any]) -> None:
        """Somebody else wants to hear the next ones."""
        self._then += then

    def look(self, call: Call, now_s: float | None = None) -> None:
        """Something may have changed."""
        state = STATES[call.shown_state]
        attempt = 1 if call.rare is None else call.rare.attempt
        what = state, call.reason, attempt
        if what == self._last:
            return
        self._last = what
        moment = time.time() if now_s is None else now_s
        transition = Transition(moment, state, what[1])
        self.transitions.append(transition)
        for then in self._then:
            then(call, transition)

    def ran(self, message: Ran, earlier: int) -> None:
        """An attempt has ended; ``earlier``: how many there were before a retry()."""
        if len(message.times) == len(_MOMENTS):
            times = dict(zip(_MOMENTS, message.times, strict=True))
            info = ExecutionInfo(
                message.host, attempt=earlier + message.attempt, **times
            )
            self.attempts.append(info)


def info_of(runtime: Any, call: Call) -> TaskInfo:
    """What is known of a call, now."""
    rare = call.rare
    about = About() if rare is None or rare.about is None else rare.about
    watched = None if rare is None else rare.watched
    attempts = [] if watched is None else list(watched.attempts)
    error = None
    if call.state > DONE and type(call.result) is bytes:
        error = load_error(call.result, runtime.serializer)
    return TaskInfo(
        task_id=task_name(call.first_uid),
        name=about.run_name or call.name,
        parent_task_ids=list(about.parents),
        submit_time=call.submitted_s,
        received_time=(call.settled_s or None) if call.state >= DONE else None,
        success=call.state == DONE if call.state >= DONE else None,
        exception=None if error is None else exception_info(error),
        execution=attempts[-1] if attempts else None,
        state=STATES[call.shown_state],
        reason=call.reason,
        attempt=1 if rare is None else rare.earlier + rare.attempt,
        tags=list(about.tags),
        runtime_id=str(runtime.uid_of(call.stream.owner)),
        attempts=attempts,
        value=getattr(error, "value", None) if call.state == CANCELLED else None,
    )


def exception_info(error: BaseException) -> ExceptionInfo:
    """An exception as text."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    text = "".join(traceback.format_exception(error))
    return ExceptionInfo(name, str(error), text)
