"""Who stands still, and which submitter gets a helper."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.core.helpers import Help, Helpers, Leave, Start
from mosaic_like.core.stillness import QUIET_S, Stillness

HEAD, W0, W1, H0, H1 = 3, 4, 5, 6, 7
LOOK_S = QUIET_S / 5


def looks(state: Stillness, own: float, children: float, uid: int = 1) -> list[bool]:
    """Ten looks while so many seconds of processor time are used in each second."""
    found = []
    for step in range(1, 16):
        now_s = step * LOOK_S
        of_children = functools.partial(float, children * now_s)
        found.append(state.look(now_s, uid, own * now_s, of_children))
    return found


def test_a_call_stands_still_when_neither_it_nor_its_children_have_worked() -> None:
    found = looks(Stillness(), 0.02, 0.0)
    assert found.index(True) * LOOK_S == pytest.approx(2 * QUIET_S)
    assert all(found[found.index(True) :])


def test_a_call_that_computes_or_whose_child_does_never_stands_still() -> None:
    assert not any(looks(Stillness(), 0.5, 0.0))
    assert not any(looks(Stillness(), 0.0, 0.9))


def test_another_call_begins_anew_and_work_ends_it() -> None:
    state = Stillness()
    assert looks(state, 0.0, 0.0)[-1]
    assert state.look(5.0, 1, 0.0, lambda: 0.0)
    assert not state.look(5.1, 1, 0.5, lambda: 0.0)
    assert looks(state, 0.0, 0.0, uid=2)[-1]
    assert not state.look(9.0, 3, 0.0, lambda: 0.0)
    assert not state.look(9.1, 0, 0.0, lambda: 0.0)


def cluster(most: int = 2) -> Helpers:
    """Of a head and two workers."""
    state = Helpers(most)
    for number, incarnation in enumerate((HEAD, W0, W1)):
        state.joined(incarnation, float(number))
        if incarnation != HEAD:
            state.watch(incarnation, None)
    return state


def join(state: Helpers, incarnation: int, number: int, now_s: float) -> None:
    state.joined(incarnation, now_s)
    state.watch(incarnation, number)


def test_one_is_started_when_all_stand_still_and_something_lies_behind() -> None:
    state = cluster()
    state.told(W0, 10.0, [HEAD])
    assert state.next() == []  # the other is free, or works
    state.told(W1, 11.0, [])
    assert state.next() == [Start(0)]
    assert state.next() == []  # it will join
    join(state, H0, 0, 12.0)
    assert state.next() == [Help(HEAD, H0)]
    assert state.next() == []


def test_that_submitter_is_helped_first_whose_call_began_last() -> None:
    state = cluster()
    state.told(W0, 10.0, [HEAD, W1])
    state.told(W1, 11.0, [W0])
    assert state.next() == [Start(0)]
    join(state, H0, 0, 12.0)
    assert state.next() == [Help(W1, H0)]
    # Its own call stands still, too: what is inside of that goes first.
    state.told(H0, 13.0, [W1])
    state.told(W0, 10.0, [HEAD, W1, H0])
    assert state.next() == [Start(1)]
    join(state, H1, 1, 14.0)
    assert state.next() == [Help(H0, H1)]
    assert state.next() == []
    state.told(H1, 15.0, [])
    assert state.next() == []
    assert state.are_exhausted


def test_a_helper_goes_over_only_to_one_whose_call_began_later() -> None:
    state = cluster(most=1)
    state.told(W0, 10.0, [HEAD])
    state.told(W1, 11.0, [HEAD])
    assert state.next() == [Start(0)]
    join(state, H0, 0, 12.0)
    assert state.next() == [Help(HEAD, H0)]
    state.told(W0, 10.0, [W1])
    assert state.next() == [Leave(HEAD, H0), Help(W1, H0)]
    state.told(W0, 10.0, [HEAD])
    assert state.next() == []
    state.gone(W1)
    state.told(W0, 10.0, [HEAD])
    assert state.next() == [Leave(W1, H0), Help(HEAD, H0)]


def test_what_was_of_no_use_is_not_tried_again_until_something_changes() -> None:
    state = cluster(most=1)
    state.told(W0, 10.0, [HEAD])
    state.told(W1, 11.0, [])
    assert state.next() == [Start(0)]
    join(state, H0, 0, 12.0)
    assert state.next() == [Help(HEAD, H0)]
    state.gone(H0)
    assert state.next() == []  # its process is still there
    state.ended(0)
    assert state.next() == []
    state.told(W1, 11.0, [HEAD])
    assert state.next() == [Start(0)]
    state.ended(0)  # it could not even join
    assert state.next() == []
    state.told(W1, None, [])
    state.told(W1, 20.0, [])
    assert state.next() == [Start(0)]


def test_another_takes_the_place_of_one_that_has_died() -> None:
    state = cluster(most=1)
    state.told(W0, 10.0, [HEAD])
    state.told(W1, 11.0, [])
    assert state.next() == [Start(0)]
    join(state, H0, 0, 12.0)
    assert state.next() == [Help(HEAD, H0)]
    state.gone(H0)
    state.ended(0, died=True)
    assert state.next() == [Start(0)]


def test_none_is_started_where_none_is_allowed_or_for_those_who_are_gone() -> None:
    state = cluster(most=0)
    state.told(W0, 10.0, [HEAD])
    state.told(W1, 11.0, [HEAD])
    assert state.next() == []
    state = cluster()
    state.gone(HEAD)
    state.told(W0, 10.0, [HEAD, 99])
    state.told(W1, 11.0, [HEAD])
    assert state.next() == []
    assert not state.told(99, 1.0, [])


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_a_chain_is_as_deep_as_there_are_threads_however_wide(
    workers: int, most: int, width: int
) -> None:
    """A call makes others inside and stands still until they have ended."""
    state = Helpers(most)
    state.joined(HEAD, 0.0)
    threads = list(range(10, 10 + workers))
    for thread in threads:
        state.joined(thread, 0.0)
        state.watch(thread, None)
    # The innermost call of each thread, outermost first, and what it has made.
    at = [threads[0]]
    for depth in range(1, workers + most):
        submitter = at[-1]
        if depth < workers:
            at.append(threads[depth])
            continue
        for thread in at:
            began_s = float(at.index(thread) + 1)
            # Of each of the others something is left, too, where they are wide.
            others = at if width > 1 else [submitter]
            state.told(thread, began_s, others)
        (step,) = state.next()
        assert isinstance(step, Start)
        helper = 100 + step.number
        join(state, helper, step.number, float(depth + 1))
        assert state.next() == [Help(submitter, helper)]
        at.append(helper)
    assert len(at) == workers + most
