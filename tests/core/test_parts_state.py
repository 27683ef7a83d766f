"""Parts of large values: what is asked of their owner, and what becomes of it."""

from __future__ import annotations

import json

import pytest
from simulation import LARGE_PART, MISSING, Runtime, TaskProxy, TesseraProxy, World

from mosaic_like.comms import messages as wire
from mosaic_like.core.task import CANCELLED, DONE, FAILED


def receive(world: World, sender: int, to: int) -> list[object]:
    """Deliver what is on its way; what it was."""
    found = []
    while world.links[sender, to]:
        found += wire.decode(world.links[sender, to][0])
        world.runtimes[to].receive(sender)
    return found


def add(head: Runtime, target: TesseraProxy, task: TaskProxy, *keys: str) -> TaskProxy:
    """A call that takes only these parts of a task."""
    outputs = [(0, key) for key in keys]
    return head.call(target, "co", "add", (task,), outputs=outputs)


def ready(world: World, head: Runtime, *keys: str) -> tuple[TaskProxy, TaskProxy]:
    """A large value at 4, and a call at 5 that has just learned that it is there."""
    large = head.call(head.create(4), "co", "large")
    other = head.create(5)
    world.settle()
    taking = add(head, other, large, *keys)
    receive(world, 2, 5)
    receive(world, 5, 4)
    receive(world, 4, 5)
    return large, taking


def nothing_left(world: World, head: Runtime) -> None:
    head.made.clear()
    world.settle()
    assert [runtime.left_over() for runtime in world.live] == [{}] * len(world.live)


@pytest.mark.parametrize("keys", [("a",), ("a", "b"), (LARGE_PART,)])
def test_an_argument_is_asked_for_only_in_the_parts_that_are_taken(
    world: World, head: Runtime, keys: tuple[str, ...]
) -> None:
    large, taking = ready(world, head, *keys)
    asked = receive(world, 5, 4)
    (submit,) = [m for m in asked if type(m) is wire.Submit]
    assert submit.extra is not None
    assert submit.extra.kind == wire.PART
    assert json.loads(submit.data)["keys"] == list(keys)
    assert not any(type(m) is wire.Fetch for m in asked)
    world.settle()
    assert taking.call.state == DONE
    del large, taking
    nothing_left(world, head)


def test_who_takes_the_whole_beside_a_part_fetches_it(
    world: World, head: Runtime
) -> None:
    large = head.call(head.create(4), "co", "large")
    other = head.create(5)
    world.settle()
    taking = head.call(other, "co", "add", (large, other), outputs=[(1, "a")])
    receive(world, 2, 5)
    receive(world, 5, 4)
    receive(world, 4, 5)
    assert [type(m) for m in receive(world, 5, 4)] == [wire.Fetch]
    world.settle()
    assert taking.call.state == DONE


def test_a_part_that_is_not_there_fails_the_call_that_takes_it_alone(
    world: World, head: Runtime
) -> None:
    large, taking = ready(world, head, MISSING)
    world.settle()
    assert (taking.call.state, taking.call.result) == (FAILED, b"error")
    assert large.call.state == DONE
    del large, taking
    nothing_left(world, head)


def test_a_call_that_is_cancelled_while_its_part_is_picked_leaves_nothing(
    world: World, head: Runtime
) -> None:
    large, taking = ready(world, head, LARGE_PART)
    receive(world, 5, 4)
    head.cancel(taking)
    receive(world, 2, 5)
    world.settle()
    assert taking.call.state == CANCELLED
    del large, taking
    nothing_left(world, head)


def test_where_the_owner_cannot_pick_the_whole_is_fetched(
    world: World, head: Runtime
) -> None:
    large, taking = ready(world, head, "a")
    receive(world, 5, 4)
    owner = world.runtimes[4]
    (picking,) = (t for t in owner.worker.tasks.values() if t.method == "outputs")
    owner.worker.stopping.cancel(picking.uid, "no", 5)
    world.settle()
    assert taking.call.state == DONE
    del large, taking, picking
    nothing_left(world, head)


@pytest.mark.parametrize("asked", [False, True])
def test_an_owner_that_is_lost_meanwhile_fails_the_call(
    world: World, head: Runtime, asked: bool
) -> None:
    large, taking = ready(world, head, "a")
    if asked:
        receive(world, 5, 4)
    world.crash(4)
    world.settle()
    assert (taking.call.state, taking.call.result) == (FAILED, b"upstream")
    del large, taking
    nothing_left(world, head)
