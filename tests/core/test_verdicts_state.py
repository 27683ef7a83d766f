"""What the marks of a dead worker prove, and what they do not."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like.core.verdicts import (
    Mark,
    Remains,
    Verdicts,
    decode,
    encode,
    of_leaver,
)
from mosaic_like.errors import Verdict
from mosaic_like.ids import NUMBER_BITS

ME, OTHER = 3, 4
NOT, MAYBE, RAN = Verdict.NOT_STARTED, Verdict.MAYBE_RAN, Verdict.RAN_RESULT_LOST


def uid(number: int, by: int = ME) -> int:
    return (by << NUMBER_BITS) + number


T, U = uid(1), uid(2)


def judge(
    mark: Mark | None, calls: list[int], *marks: Mark, **remains: Any
) -> list[Verdict]:
    known = [m for m in (mark, *marks) if m is not None]
    left = Remains(known, **{"complete": True, **remains})
    verdicts = Verdicts(left, ME, [(T, uid(n)) for n in calls])
    return [verdicts.of(T, uid(n)) for n in calls]


def mark(started: int, finished: int, irregular: bool = False, **other: Any) -> Mark:
    values = {"tessera": T, "caller": ME, "label": "Counter#1", **other}
    first = uid(started) if started else 0
    last = uid(finished) if finished > 0 else -uid(-finished) if finished else 0
    return Mark(started=first, finished=last, irregular=irregular, **values)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (mark(12, 11), [RAN, RAN, MAYBE, NOT]),
        (mark(12, 12), [RAN, RAN, RAN, NOT]),
        (mark(10, 0), [MAYBE, NOT, NOT, NOT]),
        (mark(9, 9), [NOT, NOT, NOT, NOT]),
        (mark(0, 0), [NOT, NOT, NOT, NOT]),
        # One of them ended without having started, or several ran at once.
        (mark(12, 11, True), [MAYBE, RAN, MAYBE, NOT]),
        # It has ended, as this caller knows: then so had all before it.
        (mark(20, 20), [MAYBE, MAYBE, MAYBE, MAYBE]),
        (mark(12, 11, caller=OTHER), [NOT, NOT, NOT, NOT]),
    ],
)
def test_a_mark_tells_of_each_call(known: Mark, expected: list[Verdict]) -> None:
    assert judge(known, [10, 11, 12, 13]) == expected


def test_of_who_leaves_nothing_is_concluded_from_a_later_call() -> None:
    left = of_leaver(Remains([mark(12, 12)], [(ME, U)], True, "a crash", "lines"))
    verdicts = Verdicts(left, ME, [(T, uid(n)) for n in (10, 12, 13)])
    # The first one may have been turned away, with all its caller made since it knew.
    assert [verdicts.of(T, uid(n)) for n in (10, 12, 13)] == [MAYBE, RAN, NOT]
    assert verdicts.of(U, uid(14)) is MAYBE  # it has closed
    assert not left.fault + left.lines
    late = of_leaver(Remains([mark(13, 12)], [], True))  # ended by no death
    assert not Verdicts(late, ME, [(T, uid(13))]).ran(T, uid(13))


def test_calls_whose_order_is_not_that_of_their_uids_are_not_said_to_have_run() -> None:
    assert judge(mark(12, 12), [11, 10, 12, 13]) == [MAYBE, MAYBE, RAN, NOT]


def test_no_call_has_run_while_its_tessera_is_built_again() -> None:
    def verdicts(known: Mark, building: set[int]) -> list[Verdict]:
        calls = [(T, uid(n)) for n in (10, 11, 20, 21)]
        judged = Verdicts(Remains([known], [], True), ME, calls, building)
        return [judged.of(*call) for call in calls]

    # 20 builds it; one that moved may have been cancelled before.
    for known in (mark(20, 0), mark(20, 0, True)):
        assert verdicts(known, {uid(20)}) == [NOT, NOT, MAYBE, NOT]
    assert verdicts(mark(20, 0), set()) == [RAN, RAN, MAYBE, NOT]
    # It has been built, and the mark set back.
    assert verdicts(mark(10, 20), {uid(20)})[:2] == [MAYBE, NOT]


def test_without_a_mark_it_counts_whether_there_may_have_been_one() -> None:
    assert judge(None, [10]) == [NOT]
    assert judge(None, [10], complete=False) == [MAYBE]
    younger, older = [(ME, T)], [(ME, T - 1)]
    assert judge(None, [10], gone=older) == [NOT]
    assert judge(None, [10], gone=younger) == [MAYBE]
    # It cannot be among those that are gone: somebody else has called it.
    others = mark(5, 5, caller=OTHER)
    assert judge(None, [10], others, gone=younger) == [NOT]


def test_nothing_is_known_from_what_cannot_be_read() -> None:
    left = Remains([mark(1, 1)], [(ME, T)], True, "fault", "lines", "memory")
    assert decode(encode(left)) == left
    for data in (b"", b"\xff", encode(left)[:-3], b"\x93\x01\x02\x03"):
        assert decode(data) == Remains()
    verdicts = Verdicts(decode(b""), ME, [(T, uid(10))])
    assert verdicts.of(T, uid(10)) is MAYBE


def test_what_runs_is_told_only_where_it_is_certain() -> None:
    assert mark(12, 11).runs
    assert not mark(12, 12).runs
    assert not mark(12, 11, True).runs


def test_a_call_that_ran_at_the_death_is_known_whatever_the_stream_is_like() -> None:
    def ran(known: Mark, number: int, *running: int) -> bool:
        left = Remains([known], [], True, running=[uid(n) for n in running])
        return Verdicts(left, ME, [(T, uid(n)) for n in range(9, 14)]).ran(
            T, uid(number)
        )

    one_was_cancelled = mark(12, 11, True)
    assert ran(one_was_cancelled, 12)
    assert not ran(one_was_cancelled, 10)
    # 12 had gone ahead of 10, and has ended.
    behind = Mark(T, ME, uid(12), -uid(10), True, "Counter#1")
    assert ran(behind, 10)
    assert not any(ran(behind, n) for n in (9, 11, 12, 13))
    # Several at once: 11 was overtaken while it waited for an argument.
    assert [n for n in range(9, 14) if ran(mark(12, 12, True), n, 9, 10)] == [9, 10]


@given(seed=st.integers(0, 2**32), threads=st.integers(1, 3))
@settings(max_examples=500, deadline=None)
def test_not_started_is_never_wrong_and_neither_is_ran(seed: int, threads: int) -> None:
    """A worker and the callers of one tessera, and a death at any moment."""
    rng = random.Random(seed)
    count = rng.randrange(1, 12)
    # Each thread takes a uid and makes its call later.
    order = list(range(1, count + 1))
    if threads > 1:
        order = [n for _, n in sorted((n + rng.uniform(0, threads), n) for n in order)]
    steps = rng.randrange(0, 3 * count)
    started: list[int] = []
    finished: list[int] = []
    largest = last = settled = 0
    irregular = False
    ended: set[int] = set()  # as the caller knows
    results: list[int] = []
    waiting = list(order)
    for _ in range(steps):
        chance = rng.random()
        running = [n for n in started if n not in finished]
        if running and chance < 0.4:
            finished.append(running[0])
            last = running[0]
            results.append(running[0])
        elif waiting and not running and chance < 0.8:
            call = waiting.pop(0)
            if rng.random() < 0.1:
                irregular = True  # cancelled
                results.append(call)
            else:
                started.append(call)
                if call < largest:
                    last, settled = -call, largest
                largest = max(largest, call)
        elif results:
            ended.add(results.pop(0))
    calls = [n for n in order if n not in ended]
    known = judge(mark(largest, last, irregular) if largest else None, calls)
    if largest:
        (runs,) = [n for n in started if n not in finished] or (0,)
        left = mark(largest, last, irregular, settled=uid(settled))
        assert left.running == (uid(runs) if runs else 0)
    for call, verdict in zip(calls, known, strict=True):
        if verdict is NOT:
            assert call not in started
        elif verdict is RAN:
            assert call in finished
