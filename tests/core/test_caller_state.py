"""The caller's side: credits, what is held back, cancel, loss and values."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from simulation import Payload, Runtime, TaskProxy, TesseraProxy, World

from mosaic_like.comms import messages as wire
from mosaic_like.core.call import CALL_CREDIT, Call, Stream
from mosaic_like.core.sending import BYTE_CREDIT
from mosaic_like.core.task import CANCELLED, DONE, FAILED

if TYPE_CHECKING:
    from collections.abc import Iterator

MiB = 1 << 20


@pytest.fixture
def world() -> World:
    return World(heads=1, workers=2)


def on_the_way(world: World, to: int) -> list[object]:
    return [wire.decode(data)[0] for data in world.links[2, to]]


def submits(world: World, to: int) -> list[int]:
    return [m.uid for m in on_the_way(world, to) if isinstance(m, wire.Submit)]


def add(
    head: Runtime,
    target: TesseraProxy,
    *arguments: TaskProxy | TesseraProxy,
    nbytes: int | None = None,
) -> TaskProxy:
    return head.call(target, "co", "add", arguments, nbytes=nbytes)


def unplaced(head: Runtime) -> TesseraProxy:
    uid = next(head.uids)
    stream = head.streams[uid] = Stream(uid, "Object")
    return TesseraProxy(head, uid, stream, None)


def place(head: Runtime, proxy: TesseraProxy, where: int) -> None:
    call = Call(next(head.uids), proxy.stream, "__init__", None, 0, 0.0)
    head.caller.placed(proxy.stream, head.boxes[where])
    head.caller.create(call, b"c", Payload(b"{}"), wire.Options("Object"), None)
    head.caller.held.release(proxy.stream)
    head.dropped.append(call)


def test_calls_past_the_credit_are_held_and_keep_their_order(
    world: World, head: Runtime
) -> None:
    counter = head.create(3)
    world.settle()
    assert counter.stream.credit == CALL_CREDIT, "the construction gave its own back"
    tasks = [head.call(counter, "plain", "add") for _ in range(CALL_CREDIT + 50)]
    assert len(submits(world, 3)) == CALL_CREDIT
    assert len(counter.stream.held) == 50
    world.settle()
    assert [int(t.call.result) for t in tasks] == list(range(1, CALL_CREDIT + 51))
    assert counter.stream.credit == CALL_CREDIT
    assert not counter.stream.held


def test_a_failure_gives_its_credit_back(world: World, head: Runtime) -> None:
    counter = head.create(3)
    tasks = [head.call(counter, "co", "fail") for _ in range(3)]
    world.settle()
    assert {t.call.state for t in tasks} == {FAILED}
    assert counter.stream.credit == CALL_CREDIT


def test_arguments_past_the_byte_credit_are_held(world: World, head: Runtime) -> None:
    counter = head.create(3)
    tasks = [add(head, counter, nbytes=100 * MiB) for _ in range(4)]
    small = add(head, counter)
    assert submits(world, 3) == [t.uid for t in tasks[:2]]
    world.settle()
    assert [int(t.call.result) for t in [*tasks, small]] == [1, 2, 3, 4, 5]
    assert head.boxes[3].bytes_out == 0


def test_a_call_larger_than_the_credit_goes_alone(world: World, head: Runtime) -> None:
    counter = head.create(3)
    first = add(head, counter, nbytes=MiB)
    huge = add(head, counter, nbytes=2 * BYTE_CREDIT)
    after = add(head, counter, nbytes=MiB)
    assert submits(world, 3) == [first.uid]
    while first.call.state != DONE:
        world.move(world.moves()[0])
    assert submits(world, 3) == [huge.uid]
    world.settle()
    assert [int(t.call.result) for t in (first, huge, after)] == [1, 2, 3]


def test_bytes_that_one_stream_frees_are_used_by_another(
    world: World, head: Runtime
) -> None:
    one, two = head.create(3), head.create(3)
    first = add(head, one, nbytes=200 * MiB)
    second = add(head, two, nbytes=100 * MiB)
    assert submits(world, 3) == [first.uid]
    world.settle()
    assert [t.call.state for t in (first, second)] == [DONE, DONE]


def test_cancelling_the_large_first_lets_the_next_one_go(
    world: World, head: Runtime
) -> None:
    one, two = head.create(3), head.create(3)
    add(head, one, nbytes=200 * MiB)
    large, small = add(head, two, nbytes=100 * MiB), add(head, two)
    head.cancel(large)
    assert small.uid in submits(world, 3)


def test_calls_to_a_tessera_without_a_place_are_held_in_order(
    world: World, head: Runtime
) -> None:
    proxy = unplaced(head)
    tasks = [add(head, proxy) for _ in range(3)]
    assert submits(world, 3) == []
    place(head, proxy, 3)
    world.settle()
    assert [int(t.call.result) for t in tasks] == [1, 2, 3]


def test_a_call_that_mentions_a_tessera_without_a_place_goes_when_it_has_one(
    world: World, head: Runtime
) -> None:
    target, mentioned = head.create(3), unplaced(head)
    task = add(head, target, mentioned)
    after = add(head, target)
    world.settle()
    assert not task.call.settled
    place(head, mentioned, 4)
    world.settle()
    assert [int(t.call.result) for t in (task, after)] == [1, 2]


def test_a_held_call_that_is_cancelled_ends_at_once_and_never_goes(
    world: World, head: Runtime
) -> None:
    proxy = unplaced(head)
    first, second, third = (add(head, proxy) for _ in range(3))
    head.cancel(second)
    assert second.call.state == CANCELLED
    place(head, proxy, 3)
    world.settle()
    assert [int(t.call.result) for t in (first, third)] == [1, 2]
    assert head.ends[second.uid] == 1


class Line(deque[Any]):
    """Of held calls; nobody may go along it."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("one is looked for in all of them")


@pytest.mark.parametrize("step", [1, -1])
def test_calls_are_cancelled_in_any_order_without_going_along_all_that_are_held(
    world: World, head: Runtime, step: int
) -> None:
    counter = head.create(3)
    world.settle()
    counter.stream.credit = 5
    tasks = [add(head, counter) for _ in range(20)]
    counter.stream.held = Line(counter.stream.held)
    for task in tasks[::step][:10]:
        head.cancel(task)
    assert len(counter.stream.held) == (10 if step == 1 else 5)
    world.settle()
    states = [task.call.state for task in tasks[::step]]
    assert states == [CANCELLED] * 10 + [DONE] * 10


@pytest.mark.parametrize("placed_before", [False, True])
def test_a_kill_goes_past_calls_that_are_held_and_ends_them(
    world: World, head: Runtime, placed_before: bool
) -> None:
    proxy = unplaced(head)
    if placed_before:
        place(head, proxy, 3)
        world.settle()
        proxy.stream.credit = 2
    tasks = [add(head, proxy) for _ in range(5)]
    killed = head.call(proxy, "co", "", kind=wire.KILL)
    assert [task.call.state for task in tasks[2:]] == [CANCELLED] * 3
    if placed_before:
        assert submits(world, 3) == [t.uid for t in (*tasks[:2], killed)]
    else:
        place(head, proxy, 3)
    world.settle()
    assert [task.call.state for task in tasks] == [CANCELLED] * 5
    assert killed.call.settled


def test_nobody_is_told_of_a_held_call_that_is_cancelled_before_it_is_mentioned(
    world: World, head: Runtime
) -> None:
    counter = head.create(3)
    world.settle()
    counter.stream.credit = 0
    held = add(head, counter)
    head.cancel(held)
    assert not on_the_way(world, 3)
    assert head.ends[held.uid] == 1
    del held, counter
    world.settle()
    assert [r.left_over() for r in world.live] == [{}] * 3


@pytest.mark.parametrize("placed_before", [False, True])
def test_who_waits_for_a_held_call_that_is_cancelled_learns_it(
    world: World, head: Runtime, placed_before: bool
) -> None:
    proxy, other = unplaced(head), head.create(4)
    if placed_before:
        place(head, proxy, 3)
        world.settle()
        proxy.stream.credit = 0
    held = add(head, proxy)
    dependent = add(head, other, held)
    if placed_before:
        world.settle()
    head.cancel(held)
    if not placed_before:
        place(head, proxy, 3)
    world.settle()
    assert dependent.call.state == CANCELLED
    del held, dependent, proxy, other
    head.made.clear()
    world.settle()
    assert [r.left_over() for r in world.live] == [{}] * 3


def test_a_held_call_keeps_its_target_and_arguments_alive(
    world: World, head: Runtime
) -> None:
    counter, argument = head.create(3), head.create(4)
    world.settle()
    counter.stream.credit = 0
    task = add(head, counter, argument)
    stream = counter.stream
    uids = (counter.uid, argument.uid)
    del counter, argument
    world.settle()
    assert uids[0] in world.runtimes[3].worker.tesserae
    assert uids[1] in world.runtimes[4].worker.tesserae
    stream.credit = CALL_CREDIT
    head.caller.held.release(stream)
    world.settle()
    assert task.call.state == DONE


def test_a_held_call_whose_proxy_is_dropped_goes_and_is_forgotten(
    world: World, head: Runtime
) -> None:
    counter = unplaced(head)
    add(head, counter)
    head.tick()
    place(head, counter, 3)
    world.settle()
    assert world.objects[counter.uid].added == 1
    assert world.runtimes[3].worker.tasks.keys() <= {counter.uid + 2}


def test_a_lost_runtime_ends_all_that_it_had_to_answer(
    world: World, head: Runtime
) -> None:
    counter, other = head.create(3), head.create(4)
    large = head.call(counter, "co", "large")
    relay = head.call(other, "co", "relay", (counter,))
    world.settle()
    (awaited,) = head.values(relay)
    assert isinstance(awaited, TaskProxy)
    sent = [add(head, counter) for _ in range(3)]
    counter.stream.credit = 0
    held = [add(head, counter) for _ in range(3)]
    head.watch(large)
    world.links[3, 2].clear()
    awaited_again = head.call(other, "co", "keep", (sent[0],))
    head.watch(awaited)
    world.crash(3)
    world.settle()
    after = add(head, counter)
    for task in (*sent, *held, large, awaited, after):
        assert (task.call.state, task.call.result) == (FAILED, b"lost")
    assert awaited_again.call.state == FAILED
    assert not head.caller.calls
    assert not head.caller.asking.awaited
    assert not head.caller.asking.fetching
    assert not counter.stream.held


def test_a_task_of_an_owner_that_is_not_announced_yet_is_awaited(
    world: World, head: Runtime
) -> None:
    other = head.create(4)
    counter = head.create(3)
    relay = head.call(other, "co", "relay", (counter,))
    world.settle()
    box = head.boxes[3]
    stream = head.foreign[3] = type(counter.stream)(0, "task")
    stream.owner = 3
    (task,) = _with_stream(head, relay, stream)
    head.watch(task)
    assert not task.call.settled
    head.caller.placed(stream, box)
    world.settle()
    assert task.call.state == DONE


def _with_stream(head: Runtime, relay: TaskProxy, stream: Stream) -> list[TaskProxy]:
    found = [p for p in head.values(relay) if isinstance(p, TaskProxy)]
    for proxy in found:
        proxy.call.stream = stream
        stream.outbox = None
        stream.error = None
    return found


def test_a_value_that_is_gone_ends_who_fetches_it(world: World, head: Runtime) -> None:
    task = head.call(head.create(3), "co", "large")
    world.settle()
    del world.runtimes[3].worker.tasks[task.uid]
    head.watch(task)
    world.settle()
    assert task.call.state == FAILED
    assert not head.caller.asking.fetching


def test_who_waits_for_credit_is_told(world: World, head: Runtime) -> None:
    counter = head.create(3)
    counter.stream.credit = 1
    told: list[int] = []
    for _ in range(3):
        add(head, counter)
    counter.stream.watchers = [lambda: told.append(1)]
    world.settle()
    assert told == [1]
