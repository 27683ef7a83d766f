"""The clock of cancels and timeouts: one timer for each runtime, on its loop.

What is due, and what follows from it, is decided in ``core/limits.py`` and by the
states of the caller and of the worker; here they are asked when the timer passes.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from .. import ids
from ..comms import messages as wire
from ..core.call import rare
from ..core.limits import (
    GRACE_S,
    Deadlines,
    Late,
    Limit,
    Limits,
    Pursuit,
    Step,
    interrupt_of,
    reason_of,
)
from ..core.senders import Kind, kind_of
from ..core.task import CANCELLED, DONE, FAILED

if TYPE_CHECKING:
    import asyncio

    from ..core.call import Call
    from ..core.task import Task
    from ..errors import RuntimeDisconnectedError
    from .actor import ActorRuntime

logger = logging.getLogger(__name__)

now = time.monotonic
_OF_OTHERS = "the time of the call that made it is over"


class Limiting:
    """The times of the calls that a runtime makes and of those that it owns."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._calls = Limits(self._is_open)
        self._pursuit = Pursuit()
        self._graces = Deadlines()  # of the tasks that are being stopped
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._parents: dict[int, str] = {}  # whose inner calls are to be cancelled

    def _is_open(self, uid: int) -> bool:
        return uid in self._runtime.caller.calls

    # -- the caller's side -------------------------------------------------------------

    def inherit(self, task: Task, call: Call, extra: wire.Extra) -> None:
        """A call is made inside another: it has no more time than that; any thread."""
        around = self._runtime.worker.stopping.limits.get(task.uid)
        if around is None:
            return
        extra.remaining_s = max(around.deadline_s - now(), 0.0)
        self._watch(Limit(call.uid, extra.timeout_s, around.deadline_s, now()))

    def limit(self, call: Call, extra: wire.Extra) -> None:
        """A call was made with options of this kind; from any thread."""
        if extra.interrupt is not None:
            rare(call).interrupt = extra.interrupt
        if extra.timeout_s is not None and extra.remaining_s is None:
            self._watch(Limit(call.uid, extra.timeout_s, None, now()))

    def _watch(self, limit: Limit) -> None:
        if self._runtime.on_loop:
            self._calls.add(limit)
            self._arm()
        else:
            self._runtime.post(self._watch, limit)

    def asked(self, call: Call, why: str) -> None:
        """The owner of a call was asked to end it."""
        if call.state < DONE:
            self._pursuit.begin(call.uid, why, now())
            self._arm()

    def is_ending(self, call: Call) -> bool:
        """Its owner was asked to end it, and has not said that it has."""
        return call.uid in self._pursuit

    def ending_at(self, owner: int) -> list[Call]:
        """Those that a runtime was asked to end, and has not said that it has."""
        calls = self._runtime.caller.calls
        asked = [calls[uid] for uid in self._pursuit if uid in calls]
        return [call for call in asked if call.stream.owner == owner]

    def lost(self, call: Call, error: RuntimeDisconnectedError) -> None:
        """One that is ending is lost with its owner: its end is what was asked for."""
        why = self._pursuit.why(call.uid)
        self._pursuit.ended(call.uid)
        self._give_up(call, why, self._runtime.failures.lost_ending(call, why, error))

    def begun(self, call: Call, attempt: int, delay_s: float | None = None) -> None:
        """The owner says that another attempt has begun, or waits."""
        if attempt > 1:
            rare(call).attempt = attempt
            self._pursuit.ended(call.uid)
            if delay_s is None:
                self._calls.again(call.uid, now())
            else:
                self._calls.pause(call.uid)
            self._arm()

    def _late(self, limit: Limit) -> None:
        call = self._runtime.caller.calls.get(limit.uid)
        if call is None or call.state >= DONE:
            return
        why = limit.why(now())
        attempt = 0 if why.final or call.rare is None else call.rare.attempt
        self._runtime.caller.late(call, why, 0 if why.final else attempt or 1)
        self.asked(call, why)

    def _step(self, uid: int, step: Step, why: str) -> None:
        call = self._runtime.caller.calls.get(uid)
        if call is None or call.state >= DONE:
            self._pursuit.ended(uid)
            return
        if step is Step.NUDGE:
            self._send_to_node(call, why, kill=False)
            return
        interrupt = None if call.rare is None else call.rare.interrupt
        self._send_to_node(call, why, kill=interrupt == wire.KILL_WORKER)
        self._give_up(call, why, self._runtime.failures.given_up(call, why))

    def _give_up(self, call: Call, why: str, error: bytes) -> None:
        reason = reason_of(why)
        state = CANCELLED if reason == wire.CANCELLED else FAILED
        self._runtime.caller.give_up(call, state, reason, error)

    def _send_to_node(self, call: Call, why: str, *, kill: bool) -> None:
        """Have the node of a worker do what the worker may be unable to."""
        runtime = self._runtime
        owner = runtime.members.get(call.stream.owner)
        if owner is None or kind_of(owner.uid) is not Kind.WORKER:
            return
        node = f"node:{owner.uid.split(':')[1]}"
        for member in runtime.of_kind("node"):
            outbox = runtime.outbox(member.incarnation)
            if member.uid == node and outbox is not None:
                kind = reason_of(why)
                message = wire.Interrupt(call.uid, owner.incarnation, kind, kill)
                outbox.send(message)

    # -- the owner's side --------------------------------------------------------------

    def limited(self, task: Task) -> bool:
        """A call has come with a time; False: it is over."""
        if self._runtime.worker.stopping.limit(task, now()) is None:
            return False
        self._arm()
        return True

    def stopping(self, task: Task) -> None:
        """A call that runs was asked to end: soon its waiters are let go."""
        if not self._parents:
            # All that are stopped together look once for the calls made inside them.
            loop = self._runtime.loop
            loop.call_soon(self._cancel_inside, context=self._runtime.context)
        late = type(task.cancelled) is Late
        self._parents[task.uid] = _OF_OTHERS if late else "the call that made it was"
        self._graces.set(task.uid, now() + GRACE_S)
        self._arm()

    def _cancel_inside(self) -> None:
        parents, self._parents = self._parents, {}
        self._runtime.catch_up()  # some may have been made just now
        # Backwards, since who runs them goes on taking the first.
        for call in reversed(self._runtime.caller.inside(parents)):
            self._runtime.cancel(call, parents[call.parent])

    def retrying(self, task: Task, attempt: int) -> None:
        """A call that had failed, or was late, runs again."""
        self._graces.drop(task.uid)
        self._runtime.worker.stopping.retrying(task, attempt, now())
        self._arm()

    def retry_later(self, task: Task, attempt: int, delay_s: float) -> bool:
        """The next attempt of a call waits; False: it is to end instead."""
        self._graces.drop(task.uid)
        waits = self._runtime.worker.stopping.retry_later(task, attempt, delay_s)
        self._arm()
        return waits

    def retry_now(self, task: Task, attempt: int) -> bool:
        """It begins; True: at once."""
        at_once = self._runtime.worker.stopping.retry_now(task, attempt, now())
        self._arm()
        return at_once

    def _abandon(self, uid: int) -> None:
        task = self._runtime.worker.stopping.abandon(uid)
        if task is None or self._runtime.stopping:
            return
        name = task.tessera.options.name
        late = type(task.cancelled) is Late
        what = "was out of time" if late else "was cancelled"
        if interrupt_of(task) == wire.KILL_WORKER:
            self._runtime.recycle(
                f"it was ended because {task.name}, which {what}, had not "
                f"stopped after {GRACE_S:g} s (interrupt='kill')"
            )
            return
        logger.warning(
            "%s on %s %s and has not stopped after %g s: %s is busy until it "
            "returns, and later calls of it wait",
            task.name,
            ids.short(self._runtime.uid),
            what,
            GRACE_S,
            name,
        )

    # -- the timer ---------------------------------------------------------------------

    def _arm(self) -> None:
        """Have ``_pass`` called when something is due."""
        sources: tuple[Any, ...] = (
            self._calls,
            self._pursuit,
            self._graces,
            self._runtime.worker.stopping.limits,
        )
        moments = [s.first_s for s in sources if s.first_s is not None]
        if not moments:
            return
        first_s = min(moments)
        if self._timer is not None:
            if self._timer_s <= first_s:
                return
            self._timer.cancel()
        self._timer_s = first_s
        self._timer = self._runtime.loop.call_later(
            max(first_s - now(), 0.0), self._pass, context=self._runtime.context
        )

    def _pass(self) -> None:
        self._timer = None
        runtime = self._runtime
        if runtime.peers.closed:
            return
        now_s = now()
        runtime.caller.now_s = time.time()
        runtime.worker.stopping.late(now_s)
        stopping = self._graces.due(now_s)
        if stopping:
            runtime.take_in()  # perhaps they have ended, and the loop was held
        for uid in stopping:
            self._abandon(uid)
        for limit in self._calls.due(now_s):
            self._late(limit)
        for uid, step, why in self._pursuit.due(now_s):
            self._step(uid, step, why)
        self._arm()
