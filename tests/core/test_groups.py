"""Which members of a group are built again together, and in which order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like.core.groups import Group, Orders, Restart
from mosaic_like.core.restarts import CALM_S, Intensity

A, B, C = 1, 2, 3
NOTHING = Orders([], [])


def group(
    restart: str, most: int | None = None, within_s: float | None = None
) -> Group:
    return Group((A, B, C), Restart(restart), Intensity(most, within_s))


@pytest.mark.parametrize(
    ("restart", "others"), [("one", []), ("rest", [C]), ("all", [C, A])]
)
def test_who_goes_with_one_that_is_lost_the_last_one_first(
    restart: str, others: list[int]
) -> None:
    state = group(restart)
    orders = state.lost({B}, 0.0)
    assert orders is not None
    assert orders.end == others
    assert orders.build == ([] if others else [B])


def test_all_have_ended_before_the_first_is_built_and_the_others_follow_it() -> None:
    state = group("all")
    assert state.lost({B}, 0.0) == Orders([C, A], [])
    assert state.ended(A) == NOTHING
    assert state.ended(C) == Orders([], [A])
    assert state.built(A) == Orders([], [B])
    assert state.built(B) == Orders([], [C])
    assert state.built(C) == NOTHING


def test_one_that_is_lost_while_it_ends_has_ended() -> None:
    state = group("all", most=1)
    state.lost({A}, 0.0)
    state.ended(C)
    assert state.lost({B}, 0.0) == Orders([], [A])


def test_one_that_is_lost_while_it_is_built_counts_and_ends_those_behind_it() -> None:
    state = group("rest", most=2)
    state.lost({B}, 0.0)
    state.ended(C)
    assert state.lost({A}, 0.0) == Orders([B], [])
    assert state.ended(B) == Orders([], [A])
    assert state.built(A) == Orders([], [B])
    assert state.lost({B}, 0.0) is None


def test_those_that_were_lost_together_count_once() -> None:
    state = group("one", most=1)
    assert state.lost({C, A}, 0.0) == Orders([], [A, C])
    assert state.lost({B}, 1.0) is None


def test_what_is_closed_is_waited_for_no_longer_and_not_built() -> None:
    state = group("all")
    state.lost({B}, 0.0)
    assert state.left(A) == NOTHING
    assert state.left(C) == Orders([], [B])
    assert state.members == [B]
    assert state.built(B) == NOTHING


def test_the_intensity_counts_within_its_time_alone() -> None:
    often = Intensity(1, 5.0)
    assert [often.another(0.0), often.another(4.9), often.another(5.0)] == [
        True,
        False,
        True,
    ]
    assert str(often) == "once within 5 s"
    without_end = Intensity(None, None)
    assert all(without_end.another(float(time_s)) for time_s in range(1000))
    assert without_end.recent(1000.0) < CALM_S
    assert str(Intensity(2, None)) == "2 times"


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_in_every_order_all_that_stay_are_up_at_last(data: st.DataObject) -> None:
    restart = data.draw(st.sampled_from(list(Restart)))
    state = Group((A, B, C), restart, Intensity(None, None))
    lives = dict.fromkeys((A, B, C), 0)  # of each, how often it was built again
    ending: set[int] = set()
    building: set[int] = set()
    up = {A, B, C}

    def obey(orders: Orders | None) -> None:
        assert orders is not None
        for uid in orders.end:
            assert uid in up | building
            up.discard(uid)
            building.discard(uid)
            ending.add(uid)
        assert not (orders.build and ending) or restart is Restart.ONE
        for uid in orders.build:
            assert uid not in up | ending | building
            assert restart is Restart.ONE or all(other in up for other in before(uid))
            building.add(uid)
            lives[uid] += 1

    def before(uid: int) -> list[int]:
        # Those after it may be up: of "rest" they were not touched.
        return [other for other in state.members if other < uid]

    for _ in range(data.draw(st.integers(0, 20))):
        event = data.draw(st.sampled_from(["lost", "ended", "built", "left"]))
        if event == "lost" and up | building | ending:
            lost = data.draw(
                st.sets(st.sampled_from(sorted(up | building | ending)), min_size=1)
            )
            for uid in lost:
                up.discard(uid)
                building.discard(uid)
                ending.discard(uid)
            obey(state.lost(lost, 0.0))
        elif event == "ended" and ending:
            ending.discard(uid := data.draw(st.sampled_from(sorted(ending))))
            obey(state.ended(uid))
        elif event == "built" and building:
            building.discard(uid := data.draw(st.sampled_from(sorted(building))))
            up.add(uid)
            obey(state.built(uid))
        elif event == "left" and up:
            up.discard(uid := data.draw(st.sampled_from(sorted(up))))
            obey(state.left(uid))
    while ending or building:
        if ending:
            obey(state.ended(ending.pop()))
        else:
            uid = building.pop()
            up.add(uid)
            obey(state.built(uid))
    assert sorted(up) == state.members
