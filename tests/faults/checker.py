"""Whether the history of a run is as it must be: one judge for all faults.

=== ========================================================================
I1  every call has exactly one outcome, and one that is expected there
I2  what is said not to have started did not; what has a value ran to its end
I3  no call starts twice
I4  the calls of one caller on one actor start in call order
I5  who is told of a loss is told within the bound
I6  what there was before is there afterwards, and nothing else
=== ========================================================================

It judges records alone. I6 is measured by the run, which hands in what was left.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from history import Event, Outcome, Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

NOT_STARTED = frozenset(
    {
        Outcome.LOST_NOT_STARTED,
        Outcome.CANCELLED_NOT_STARTED,
        Outcome.LATE_NOT_STARTED,
        Outcome.UPSTREAM,
        Outcome.REFUSED,
    }
)
LOST = frozenset(
    {Outcome.LOST_NOT_STARTED, Outcome.LOST_MAYBE_RAN, Outcome.LOST_RESULT}
)
STOPPED = frozenset(
    {
        Outcome.CANCELLED_NOT_STARTED,
        Outcome.CANCELLED_RUNNING,
        Outcome.LATE_NOT_STARTED,
        Outcome.LATE_RUNNING,
    }
)
# What tells of a fault, and so has to come within the bound of it.
TELLS = LOST | STOPPED

Call = tuple[int, int]


@dataclass(frozen=True)
class Rules:
    """What this run allows.

    Args:
        bound_s: seconds from the last fault to the last outcome that tells of it.
        expected: outcomes of the calls that need not have a value.
        after_healing_s: seconds from the end of the fault to the last outcome of all.
        repeatable: calls that may start again when their worker was lost.
        unheard: streams whose callers themselves are ended: a call of them may have no
            outcome, or any.
    """

    bound_s: float
    expected: Mapping[Call, Collection[Outcome]] = field(default_factory=dict)
    after_healing_s: float | None = None
    repeatable: Collection[Call] = frozenset()
    unheard: Collection[int] = frozenset()


def check(
    records: Iterable[Record], rules: Rules, left: Iterable[str] = ()
) -> list[str]:
    """What is wrong, each with its rule; empty if nothing is."""
    history = sorted(records)
    found = _outcomes(history, rules)
    found += _starts(history, rules)
    found += _times(history, rules)
    return found + [f"I6: {one}" for one in left]


def bound_s(records: Iterable[Record]) -> float | None:
    """Seconds from the fault to the last outcome that tells of it, if any does.

    Calls that were made later are not looked at: nobody waited for them.
    """
    history = sorted(records)
    fault_s = max((r.time_s for r in history if r.event is Event.FAULT), default=None)
    if fault_s is None:
        return None
    waited = {
        r.call for r in history if r.event is Event.SUBMITTED and r.time_s <= fault_s
    }
    told = [
        r.time_s
        for r in history
        if r.event is Event.OUTCOME and r.detail in TELLS and r.call in waited
    ]
    return max(0.0, max(told) - fault_s) if told else None


def _by_call(history: list[Record], event: Event) -> dict[Call, list[Record]]:
    found: dict[Call, list[Record]] = defaultdict(list)
    for record in history:
        if record.event is event:
            found[record.call].append(record)
    return found


def _name(call: Call) -> str:
    return f"call {call[1]} of stream {call[0]}"


def _outcomes(history: list[Record], rules: Rules) -> list[str]:
    found = []
    submitted = _by_call(history, Event.SUBMITTED)
    outcomes = _by_call(history, Event.OUTCOME)
    started = _by_call(history, Event.STARTED)
    ended = _by_call(history, Event.ENDED)
    for call, records in submitted.items():
        if len(records) > 1:
            found.append(f"I1: {_name(call)} was made {len(records)} times")
        got = [Outcome(r.detail) for r in outcomes.get(call, ())]
        if len(got) > 1 or not (got or call[0] in rules.unheard):
            names = ", ".join(o.name for o in got) or "none"
            found.append(f"I1: {_name(call)} has {len(got)} outcomes: {names}")
        expected = rules.expected.get(call, (Outcome.VALUE,))
        for outcome in got:
            if outcome not in expected and call[0] not in rules.unheard:
                names = ", ".join(o.name for o in expected)
                found.append(f"I1: {_name(call)} is {outcome.name}, expected {names}")
            if outcome in NOT_STARTED and call in started:
                found.append(f"I2: {_name(call)} is {outcome.name}, and has started")
            ran = outcome in (Outcome.VALUE, Outcome.LOST_RESULT)
            if ran and call not in ended:
                found.append(f"I2: {_name(call)} is {outcome.name}, and has not ended")
    never = (outcomes.keys() | started.keys() | ended.keys()) - submitted.keys()
    return found + [f"I1: {_name(call)} was never made" for call in never]


def _starts(history: list[Record], rules: Rules) -> list[str]:
    found = []
    for call, records in _by_call(history, Event.STARTED).items():
        places = {record.pid for record in records}
        again = call in rules.repeatable and len(places) == len(records)
        if len(records) > 1 and not again:
            found.append(f"I3: {_name(call)} has started {len(records)} times")
    streams: dict[int, list[int]] = defaultdict(list)
    for record in history:
        if record.event is Event.STARTED:
            streams[record.stream].append(record.number)
    for stream, numbers in streams.items():
        for before, after in itertools.pairwise(numbers):
            if after < before:
                found.append(f"I4: {_name((stream, after))} started after {before}")
    return found


def _times(history: list[Record], rules: Rules) -> list[str]:
    found = []
    taken_s = bound_s(history)
    if taken_s is not None and taken_s > rules.bound_s:
        found.append(f"I5: told {taken_s:.2f} s later, at most {rules.bound_s:g} s")
    healed = [r.time_s for r in history if r.event is Event.HEALED]
    outcomes = [r.time_s for r in history if r.event is Event.OUTCOME]
    if healed and outcomes and rules.after_healing_s is not None:
        taken_s = max(outcomes) - max(healed)
        if taken_s > rules.after_healing_s:
            found.append(
                f"I5: the last outcome came {taken_s:.2f} s after the end of the "
                f"fault, at most {rules.after_healing_s:g} s"
            )
    return found
