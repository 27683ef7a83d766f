"""Every public error.

    MosaicError
    ├── ConnectError (ConnectionError)      no cluster at that address
    ├── AddressInUse (OSError)              the port or socket path is taken
    ├── ProtocolError                       a peer sent what it may not send
    ├── InvalidTransitionError              an event that its state does not allow
    ├── RemoteError                         a remote exception, not to be rebuilt here
    ├── StaleError                          a copy of a parameter is not as its root
    │   └── ConflictError                   changed on both sides
    ├── RuntimeDisconnectedError            the process that had it is gone
    │   ├── WorkerDied
    │   │   └── WorkerOutOfMemory
    │   ├── NodeLost
    │   └── MonitorLost
    └── TaskError                           a call that ended without a value
        ├── UpstreamError                   an argument of it failed
        ├── BlockedError
        ├── TaskCancelledError
        ├── TaskAbortedError
        ├── TaskTimeoutError (TimeoutError)
        ├── PoisonedCall
        ├── CycleError
        ├── ConcurrencyError
        ├── SerializationError (TypeError)  an argument or result that cannot travel
        └── MemoryOverflowError (MemoryError)

Wrong use is Python's own: TypeError, ValueError, LookupError, AttributeError,
RuntimeError, raised where the mistake is made.
"""

from __future__ import annotations

import enum


class Verdict(enum.StrEnum):
    """What is known of a call whose runtime was lost."""

    NOT_STARTED = "not_started"
    MAYBE_RAN = "maybe_ran"
    RAN_RESULT_LOST = "ran_result_lost"


class MosaicError(Exception):
    """The root of all errors of this package."""


class ConnectError(MosaicError, ConnectionError):
    """Nothing answers at an address, or what answers is not this cluster."""


class AddressInUse(MosaicError, OSError):
    """A port or socket path that was asked for is taken."""


class ProtocolError(MosaicError):
    """A peer sent what it may not send; its message was dropped."""


class InvalidTransitionError(MosaicError):
    """An event that the state of an object does not allow.

    Args:
        state: the state that the object is in.
        event: what was asked of it.
    """

    def __init__(self, state: str, event: str) -> None:
        super().__init__(state, event)
        self.state = state
        self.event = event

    def __str__(self) -> str:
        return f"{self.event!r} is not possible in state {str(self.state)!r}"


class RemoteError(MosaicError):
    """A remote exception that could not travel or be rebuilt here.

    Its texts have no control characters but line ends, tabs and colors.

    Args:
        type_name: the qualified name of the original class.
        message: the text of the original.
        traceback: the remote traceback as text.
        reason: why the original could not be rebuilt; empty if it was not tried.
    """

    def __init__(
        self, type_name: str, message: str, traceback: str = "", reason: str = ""
    ) -> None:
        super().__init__(type_name, message, traceback, reason)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback
        self.reason = reason

    def __str__(self) -> str:
        text = f"{self.type_name}: {self.message}" if self.message else self.type_name
        return f"{text} ({self.reason})" if self.reason else text


class StaleError(MosaicError):
    """A copy of a parameter is not as its root, so that data would be lost or old.

    Args:
        message: the parameter, what differs and what to do now.
        attributes: those that differ.
        versions: of these, what the root has.
    """

    def __init__(
        self,
        message: str,
        attributes: tuple[str, ...] = (),
        versions: dict[str, int] | None = None,
    ) -> None:
        super().__init__(message, attributes, versions)
        self.attributes = attributes
        self.versions = versions or {}

    def __str__(self) -> str:
        return str(self.args[0])


class ConflictError(StaleError):
    """An attribute of a parameter was changed in a copy and at its root."""


class RuntimeDisconnectedError(MosaicError):
    """The process that held an object or ran a call is gone.

    Args:
        message: what happened, how it ended and what to do now.
        runtime_id: the uid of the lost runtime, such as ``worker:0:1``.
        verdict: whether the call may have run.
        cause: how the runtime ended, such as ``killed by SIGKILL``.
    """

    def __init__(
        self,
        message: str,
        runtime_id: str = "",
        verdict: Verdict = Verdict.MAYBE_RAN,
        cause: str = "",
    ) -> None:
        super().__init__(message, runtime_id, verdict, cause)
        self.runtime_id = runtime_id
        self.verdict = verdict
        self.cause = cause

    def __str__(self) -> str:
        return str(self.args[0])


class WorkerDied(RuntimeDisconnectedError):
    """A worker process ended."""


class WorkerOutOfMemory(WorkerDied):
    """A worker process was killed for want of memory."""


class NodeLost(RuntimeDisconnectedError):
    """A host, or its supervisor, is gone."""


class MonitorLost(RuntimeDisconnectedError):
    """The monitor is gone: nothing can be made or looked up any more."""


class TaskError(MosaicError):
    """A call that ended without a value.

    Args:
        message: what happened and what to do now.
        uid: the call.
    """

    def __init__(self, message: str, uid: str = "") -> None:
        super().__init__(message, uid)
        self.uid = uid

    def __str__(self) -> str:
        return str(self.args[0])


class UpstreamError(TaskError):
    """An argument of the call failed; ``__cause__`` is the original error."""


class BlockedError(TaskError):
    """The task still waits for others and was asked to start without waiting."""


class TaskCancelledError(TaskError):
    """The call was cancelled.

    Args:
        message: why.
        uid: the call.
        verdict: whether it may have run.
    """

    def __init__(
        self, message: str, uid: str = "", verdict: Verdict = Verdict.NOT_STARTED
    ) -> None:
        super().__init__(message, uid)
        self.args = (message, uid, verdict)
        self.verdict = verdict


class TaskAbortedError(TaskError):
    """The task was given up for good."""


class TaskTimeoutError(TaskError, TimeoutError):
    """The call did not end in its time.

    Args:
        message: the limit and what the call was doing.
        uid: the call.
        verdict: whether it may have run.
    """

    def __init__(
        self, message: str, uid: str = "", verdict: Verdict = Verdict.MAYBE_RAN
    ) -> None:
        super().__init__(message, uid)
        self.args = (message, uid, verdict)
        self.verdict = verdict


class PoisonedCall(TaskError):
    """The call has killed the worker that ran it, twice."""


class CycleError(TaskError):
    """Calls wait for each other in a circle."""


class ConcurrencyError(TaskError):
    """A concurrency rule refused the task."""


class SerializationError(TaskError, TypeError):
    """A value that cannot travel; the text names the path to the part at fault."""


class MemoryOverflowError(TaskError, MemoryError):
    """A value that is larger than the memory limit alone."""
