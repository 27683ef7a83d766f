"""Calls that wait for memory: what fits goes, and nothing waits for ever."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.core.admission import (
    PATIENCE_S,
    RUNNING_PATIENCE_S,
    Admission,
)
from mosaic_like.core.budget import Account, Ledger, Rows
from mosaic_like.core.task import DONE, PENDING, RUNNING, Task

LIMIT = 100


class World:
    """An admission, and an account of somebody else on the host."""

    def __init__(self) -> None:
        self.ledger = Ledger([0] * 16)
        self.ledger.limits = LIMIT, 0
        rows = Rows(self.ledger)
        self.account, self.other = Account(), Account()
        self.account.attach(rows.give(5), lambda: self.ledger)
        self.other.attach(rows.give(6), lambda: self.ledger)
        self.admission = Admission(self.account)
        self.has: dict[int, int] = {}
        self.now_s = 0.0

    def task(self, uid: int) -> Task:
        tessera: Any = None
        return Task(uid, 1, tessera, "m", b"")

    def ask(self, task: Task, nbytes: int) -> bool:
        def go() -> None:
            self.has[task.uid] = self.has.get(task.uid, 0) + nbytes

        if self.admission.ask(task, nbytes, go, self.now_s):
            go()
            return True
        return False

    def again(self) -> list[int]:
        going = self.admission.again(self.now_s)
        for waiting in going:
            waiting.go()
        return [waiting.task.uid for waiting in going]

    def end(self, task: Task) -> None:
        task.state = DONE
        nbytes = self.has.pop(task.uid, 0)
        if nbytes:
            self.account.give(memory=nbytes)
            self.admission.give_back(task.uid, nbytes, self.now_s)


def test_what_does_not_fit_waits_and_holds_up_no_other() -> None:
    world = World()
    first, large, small = (world.task(uid) for uid in (1, 2, 3))
    assert world.ask(first, 60)
    assert not world.ask(large, 70)
    assert world.ask(small, 40)
    assert world.again() == []
    world.end(first)
    assert world.again() == []  # 40 + 70
    world.end(small)
    assert world.again() == [2]
    assert (world.admission.nbytes, world.ledger.memory) == (70, 70)


def test_the_first_goes_where_others_of_the_host_have_it_all() -> None:
    world = World()
    world.other.take_memory(LIMIT)
    one, other = world.task(1), world.task(2)
    assert world.ask(one, 10)
    assert not world.ask(other, 10)
    assert world.again() == []
    world.end(one)
    assert world.again() == [2]


def test_calls_that_wait_for_each_other_go_on_after_a_while() -> None:
    world = World()
    one, other = world.task(1), world.task(2)
    assert world.ask(one, 50)
    assert world.ask(other, 50)
    assert not world.ask(one, 50)  # its second argument
    assert not world.ask(other, 50)
    world.now_s += PATIENCE_S / 2
    assert world.again() == []
    world.now_s += PATIENCE_S
    assert world.again() == [1]
    assert world.again() == []
    world.end(one)
    assert world.again() == [2]


def test_one_alone_gets_all_its_arguments() -> None:
    world = World()
    one = world.task(1)
    assert world.ask(one, 90)
    assert world.ask(one, 90)
    assert world.ledger.memory == 180


def test_one_that_runs_is_given_more_time() -> None:
    world = World()
    one, other = world.task(1), world.task(2)
    assert world.ask(one, 90)
    one.state = RUNNING
    assert not world.ask(other, 90)
    world.now_s += 2 * PATIENCE_S
    assert world.again() == []
    world.now_s += RUNNING_PATIENCE_S
    assert world.again() == [2]


def test_one_that_was_cancelled_meanwhile_is_forgotten() -> None:
    world = World()
    one, other = world.task(1), world.task(2)
    assert world.ask(one, 90)
    assert not world.ask(other, 90)
    other.state = DONE
    world.end(one)
    assert world.again() == []
    assert not world.admission.waiting
    assert world.ledger.memory == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "start", "end", "time", "again"]),
        st.integers(0, 5),
        st.integers(1, LIMIT),
    ),
    max_size=50,
)


@given(STEPS)
def test_in_every_order_all_go_at_last_and_all_is_given_back(
    steps: list[tuple[str, int, int]],
) -> None:
    world = World()
    tasks: dict[int, Task] = {}
    waits: set[int] = set()
    for step, uid, nbytes in steps:
        task = tasks.get(uid)
        if step == "ask":
            task = tasks.setdefault(uid, world.task(uid))
            if (
                task.state == PENDING
                and uid not in waits
                and not world.ask(task, nbytes)
            ):
                waits.add(uid)
        elif step == "start" and task is not None and uid not in waits:
            task.state = RUNNING
        elif step == "end" and task is not None:
            world.end(tasks.pop(uid))
            waits.discard(uid)
        elif step == "time":
            world.now_s += nbytes / 50
        elif step == "again":
            waits -= set(world.again())
        assert world.admission.nbytes == sum(world.has.values())
        assert world.account.memory == world.admission.nbytes
    for _ in range(len(waits) + 1):
        for uid in list(tasks):
            if uid not in waits:
                world.end(tasks.pop(uid))
        world.now_s += RUNNING_PATIENCE_S
        waits -= set(world.again())
    assert not waits
    assert not world.admission.waiting
    assert world.ledger.memory == 0


def test_what_is_reserved_waits_for_room_and_goes_where_nothing_changes() -> None:
    world = World()
    world.other.take_memory(60)
    building, calling = world.task(1), world.task(2)
    went: list[int] = []
    reserve = world.admission.reserve
    assert reserve(building, 30, lambda: went.append(1), 0.0)
    assert not reserve(calling, 30, lambda: went.append(2), 0.0)
    assert world.admission.again(PATIENCE_S / 2) == []
    world.other.give(memory=20)
    (waiting,) = world.admission.again(PATIENCE_S / 2)
    waiting.go()
    assert went == [2]
    assert world.admission.nbytes == 0  # no call that ends has it
    third = world.task(3)
    assert not reserve(third, 90, lambda: went.append(3), 5.0)
    assert world.admission.again(5.0 + PATIENCE_S / 2) == []
    (waiting,) = world.admission.again(5.0 + PATIENCE_S)
    assert (waiting.task, world.account.memory) == (third, 150)
