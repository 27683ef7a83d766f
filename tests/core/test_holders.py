"""Owner and holder side of counting, event by event."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from mosaic_like import ids
from mosaic_like.comms.messages import (
    TASK,
    Holding,
    Keep,
    LossSeen,
    Reference,
    Release,
    ReleaseGrants,
    Retain,
)
from mosaic_like.core.holders import HolderTable
from mosaic_like.core.losses import Losses
from mosaic_like.core.references import Grants

ME, MAKER, OTHER, THIRD = 10, 11, 12, 13
X = (MAKER << ids.NUMBER_BITS) + 1
Y = X + 1
MINE = (ME << ids.NUMBER_BITS) + 1


@dataclass
class Objects:
    uids: list[int] = field(default_factory=list)

    def freed(self, uid: int) -> None:
        self.uids.append(uid)


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def table(objects: Objects) -> HolderTable:
    return HolderTable(ME, objects)


@pytest.fixture
def woken() -> list[None]:
    return []


@pytest.fixture
def grants(table: HolderTable, woken: list[None]) -> Grants:
    return Grants(ME, table, lambda: woken.append(None))


def reference(uid: int, owner: int) -> Reference:
    return Reference(TASK, uid, owner)


# -- the owner -------------------------------------------------------------------------


def test_an_object_that_was_never_shared_is_freed_by_its_maker(
    table: HolderTable, objects: Objects
) -> None:
    table.add(X)
    table.add(Y)
    assert table.holders(X) == {MAKER}
    table.release(MAKER, [X])
    assert objects.uids == [X]
    assert X not in table
    assert Y in table


def test_an_object_is_freed_when_all_counts_are_zero(
    table: HolderTable, objects: Objects
) -> None:
    table.add(X)
    table.retain(MAKER, X, OTHER)
    table.release(MAKER, [X])
    assert table.holders(X) == {OTHER}
    assert objects.uids == []
    table.release_grants(OTHER, [(X, MAKER)])
    assert objects.uids == [X]
    assert len(table) == 0


def test_a_count_may_be_negative_for_a_while(
    table: HolderTable, objects: Objects
) -> None:
    table.add(X)
    table.release_grants(OTHER, [(X, MAKER)])
    assert table.counts(X) == {(MAKER, MAKER): 1, (OTHER, MAKER): -1}
    assert table.holders(X) == {MAKER}
    table.retain(MAKER, X, OTHER)
    table.release(MAKER, [X])
    assert objects.uids == [X]


def test_an_object_may_be_mentioned_before_it_is_made(
    table: HolderTable, objects: Objects
) -> None:
    table.grant(X, ME, OTHER)
    assert X not in table
    assert len(table) == 1
    table.release_grants(ME, [(X, OTHER)])
    assert objects.uids == []
    assert len(table) == 0
    table.release_grants(OTHER, [(X, MAKER)])
    table.add(X)
    assert X in table
    table.retain(MAKER, X, OTHER)
    table.release(MAKER, [X])
    assert objects.uids == [X]


def test_a_create_that_comes_again_is_counted_once(
    table: HolderTable, objects: Objects
) -> None:
    table.add(X)
    table.add(X)
    table.retain(MAKER, X, OTHER)
    table.add(X)
    assert table.counts(X) == {(MAKER, MAKER): 1, (OTHER, MAKER): 1}


def test_a_call_that_comes_back_is_still_held_by_others(
    table: HolderTable,
) -> None:
    table.add(X)
    table.grant(X, OTHER, MAKER)
    table.alone.add(X)  # as a task that is new has it
    table.add(X)
    assert X not in table.alone
    assert table.holders(X) == {MAKER, OTHER}


def test_an_object_that_is_no_longer_shared_has_no_record(table: HolderTable) -> None:
    table.add(X)
    table.retain(MAKER, X, OTHER)
    table.release_grants(OTHER, [(X, MAKER)])
    assert not table.shared
    assert table.counts(X) == {(MAKER, MAKER): 1}


def test_release_by_another_than_the_maker_frees_nothing(
    table: HolderTable, objects: Objects
) -> None:
    table.add(X)
    table.release(OTHER, [X])
    assert objects.uids == []


# -- the owner and losses --------------------------------------------------------------


def test_what_the_lost_one_held_is_freed_after_everybody_has_seen_the_loss(
    table: HolderTable, objects: Objects
) -> None:
    table.add(X)
    table.lost(MAKER, [OTHER, THIRD])
    table.loss_seen(OTHER, MAKER)
    assert objects.uids == []
    table.loss_seen(THIRD, MAKER)
    assert objects.uids == [X]


def test_what_is_announced_is_kept_until_its_holder_drops_it(
    table: HolderTable, objects: Objects
) -> None:
    table.add(X)
    table.lost(MAKER, [OTHER])
    table.holding(OTHER, X, MAKER, 2)
    table.loss_seen(OTHER, MAKER)
    assert table.counts(X) == {(OTHER, MAKER): 2}
    table.release_grants(OTHER, [(X, MAKER), (X, MAKER)])
    assert objects.uids == [X]


def test_a_grant_that_never_arrived_is_dropped(
    table: HolderTable, objects: Objects
) -> None:
    table.add(X)
    table.retain(MAKER, X, OTHER)
    table.lost(MAKER, [OTHER])
    table.loss_seen(OTHER, MAKER)
    assert objects.uids == [X]


def test_others_may_know_of_a_loss_before_the_owner(
    table: HolderTable, objects: Objects
) -> None:
    table.add(X)
    table.holding(OTHER, X, MAKER, 1)
    table.retain(MAKER, X, OTHER)  # is in what was announced, or never arrived
    table.release(MAKER, [X])
    table.loss_seen(OTHER, MAKER)
    assert table.counts(X) == {(MAKER, MAKER): 1, (OTHER, MAKER): 1}
    table.lost(MAKER, [OTHER])
    assert table.counts(X) == {(OTHER, MAKER): 1}


def test_what_this_runtime_got_from_the_lost_one_is_kept(
    table: HolderTable, objects: Objects
) -> None:
    table.add(X)
    table.grant(X, ME, MAKER)
    table.lost(MAKER, [])
    assert table.counts(X) == {(ME, MAKER): 1}
    table.release_grants(ME, [(X, MAKER)])
    assert objects.uids == [X]


def test_a_retain_for_a_lost_holder_counts_until_the_loss_is_settled(
    table: HolderTable, objects: Objects
) -> None:
    table.add(X)
    table.lost(OTHER, [MAKER])
    table.retain(MAKER, X, OTHER)
    table.release(MAKER, [X])
    assert objects.uids == []  # OTHER may have passed it on
    table.loss_seen(MAKER, OTHER)
    assert objects.uids == [X]
    table.add(Y)
    table.retain(MAKER, Y, OTHER)
    assert table.counts(Y) == {(MAKER, MAKER): 1}


def test_a_placeholder_goes_with_its_maker_and_does_not_come_back(
    table: HolderTable, objects: Objects
) -> None:
    table.grant(X, ME, OTHER)
    table.lost(MAKER, [OTHER])
    assert len(table) == 0
    table.release_grants(ME, [(X, OTHER)])
    table.holding(OTHER, X, MAKER, 1)
    table.release_grants(OTHER, [(X, MAKER)])
    assert len(table) == 0
    assert objects.uids == []


def test_a_loss_that_is_told_twice_is_one(table: HolderTable, objects: Objects) -> None:
    table.add(X)
    table.lost(MAKER, [OTHER])
    table.lost(MAKER, [])
    assert objects.uids == []
    table.loss_seen(OTHER, MAKER)
    table.lost(MAKER, [OTHER])
    table.loss_seen(OTHER, MAKER)
    assert objects.uids == [X]


def test_a_loss_waits_for_a_later_loss_instead_of_the_word_of_the_lost() -> None:
    losses = Losses()
    assert losses.lose(1, [2, 3]) == []
    assert losses.lose(2, [3]) == []
    assert losses.see(3, 1) == []
    assert [lost for lost, _ in losses.see(3, 2)] == [2, 1]
    assert losses.is_settled(1)


# -- the holder ------------------------------------------------------------------------


def test_a_retain_goes_to_a_third_owner_only(
    grants: Grants, table: HolderTable
) -> None:
    table.add(MINE)
    references = [reference(X, OTHER), reference(Y, THIRD), reference(MINE, ME)]
    assert grants.sending(references, OTHER) == [(THIRD, Retain(Y, OTHER))]
    assert table.counts(MINE) == {(ME, ME): 1, (OTHER, ME): 1}


def test_dropped_grants_are_released_in_one_message_for_each_owner(
    grants: Grants, woken: list[None]
) -> None:
    held = grants.delivered([reference(X, OTHER), reference(Y, OTHER)], THIRD)
    own = [grants.made(MINE, OTHER), grants.made(MINE + 1, THIRD)]
    assert grants.drain() == []
    assert woken == []
    for grant_list in (held, own):
        while grant_list:  # clear() would begin at the end
            del grant_list[0]
    assert woken == [None]
    assert grants.drain() == [
        (OTHER, Release([MINE])),
        (THIRD, Release([MINE + 1])),
        (OTHER, ReleaseGrants([(X, THIRD), (Y, THIRD)])),
    ]
    assert grants.drain() == []


def test_references_to_own_objects_are_counted_here(
    grants: Grants, table: HolderTable, objects: Objects
) -> None:
    table.add(X)
    held = grants.delivered([reference(X, ME)], MAKER)
    table.release(MAKER, [X])
    assert table.counts(X) == {(ME, MAKER): 1}
    held.clear()
    assert grants.drain() == []
    assert objects.uids == [X]


def test_what_a_payload_to_oneself_holds_is_released_once(
    grants: Grants, table: HolderTable, objects: Objects
) -> None:
    table.add(MINE)
    made = grants.made(MINE, ME)
    assert grants.sending([reference(MINE, ME), reference(X, OTHER)], ME) == [
        (OTHER, Retain(X, ME))
    ]
    held = grants.delivered([reference(MINE, ME), reference(X, OTHER)], ME)
    del made
    assert grants.drain() == []
    assert objects.uids == []
    held.clear()
    assert grants.drain() == [(OTHER, Release([X]))]
    assert objects.uids == [MINE]


def test_each_delivery_is_a_grant_of_its_own(grants: Grants) -> None:
    first = grants.delivered([reference(X, OTHER)], THIRD)
    second = grants.delivered([reference(X, OTHER)], THIRD)
    first.clear()
    assert grants.drain() == [(OTHER, ReleaseGrants([(X, THIRD)]))]
    second.clear()
    assert grants.drain() == [(OTHER, ReleaseGrants([(X, THIRD)]))]
    assert not grants._held


def test_after_a_loss_all_that_is_not_yet_released_is_announced(
    grants: Grants,
) -> None:
    held = [
        *grants.delivered([reference(X, OTHER)], MAKER),
        *grants.delivered([reference(X, OTHER)], MAKER),
        *grants.delivered([reference(Y, OTHER)], THIRD),
    ]
    del held[0]  # not drained
    assert grants.lost(MAKER, [OTHER, THIRD]) == [
        (OTHER, Holding(X, MAKER, 2)),
        (OTHER, LossSeen(MAKER)),
        (THIRD, LossSeen(MAKER)),
    ]
    assert grants.lost(MAKER, [OTHER, THIRD]) == []
    assert grants.drain() == [(OTHER, ReleaseGrants([(X, MAKER)]))]


def test_nothing_is_told_to_or_of_a_lost_runtime(grants: Grants) -> None:
    held = grants.delivered([reference(X, OTHER)], THIRD)
    assert grants.lost(OTHER, [THIRD])[1:] == [(THIRD, LossSeen(OTHER))]
    held += grants.delivered([reference(Y, OTHER)], THIRD)
    assert grants.sending([reference(X, OTHER)], THIRD) == []
    assert grants.sending([reference(Y, THIRD + 1)], OTHER) == []
    grants.drain()  # to the callers of what it had, see below
    assert grants.lost(THIRD, []) == []
    held.clear()
    grants.drain()
    assert not grants._held


def test_callers_hear_who_holds_what_a_lost_one_had(
    grants: Grants, woken: list[None]
) -> None:
    held = [
        *grants.delivered([reference(X, OTHER), reference(Y, OTHER)], THIRD),
        *grants.delivered([reference(X, OTHER)], MAKER),
        *grants.delivered([reference(X, OTHER)], ME),
    ]
    assert grants.lost(OTHER, [THIRD]) == [
        (MAKER, Keep([X, Y], OTHER)),
        (THIRD, LossSeen(OTHER)),
    ]
    del held[:3]
    assert grants.drain() == [(MAKER, Keep([Y], OTHER, dropped=True))]
    woken.clear()
    held += grants.delivered([reference(Y, OTHER)], THIRD)
    assert woken == [None]
    assert grants.drain() == [(MAKER, Keep([Y], OTHER))]
    while held:
        held.pop(0)
    assert grants.drain() == [(MAKER, Keep([X, Y], OTHER, dropped=True))]
    held += grants.delivered([reference(Y, OTHER)], THIRD)
    held.clear()  # nobody has been told of that
    assert grants.drain() == []


def test_grants_may_die_on_any_thread(grants: Grants, woken: list[None]) -> None:
    references = [reference(X + number, OTHER) for number in range(2_000)]
    halves = [grants.delivered(references, THIRD) for _ in range(4)]
    threads = [threading.Thread(target=half.clear) for half in halves]
    for thread in threads:
        thread.start()
    told = 0
    for thread in threads:
        for _, message in grants.drain():
            assert isinstance(message, ReleaseGrants)
            told += len(message.grants)
        thread.join(10)
        assert not thread.is_alive()
    for _, message in grants.drain():
        assert isinstance(message, ReleaseGrants)
        told += len(message.grants)
    assert told == 8_000
    assert woken
    assert not grants._held


def test_a_drain_is_bounded_and_asks_for_another(
    grants: Grants, woken: list[None]
) -> None:
    made = [grants.made(MINE + number, OTHER) for number in range(10_001)]
    made.clear()
    [(_, first)] = grants.drain()
    [(_, second)] = grants.drain()
    assert isinstance(first, Release)
    assert isinstance(second, Release)
    assert (len(first.uids), len(second.uids)) == (10_000, 1)
    assert woken == [None, None]
