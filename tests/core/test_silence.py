"""When a runtime of another host counts as lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.core.silence import (
    BEAT_S,
    FENCE_S,
    LOST_S,
    SUSPECT_S,
    Presence,
    Silence,
    beat_s,
    fence_s,
)


def looked(silence: Silence, begin_s: float, end_s: float) -> list[Presence]:
    """Look once in BEAT_S."""
    count = int((end_s - begin_s) / BEAT_S)
    return [silence.look(begin_s + (n + 1) * BEAT_S) for n in range(count)]


def test_who_is_silent_is_suspect_and_then_lost() -> None:
    seen = looked(Silence(100.0), 100.0, 120.0)
    assert seen[int(SUSPECT_S) - 2 : int(SUSPECT_S)] == [
        Presence.HEARD,
        Presence.SUSPECT,
    ]
    assert seen[int(LOST_S) - 2 :] == [Presence.SUSPECT, *[Presence.SILENT] * 6]


def test_who_is_heard_again_in_time_is_suspect_no_more() -> None:
    silence = Silence(0.0)
    assert looked(silence, 0.0, 10.0)[-1] is Presence.SUSPECT
    silence.heard(10.5)
    assert silence.look(11.0) is Presence.HEARD


def test_who_is_lost_stays_lost_whatever_is_heard() -> None:
    silence = Silence(0.0)
    looked(silence, 0.0, 20.0)
    silence.heard(20.5)
    assert silence.look(21.0) is Presence.SILENT


def test_the_end_of_a_process_is_known_by_two_refusals_in_a_row() -> None:
    silence = Silence(0.0)
    assert silence.refused() is Presence.HEARD
    silence.answered()
    assert silence.refused() is Presence.HEARD
    assert silence.refused() is Presence.ENDED
    assert silence.look(1.0) is Presence.ENDED


def test_a_connection_that_ends_long_after_the_last_beat_tells_of_no_end() -> None:
    silence = Silence(0.0)
    assert silence.may_have_ended(2.0)
    assert not silence.may_have_ended(4.0)
    silence.heard(4.0)
    assert silence.may_have_ended(4.5)


def test_what_refuses_in_place_of_a_host_tells_nothing_of_it() -> None:
    silence = Silence(0.0)
    assert not silence.may_have_ended(1.0, was_there=False)
    # A process that has died: its kernel ends what was there, and refuses the next.
    assert silence.may_have_ended(1.0)
    assert silence.may_have_ended(1.5, was_there=False)
    silence.heard(4.5)
    assert not silence.may_have_ended(5.0, was_there=False)


def test_who_stood_still_itself_blames_no_other_for_it() -> None:
    silence = Silence(0.0)
    assert silence.look(1.0) is Presence.HEARD
    assert silence.look(60.0) is Presence.HEARD
    assert looked(silence, 60.0, 80.0)[-1] is Presence.SILENT


def test_a_node_that_stood_still_too_long_ends_itself() -> None:
    silence = Silence(0.0, 13.0, excuses_itself=False)
    assert silence.look(1.0) is Presence.HEARD
    assert silence.look(30.0) is Presence.SILENT


@given(st.floats(3.0, 1000.0))
def test_whatever_the_limit_a_node_may_miss_many_beats_before_it_ends_itself(
    limit_s: float,
) -> None:
    assert limit_s - fence_s(limit_s) >= 12.9 * beat_s(limit_s)
    assert (beat_s(LOST_S), fence_s(LOST_S)) == (BEAT_S, FENCE_S)
    assert fence_s(limit_s) >= 2 * beat_s(limit_s) - 1e-9


def test_who_stood_still_is_excused_in_the_measure_of_its_beats() -> None:
    silence = Silence(0.0, 3.0, beat_s=beat_s(3.0))
    assert silence.look(2.9) is Presence.HEARD
    assert silence.look(5.8) is Presence.HEARD


@given(st.lists(st.floats(0.05, 4.9), min_size=1, max_size=60))
def test_who_is_heard_often_enough_is_never_suspect(pauses: list[float]) -> None:
    silence = Silence(0.0)
    now_s = 0.0
    for pause_s in pauses:
        now_s += pause_s
        assert silence.look(now_s) is Presence.HEARD
        silence.heard(now_s)
