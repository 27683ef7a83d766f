"""What is said of the calls on a life that is over: which had started, why it ended.

Judges of two kinds, for ``following``: the life was lost with its worker, or its home
has ended it. What goes to the next life is not decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.verdicts import Verdicts, decode
from ..errors import RuntimeDisconnectedError, Verdict

if TYPE_CHECKING:
    from ..comms import messages as wire
    from ..core.call import Call, Stream
    from .actor import ActorRuntime


class Died:
    """Judges the calls on a life that was lost with its worker.

    Args:
        runtime: whose calls they are.
        cause: the worker, and how it ended.
    """

    def __init__(self, runtime: ActorRuntime, cause: tuple[wire.Member, str]) -> None:
        self.at = cause[0]
        self._runtime = runtime
        self._cause = cause

    def verdict(self, call: Call) -> Verdict:
        return self._runtime.deaths.verdict(call, self._cause)

    def error(self, call: Call) -> RuntimeDisconnectedError:
        return self._runtime.deaths.error(call, *self._cause)

    def killed_by(self, call: Call) -> bool:
        """It ran there at the moment of the death."""
        return self._runtime.deaths.ran(call, self._cause[0])


class Ended:
    """Judges the calls on a life that was ended, to be built again with others.

    Args:
        runtime: whose calls they are.
        stream: to that life.
        at: where it was.
        why: it ended.
        remains: what it left, as of ``core.verdicts``.
    """

    def __init__(
        self,
        runtime: ActorRuntime,
        stream: Stream,
        at: wire.Member,
        why: str,
        remains: bytes,
    ) -> None:
        calls = [c for c in runtime.caller.calls.values() if c.stream is stream]
        self.at, self._why = at, why
        self._verdicts = Verdicts(
            decode(remains),
            runtime.incarnation,
            ((call.stream.tessera, call.uid) for call in calls),
        )

    def verdict(self, call: Call) -> Verdict:
        verdict = self._verdicts.of(call.stream.tessera, call.uid)
        if verdict is Verdict.NOT_STARTED:
            return verdict
        return Verdict.MAYBE_RAN  # it was interrupted, or its end is on its way

    def error(
        self, call: Call, advice: str = "; make it again if that does no harm"
    ) -> RuntimeDisconnectedError:
        verdict = Verdict.MAYBE_RAN if call.began_before else self.verdict(call)
        says = "was not started" if verdict is Verdict.NOT_STARTED else "may have run"
        text = f"{call.name} {says}: {self._why}{advice}"
        return RuntimeDisconnectedError(text, self.at.uid, verdict, self._why)

    def killed_by(self, call: Call) -> bool:
        return False
