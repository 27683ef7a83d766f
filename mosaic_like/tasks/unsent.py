"""The errors of tasks that ended without having been sent: because of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms.causes import Cause
from ..comms.exceptions import dump_error
from ..core.task import CANCELLED, FAILED
from ..errors import TaskAbortedError, TaskCancelledError, UpstreamError
from ..ids import task_name

if TYPE_CHECKING:
    from ..comms.serialization import Serializer
    from ..core.call import Call


def unsent_error(
    call: Call, state: int, other: str | None, result: Any, serializer: Serializer
) -> bytes:
    """What awaiting it raises, as bytes.

    Args:
        call: of the task.
        state: in which it ends.
        other: the name of the task that it waited for; None: it was given up itself.
        result: of that one: its error as bytes, if it is still known.
        serializer: of the runtime.
    """
    name, uid = call.name, task_name(call.first_uid)
    if other is None:
        text = f"{name} was given up: abort() was called"
        return dump_error(TaskAbortedError(text, uid), serializer)
    which = f"{other}, which it waits for"
    if state == CANCELLED:
        text = f"{name} was not called: {which}, was cancelled"
        return dump_error(TaskCancelledError(text, uid), serializer)
    if state != FAILED:
        text = f"{name} was given up: {which}, was aborted"
        return dump_error(TaskAbortedError(text, uid), serializer)
    cause = Cause(result) if type(result) is bytes else None
    told = "" if cause is None else f" ({cause.kind}: {cause.message})"
    error = UpstreamError(
        f"{name} was not called: {which}, failed{told}; retry() of that runs this one "
        "too",
        uid,
    )
    if cause is None:
        return dump_error(error, serializer)
    return cause.under(error, serializer)
