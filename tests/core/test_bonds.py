"""Tesserae that end together: each side learns it, in whatever order the news come."""

from __future__ import annotations

import functools
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like.comms.messages import Bind, Broke, Unbound
from mosaic_like.core.bonds import Bonds, Effects, Fate, Known, because
from mosaic_like.ids import NUMBER_BITS

A, B = 101, 102  # tesserae
P, Q = 11, 12  # runtimes where they live
NOTHING = Effects([], [])


def bonds(*known: tuple[int, Known], lost: str = "") -> Bonds:
    table = dict(known)
    return Bonds(Q, lambda uid: table[uid], lambda incarnation: lost)


HERE = Known(Fate.HERE, "B#1")
CLOSED = Known(Fate.CLOSED)
FAILED = Known(Fate.FAILED, "B#1", "it was killed")
COMING = Known(Fate.COMING)
BIND = Bind(B, A, P, "A#1")  # told to Q
ANSWER = Bind(A, B, Q, "B#1", answer=False)


def test_a_half_is_told_to_the_other_side_which_does_not_tell_it_again() -> None:
    assert bonds((B, HERE)).bind(BIND, P) == Effects([(P, ANSWER)], [])
    other = Bonds(P, lambda uid: Known(Fate.HERE, "A#1"), lambda incarnation: "")
    assert other.bind(ANSWER, Q) == NOTHING
    assert other


def test_what_fails_ends_the_other() -> None:
    half = bonds((B, HERE))
    half.bind(BIND, P)
    assert half.broke(Broke(B, A, "why")) == Effects([], [(B, "why")])
    assert not half
    assert half.broke(Broke(B, A, "why")) == NOTHING


def test_one_that_fails_says_so_to_the_other_and_only_once() -> None:
    half = bonds((B, HERE))
    half.bind(BIND, P)
    told = Broke(A, B, because("B#1", "it was killed"))
    assert half.failed(B, "B#1", "it was killed") == Effects([(P, told)], [])
    assert half.failed(B, "B#1", "it was killed") == NOTHING


def test_one_that_is_closed_lets_the_other_live() -> None:
    half = bonds((B, HERE))
    half.bind(BIND, P)
    assert half.closed(B) == Effects([(P, Unbound(A, B))], [])
    half.bind(BIND, P)
    half.unbound(Unbound(B, A))
    assert not half
    assert half.lost(P, "killed by SIGKILL") == NOTHING


def test_the_loss_of_a_runtime_ends_what_is_bound_to_what_was_there() -> None:
    half = bonds((B, HERE))
    half.bind(BIND, P)
    assert half.lost(13, "no") == NOTHING
    why = because("A#1", "w0:0 is lost")
    assert half.lost(P, "w0:0 is lost") == Effects([], [(B, why)])


def test_a_chain_ends_and_each_says_why() -> None:
    middle = bonds((B, HERE))
    middle.bind(BIND, P)
    middle.bind(Bind(B, 103, 13, "C#1"), 13)
    why = because("A#1", "it was killed")
    assert middle.broke(Broke(B, A, why)) == Effects(
        [(13, Broke(103, B, because("B#1", why)))], [(B, why)]
    )


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (CLOSED, Effects([(P, Unbound(A, B))], [])),
        (FAILED, Effects([(P, Broke(A, B, because("B#1", "it was killed")))], [])),
    ],
)
def test_a_bond_with_what_has_ended_tells_the_other_how(
    own: Known, expected: Effects
) -> None:
    assert bonds((B, own)).bind(BIND, P) == expected


def test_a_bond_with_what_is_lost_already_ends_this_one() -> None:
    half = bonds((B, HERE), lost="w0:0 is lost")
    assert half.bind(BIND, P) == Effects([], [(B, because("A#1", "w0:0 is lost"))])
    assert not half


def test_what_is_to_come_is_bound_when_it_comes() -> None:
    table = {B: COMING}
    half = Bonds(Q, table.__getitem__, lambda incarnation: "")
    assert half.bind(BIND, P) == NOTHING
    assert half.broke(Broke(B, A, "why")) == NOTHING
    table[B] = HERE
    assert half.came(B) == [(P, BIND)]
    assert half.bind(BIND, P) == Effects([(P, ANSWER)], [])
    assert half.came(B) == []


def test_what_is_to_come_hears_when_it_comes_that_the_other_has_its_half() -> None:
    table = {A: COMING}
    half = Bonds(P, table.__getitem__, lambda incarnation: "")
    assert half.bind(ANSWER, Q) == NOTHING
    table[A] = Known(Fate.HERE, "A#1")
    assert half.came(A) == [(Q, ANSWER)]
    assert half.bind(ANSWER, Q) == NOTHING
    assert half.lost(Q, "gone").ends == [(A, because("B#1", "gone"))]


def test_of_what_its_maker_can_send_no_more_nothing_is_kept() -> None:
    uid = (13 << NUMBER_BITS) | 1
    table = {uid: COMING}
    half = Bonds(Q, table.__getitem__, lambda incarnation: "")
    half.bind(Bind(uid, A, P, "A#1"), P)
    table[uid] = CLOSED
    assert half.lost(13, "gone") == Effects([(P, Unbound(A, uid))], [])
    assert not half


def test_who_is_lost_binds_nothing_that_is_to_come() -> None:
    half = bonds((B, COMING))
    half.bind(BIND, 13)
    assert half.lost(13, "gone") == NOTHING
    assert not half


class World:
    """Runtimes with one tessera each, a program that binds them, and a monitor.

    Each sends to each other in order; what different ones send comes in any order.
    """

    def __init__(self, count: int, coming: set[int]) -> None:
        self.fates: dict[int, Known] = {}
        self.ended: dict[int, str] = {}  # by a bond
        self.lost: list[int] = []  # runtimes, as the monitor says it
        self.seen: dict[int, set[int]] = {}
        self.sides: dict[int, Bonds] = {}
        self.queues: dict[
            tuple[int, int], deque[Any]
        ] = {}  # from, to; the monitor is 0
        for number in range(1, count + 1):
            self.seen[number] = set()
            fate = Fate.COMING if number in coming else Fate.HERE
            self.fates[100 + number] = Known(fate, f"T#{number}")
            self.sides[number] = Bonds(
                number,
                self.fates.__getitem__,
                functools.partial(self.loss, number),
            )

    def loss(self, at: int, incarnation: int) -> str:
        return "lost" if incarnation in self.seen[at] else ""

    def send(self, sender: int, to: int, message: Any) -> None:
        self.queues.setdefault((sender, to), deque()).append(message)

    def bind(self, one: int, two: int) -> None:
        """By the program, which is not lost here."""
        for own, other in ((one, two), (two, one)):
            label = self.fates[100 + other].label
            self.send(99, own, Bind(100 + own, 100 + other, other, label))

    def do(self, at: int, effects: Effects) -> None:
        for to, message in effects.sends:
            self.send(at, to, message)
        for uid, why in effects.ends:
            assert uid == 100 + at
            assert self.fates[uid].fate is Fate.HERE, "ended twice"
            self.ended[at] = why
            self.fates[uid] = Known(Fate.FAILED, f"T#{at}", why)
            assert self.sides[at].failed(uid, f"T#{at}", why) == NOTHING

    def come(self, at: int) -> None:
        if at not in self.lost:
            self.fates[100 + at] = Known(Fate.HERE, f"T#{at}")
            for sender, message in self.sides[at].came(100 + at):
                self.do(at, self.sides[at].bind(message, sender))

    def end(self, at: int, how: str) -> None:
        uid = 100 + at
        if at in self.lost or (how != "lost" and self.fates[uid].fate is not Fate.HERE):
            return
        if how == "lost":
            self.lost.append(at)
            for to in self.sides:
                if to != at:
                    self.send(0, to, at)
        elif how == "closed":
            self.fates[uid] = CLOSED
            self.do(at, self.sides[at].closed(uid))
        else:
            self.fates[uid] = Known(Fate.FAILED, f"T#{at}", "it was killed")
            self.do(at, self.sides[at].failed(uid, f"T#{at}", "it was killed"))

    def deliver(self, sender: int, to: int) -> None:
        message = self.queues[sender, to].popleft()
        if not self.queues[sender, to]:
            del self.queues[sender, to]
        if to in self.lost or sender in self.seen[to]:
            return  # fenced
        side = self.sides[to]
        match message:
            case Bind():
                self.do(to, side.bind(message, sender))
            case Broke():
                self.do(to, side.broke(message))
            case Unbound():
                side.unbound(message)
            case lost:
                self.seen[to].add(lost)
                self.do(to, side.lost(lost, "lost"))

    def settle(self) -> None:
        for at in self.sides:
            if self.fates[100 + at].fate is Fate.COMING:
                self.come(at)
        while self.queues:
            self.deliver(*next(iter(self.queues)))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_in_every_order_a_failure_reaches_all_that_are_bound_and_a_close_none(
    data: st.DataObject,
) -> None:
    count = data.draw(st.integers(2, 4))
    sides = st.sampled_from(range(1, count + 1))
    world = World(count, data.draw(st.sets(sides, max_size=1)))
    pairs: set[frozenset[int]] = set()
    at_end: dict[int, str] = {}
    for _ in range(data.draw(st.integers(1, 20))):
        event = data.draw(st.sampled_from(["bind", "end", "come", "news", "news"]))
        if event == "bind":
            pair = frozenset((data.draw(sides), data.draw(sides)))
            if len(pair) == 2:
                pairs.add(pair)
                world.bind(*sorted(pair))
        elif event == "end":
            how = data.draw(st.sampled_from(["lost", "closed", "killed"]))
            at = data.draw(sides)
            fate = world.fates[100 + at].fate
            if fate is Fate.HERE or (how == "lost" and fate is Fate.COMING):
                at_end.setdefault(at, how)
            world.end(at, how)
        elif event == "come":
            at = data.draw(sides)
            if world.fates[100 + at].fate is Fate.COMING:
                world.come(at)
        elif world.queues:
            world.deliver(*data.draw(st.sampled_from(sorted(world.queues))))
    world.settle()
    failed = {at for at, how in at_end.items() if how != "closed"} | set(world.ended)
    closed = {at for at, how in at_end.items() if how == "closed"}
    for pair in pairs:
        one, two = pair
        for at, other in ((one, two), (two, one)):
            if at in failed and other not in closed:
                assert other in failed, f"{at} has failed and {other} lives"
    # Whoever was ended had a bond with one that has failed; that of a lost runtime may
    # have been closed before, and the news of it lost with that.
    ending = failed | set(world.lost)
    for at in world.ended:
        assert any(at in pair and pair - {at} <= ending for pair in pairs)
    for at, side in world.sides.items():
        fate = world.fates[100 + at].fate
        if at not in world.lost and fate is not Fate.HERE:
            assert not side, "what has ended has no bonds"
