"""How a runtime died and what became of its calls, as their callers are told.

The node sends what a dead worker left (``core.verdicts``); here it is put together with
the calls of this runtime. Which errors there are besides is in ``failures``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import ids
from ..core.call import RELEASED, Call
from ..core.payloads import Arrived
from ..core.senders import Kind, kind_of
from ..core.task import CONSTRUCTOR
from ..core.verdicts import Remains, Verdicts, decode
from ..errors import (
    MonitorLost,
    NodeLost,
    RuntimeDisconnectedError,
    Verdict,
    WorkerDied,
    WorkerOutOfMemory,
)
from ..text import lines_for_terminal, printable
from .following import advice

if TYPE_CHECKING:
    from ..comms.messages import Member
    from .actor import ActorRuntime

_MOST_RUNNING = 3  # that are named
_MOST_NOTES = 100  # errors of one death that carry the long texts
_LINES = 50

_SAYS = {
    Verdict.NOT_STARTED: "was not started",
    Verdict.MAYBE_RAN: "may have run",
    Verdict.RAN_RESULT_LOST: "has run, and its result is lost",
}


class Death:
    """One runtime that is lost."""

    def __init__(self, remains: Remains) -> None:
        self.remains = remains
        self.verdicts: Verdicts | None = None  # while the loss is dealt with
        self.running = ""
        self.notes_left = _MOST_NOTES

    def notes(self) -> list[str]:
        """Texts that are too long for the message."""
        if not self.notes_left:
            return []
        self.notes_left -= 1
        notes = []
        if self.remains.fault:
            notes.append("where it was:\n" + _crash(self.remains.fault))
        lines = self.remains.lines.splitlines()[-_LINES:]
        if lines:
            notes.append(
                "the last lines that it printed or logged:\n" + "\n".join(lines)
            )
        return [lines_for_terminal(note) for note in notes]


class Deaths:
    """Those that this runtime has been told of."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._by_incarnation: dict[int, Death] = {}
        self.all_lost = ""  # why nobody will answer any more

    def left(self, member: Member, data: bytes) -> None:
        """What a worker left; told right before ``begin``."""
        self._by_incarnation[member.incarnation] = Death(decode(data))

    def begin(self, member: Member) -> None:
        """Its calls are about to be lost: see which they are, and in which order."""
        death = self._by_incarnation.get(member.incarnation)
        if death is None:
            return
        runtime = self._runtime
        calls = [
            call
            for call in runtime.caller.calls.values()
            if call.stream.owner == member.incarnation
        ]
        death.verdicts = Verdicts(
            death.remains,
            runtime.incarnation,
            ((call.stream.tessera, call.uid) for call in calls),
            {call.uid for call in calls if call.method == CONSTRUCTOR},
        )
        verdicts, mine = death.verdicts, {call.uid for call in calls}
        running = [c.name for c in calls if verdicts.ran(c.stream.tessera, c.uid)]
        # Of those of other callers it is not known what they are, nor, where it is not
        # certain that they ran, whether they have been told of their end.
        running += [
            f"a method of {printable(mark.label)}"
            for mark in death.remains.marks
            if mark.runs and mark.running not in mine
        ]
        if running:
            more = len(running) - _MOST_RUNNING
            death.running = " while it ran " + ", ".join(running[:_MOST_RUNNING])
            if more > 0:
                death.running += f" and {more} more"

    def end_asked(self, member: Member, how: str) -> None:
        """First of all end those that their callers did not want any more."""
        limiting, seeking = self._runtime.limiting, self._runtime.restarts.seeking
        for call in limiting.ending_at(member.incarnation):
            seeking.remember(call, member)
            limiting.lost(call, self._error(call, member, how, ""))

    def end(self, member: Member) -> None:
        """All are lost that were there: only the texts are kept."""
        death = self._by_incarnation.get(member.incarnation)
        if death is not None:
            death.verdicts = None
            death.remains.marks = []

    def error(self, call: Call, member: Member, how: str) -> RuntimeDisconnectedError:
        """What the caller of a lost call gets."""
        return self._error(call, member, how, f". {advice(call)}")

    def _error(
        self, call: Call, member: Member, how: str, end: str
    ) -> RuntimeDisconnectedError:
        if self.all_lost:
            return MonitorLost(
                f"{call.name} got no answer: {self.all_lost}, and its cluster ended "
                "with it; start another by mosaic.init() after mosaic.stop(), or run "
                "the program again",
                member.uid,
                Verdict.MAYBE_RAN if call.began_before else self._verdict(call, None),
                self.all_lost,
            )
        death = self._by_incarnation.get(member.incarnation)
        kind: type[RuntimeDisconnectedError] = RuntimeDisconnectedError
        if kind_of(member.uid) is Kind.WORKER:
            kind = WorkerDied
        elif member.uid.startswith("node"):
            kind = NodeLost
        ran = ""
        if death is not None:
            ran = death.running
            if death.remains.memory:
                kind = WorkerOutOfMemory
                how = f"{how}: {death.remains.memory}"
        verdict = self._verdict(call, death)
        if verdict is Verdict.NOT_STARTED and call.began_before:
            verdict = Verdict.MAYBE_RAN  # on one that was lost before
        says = "was not sent" if call.hold == RELEASED else _SAYS[verdict]
        if verdict is not Verdict.NOT_STARTED:
            says = _SAYS[verdict]
        said = f"{call.name} {says}" if call.method else "so is the value of a task"
        where = f"{ids.short(member.uid)} ({member.host}, pid {member.pid})"
        if member.incarnation in self._runtime.leavers.left:
            return RuntimeDisconnectedError(
                f"{where} has left the cluster: {how}; {said}{end}",
                member.uid,
                verdict,
                how,
            )
        error = kind(
            f"{where} is lost: {how}{ran}; {said}{end}",
            member.uid,
            verdict,
            how,
        )
        for note in [] if death is None else death.notes():
            error.add_note(note)
        return error

    def ran(self, call: Call, member: Member) -> bool:
        """Its worker ran it when it died; known while that is dealt with."""
        death = self._by_incarnation.get(member.incarnation)
        if death is None or death.verdicts is None:
            return False
        if member.incarnation in self._runtime.leavers.left:
            return False
        return death.verdicts.ran(call.stream.tessera, call.uid)

    def verdict(self, call: Call, cause: Any) -> Verdict:
        """Whether a call has run; ``cause`` as for ``Failures.lost``."""
        member = cause[0] if type(cause) is tuple else None
        death = None
        if member is not None:
            death = self._by_incarnation.get(member.incarnation)
        return self._verdict(call, death)

    def _verdict(self, call: Call, death: Death | None) -> Verdict:
        result = call.result
        if type(result) is Arrived and result.size:
            return Verdict.RAN_RESULT_LOST  # its value had stayed there
        if not call.method:  # that of another, who alone knows whether it was sent
            return Verdict.MAYBE_RAN
        if call.hold == RELEASED:
            return Verdict.NOT_STARTED
        if death is None and call.stream.owner in self._runtime.leavers.left:
            return Verdict.NOT_STARTED  # all have heard the ends of what it ran
        is_own = call.rare is None or call.rare.grant is None
        if death is None or death.verdicts is None or not is_own:
            return Verdict.MAYBE_RAN
        verdict = death.verdicts.of(call.stream.tessera, call.uid)
        is_ending = self._runtime.limiting.is_ending(call)
        if verdict is Verdict.RAN_RESULT_LOST and is_ending:
            return Verdict.MAYBE_RAN  # not to its end, if it was interrupted
        return verdict


def _crash(text: str) -> str:
    """Of what faulthandler wrote: what happened, and the stack of the thread at fault.

    >>> _crash("Fatal: X\\n\\nThread 1\\n  a\\n\\nCurrent thread 2\\n  b\\n\\nModules")
    'Fatal: X\\nCurrent thread 2\\n  b'
    """
    what, *parts = text.strip().split("\n\n")
    at_fault = [part for part in parts if part.startswith("Current thread")]
    return "\n".join((what, *at_fault)) if at_fault else text.strip()
