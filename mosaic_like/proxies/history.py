"""The moves of a task from state to state, and why, as far as its caller knows them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.task import DONE, PENDING, PREPARE, STATES, TaskState

if TYPE_CHECKING:
    from ..core.call import Call

NO_WORKER = "no worker"  # why a task is pending that no worker has yet


class Transition(NamedTuple):
    """One entry of ``TaskProxy.history``."""

    time_s: float  # seconds since the epoch
    state: TaskState
    reason: str | None


def moves_of(call: Call) -> list[Transition]:
    """The moves of a call that nobody has watched, as far as they are known."""
    first = TaskState.PREPARE if call.state == PREPARE else TaskState.PENDING
    moves = [Transition(call.submitted_s, first, None)]
    if call.rare is not None and call.rare.lost_s:
        moves.append(Transition(call.rare.lost_s, TaskState.PENDING, "lost"))
    if call.rare is not None and call.rare.running_s:
        moves.append(Transition(call.rare.running_s, TaskState.RUNNING, None))
    if call.state >= DONE:
        moves.append(
            Transition(call.settled_s or time.time(), STATES[call.state], call.reason)
        )
    return moves


def reason_of(runtime: Any, call: Call) -> str | None:
    """Why a call is in its state."""
    waits = call.state == PENDING and not call.owner and call.reason is None
    return NO_WORKER if waits and not runtime.workers else call.reason
