"""The table of slots: all or none, in order, and none leaks in any order of events."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mosaic_like.comms.messages import OF_TAG, Slot, TakenSlots, TakeSlots
from mosaic_like.core.slots import SlotTable

A, B, SETTER = 7, 8, 9


def _tags(*names: str) -> list[Slot]:
    return [Slot(name) for name in names]


def _take(
    table: SlotTable, number: int, *names: str, sender: int = A, wait: bool = True
) -> Any:
    return table.take(sender, TakeSlots(number, _tags(*names), wait))


def _taken(number: int, sender: int = A) -> Any:
    return [(sender, TakenSlots(number, True))]


def test_a_tag_without_a_limit_is_given_at_once() -> None:
    table = SlotTable()
    assert _take(table, 1, "db") == _taken(1)
    assert table.used("db") == 1


def test_requests_wait_in_the_order_in_which_they_came() -> None:
    table = SlotTable()
    table.set_limit(A, "db", 1)
    assert _take(table, 1, "db") == _taken(1)
    assert _take(table, 2, "db") == []
    assert _take(table, 3, "db", sender=B) == []
    assert table.free(A, [1]) == _taken(2)
    assert table.free(A, [2]) == _taken(3, B)
    assert table.free(B, [3]) == []
    assert len(table) == 0


def test_all_slots_are_taken_together_or_none() -> None:
    table = SlotTable()
    table.set_limit(A, "db", 1)
    table.set_limit(A, "net", 1)
    _take(table, 1, "db")
    assert _take(table, 2, "db", "net") == []
    assert table.used("net") == 0
    assert table.free(A, [1]) == _taken(2)
    assert (table.used("db"), table.used("net")) == (1, 1)


def test_one_that_wants_several_is_not_overtaken() -> None:
    table = SlotTable()
    table.set_limit(A, "db", 1)
    table.set_limit(A, "net", 1)
    _take(table, 1, "db")
    _take(table, 2, "db", "net")
    assert _take(table, 3, "net") == []
    assert table.free(A, [2]) == _taken(3)


def test_a_limit_of_zero_holds_all_and_none_removes_it() -> None:
    table = SlotTable()
    table.set_limit(A, "db", 0)
    assert _take(table, 1, "db") == []
    assert _take(table, 2, "db") == []
    assert table.set_limit(A, "db", None) == [*_taken(1), *_taken(2)]


def test_what_waits_for_a_tag_of_limit_zero_holds_up_nothing_else() -> None:
    table = SlotTable()
    table.set_limit(A, "held", 0)
    table.set_limit(A, "db", 1)
    assert _take(table, 1, "held", "db") == []
    assert _take(table, 2, "db") == _taken(2)
    assert _take(table, 3, "db") == []
    # It is where it would have been, before those that came later.
    assert table.set_limit(A, "held", 1) == []
    assert table.free(A, [2]) == _taken(1)
    assert table.free(A, [1]) == _taken(3)


def test_what_waits_leaves_its_lines_when_a_limit_becomes_zero() -> None:
    table = SlotTable()
    table.set_limit(A, "db", 1)
    _take(table, 1, "db")
    assert _take(table, 2, "db", "held") == []
    assert _take(table, 3, "db") == []
    assert table.set_limit(A, "held", 0) == []
    assert table.free(A, [1]) == _taken(3)
    assert table.free(A, [2, 3]) == []
    assert (len(table), table.used("db"), table.used("held")) == (0, 0, 0)


def test_one_with_two_tags_of_limit_zero_is_held_by_either() -> None:
    table = SlotTable()
    table.set_limit(A, "one", 0)
    table.set_limit(B, "two", 0)
    assert _take(table, 1, "one", "two") == []
    assert table.set_limit(A, "one", None) == []
    assert table.lost(B) == _taken(1)


def test_a_higher_limit_acts_at_once_and_a_lower_one_lets_what_runs_go_on() -> None:
    table = SlotTable()
    table.set_limit(A, "db", 1)
    _take(table, 1, "db")
    _take(table, 2, "db")
    assert table.set_limit(A, "db", 2) == _taken(2)
    assert table.set_limit(A, "db", 1) == []
    _take(table, 3, "db")
    assert table.free(A, [1]) == []
    assert table.free(A, [2]) == _taken(3)


def test_a_rule_of_a_task_brings_its_own_limit() -> None:
    table = SlotTable()
    wants = [Slot("f", 2)]
    for number in (1, 2):
        assert table.take(A, TakeSlots(number, wants, True)) == _taken(number)
    assert table.take(A, TakeSlots(3, wants, True)) == []


def test_who_does_not_wait_is_told_that_they_are_taken() -> None:
    table = SlotTable()
    table.set_limit(A, "db", 1)
    _take(table, 1, "db")
    assert _take(table, 2, "db", wait=False) == [(A, TakenSlots(2, False))]
    assert table.free(A, [1]) == []
    assert len(table) == 0


def test_a_lost_runtime_holds_nothing_and_waits_for_nothing() -> None:
    table = SlotTable()
    table.set_limit(B, "db", 1)
    _take(table, 1, "db", sender=A)
    _take(table, 2, "db", sender=A)
    _take(table, 3, "db", sender=B)
    assert table.lost(A) == _taken(3, B)
    assert table.lost(B) == []
    assert (len(table), table.used("db")) == (0, 0)


def test_a_limit_lasts_as_long_as_the_runtime_that_has_set_it() -> None:
    table = SlotTable()
    table.set_limit(A, "db", 0)
    _take(table, 1, "db", sender=B)
    assert table.lost(A) == _taken(1, B)


def test_a_name_that_is_wanted_twice_counts_once() -> None:
    table = SlotTable()
    table.set_limit(A, "db", 1)
    assert _take(table, 1, "db", "db") == _taken(1)
    assert table.used("db") == 1


def test_nonsense_changes_nothing() -> None:
    table = SlotTable()
    assert _take(table, 1) == []
    _take(table, 2, "db")
    assert _take(table, 2, "db") == []
    assert table.free(A, [2, 2, 9]) == []
    assert len(table) == 0


NAMES = ("a", "b", "c")


class SlotWorld(RuleBasedStateMachine):
    """Any order of requests, ends, limits and losses, against a plain account."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SlotTable()
        self.limits: dict[str, int] = {}
        self.held: dict[tuple[int, int], set[str]] = {}
        self.waiting: dict[tuple[int, int], set[str]] = {}
        self.last = 0

    def _told(self, sends: Any) -> None:
        for sender, message in sends:
            assert isinstance(message, TakenSlots)
            key = sender, message.number
            assert message.taken
            self.held[key] = self.waiting.pop(key)

    @rule(
        sender=st.sampled_from((A, B)),
        names=st.sets(st.sampled_from(NAMES), min_size=1),
        wait=st.booleans(),
    )
    def take(self, sender: int, names: set[str], wait: bool) -> None:
        self.last += 1
        wants = [Slot(name, OF_TAG) for name in sorted(names)]
        sends = self.table.take(sender, TakeSlots(self.last, wants, wait))
        if sends == [(sender, TakenSlots(self.last, False))]:
            assert not wait
            return
        self.waiting[sender, self.last] = names
        self._told(sends)
        if not wait:
            assert (sender, self.last) in self.held

    @precondition(lambda self: self.held or self.waiting)
    @rule(which=st.integers(0, 30))
    def end(self, which: int) -> None:
        """Also in the middle of waiting: a cancel."""
        keys = sorted([*self.held, *self.waiting])
        key = keys[which % len(keys)]
        self.held.pop(key, None)
        self.waiting.pop(key, None)
        self._told(self.table.free(key[0], [key[1]]))

    @rule(name=st.sampled_from(NAMES), limit=st.none() | st.integers(0, 2))
    def limit(self, name: str, limit: int | None) -> None:
        self.limits.pop(name, None)
        if limit is not None:
            self.limits[name] = limit
        self._told(self.table.set_limit(SETTER, name, limit))

    @rule(sender=st.sampled_from((A, B)))
    def lose(self, sender: int) -> None:
        for table in (self.held, self.waiting):
            for key in [key for key in table if key[0] == sender]:
                del table[key]
        self._told(self.table.lost(sender))

    @invariant()
    def what_is_used_is_what_is_held(self) -> None:
        for name in NAMES:
            held = sum(name in names for names in self.held.values())
            assert self.table.used(name) == held
        assert len(self.table) == len(self.held) + len(self.waiting)

    @invariant()
    def none_waits_that_could_run(self) -> None:
        """The first of all that wait, by each of its names, lacks a free slot."""
        before: set[str] = set()
        for _, names in sorted(self.waiting.items(), key=lambda item: item[0][1]):
            if not names & before:
                assert any(
                    name in self.limits and self.table.used(name) >= self.limits[name]
                    for name in names
                )
            if all(self.limits.get(name) != 0 for name in names):
                before |= names  # what has no slots at all is in nobody's way


TestSlotWorld = SlotWorld.TestCase
TestSlotWorld.settings = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
