"""Counting in every order of delivery, with losses at every cut.

The rules of the game are in ``counting_world.py``. What is checked: nothing is freed
while a live runtime holds it or will receive it, and whenever nothing is on its way the
counts are exactly what is held, so that nothing is left of what is held by nobody.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from counting_world import (
    Cluster,
    Event,
    Node,
    Violation,
    Wire,
    World,
    explore,
    follow,
    walk,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mosaic_like.comms.messages import LossSeen, Message
from mosaic_like.core.holders import HolderTable
from mosaic_like.core.losses import Losses
from mosaic_like.core.references import Grants

if TYPE_CHECKING:
    from collections.abc import Iterable

LONG = bool(os.environ.get("MOSAIC_TEST_LONG"))
IN_LONG_RUNS = pytest.mark.skipif(not LONG, reason="takes long: make long")

# (maker, owner)
FOREIGN = (1, 0)
OWN = (0, 0)
OTHER_OWNER = (1, 2)


def test_one_object_is_counted_right_without_a_loss() -> None:
    result = explore(Cluster(3, [FOREIGN], sends=4, crashes=0))
    assert result.states > 30_000
    assert result.rests > 100


def test_one_object_is_counted_right_with_a_loss_at_every_cut() -> None:
    result = explore(Cluster(3, [FOREIGN], sends=3, crashes=1))
    assert result.states > 80_000
    assert result.rests > 1_000


def test_an_object_of_the_owner_itself_is_counted_right_with_a_loss() -> None:
    assert explore(Cluster(3, [OWN], sends=3, crashes=1)).states > 20_000


@pytest.mark.parametrize(
    ("sends", "states"), [(1, 11_000), pytest.param(2, 300_000, marks=IN_LONG_RUNS)]
)
def test_two_objects_of_two_owners_are_counted_right_with_a_loss_at_every_cut(
    sends: int, states: int
) -> None:
    result = explore(Cluster(3, [FOREIGN, OTHER_OWNER], sends=sends, crashes=1))
    assert result.states > states
    assert result.rests > 300


def test_a_lost_runtime_that_goes_on_does_no_harm() -> None:
    cluster = Cluster(3, [FOREIGN], sends=2, crashes=1, stay=True)
    assert explore(cluster).states > 14_000


def test_two_of_three_may_be_lost() -> None:
    assert explore(Cluster(3, [FOREIGN], sends=2, crashes=2)).states > 25_000


def test_an_owner_that_leaves_hands_on_what_is_counted() -> None:
    result = explore(Cluster(3, [FOREIGN], sends=2, crashes=0, leaves={0: (2,)}))
    assert result.states > 36_000
    assert result.rests > 600


@pytest.mark.parametrize(
    ("made", "sends", "states"),
    [
        (FOREIGN, 1, 28_000),
        pytest.param(FOREIGN, 2, 320_000, marks=IN_LONG_RUNS),
        (OWN, 1, 10_000),
        pytest.param(OWN, 2, 150_000, marks=IN_LONG_RUNS),
    ],
)
def test_an_owner_leaves_and_one_is_lost_at_every_cut(
    made: tuple[int, int], sends: int, states: int
) -> None:
    result = explore(Cluster(3, [made], sends=sends, crashes=1, leaves={0: (2,)}))
    assert result.states > states


# Both leave; the first may choose the second, as long as it has not heard of that.
BOTH_LEAVE = {0: (1, 2), 1: (2,)}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("made", "states"),
    [(FOREIGN, 130_000), pytest.param(OWN, 79_000, marks=IN_LONG_RUNS)],
)
def test_two_leave_at_once_one_of_them_heir_of_the_other(
    made: tuple[int, int], states: int
) -> None:
    result = explore(Cluster(3, [made], sends=1, crashes=0, leaves=BOTH_LEAVE))
    assert result.states > states
    assert result.rests > 2_000


@IN_LONG_RUNS
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("made", [FOREIGN, OWN], ids=["foreign", "own"])
@pytest.mark.parametrize(("sends", "crashes"), [(2, 0), (1, 1)])
def test_two_leave_at_once_with_more_sent_or_a_loss(
    made: tuple[int, int], sends: int, crashes: int
) -> None:
    cluster = Cluster(3, [made], sends=sends, crashes=crashes, leaves=BOTH_LEAVE)
    assert explore(cluster).states > 300_000


class _HandsOnAtOnce(Node):
    """Does not wait for those that hand on to it."""

    def waits_for_givers(self) -> bool:
        return False


def test_the_model_finds_an_heir_that_leaves_before_who_has_chosen_it() -> None:
    cluster = Cluster(
        3, [FOREIGN], sends=1, crashes=0, leaves=BOTH_LEAVE, node=_HandsOnAtOnce
    )
    with pytest.raises(Violation, match="is freed while"):
        explore(cluster)


@pytest.mark.timeout(1800)
def test_two_leave_at_once_and_two_others_know_what_they_had() -> None:
    for objects in [(3, 0)], [OWN], [(3, 1)], [(3, 0), (2, 1)]:
        for crashes in range(3):
            cluster = Cluster(4, objects, sends=3, crashes=crashes, leaves=BOTH_LEAVE)
            walk(cluster, 1000 if LONG else 10)


class _SendsToTheHeir(Node):
    """Also what came too late to be handed on by that."""

    def to_heir(self, heir: int, wire: Wire) -> list[tuple[int, Wire]]:
        return [(heir, wire)]


def test_the_model_finds_what_is_sent_to_an_heir_that_has_handed_on() -> None:
    cluster = Cluster(
        4, [(3, 0)], sends=3, crashes=0, leaves=BOTH_LEAVE, node=_SendsToTheHeir
    )
    with pytest.raises(Violation):
        walk(cluster, 200)


class _CountsAllThatComes(Grants):
    """An heir that takes it that everybody knows of it at once."""

    def _knows(self, sender: int, left: int) -> bool:
        return True


class _CountsNothingThatComes(Grants):
    def _knows(self, sender: int, left: int) -> bool:
        return False


@pytest.mark.parametrize("grants", [_CountsAllThatComes, _CountsNothingThatComes])
def test_the_model_finds_an_heir_that_is_wrong(grants: type[Grants]) -> None:
    cluster = Cluster(3, [FOREIGN], sends=1, crashes=0, leaves={0: (2,)}, grants=grants)
    with pytest.raises(Violation):
        explore(cluster)


class _BelievesNobody(HolderTable):
    """An heir that does not wait for what the others have kept."""

    def inherit(self, uid: int, counts: Any, left: int, lost: Any = ()) -> None:
        super().inherit(uid, counts, left, lost)
        holders = self.shared.get(uid)
        if holders is not None:
            holders.add(-1, left, -1)
            self._tidy(uid, holders)


def test_the_model_finds_an_heir_that_does_not_wait() -> None:
    cluster = Cluster(
        *(3, [FOREIGN]), sends=2, crashes=1, leaves={0: (2,)}, table=_BelievesNobody
    )
    with pytest.raises(Violation):
        explore(cluster)


# -- the model finds what is wrong -----------------------------------------------------


class FreesAtOnce(HolderTable):
    """Waits for nobody's LossSeen."""

    __slots__ = ()

    def lost(self, incarnation: int, live: Iterable[int]) -> None:
        super().lost(incarnation, ())


class DropsRetainsForTheLost(HolderTable):
    """From Lost on, not from the settling of the loss."""

    __slots__ = ()

    def grant(self, uid: int, holder: int, granter: int) -> None:
        if not self._losses.is_lost(holder):
            super().grant(uid, holder, granter)


class HearsOutTheLost(Losses):
    """Goes on counting for a runtime that others have fenced already."""

    __slots__ = ()

    def is_silent(self, incarnation: int) -> bool:
        return self.is_lost(incarnation)


class HearsOut(HolderTable):
    __slots__ = ()

    def __init__(self, me: int, owned: object) -> None:
        super().__init__(me, owned)  # type: ignore[arg-type]
        self._losses = HearsOutTheLost()


@pytest.mark.parametrize("table", [FreesAtOnce, DropsRetainsForTheLost, HearsOut])
def test_the_model_finds_an_owner_that_is_wrong(table: type[HolderTable]) -> None:
    with pytest.raises(Violation) as found:
        explore(Cluster(3, [FOREIGN], sends=2, crashes=1, table=table))
    assert "crash" in found.value.__notes__[0]


class AnnouncesNothing(Grants):
    __slots__ = ()

    def lost(self, incarnation: int, live: Iterable[int]) -> list[tuple[int, Message]]:
        messages = super().lost(incarnation, live)
        return [(to, message) for to, message in messages if type(message) is LossSeen]


class AnnouncesTooLate(Grants):
    __slots__ = ()

    def lost(self, incarnation: int, live: Iterable[int]) -> list[tuple[int, Message]]:
        return super().lost(incarnation, live)[::-1]


@pytest.mark.parametrize("grants", [AnnouncesNothing, AnnouncesTooLate])
def test_the_model_finds_a_holder_that_is_wrong(grants: type[Grants]) -> None:
    with pytest.raises(Violation, match="is freed while"):
        explore(Cluster(3, [FOREIGN], sends=2, crashes=1, grants=grants))


# -- two losses, one after the other ---------------------------------------------------

# 1 makes it and gives it to 2, which gives it to 3; only 3 keeps it. The owner, 0, has
# not read any of the Retains yet.
CHAIN = [
    (0, "receive", 1),
    (1, "send", 2),
    (1, "drop", 0),
    (2, "receive", 1),
    (2, "send", 3),
    (2, "drop", 0),
]


class StrikesOff(HolderTable):
    """Does not wait for a runtime that is lost before it said LossSeen."""

    __slots__ = ()

    def lost(self, incarnation: int, live: Iterable[int]) -> None:
        super().lost(incarnation, live)
        for loss in self._losses._open.values():
            loss.waiting.discard(incarnation)
        self._settle(self._losses._settle())


def test_a_loss_waits_for_the_loss_of_a_runtime_that_passed_it_on() -> None:
    cluster = Cluster(4, [FOREIGN], sends=2, crashes=2, mortal=frozenset({1, 2}))
    assert explore(cluster, follow(cluster, CHAIN)).rests > 10


def test_the_model_finds_an_owner_that_strikes_off_a_second_loss() -> None:
    cluster = Cluster(
        4,
        [FOREIGN],
        sends=2,
        crashes=2,
        mortal=frozenset({1, 2}),
        table=StrikesOff,
    )
    with pytest.raises(Violation, match="is freed while"):
        explore(cluster, follow(cluster, CHAIN))


# -- longer runs -----------------------------------------------------------------------


def _run_down(cluster: Cluster, world: World, kinds: set[str]) -> World:
    """Make moves of these kinds until there are none."""
    while True:
        move = next((m for m in cluster.moves(world) if m[1][0] in kinds), None)
        if move is None:
            return world
        world = cluster.move(world, move)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    size=st.integers(3, 5),
    objects=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=4
    ),
    crashes=st.integers(0, 3),
    stay=st.booleans(),
    leaving=st.sampled_from([{}, {0: (1,)}, {0: (1, 2), 1: (2, 0)}]),
    choices=st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 999)), min_size=10, max_size=120
    ),
)
def test_long_runs_end_with_exact_counts_and_then_with_none(
    size: int,
    objects: list[tuple[int, int]],
    crashes: int,
    stay: bool,
    leaving: dict[int, tuple[int, ...]],
    choices: list[tuple[int, int]],
) -> None:
    cluster = Cluster(
        *(size, objects),
        sends=60,
        crashes=crashes,
        stay=stay,
        leaves={} if stay else leaving,
    )
    world = cluster.start
    often = ["send"] * 4 + ["receive"] * 4 + ["drop"] * 2 + ["hear", "crash", "leave"]
    for kind, choice in choices:
        moves: list[Event] = [
            move for move in cluster.moves(world) if move[1][0] == often[kind]
        ]
        if moves:
            world = cluster.move(world, moves[choice % len(moves)])
            cluster.check_rest(world)
    world = _run_down(cluster, world, {"receive", "hear"})
    assert cluster.check_rest(world)
    world = _run_down(cluster, world, {"receive", "hear", "drop"})
    assert cluster.check_rest(world)
