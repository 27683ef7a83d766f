"""The errors that a runtime makes for calls, as bytes that travel."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .. import ids
from ..comms import messages as wire
from ..comms.causes import Cause
from ..comms.exceptions import dump_error
from ..core.call import RELEASED, Call
from ..core.leaving import Drained
from ..core.limits import Late, Orphaned
from ..core.payloads import Arrived
from ..core.task import CONSTRUCTOR, RUNNING, Task
from ..errors import (
    MonitorLost,
    MosaicError,
    RuntimeDisconnectedError,
    TaskCancelledError,
    TaskTimeoutError,
    UpstreamError,
    Verdict,
)

if TYPE_CHECKING:
    from .actor import ActorRuntime

_READ_ONLY = "arrays that came from elsewhere are shared with others: change a copy()"
_KINDS = MappingProxyType({wire.ERROR: RuntimeError, wire.GONE: LookupError})


def no_cluster(why: str, verdict: Verdict = Verdict.NOT_STARTED) -> MonitorLost:
    """For what would have been made in a cluster that is no more."""
    return MonitorLost(
        f"nothing can be made any more: {why}; end the program, or start another "
        "runtime after mosaic.stop()",
        "monitor",
        verdict,
        why,
    )


class Failures:
    """Says what happened, where, why and what to do now."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._serializer = runtime.serializer
        self._alike: Any = None  # what the last lost call ended by
        self._alike_bytes = b""

    def raised(self, error: BaseException, task: Task) -> bytes:
        """What user code has raised, with a note that says where."""
        runtime = self._runtime
        where = f"{ids.short(runtime.uid)} ({runtime.me.host}, pid {runtime.me.pid})"
        note = f"  in {task.name} on {where} · task {ids.task_name(task.first_uid)}"
        note += f" · attempt {runtime.executor.attempts.shown(task)}"
        if isinstance(error, ValueError) and "read-only" in str(error):
            note += f"\n  {_READ_ONLY}"
        return dump_error(error, self._serializer, note=note)

    def cancelled(self, task: Task, *, started: bool) -> bytes:
        """A call was cancelled at its owner."""
        if type(task.cancelled) is Late:
            why_late = task.cancelled
            return dump_error(self._late(task, why_late, started), self._serializer)
        if type(task.cancelled) is Orphaned:
            error_here = self._orphaned(task, task.cancelled, started)
            return dump_error(error_here, self._serializer)
        why = f": {task.cancelled}" if task.cancelled else ""
        when = "while it ran" if started else f"before it started{self._again(task)}"
        error = TaskCancelledError(
            f"{task.name} was cancelled {when}{why}",
            ids.task_name(task.first_uid),
            self._verdict(task, started),
        )
        return dump_error(error, self._serializer)

    def cancelled_here(self, call: Call, reason: str) -> bytes:
        """A call was cancelled, or late, before it was sent."""
        error: BaseException
        again, verdict = "", Verdict.NOT_STARTED
        if call.began_before:
            again, verdict = " again", Verdict.MAYBE_RAN
        if type(reason) is Late:
            error = TaskTimeoutError(
                f"{call.name} was not sent{again} in time ({reason}): its tessera has "
                "no place yet, or too much is on its way to it",
                ids.task_name(call.first_uid),
                verdict,
            )
            return dump_error(error, self._serializer)
        why = f": {reason}" if reason else ""
        error = TaskCancelledError(
            f"{call.name} was cancelled before it started{again}{why}",
            ids.task_name(call.first_uid),
            verdict,
        )
        return dump_error(error, self._serializer)

    def given_up(self, call: Call, why: str) -> bytes:
        """A call was asked to end, and its owner does not say that it has."""
        where = ids.short(self._runtime.uid_of(call.owner)) or "its runtime"
        silent = (
            f"{where} does not answer: it is frozen, or something there holds its loop "
            "or its interpreter"
        )
        error = self._unanswered(call, why, silent, Verdict.MAYBE_RAN)
        return dump_error(error, self._serializer)

    def lost_ending(
        self, call: Call, why: str, lost: RuntimeDisconnectedError
    ) -> bytes:
        """A call was asked to end, and its runtime is lost before it said so."""
        error = self._unanswered(call, why, str(lost), lost.verdict)
        for note in getattr(lost, "__notes__", ()):
            error.add_note(note)
        return dump_error(error, self._serializer)

    def _unanswered(
        self, call: Call, why: str, instead: str, verdict: Verdict
    ) -> BaseException:
        name, uid = call.name, ids.task_name(call.first_uid)
        if type(why) is Late:
            text = f"{name} did not end in time ({why}), and {instead}"
            return TaskTimeoutError(text, uid, verdict)
        text = f"{name} was cancelled{': ' if why else ''}{why}; {instead}"
        return TaskCancelledError(text, uid, verdict)

    def _late(
        self, task: Task, why: Late, started: bool, what: str = "was stopped"
    ) -> BaseException:
        """The time of a call is over at its owner."""
        name, uid = task.name, ids.task_name(task.first_uid)
        if not started:
            return TaskTimeoutError(
                f"{name} was not started{self._again(task)} in time ({why}): what was "
                "before it took too long; give it more time, or call one that is less "
                "busy",
                uid,
                self._verdict(task, started),
            )
        return TaskTimeoutError(
            f"{name} did not end in time ({why}) and {what}; give it more time, or "
            "see what it waited for",
            uid,
            Verdict.MAYBE_RAN,
        )

    def lost(self, call: Call, cause: Any) -> bytes:
        """The runtime that had to answer a call is gone.

        Args:
            call: which.
            cause: an error, also as bytes, the member and how it ended, or why there
                is none.
        """
        if isinstance(cause, BaseException):
            return dump_error(cause, self._serializer)
        if type(cause) is bytes:
            return cause
        lost = self._runtime.cluster_lost
        if lost and call.method == CONSTRUCTOR:
            verdict = self._runtime.deaths.verdict(call, cause)
            return dump_error(no_cluster(lost, verdict), self._serializer)
        member, how = cause if type(cause) is tuple else (None, str(cause))
        if member is None and type(call.result) is Arrived:
            error = RuntimeDisconnectedError(
                f"the value of {call.name} could not be brought here: {how}",
                "",
                Verdict.RAN_RESULT_LOST,
                how,
            )
        elif member is None:
            sent = call.hold != RELEASED or call.began_before
            error = RuntimeDisconnectedError(
                f"its runtime is lost: {how}; {call.name} "
                f"{'may have run' if sent else 'was not sent'}. "
                "Its tesserae are gone: make them again",
                "",
                Verdict.MAYBE_RAN if sent else Verdict.NOT_STARTED,
                how,
            )
        elif member.uid.startswith("warehouse"):
            error = RuntimeDisconnectedError(
                f"{ids.short(member.uid)} ({member.host}, pid {member.pid}) is lost: "
                f"{how}; {call.name} is gone with all that it kept: put it again",
                member.uid,
                Verdict.RAN_RESULT_LOST,
                how,
            )
        else:
            error = self._runtime.deaths.error(call, member, how)
        # Many calls that end with it end alike: these share the bytes.
        alike = type(error), error.args, vars(error)
        if alike != self._alike:
            self._alike, self._alike_bytes = alike, dump_error(error, self._serializer)
        return self._alike_bytes

    def refused(self, task: Task, reason: int, why: Any) -> bytes:
        """A call ended at its owner without having run.

        Args:
            task: which.
            reason: one of those of ``messages.Failed``.
            why: text, or the argument that failed.
        """
        error: BaseException
        if isinstance(why, (Task, Call)):
            if task.extra is not None and task.extra.kind == wire.REPLACE_KEY:
                return error_of(why)  # of the function that was to make the value
            return self._upstream(task, reason, why)
        elif isinstance(why, Exception):
            error = type(why)(f"{task.name}: {why}", *why.args[1:])
        else:
            error = self._refused(task, reason, why)
        return dump_error(error, self._serializer)

    def _upstream(self, task: Task, reason: int, argument: Task | Call) -> bytes:
        name, uid = task.name, ids.task_name(task.first_uid)
        cause = Cause(error_of(argument))
        error: BaseException
        if reason == wire.CANCELLED:
            error = TaskCancelledError(
                f"{name}: an argument was cancelled ({cause.message})", uid
            )
        else:
            error = UpstreamError(
                f"{name} was not called: an argument of it failed "
                f"({cause.kind}: {cause.message})",
                uid,
            )
        return cause.under(error, self._serializer)

    def _refused(self, task: Task, reason: int, why: Any) -> BaseException:
        runtime = self._runtime
        name, uid = task.name, ids.task_name(task.first_uid)
        started = task.state == RUNNING
        goes_on = task.uid in runtime.worker.stopping.abandoned
        if type(why) is Late:
            what = "has not stopped yet" if goes_on else "was stopped"
            return self._late(task, why, started, what)
        if type(why) is Orphaned:
            return self._orphaned(task, why, started)
        if reason == wire.CANCELLED:
            text = f": {why}" if why else ""
            if goes_on:
                text += "; it has not stopped yet, and its tessera is busy until then"
            verdict = self._verdict(task, started)
            return TaskCancelledError(f"{name} was cancelled{text}", uid, verdict)
        if type(why) is Drained:
            return RuntimeDisconnectedError(
                f"{name} was not started{self._again(task)}: {why}",
                runtime.uid,
                self._verdict(task, started),
                "it is being drained",
            )
        if reason == wire.GONE and runtime.stopping:
            # It was closed with all others: nobody has to look for a mistake.
            return RuntimeDisconnectedError(
                f"{name}: {ids.short(runtime.uid)} is stopping with its cluster",
                runtime.uid,
                self._verdict(task, started),
                "its cluster is stopping",
            )
        if reason == wire.LOST:
            return RuntimeDisconnectedError(f"{name}: {why}")
        return _KINDS.get(reason, MosaicError)(f"{name}: {why}")

    def _orphaned(self, task: Task, why: str, started: bool) -> MonitorLost:
        ran = f"was not started{self._again(task)}"
        if started:
            ran = "was ended while it ran"
        return MonitorLost(
            f"{task.name} {ran}: {why}, and its cluster ends with it; start "
            "another by mosaic.init() after mosaic.stop(), or run the program again",
            "monitor",
            self._verdict(task, started),
            why,
        )

    def _again(self, task: Task) -> str:
        """For a text that says that this attempt of a call has not begun."""
        return " again" if self._runtime.executor.attempts.of(task) > 1 else ""

    def _verdict(self, task: Task, started: bool) -> Verdict:
        """Of a call that ends here; its attempts before this one count, too."""
        may_have_run = started or self._again(task)
        return Verdict.MAYBE_RAN if may_have_run else Verdict.NOT_STARTED


def error_of(argument: Task | Call) -> bytes:
    """The error of an argument that failed, as it came."""
    data: bytes
    if isinstance(argument, Task):
        known = argument.outcome
        data = argument.raw.error if known is None else known.data
    else:
        data = argument.result
    return data
