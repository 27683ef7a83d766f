"""Which tasks wait for which, and what follows when one ends; without any runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mosaic_like.core.dependencies import (
    UPSTREAM,
    Dependencies,
    Effect,
    Rearm,
    Send,
    Settle,
    Stop,
    Wait,
)
from mosaic_like.core.task import (
    ABORTED,
    CANCELLED,
    DONE,
    FAILED,
    PENDING,
    PREPARE,
    STATES,
)
from mosaic_like.errors import CycleError, InvalidTransitionError

if TYPE_CHECKING:
    from collections.abc import Iterable


def chain(*names: str) -> Dependencies:
    """Tasks 1, 2, 3, ... of these names, each waiting for the one before."""
    found = Dependencies()
    for uid, name in enumerate(names, 1):
        found.add(uid, name)
        if uid > 1:
            found.require(uid, uid - 1)
    return found


def states(found: Dependencies, uids: Iterable[int] = (1, 2, 3)) -> list[str]:
    return [STATES[found.members[uid].state] for uid in uids]


def test_submitting_a_task_submits_what_it_needs_and_sends_what_can_go() -> None:
    found = chain("load", "tidy", "fit")
    assert found.submit(3) == [Send(1), Wait(2), Wait(3)]
    assert states(found) == ["pending"] * 3
    assert found.ended(1, DONE) == [Send(2)]
    assert found.ended(2, DONE) == [Send(3)]
    assert found.ended(3, DONE) == []


def test_a_failure_ends_all_that_needs_it_at_once_and_in_order() -> None:
    found = chain("load", "tidy", "fit")
    found.submit(3)
    assert found.ended(1, FAILED, "error") == [
        Settle(2, FAILED, 1),
        Settle(3, FAILED, 2),
    ]
    assert found.members[3].reason == UPSTREAM


def test_what_needs_a_cancelled_task_is_cancelled() -> None:
    found = chain("load", "tidy")
    found.submit(2)
    assert found.ended(1, CANCELLED, "enough") == [Settle(2, CANCELLED, 1)]


def test_what_was_only_prepared_stays_so_when_a_prerequisite_fails() -> None:
    found = chain("load", "tidy")
    found.submit(1)
    assert found.ended(1, FAILED) == []
    assert states(found, (1, 2)) == ["failed", "prepare"]
    assert found.submit(2) == [Settle(2, FAILED, 1)]


def test_a_failure_that_is_allowed_lets_others_go_on() -> None:
    found = chain("load", "tidy")
    found.add(3, "report")
    found.require(3, 2, any_end=True)
    found.submit(3)
    assert found.ended(1, FAILED) == [Settle(2, FAILED, 1), Send(3)]


def test_requiring_both_ways_needs_the_value() -> None:
    found = chain("load", "tidy")
    found.require(2, 1, any_end=True)
    found.submit(2)
    assert found.ended(1, FAILED) == [Settle(2, FAILED, 1)]


def test_repair_and_retry_takes_those_along_that_ended_because_of_it() -> None:
    found = chain("load", "tidy", "fit")
    found.submit(3)
    found.ended(1, FAILED)
    assert found.retry(1) == [
        *(Rearm(1), Rearm(2), Rearm(3), Send(1)),
        *(Wait(2), Wait(3)),
    ]
    assert found.ended(1, DONE) == [Send(2)]


def test_retry_leaves_what_ended_because_of_another_too() -> None:
    found = Dependencies()
    for uid, name in enumerate(("left", "right", "join"), 1):
        found.add(uid, name)
    found.require(3, 1)
    found.require(3, 2)
    found.submit(3)
    found.ended(1, FAILED)
    found.ended(2, FAILED)
    assert found.retry(1) == [Rearm(1), Send(1)]
    assert found.retry(2) == [Rearm(2), Rearm(3), Send(2), Wait(3)]
    assert found.blockers(3) == [1, 2]


def test_retry_leaves_what_failed_by_itself() -> None:
    found = chain("load", "tidy")
    found.submit(2)
    found.ended(1, DONE)
    found.ended(2, FAILED, "error")
    with pytest.raises(InvalidTransitionError):
        found.retry(1)
    assert found.retry(2) == [Rearm(2), Send(2)]


def test_dependents_that_are_retried_come_in_dependency_order() -> None:
    """Although the shortest way to the last one goes past the one between."""
    found = Dependencies()
    for uid in (1, 2, 3):
        found.add(uid, str(uid))
    found.require(3, 1)
    found.require(2, 1)
    found.require(3, 2)
    found.submit(3)
    found.ended(1, FAILED)
    assert found.retry(1)[:3] == [Rearm(1), Rearm(2), Rearm(3)]


def test_aborting_gives_up_what_needs_it_even_if_it_was_not_asked_for() -> None:
    found = chain("load", "tidy", "fit")
    assert found.abort(1) == [
        Settle(1, ABORTED, 0),
        Settle(2, ABORTED, 1),
        Settle(3, ABORTED, 2),
    ]


def test_aborting_a_failed_task_aborts_what_failed_with_it() -> None:
    found = chain("load", "tidy", "fit")
    found.submit(3)
    found.ended(1, FAILED)
    found.abort(1)
    assert states(found) == ["aborted"] * 3


def test_a_sent_task_is_aborted_when_it_has_been_stopped() -> None:
    found = chain("load", "tidy")
    found.submit(2)
    assert found.abort(1) == [Stop(1)]
    assert found.ended(1, CANCELLED) == [Settle(1, ABORTED, 0), Settle(2, ABORTED, 1)]


def test_what_was_sent_is_given_up_with_what_it_needs_whoever_ends_first() -> None:
    for is_first in (True, False):
        found = Dependencies()
        found.add(1, "load", PENDING)
        found.abort(1)
        found.add(2, "fit", PENDING)
        assert found.know(2, 1) == []
        given_up = [Settle(1, ABORTED, 0), Settle(2, ABORTED, 1)]
        if is_first:
            assert found.ended(2, CANCELLED, UPSTREAM) == []
            assert found.ended(1, CANCELLED) == given_up
        else:
            assert found.ended(1, CANCELLED) == given_up[:1]
            assert found.ended(2, CANCELLED, UPSTREAM) == given_up[1:]


def test_what_is_called_back_goes_again_when_what_it_needs_has_ended() -> None:
    found = chain("load")
    found.submit(1)
    found.ended(1, FAILED)
    found.add(2, "fit", PENDING)
    assert found.know(2, 1) == []
    assert found.retry(1) == [Rearm(1), Send(1)]
    assert found.called_back(2) == [Wait(2)]
    assert found.ended(1, DONE) == [Send(2)]


def test_what_is_known_late_to_need_an_aborted_task_is_given_up() -> None:
    found = chain("load")
    found.abort(1)
    found.add(2, "fit", CANCELLED)
    assert found.know(2, 1) == [Settle(2, ABORTED, 1)]


def test_a_sent_task_that_ended_well_before_it_could_be_stopped_is_done() -> None:
    found = chain("load", "tidy")
    found.submit(2)
    found.abort(1)
    assert found.ended(1, DONE) == [Send(2)]


def test_what_was_not_sent_can_be_cancelled() -> None:
    found = chain("load", "tidy", "fit")
    found.submit(3)
    assert found.ended(2, CANCELLED) == [Settle(3, CANCELLED, 2)]
    found.add(4, "late")
    assert found.ended(4, CANCELLED) == []


@pytest.mark.parametrize("state", [DONE, FAILED, CANCELLED])
def test_require_after_it_was_sent_is_refused(state: int) -> None:
    found = chain("load")
    found.add(2, "late")
    found.submit(1)
    with pytest.raises(InvalidTransitionError, match=r"'require'.*'pending'"):
        found.require(1, 2)
    found.ended(1, state)
    with pytest.raises(InvalidTransitionError):
        found.require(1, 2)


def test_a_pending_task_that_is_still_blocked_may_require_more() -> None:
    found = chain("load", "tidy")
    found.add(3, "licence")
    found.submit(2)
    assert found.require(2, 3) == [Send(3)]  # or nothing would ever send it
    assert found.ended(1, DONE) == []
    assert found.blockers(2) == [3]
    assert found.ended(3, DONE) == [Send(2)]


def test_require_of_what_has_failed_ends_a_pending_task() -> None:
    found = chain("load", "tidy")
    found.add(3, "broken", FAILED)
    found.submit(2)
    assert found.require(2, 3) == [Settle(2, FAILED, 3)]


def test_a_cycle_is_refused_and_its_path_named() -> None:
    found = chain("load", "tidy", "fit")
    with pytest.raises(CycleError) as caught:
        found.require(1, 3)
    assert str(caught.value) == (
        "load cannot wait for fit, which waits for it: fit -> tidy -> load; leave one "
        "of these requirements out"
    )
    assert not found.members[1].needs
    with pytest.raises(CycleError, match="load cannot wait for itself"):
        found.require(1, 1)


def test_a_long_cycle_is_named_in_part() -> None:
    found = chain(*[f"t{i}" for i in range(1, 1001)])
    with pytest.raises(CycleError, match=r"t1000 -> .* -> 988 more -> .* -> t1;"):
        found.require(1, 1000)


def test_a_chain_of_ten_thousand_needs_no_recursion() -> None:
    found = chain(*["t"] * 10_000)
    found.submit(10_000)
    assert len(found.ended(1, FAILED)) == 9_999
    assert len(found.retry(1)) == 20_000
    assert len(found.ended(1, CANCELLED)) == 9_999
    assert len(found.abort(1)) == 10_000


def test_what_is_forgotten_blocks_nothing() -> None:
    found = chain("load", "tidy")
    found.submit(1)
    found.forget(2, {1})
    assert found.ended(1, DONE) == []
    found.forget(1)
    assert not found.members


class Together(RuleBasedStateMachine):
    """Any order of events, against what must hold of every graph at every moment."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Dependencies()
        self.sent: set[int] = set()
        self.asked: set[int] = set()

    def did(self, effects: list[Effect] | None) -> None:
        for effect in effects or ():
            member = self.found.members[effect.uid]
            if isinstance(effect, Send):
                assert effect.uid not in self.sent
                assert member.state == PENDING
                assert not self.found.blockers(effect.uid)
                self.sent.add(effect.uid)
            elif isinstance(effect, Stop):
                assert effect.uid in self.sent
            elif isinstance(effect, Settle):
                assert effect.uid not in self.sent

    def some(self, data: st.DataObject, *wanted: int) -> int | None:
        members = self.found.members
        uids = [u for u in members if not wanted or members[u].state in wanted]
        return data.draw(st.sampled_from(uids)) if uids else None

    @rule(data=st.data())
    def make(self, data: st.DataObject) -> None:
        uid = len(self.found.members) + 1
        self.found.add(uid, f"t{uid}")
        for other in data.draw(st.sets(st.integers(1, uid), max_size=3)) - {uid}:
            if self.found.members[uid].state == PREPARE:
                self.did(self.found.require(uid, other, data.draw(st.booleans())))

    @rule(data=st.data())
    def require(self, data: st.DataObject) -> None:
        uid, other = self.some(data), self.some(data)
        if uid is None or other is None:
            return
        try:
            self.did(self.found.require(uid, other, data.draw(st.booleans())))
        except InvalidTransitionError:
            member = self.found.members[uid]
            assert member.sent or member.state > PENDING
        except CycleError:
            assert uid == other or self.reaches(other, uid)

    def reaches(self, start: int, goal: int) -> bool:
        needs = self.found.members[start].needs
        return start == goal or any(self.reaches(need, goal) for need in needs)

    @rule(data=st.data())
    def submit(self, data: st.DataObject) -> None:
        uid = self.some(data, PREPARE)
        if uid is not None:
            self.did(self.found.submit(uid))

    @rule(data=st.data(), state=st.sampled_from([DONE, FAILED, CANCELLED]))
    def end(self, data: st.DataObject, state: int) -> None:
        if self.sent:
            uid = data.draw(st.sampled_from(sorted(self.sent)))
            self.sent.discard(uid)
            self.did(self.found.ended(uid, state, "error"))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        uid = self.some(data, PREPARE, PENDING)
        if uid is not None:
            self.sent.discard(uid)
            self.did(self.found.ended(uid, CANCELLED, "enough"))

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        uid = self.some(data, FAILED, CANCELLED)
        if uid is not None:
            effects = self.found.retry(uid)
            again = [e.uid for e in effects if isinstance(e, Rearm)]
            for place, each in enumerate(again):
                needs = self.found.members[each].needs
                assert not any(need in again[place:] for need in needs)
            self.did(effects)

    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        uid = self.some(data, PREPARE, PENDING, FAILED, CANCELLED)
        if uid is not None:
            self.did(self.found.abort(uid))

    @invariant()
    def nothing_waits_in_vain(self) -> None:
        for uid, member in self.found.members.items():
            spoilt = [
                self.found.members[need].state
                for need, any_end in member.needs.items()
                if not any_end and self.found.members[need].state > DONE
            ]
            if member.state == PENDING and uid not in self.sent:
                assert not spoilt
                blockers = self.found.blockers(uid)
                assert blockers
                assert all(self.found.members[b].state == PENDING for b in blockers)
            if ABORTED in spoilt:
                assert member.state == ABORTED

    @precondition(lambda self: len(self.found.members) > 1)
    @invariant()
    def both_directions_agree(self) -> None:
        for uid, member in self.found.members.items():
            assert all(uid in self.found.members[n].blocks for n in member.needs)
            assert all(uid in self.found.members[b].needs for b in member.blocks)


TestTogether = Together.TestCase
TestTogether.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
