"""The judge of histories is judged: each wrong history is caught by its rule."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from checker import Rules, bound_s, check
from history import Event as E
from history import Outcome as O
from history import Reader, Record, Writer

if TYPE_CHECKING:
    from pathlib import Path

RULES = Rules(bound_s=1.0, after_healing_s=1.0)


def history(*lines: tuple[float, E, int, int, int]) -> list[Record]:
    """Records from time, event, stream, number and detail."""
    return [Record(t, number, 1, s, event, d) for t, event, s, number, d in lines]


def call(
    at_s: float, number: int, outcome: O = O.VALUE, stream: int = 1, runs: bool = True
) -> list[Record]:
    """All of one call, in its right order."""
    ran = [(at_s + 0.1, E.STARTED, 0), (at_s + 0.2, E.ENDED, 0)] if runs else []
    lines = [(at_s, E.SUBMITTED, 0), *ran, (at_s + 0.3, E.OUTCOME, int(outcome))]
    return history(*((t, e, stream, number, d) for t, e, d in lines))


GOOD = [record for number in range(5) for record in call(float(number), number)]


def test_a_good_history_is_let_through_in_any_order_of_its_files() -> None:
    shuffled = GOOD[:]
    random.Random(1).shuffle(shuffled)
    assert check(shuffled, RULES) == []


def without(records: list[Record], event: E, number: int) -> list[Record]:
    return [r for r in records if (r.event, r.number) != (event, number)]


@pytest.mark.parametrize("drop", [E.SUBMITTED, E.OUTCOME, E.STARTED, E.ENDED])
def test_what_is_missing_is_found(drop: E) -> None:
    found = check(without(GOOD, drop, 2), RULES)
    if drop is E.STARTED:  # a value is proof by its end alone
        assert found == []
    else:
        assert len(found) == 1
        assert found[0].startswith("I2" if drop is E.ENDED else "I1")


@pytest.mark.parametrize("twice", [E.SUBMITTED, E.OUTCOME, E.STARTED])
def test_what_is_there_twice_is_found(twice: E) -> None:
    again = [r for r in GOOD if r.event is twice and r.number == 3]
    found = check([*GOOD, *again], RULES)
    assert [one[:2] for one in found] == ["I3" if twice is E.STARTED else "I1"]


def test_a_call_that_may_be_repeated_starts_once_in_each_place() -> None:
    rules = Rules(1.0, repeatable={(1, 3)})
    again = [r for r in GOOD if r.event is E.STARTED and r.number == 3]
    assert check([*GOOD, *(r._replace(pid=2) for r in again)], rules) == []
    found = check([*GOOD, *again], rules)
    assert [one[:2] for one in found] == ["I3"]


def test_an_outcome_that_nobody_expects_is_found() -> None:
    records = [*GOOD, *call(9.0, 9, O.OTHER)]
    assert [one[:2] for one in check(records, RULES)] == ["I1"]
    assert check(records, Rules(1.0, expected={(1, 9): (O.OTHER,)})) == []


@pytest.mark.parametrize(
    "outcome",
    [
        O.LOST_NOT_STARTED,
        O.CANCELLED_NOT_STARTED,
        O.LATE_NOT_STARTED,
        O.UPSTREAM,
        O.REFUSED,
    ],
)
def test_a_call_that_ran_and_is_said_not_to_have_started_is_found(outcome: O) -> None:
    rules = Rules(1.0, expected={(1, 9): (outcome,)})
    assert check([*GOOD, *call(9.0, 9, outcome, runs=False)], rules) == []
    found = check([*GOOD, *call(9.0, 9, outcome)], rules)
    assert [one[:2] for one in found] == ["I2"]


@pytest.mark.parametrize("outcome", [O.VALUE, O.LOST_RESULT])
def test_a_call_that_did_not_run_and_is_said_to_have_is_found(outcome: O) -> None:
    rules = Rules(1.0, expected={(1, 9): (outcome,)})
    found = check([*GOOD, *call(9.0, 9, outcome, runs=False)], rules)
    assert [one[:2] for one in found] == ["I2"]


def test_calls_that_start_out_of_order_are_found() -> None:
    records = [*call(1.0, 1), *call(1.05, 0)]
    assert [one[:2] for one in check(records, RULES)] == ["I4"]
    # Those of two callers may overtake each other.
    assert check([*call(1.0, 1), *call(1.05, 0, stream=2)], RULES) == []


def test_who_is_told_too_late_is_found() -> None:
    rules = Rules(1.0, expected={(1, 7): (O.LOST_MAYBE_RAN,)})
    fault = history((7.1, E.FAULT, 0, 0, 0))
    soon = [*GOOD, *fault, *call(7.0, 7, O.LOST_MAYBE_RAN)]
    assert check(soon, rules) == []
    assert bound_s(soon) == pytest.approx(0.2)
    late = [r._replace(time_s=9.0) if r.event is E.OUTCOME else r for r in soon]
    assert [one[:2] for one in check(late, rules)] == ["I5"]


def test_calls_made_after_the_fault_are_not_counted_in_its_bound() -> None:
    fault = history((6.0, E.FAULT, 0, 0, 0))
    rules = Rules(1.0, expected={(1, 9): (O.LOST_NOT_STARTED,)})
    later = call(9.0, 9, O.LOST_NOT_STARTED, runs=False)
    assert check([*GOOD, *fault, *later], rules) == []
    assert bound_s([*GOOD, *fault, *later]) is None


def test_calls_that_end_long_after_the_fault_are_found() -> None:
    healed = history((4.2, E.HEALED, 0, 0, 0))
    assert check([*GOOD, *healed], RULES) == []
    found = check([*GOOD, *healed, *call(6.0, 6)], RULES)
    assert [one[:2] for one in found] == ["I5"]


def test_what_is_left_is_found() -> None:
    assert check(GOOD, RULES, ["process 1"]) == ["I6: process 1"]


def test_a_caller_that_was_ended_may_not_have_heard() -> None:
    unheard = Rules(1.0, unheard={1})
    assert check(without(GOOD, E.OUTCOME, 4), unheard) == []
    again = [r for r in GOOD if r.event is E.STARTED]
    assert check([*GOOD, *again], unheard)  # but nothing runs twice


def test_records_of_all_writers_come_back_in_order_of_time(tmp_path: Path) -> None:
    writers = [Writer(tmp_path) for _ in range(3)]
    with Reader(tmp_path) as reader:
        for number in range(30):
            writers[number % 3].note(E.SUBMITTED, number % 7, number, number % 5)
            if number == 10:
                assert len(reader.records()) == 11
        found = reader.records()
    assert [r.number for r in found] == list(range(30))
    assert [(r.stream, r.detail) for r in found] == [(n % 7, n % 5) for n in range(30)]
    assert {r.event for r in found} == {E.SUBMITTED}
