"""The segments of a warehouse, announced, asked for, spilled and freed in any order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like.core.store import (
    EVENTS,
    KEPT,
    SPILLED,
    SPILLING,
    STATES,
    TRANSITIONS,
    Answer,
    Close,
    Forget,
    Missing,
    Return,
    Store,
)
from mosaic_like.errors import InvalidTransitionError
from mosaic_like.ids import NUMBER_BITS

MAKER, READER, OTHER = 2, 3, 4
UID = (MAKER << NUMBER_BITS) + 1
SIZE = 1 << 20


def test_who_asks_is_told_where_it_is() -> None:
    store = Store()
    assert store.adopt(UID, SIZE, opened=True) == []
    assert store.locate(UID, READER) == [Answer(READER, UID, False)]
    assert store.locate(UID, READER, content=True) == [Answer(READER, UID, True)]
    assert store.resident == SIZE


def test_a_question_waits_for_the_announcement() -> None:
    store = Store()
    assert store.locate(UID, READER) == []
    assert store.locate(UID, OTHER, content=True) == []
    expected = [Answer(READER, UID, False), Answer(OTHER, UID, True)]
    assert store.adopt(UID, SIZE, opened=True) == expected


def test_a_question_ends_with_the_loss_of_the_maker() -> None:
    store = Store()
    store.locate(UID, READER)
    store.locate(UID, OTHER)
    assert store.lost(OTHER) == []
    assert store.lost(MAKER) == [Missing(READER, UID)]
    assert store.locate(UID, READER) == [Missing(READER, UID)]


def test_what_only_the_maker_has_open_is_missing_here() -> None:
    store = Store()
    store.locate(UID, READER)
    assert store.adopt(UID, SIZE, opened=False) == [Missing(READER, UID)]
    assert store.resident == 0
    assert store.freed(UID) == [Return(MAKER, UID)]


def test_its_maker_gets_the_memory_back() -> None:
    store = Store()
    store.adopt(UID, SIZE, opened=True)
    assert store.freed(UID) == [Close(UID), Return(MAKER, UID)]
    assert store.resident == 0
    assert not store.segments


def test_it_outlives_its_maker_and_is_closed() -> None:
    store = Store()
    store.adopt(UID, SIZE, opened=True)
    assert store.lost(MAKER) == []
    assert store.locate(UID, READER) == [Answer(READER, UID, False)]
    assert store.freed(UID) == [Close(UID)]


def test_those_used_longest_ago_are_spilled_first() -> None:
    store = Store()
    uids = [UID + i for i in range(4)]
    for uid in uids:
        store.adopt(uid, SIZE, opened=True)
    store.locate(uids[0], READER)
    assert store.coldest(SIZE + 1) == uids[1:3]
    store.spill(uids[1:3])
    assert store.coldest(10 * SIZE) == [uids[3], uids[0]]
    assert store.written(uids[1]) == [Forget(MAKER, uids[1])]
    assert store.written(uids[2], refused=True) == []
    assert store.segments[uids[2]].state == KEPT
    assert (store.resident, store.spilled) == (3 * SIZE, SIZE)
    assert store.locate(uids[1], READER) == [Answer(READER, uids[1], False)]
    assert store.freed(uids[1]) == [Close(uids[1])]
    assert (store.resident, store.spilled) == (3 * SIZE, 0)


def test_what_is_freed_while_it_is_written_goes_when_that_has_ended() -> None:
    for refused in (False, True):
        store = Store()
        store.adopt(UID, SIZE, opened=True)
        store.spill([UID])
        assert store.freed(UID) == []
        assert store.written(UID, refused=refused) == [Close(UID), Return(MAKER, UID)]
        assert (store.resident, store.spilled) == (0, 0)


def test_what_its_maker_wrote_to_a_file_is_taken_over_from_it() -> None:
    store = Store()
    store.locate(UID, READER)
    effects = store.adopt(UID, SIZE, opened=True, in_file=True)
    assert effects == [Forget(MAKER, UID), Answer(READER, UID, False)]
    assert (store.resident, store.spilled) == (0, SIZE)
    assert store.coldest(SIZE) == []
    assert store.freed(UID) == [Close(UID)]
    assert store.spilled == 0
    assert store.adopt(UID + 1, SIZE, opened=False, in_file=True) == []
    assert store.freed(UID + 1) == [Return(MAKER, UID + 1)]


def test_it_begins_to_spill_before_the_memory_is_full_and_does_not_ask_twice() -> None:
    store = Store()
    limit = 10 * SIZE
    for index in range(9):
        store.adopt(UID + index, SIZE, opened=True)
        assert store.excess(limit) == []
    store.adopt(UID + 9, SIZE, opened=True)
    chosen = store.excess(limit)
    assert chosen == [UID, UID + 1, UID + 2]
    store.spill(chosen)
    assert store.excess(limit) == []
    for uid in chosen:
        store.written(uid)
    assert store.excess(limit) == []
    assert store.resident == 7 * SIZE


def test_the_warehouse_counts_the_memory_of_makers_that_are_gone() -> None:
    store = Store()
    for index in range(3):
        store.adopt(UID + index, SIZE, opened=True)
    store.spill([UID])
    store.lost(MAKER)
    assert store.orphaned == 3 * SIZE
    assert store.written(UID) == []
    store.freed(UID + 1)
    assert store.orphaned == SIZE
    store.freed(UID)
    store.freed(UID + 2)
    assert store.orphaned == 0


def test_what_the_table_does_not_have_cannot_happen() -> None:
    store = Store()
    store.adopt(UID, SIZE, opened=True)
    store.spill([UID])
    with pytest.raises(InvalidTransitionError, match=r"spill.*spilling"):
        store.spill([UID])
    assert len(TRANSITIONS) == len(STATES)
    assert {e for moves in TRANSITIONS.values() for e in moves} == set(
        range(len(EVENTS))
    )


class World:
    """A store, and what its effects have done."""

    def __init__(self) -> None:
        self.store = Store()
        self.open: set[int] = set()
        self.asked: list[tuple[int, int]] = []
        self.answered: list[tuple[int, int]] = []
        self.returned: list[int] = []
        self.writing: set[int] = set()
        self.freed: set[int] = set()
        self.lost: set[int] = set()

    def do(self, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Answer(to, uid, _):
                    assert uid in self.open
                    self.answered.append((to, uid))
                case Missing(to, uid):
                    self.answered.append((to, uid))
                case Close(uid):
                    self.open.remove(uid)
                case Return(to, uid):
                    assert to not in self.lost
                    assert uid in self.freed
                    assert uid not in self.open
                    self.returned.append(uid)
                case Forget(to, uid):
                    assert to not in self.lost
                    assert uid in self.open


EVENT_NAMES = ["adopt", "ask", "free", "spill", "written", "lose"]
SEGMENTS = [UID, UID + 1, (OTHER << NUMBER_BITS) + 1]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_in_every_order_all_that_was_opened_is_closed_and_all_who_ask_are_told(
    data: st.DataObject,
) -> None:
    world = World()
    store = world.store
    announced: set[int] = set()
    for _ in range(data.draw(st.integers(1, 25))):
        uid = data.draw(st.sampled_from(SEGMENTS))
        maker = uid >> NUMBER_BITS
        event = data.draw(st.sampled_from(EVENT_NAMES))
        if event == "adopt" and uid not in announced and maker not in world.lost:
            announced.add(uid)
            opened, in_file = data.draw(st.booleans()), data.draw(st.booleans())
            if opened:
                world.open.add(uid)
            world.do(store.adopt(uid, SIZE, opened=opened, in_file=in_file))
        elif event == "ask" and uid not in world.freed and READER not in world.lost:
            world.asked.append((READER, uid))
            world.do(store.locate(uid, READER))
        elif event == "free" and uid in store.segments:
            world.freed.add(uid)
            world.do(store.freed(uid))
        elif event == "spill":
            chosen = store.coldest(SIZE)
            store.spill(chosen)
            world.writing.update(chosen)
        elif event == "written" and world.writing:
            uid = world.writing.pop()
            world.do(store.written(uid, refused=data.draw(st.booleans())))
        elif event == "lose" and maker not in world.lost:
            world.lost.add(maker)
            world.do(store.lost(maker))
    kept = [s for s in store.segments.values() if s.uid in world.open]
    in_memory = sum(s.size for s in kept if s.state != SPILLED)
    assert store.resident == in_memory
    assert store.spilled == sum(s.size for s in kept if s.state == SPILLED)
    assert store.spilling == sum(s.size for s in kept if s.state == SPILLING)
    assert store.orphaned == sum(
        s.size
        for s in kept
        if s.state != SPILLED and s.uid >> NUMBER_BITS in world.lost
    )
    # The end: everything is dropped, and everybody is lost.
    for uid in world.writing:
        world.do(store.written(uid))
    for uid in list(store.segments):
        world.freed.add(uid)
        world.do(store.freed(uid))
    for maker in {uid >> NUMBER_BITS for uid in SEGMENTS} - world.lost:
        world.do(store.lost(maker))
    assert not world.open
    assert sorted(world.answered) == sorted(world.asked)
    assert len(world.returned) == len(set(world.returned))
    assert (store.resident, store.spilled) == (0, 0)
    assert (store.spilling, store.orphaned) == (0, 0)


def test_every_order_of_a_life_ends_closed() -> None:
    for order in itertools.permutations(["ask", "adopt", "lose", "free"]):
        if order.index("free") < order.index("adopt"):
            continue  # it is not made yet
        if order.index("lose") < order.index("adopt"):
            continue  # it is not heard any more
        world = World()
        for event in order:
            if event == "adopt":
                world.open.add(UID)
                world.do(world.store.adopt(UID, SIZE, opened=True))
            elif event == "ask" and UID not in world.freed:
                world.asked.append((READER, UID))
                world.do(world.store.locate(UID, READER))
            elif event == "lose":
                world.lost.add(MAKER)
                world.do(world.store.lost(MAKER))
            elif event == "free":
                world.freed.add(UID)
                world.do(world.store.freed(UID))
        assert not world.open
        assert world.answered == world.asked
