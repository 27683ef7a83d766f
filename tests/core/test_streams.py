"""Producer and intake joined by two ordered links, in any interleaving."""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.comms import messages as wire
from mosaic_like.core.intake import INTAKE_TRANSITIONS, Intake, IntakeState
from mosaic_like.core.streams import (
    PRODUCER_TRANSITIONS,
    STEP_ITEMS,
    WINDOW_BYTES,
    WINDOW_ITEMS,
    Producer,
    Producers,
    ProducerState,
)
from mosaic_like.core.task import RUNNING, START, Task, received
from mosaic_like.core.tessera import LOOP, MAIN, Tessera
from mosaic_like.errors import InvalidTransitionError, ProtocolError

UID = 7
CALLER = 3


class Runner:
    """Keeps what is started, until the test runs it."""

    def __init__(self, lane: int = MAIN) -> None:
        self.started: deque[Task] = deque()
        self.cancelled: list[int] = []
        self.interrupted: list[Task] = []
        self._lane = lane

    def lane(self, tessera: Tessera, name: str) -> int:
        return self._lane

    def start(self, task: Task) -> None:
        self.started.append(task)

    def start_run(self, run: list[Task]) -> None:
        self.started.extend(run)

    def construct(self, task: Task) -> None:
        self.started.append(task)

    def start_now(self, task: Task) -> None:
        self.started.append(task)

    def cancel(self, uid: int, reason: str) -> None:
        self.cancelled.append(uid)

    def interrupt(self, task: Task) -> None:
        self.interrupted.append(task)


def make(lane: int = MAIN) -> tuple[Runner, Producers, Tessera, Task]:
    """A tessera with one call that asks for a stream, in its mailbox or started."""
    runner = Runner(lane)
    tessera = Tessera(1, CALLER, wire.Options("T#1"), runner)
    tessera.instance = object()
    submit = wire.Submit(UID, 1, 0, "items", b"", wire.Extra(kind=wire.STREAM))
    task = received(submit, CALLER, tessera)
    producers = Producers(runner)
    producers.add(task)
    tessera.enqueue(task)
    return runner, producers, tessera, task


def begin(runner: Runner) -> Task:
    """The thread takes up what was started."""
    task = runner.started.popleft()
    task.move(START)
    return task


@pytest.mark.parametrize("state", list(ProducerState))
@pytest.mark.parametrize("event", ["pause", "step", "stop", "end"])
def test_a_producer_follows_its_table(state: ProducerState, event: str) -> None:
    producer = make()[1].by_uid[UID]
    producer.state = state
    expected = PRODUCER_TRANSITIONS[state].get(event)
    if expected is None:
        with pytest.raises(InvalidTransitionError):
            producer._move(event)
    else:
        producer._move(event)
        assert producer.state is expected


@pytest.mark.parametrize("state", list(IntakeState))
@pytest.mark.parametrize("event", ["item", "leave", "end"])
def test_an_intake_follows_its_table(state: IntakeState, event: str) -> None:
    intake = Intake()
    intake.state = state
    expected = INTAKE_TRANSITIONS[state].get(event)
    if expected is None:
        with pytest.raises(InvalidTransitionError):
            intake._move(event)
    else:
        intake._move(event)
        assert intake.state is expected


def yields(producer: Producer, size: int) -> int:
    producer.made(size)
    return producer.sent(size)


def test_a_window_of_items_may_go_without_credit() -> None:
    producer = make()[1].by_uid[UID]
    for number in range(WINDOW_ITEMS):
        assert producer.may_yield
        assert yields(producer, 10) == number
    assert not producer.may_yield
    assert not producer.paused()
    assert producer.credit(1)
    assert producer.may_yield


def test_an_item_larger_than_the_window_goes_alone() -> None:
    producer = make()[1].by_uid[UID]
    yields(producer, WINDOW_BYTES + 1)
    assert not producer.may_yield
    assert not producer.paused()
    assert producer.credit(1)


def test_more_credit_than_items_is_an_error_of_the_peer() -> None:
    producer = make()[1].by_uid[UID]
    yields(producer, 1)
    with pytest.raises(ProtocolError):
        producer.credit(2)


def test_an_item_out_of_order_is_an_error_of_the_peer() -> None:
    intake = Intake()
    intake.put(0, "a")
    with pytest.raises(ProtocolError):
        intake.put(2, "c")


def test_the_tessera_is_free_for_others_while_a_stream_waits() -> None:
    runner, producers, tessera, _ = make(LOOP)
    begin(runner)
    other = received(wire.Submit(8, 1, 1, "other", b""), CALLER, tessera)
    tessera.enqueue(other)
    assert not runner.started
    producer = producers.by_uid[UID]
    for _ in range(WINDOW_ITEMS):
        yields(producer, 1)
    producers.paused(producer)
    assert list(runner.started) == [other]


def test_a_step_goes_past_calls_of_its_caller_that_wait_for_arguments() -> None:
    runner, producers, tessera, _ = make()
    begin(runner)
    producer = producers.by_uid[UID]
    for _ in range(WINDOW_ITEMS):
        yields(producer, 1)
    producers.paused(producer)
    blocked = received(wire.Submit(8, 1, 1, "other", b""), CALLER, tessera)
    blocked.missing = 1
    tessera.enqueue(blocked)
    producers.credit(UID, 1)
    assert [task.uid for task in runner.started] == [UID]


def test_a_consumer_that_goes_before_the_start_cancels_the_call() -> None:
    runner, producers, _, task = make()
    assert task.state != RUNNING
    producers.credit(UID, 0)
    assert runner.cancelled == [UID]


def test_a_plain_generator_is_interrupted_only_when_it_is_cancelled() -> None:
    runner, producers, _, _ = make()
    step = begin(runner)
    producers.credit(UID, 0)
    assert runner.interrupted == []
    producers.stop(UID, wire.CANCELLED, "enough")
    assert runner.interrupted == [step]
    assert step.cancelled == "enough"


def test_an_asynchronous_generator_is_interrupted_when_its_consumer_goes() -> None:
    runner, producers, _, _ = make(LOOP)
    step = begin(runner)
    producers.credit(UID, 0)
    assert runner.interrupted == [step]
    assert step.cancelled is None


def test_the_loss_of_the_caller_closes_its_streams_only() -> None:
    runner, producers, _, _ = make()
    begin(runner)
    producer = producers.by_uid[UID]
    producers.lost(CALLER + 1)
    assert not producer.stopping
    producers.lost(CALLER)
    assert producer.stopping


def test_the_last_step_of_a_closed_tessera_does_not_wait_in_its_mailbox() -> None:
    runner, producers, tessera, _ = make()
    begin(runner)
    producer = producers.by_uid[UID]
    tessera.closing = received(wire.Submit(0, 1, 0, "__close__", b""), 0, tessera)
    tessera.instance = None
    producers.paused(producer)
    assert producer.stopping
    assert producer.reason == wire.GONE
    assert [task.uid for task in runner.started] == [UID]


def test_a_step_taken_out_of_a_mailbox_still_closes_the_generator() -> None:
    runner, producers, tessera, _ = make(LOOP)
    begin(runner)
    producer = producers.by_uid[UID]
    for _ in range(WINDOW_ITEMS):
        yields(producer, 1)
    producers.paused(producer)
    call = received(wire.Submit(8, 1, 1, "other", b""), CALLER, tessera)
    tessera.enqueue(call)
    begin(runner)
    producers.credit(UID, 1)
    (step,) = tessera.waiting()
    assert not producers.taken_out(call)
    assert producers.taken_out(step)
    assert producer.stopping
    assert [task.uid for task in runner.started] == [UID]


@dataclasses.dataclass
class World:
    """One producer and one consumer, with what is on its way between them."""

    sizes: list[int]
    runner: Runner = dataclasses.field(init=False)
    to_consumer: deque[Any] = dataclasses.field(default_factory=deque)
    to_producer: deque[int] = dataclasses.field(default_factory=deque)

    def __post_init__(self) -> None:
        self.runner, self.producers, self.tessera, self.task = make()
        self.producer = self.producers.by_uid[UID]
        self.intake = Intake()
        self.position = 0
        self.taken: list[int] = []
        self.done = False
        self.left = False
        self.closed = 0

    def events(self) -> list[str]:
        """What can happen now."""
        found = []
        if self.runner.started:
            found.append("step")
        if self.to_consumer:
            found.append("hear")
        if self.to_producer:
            found.append("credit")
        if self.intake.items:
            found.append("take")
        return found

    def do(self, event: str) -> None:
        getattr(self, event)()
        self.check()

    def step(self) -> None:
        """One step of the generator, up to its end."""
        task = self.runner.started.popleft()
        task.move(START)
        producer = self.producer
        ended = False
        for _ in range(STEP_ITEMS):
            if not producer.may_yield:
                break
            if self.position == len(self.sizes):
                ended = True
                break
            size = self.sizes[self.position]
            self.position += 1
            producer.made(size)
            self.to_consumer.append(producer.sent(size))
        if not ended and producer.stopping:
            self.closed += 1
            ended = True
        if not ended:
            self.producers.paused(producer)
            return
        self.tessera.finished()
        producer.ended()
        self.producers.forget(UID)
        self.to_consumer.append("end")

    def hear(self) -> None:
        message = self.to_consumer.popleft()
        if message == "end":
            self.intake.ended()
            self.done = True
        else:
            self.intake.put(message, message)

    def credit(self) -> None:
        self.producers.credit(UID, self.to_producer.popleft())

    def take(self) -> None:
        item, owed = self.intake.take()
        self.taken.append(item)
        if owed and not self.done:
            self.to_producer.append(owed)

    def leave(self) -> None:
        self.left = True
        if self.intake.leave() and not self.done:
            self.to_producer.append(0)

    def check(self) -> None:
        out = sum(type(m) is int for m in self.to_consumer) + len(self.intake.items)
        assert out <= WINDOW_ITEMS
        waiting = self.sizes[len(self.taken) : len(self.taken) + out]
        if not self.left:
            assert sum(waiting[:-1]) < WINDOW_BYTES
        assert self.taken == list(range(len(self.taken)))


SIZES = st.lists(
    st.sampled_from([0, 1, WINDOW_BYTES // 3, WINDOW_BYTES, 2 * WINDOW_BYTES]),
    max_size=60,
)


@given(SIZES, st.data())
def test_every_item_arrives_once_and_in_order_whatever_the_timing(
    sizes: list[int], data: st.DataObject
) -> None:
    world = World(sizes)
    while events := world.events():
        world.do(data.draw(st.sampled_from(events)))
    assert world.done, "stuck"
    assert world.taken == list(range(len(sizes)))
    assert world.closed == 0
    assert world.tessera.active == 0


@given(SIZES, st.integers(0, 40), st.data())
def test_a_generator_whose_consumer_goes_is_closed_exactly_once(
    sizes: list[int], after: int, data: st.DataObject
) -> None:
    world = World(sizes)
    world.step()  # before the start it is cancelled like any call
    while events := world.events():
        if after == 0 and not world.left:
            world.do("leave")
        else:
            world.do(data.draw(st.sampled_from(events)))
        after -= 1
    assert world.done, "stuck"
    assert world.closed <= 1
    if world.position < len(sizes):
        assert world.closed == 1
    assert world.tessera.active == 0
