"""One tessera for each name, whatever overtakes what and whoever dies."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like.comms.messages import (
    Claim,
    Claimed,
    LossSeen,
    Lost,
    Named,
    Release,
    ReleaseGrants,
    Share,
    Shared,
    Unnamed,
)
from mosaic_like.core.holders import HolderTable
from mosaic_like.core.names import NamesHere, NameTable
from mosaic_like.ids import NUMBER_BITS

MONITOR = 1
KIND = "module.Class"


def claim(uid: int, name: str = "x", cls: str = KIND) -> Claim:
    return Claim(name, cls, uid, False)


@pytest.fixture
def table() -> NameTable:
    return NameTable()


def test_who_asks_first_makes_it(table: NameTable) -> None:
    assert table.claim(5, claim(51)) == [(5, Claimed(51, 51, 0))]
    assert table.claim(6, claim(61)) == []  # waits until it is somewhere
    assert table.named(9, Named("x", 51)) == [(9, Share("x", 51, 6, 61))]
    assert table.shared(9, Shared("x", 51, 61, True)) == [
        (6, Claimed(61, 51, 9, built=True))
    ]
    assert table.claim(5, claim(52)) == [(9, Share("x", 51, 5, 52))]
    (entry,) = table.entries()
    assert (entry.name, entry.cls, entry.owner) == ("x", KIND, 9)


def test_another_class_is_refused_with_both_names(table: NameTable) -> None:
    table.claim(5, claim(51))
    ((to, answer),) = table.claim(6, claim(61, cls="other.Class"))
    assert to == 6
    assert isinstance(answer, Claimed)
    assert "module.Class" in answer.why
    assert "other.Class" in answer.why


def test_one_that_is_built_again_is_not_taken_for_one_that_is_not(
    table: NameTable,
) -> None:
    table.claim(5, Claim("x", KIND, 51, False, restarts=True))
    ((to, answer),) = table.claim(6, claim(61))
    assert isinstance(answer, Claimed)
    assert (to, answer.claim) == (6, 61)
    assert "made with max_restarts, and is asked for without" in answer.why


def test_when_it_goes_the_next_who_has_asked_makes_it(table: NameTable) -> None:
    table.claim(5, claim(51))
    table.named(9, Named("x", 51))
    table.claim(6, claim(61))
    table.claim(7, claim(71))
    assert table.unnamed(Unnamed("x", 51)) == [(6, Claimed(61, 61, 0))]
    assert table.unnamed(Unnamed("x", 51)) == []  # told again
    assert table.shared(9, Shared("x", 51, 71, True)) == []  # of the old one
    assert table.named(8, Named("x", 61)) == [(8, Share("x", 61, 7, 71))]


def test_the_name_of_a_lost_maker_waits_until_all_have_fenced_it(
    table: NameTable,
) -> None:
    table.claim(5, claim(51))
    table.claim(6, claim(61))
    assert table.lost(5, [6, 8, 9]) == []
    assert table.loss_seen(6, 5) == []
    assert table.lost(8, [6, 9]) == []  # one of those that it waited for
    assert table.loss_seen(9, 5) == [(6, Claimed(61, 61, 0))]
    assert table.loss_seen(9, 5) == []


def test_a_construction_that_outlives_its_maker_keeps_the_name(
    table: NameTable,
) -> None:
    table.claim(5, claim(51))
    table.claim(6, claim(61))
    table.lost(5, [6, 9])
    assert table.named(9, Named("x", 51)) == [(9, Share("x", 51, 6, 61))]
    assert table.loss_seen(9, 5) == table.loss_seen(6, 5) == []
    assert table.lost(9, [6]) == [(6, Claimed(61, 61, 0))]


def test_a_runtime_tells_the_end_of_a_name_once() -> None:
    here = NamesHere()
    assert here.made("x", 51) == Named("x", 51)
    assert 51 in here
    assert here.gone(51) == Unnamed("x", 51)
    assert here.gone(51) is None
    assert here.gone(52) is None


# -- every order of delivery -----------------------------------------------------------


class Create(msgspec.Struct):
    """The construction, in this world."""

    name: str
    tessera: int
    detached: bool


class Process:
    """A runtime that asks for names and owns tesserae, as ``runtimes.names`` does."""

    def __init__(self, world: World, me: int) -> None:
        self.world = world
        self.me = me
        self.numbers = 0
        self.claims: dict[int, str] = {}  # not answered
        self.making: dict[int, tuple[str, int]] = {}  # uid: name, owner
        self.holds: list[tuple[int, int, int]] = []  # uid, owner, granter
        self.lost: set[int] = set()
        # What lives here.
        self.alive: dict[int, str] = {}
        self.closing: set[int] = set()
        self.detached: set[int] = set()
        self.here = NamesHere()
        self.table = HolderTable(me, self)

    def ask(self, name: str, detached: bool) -> None:
        self.numbers += 1
        uid = (self.me << NUMBER_BITS) + self.numbers
        self.claims[uid] = name
        self.world.send(self.me, MONITOR, Claim(name, KIND, uid, detached))
        if detached:
            self.detached.add(uid)

    def drop(self, rng: random.Random) -> None:
        uid, owner, granter = self.holds.pop(rng.randrange(len(self.holds)))
        if owner in self.lost:
            return
        if granter == self.me:
            self.world.send(self.me, owner, Release([uid]))
        else:
            self.world.send(self.me, owner, ReleaseGrants([(uid, granter)]))

    def freed(self, uid: int) -> None:
        if uid in self.alive:
            self.closing.add(uid)

    def close_one(self, uid: int) -> None:
        """Its ``__close__`` has ended."""
        self.closing.discard(uid)
        del self.alive[uid]
        message = self.here.gone(uid)
        assert message is not None
        self.world.send(self.me, MONITOR, message)
        if uid in self.detached:
            self.table.release_grants(self.me, [(uid, self.me)])

    def receive(self, sender: int, message: Any, rng: random.Random) -> None:
        match message:
            case Claimed(uid, tessera, owner):
                name = self.claims.pop(uid)
                if not owner:
                    place = rng.choice(self.world.known(self.me))
                    self.making[uid] = name, place
                    self.holds.append((uid, place, self.me))
                    self.world.send(
                        self.me, place, Create(name, uid, uid in self.detached)
                    )
                else:
                    self.holds.append((tessera, owner, owner))
            case Create(name, uid, detached):
                self.world.made(name, uid)
                if detached:
                    self.detached.add(uid)
                    self.table.grant(uid, self.me, self.me)
                self.world.send(self.me, MONITOR, self.here.made(name, uid))
                self.alive[uid] = name
                self.table.add(uid)
            case Share(name, uid, holder, claim):
                if uid in self.alive and uid not in self.closing:
                    self.table.grant(uid, holder, self.me)
                    shared = Shared(name, uid, claim, True)
                    self.world.send(self.me, MONITOR, shared)
            case Release(uids):
                self.table.release(sender, uids)
            case ReleaseGrants(grants):
                self.table.release_grants(sender, grants)
            case LossSeen(incarnation):
                self.table.loss_seen(sender, incarnation)
            case Lost(incarnation):
                self.lose(incarnation)

    def lose(self, incarnation: int) -> None:
        self.lost.add(incarnation)
        self.world.links.pop((incarnation, self.me), None)
        live = [p for p in self.world.known(self.me) if p != self.me]
        for to in (*live, MONITOR):
            self.world.send(self.me, to, LossSeen(incarnation))
        self.table.lost(incarnation, live)
        self.holds = [h for h in self.holds if h[1] != incarnation]
        for uid, (name, place) in list(self.making.items()):
            if place == incarnation:
                del self.making[uid]
                self.world.send(self.me, MONITOR, Unnamed(name, uid))


class World:
    """A monitor and processes, with ordered links that lose nothing but at a death."""

    def __init__(self, count: int) -> None:
        self.names = NameTable()
        self.links: dict[tuple[int, int], deque[Any]] = {}
        self.processes = {n: Process(self, n) for n in range(2, 2 + count)}
        self.dead: set[int] = set()
        self.lost: set[int] = set()  # as the monitor knows

    def known(self, me: int) -> list[int]:
        process = self.processes[me]
        return [n for n in self.processes if n not in process.lost]

    def send(self, source: int, to: int, message: Any) -> None:
        if source not in self.dead or source == MONITOR:
            self.links.setdefault((source, to), deque()).append(message)

    def made(self, name: str, uid: int) -> None:
        found = [
            other
            for n, process in self.processes.items()
            if n not in self.dead
            for other, known in process.alive.items()
            if known == name
        ]
        assert not found, f"{uid} of {name!r} is made while {found} lives"

    def deliver(self, key: tuple[int, int], rng: random.Random) -> None:
        source, to = key
        queue = self.links[key]
        message = queue.popleft()
        if not queue:
            del self.links[key]
        if to == MONITOR:
            if source not in self.lost:
                self.monitor(source, message)
        elif to not in self.dead:
            process = self.processes[to]
            if source not in process.lost:
                process.receive(source, message, rng)

    def monitor(self, sender: int, message: Any) -> None:
        match message:
            case Claim():
                sends = self.names.claim(sender, message)
            case Named():
                sends = self.names.named(sender, message)
            case Shared():
                sends = self.names.shared(sender, message)
            case Unnamed():
                sends = self.names.unnamed(message)
            case LossSeen(incarnation):
                sends = self.names.loss_seen(sender, incarnation)
            case _:
                raise AssertionError(message)
        for to, answer in sends:
            self.send(MONITOR, to, answer)

    def notice(self, gone: int) -> None:
        """The monitor learns of a death."""
        self.lost.add(gone)
        live = [n for n in self.processes if n not in self.lost]
        for to in live:
            self.send(MONITOR, to, Lost(gone, "", ""))
        for to, answer in self.names.lost(gone, live):
            self.send(MONITOR, to, answer)

    def settle(self, rng: random.Random) -> None:
        for gone in self.dead - self.lost:
            self.notice(gone)
        while True:
            while self.links:
                self.deliver(rng.choice(sorted(self.links)), rng)
            closing = [
                (process, uid)
                for n, process in self.processes.items()
                if n not in self.dead
                for uid in process.closing
            ]
            if not closing:
                return
            process, uid = rng.choice(closing)
            process.close_one(uid)


def play(seed: int, steps: int, deaths: int, detached: bool) -> None:
    rng = random.Random(seed)
    world = World(4)
    for _ in range(steps):
        living = [p for n, p in world.processes.items() if n not in world.dead]
        process = rng.choice(living)
        chance = rng.random()
        if chance < 0.12:
            process.ask(rng.choice("xy"), detached and rng.random() < 0.3)
        elif chance < 0.25 and process.holds:
            process.drop(rng)
        elif chance < 0.3 and process.alive:
            process.closing.add(rng.choice(sorted(process.alive)))  # mosaic.close
        elif chance < 0.4 and process.closing:
            process.close_one(rng.choice(sorted(process.closing)))
        elif chance < 0.42 and len(world.dead) < deaths:
            world.dead.add(process.me)
        elif chance < 0.5 and world.dead - world.lost:
            world.notice(rng.choice(sorted(world.dead - world.lost)))
        elif world.links:
            world.deliver(rng.choice(sorted(world.links)), rng)
    world.settle(rng)
    living = [p for n, p in world.processes.items() if n not in world.dead]
    for process in living:
        assert not process.claims  # everybody has got an answer
        for uid, owner, _ in process.holds:
            home = world.processes[owner]
            assert uid in home.alive or uid not in home.here  # or was closed
    alive = sorted((name, p.me) for p in living for name in p.alive.values())
    assert [(e.name, e.owner) for e in world.names.entries()] == alive
    for process in living:
        while process.holds:
            process.drop(rng)
    world.settle(rng)
    for process in living:
        for uid in [u for u in process.alive if u in process.detached]:
            process.closing.add(uid)
    world.settle(rng)
    assert len(world.names) == 0
    for process in living:
        assert not process.alive
        assert len(process.table) == 0


@given(seed=st.integers(0, 2**32), deaths=st.integers(0, 2), detached=st.booleans())
@settings(max_examples=400, deadline=None)
def test_a_name_has_one_tessera_in_every_order_of_delivery(
    seed: int, deaths: int, detached: bool
) -> None:
    play(seed, 250, deaths, detached)
