"""Ended calls that are put aside: what they take, and that nobody misses them.

In a ``World`` all that may be put aside is put aside at each tick, also in the random
programs of ``test_simulation``.
"""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from mosaic_like.comms import messages as wire
from mosaic_like.core.archive import TICKS, Archive
from mosaic_like.core.payloads import Arrived
from mosaic_like.core.task import DONE, FAILED, RUNNING, Task
from mosaic_like.core.tessera import Tessera
from mosaic_like.errors import ProtocolError
from mosaic_like.ids import uids

if TYPE_CHECKING:
    from simulation import Runtime, TaskProxy, TesseraProxy, World

ENTRY_BYTES = 205  # of one that is put aside, with its places in dicts


def add(runtime: Runtime, target: TesseraProxy, *arguments: TaskProxy) -> TaskProxy:
    return runtime.call(target, "co", "add", arguments)


@pytest.fixture
def counter(world: World, head: Runtime) -> TesseraProxy:
    counter = head.create(4)
    world.settle()
    return counter


@pytest.fixture
def ended(world: World, head: Runtime, counter: TesseraProxy) -> TaskProxy:
    """A call that was put aside where it ran."""
    task = add(head, counter)
    world.settle()
    assert task.uid in world.runtimes[4].worker.archive
    assert task.uid not in world.runtimes[4].worker.tasks
    return task


def test_one_that_is_put_aside_goes_with_its_proxy(
    world: World, head: Runtime, owner: Runtime, counter: TesseraProxy
) -> None:
    task = add(head, counter)
    world.settle()
    assert owner.worker.holders.counts(task.uid) == {(2, 2): 1}
    uid = task.uid
    del task
    world.settle()
    assert uid not in owner.worker.archive
    assert uid not in owner.worker.holders


@pytest.mark.parametrize("where", [4, 5])
def test_one_that_is_put_aside_is_an_argument_as_before(
    world: World, head: Runtime, ended: TaskProxy, where: int
) -> None:
    later = add(head, head.create(where), ended)
    world.settle()
    assert later.call.state == DONE


def test_a_call_that_takes_one_that_was_put_aside_here_finds_it(
    world: World,
    head: Runtime,
    owner: Runtime,
    counter: TesseraProxy,
    ended: TaskProxy,
) -> None:
    # As a runtime reads what mentions nothing but a task of its own: it is held by
    # being mentioned, and the counts are left alone.
    owner.arrived = (  # type: ignore[method-assign]  # for this one
        lambda message, buffers, sender: Arrived(message.data, (), (None,))
    )
    later = add(head, counter, ended)
    world.settle()
    assert later.call.state == DONE


def test_one_that_is_put_aside_is_told_to_who_asks(
    world: World, head: Runtime, owner: Runtime, ended: TaskProxy
) -> None:
    owner.worker.telling.subscribe(ended.uid, 5)
    owner.worker.telling.fetch(ended.uid, 5)
    told = [wire.decode(data)[0] for data in world.links[4, 5]]
    assert told == [
        wire.Done(ended.uid, ended.call.result),
        wire.Value(ended.uid, ended.call.result),
    ]
    world.links[4, 5].clear()


def test_one_that_is_shared_stays_until_only_its_maker_holds_it(
    owner: Runtime, ended: TaskProxy
) -> None:
    holders, uid = owner.worker.holders, ended.uid
    holders.retain(2, uid, 5)
    owner.tick()
    assert owner.worker.tasks[uid].shared
    assert uid not in owner.worker.archive
    assert holders.holders(uid) == {2, 5}
    holders.release_grants(5, [(uid, 2)])
    owner.tick()
    assert uid in owner.worker.archive
    assert holders.holders(uid) == {2}


def test_one_that_was_put_aside_outlives_its_maker_s_proxy_where_others_hold_it(
    owner: Runtime, ended: TaskProxy
) -> None:
    holders, uid = owner.worker.holders, ended.uid
    holders.retain(2, uid, 5)
    owner.worker.release(wire.Release([uid]), (), 2)
    owner.tick()
    found = owner.worker.find(uid)
    assert found is not None
    assert found.outcome == wire.Done(uid, ended.call.result)
    holders.release_grants(5, [(uid, 2)])
    assert owner.worker.find(uid) is None


def test_one_that_is_put_aside_cannot_be_cancelled(
    world: World, head: Runtime, owner: Runtime, ended: TaskProxy
) -> None:
    owner.worker.stopping.cancel(ended.uid, "late", 2)
    assert ended.uid in owner.worker.archive
    assert ended.uid not in owner.worker.tasks


def test_all_that_are_put_aside_go_with_their_maker(
    world: World, owner: Runtime, ended: TaskProxy
) -> None:
    world.crash(2)
    world.settle()
    assert not owner.worker.archive
    assert not owner.worker.tasks


def test_what_was_made_before_is_not_made_again(
    owner: Runtime, ended: TaskProxy
) -> None:
    free, options = ended.uid + 1, wire.Options("Object")
    for task, tessera in ((ended.uid, free), (free, ended.uid)):
        create = wire.Create(task, tessera, b"{}", b"{}", options)
        with pytest.raises(ProtocolError, match="made before"):
            owner.worker.lifecycle.check_create(create, 2)


# -- which, when, and how much work ----------------------------------------------------


def tasks_of(count: int) -> dict[int, Task]:
    """Calls as a worker has them: each brings its own bytes."""
    runner: Any = None  # nothing runs
    tessera = Tessera((2 << 40) + 1, 2, wire.Options("Object"), runner)
    number = uids(2)
    made = {}
    for _ in range(count):
        uid = next(number)
        made[uid] = Task(uid, 2, tessera, "add", bytes([78, 1, 2]))
    return made


def end(tasks: dict[int, Task]) -> None:
    for task in tasks.values():
        task.state = DONE
        task.outcome = wire.Done(task.uid, b"i%d" % (task.uid & 0xFFFF))


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("state", RUNNING),
        ("state", FAILED),
        ("outcome", wire.Failed(1, wire.ERROR, b"")),
        ("outcome", wire.Done(1, b"{}", wire.Extra(buffers=1))),
        ("size", 70_000),  # it stayed here
        ("shared", True),
        ("released", True),
        ("caller", 3),  # not who has made it
        ("method", "__init__"),
        ("extra", wire.Extra(kind=wire.STREAM)),
        ("extra", wire.Extra(retried=(1, 1))),
    ],
)
def test_what_has_more_to_tell_is_not_put_aside(attribute: str, value: object) -> None:
    tasks = tasks_of(1)
    end(tasks)
    (task,) = tasks.values()
    setattr(task, attribute, value)
    archive = Archive(tasks)
    assert not archive.put_aside(task)
    assert not archive
    assert tasks


def test_calls_with_options_are_put_aside_too() -> None:
    tasks = tasks_of(1)
    end(tasks)
    (task,) = tasks.values()
    task.extra = wire.Extra(ordered=False, timeout_s=1.0)
    archive = Archive(tasks)
    assert archive.put_aside(task)
    (back,) = archive.values()
    assert (back.uid, back.name, back.outcome) == (task.uid, task.name, task.outcome)


def test_none_is_put_aside_before_there_are_many() -> None:
    tasks = tasks_of(1000)
    end(tasks)
    archive = Archive(tasks)
    archive.least = 1000
    assert not archive.look()
    assert len(tasks) == 1000


def test_they_are_put_aside_in_portions_the_oldest_first() -> None:
    tasks = tasks_of(TICKS * 100)
    end(tasks)
    order = list(tasks)
    archive = Archive(tasks)
    archive.least = 1000
    looks = 0
    while archive.look():
        looks += 1
        assert list(archive) == order[: len(archive)]
    assert looks in (TICKS - 1, TICKS)
    assert not tasks


def test_what_has_not_ended_is_not_looked_at_again_for_each_that_comes() -> None:
    tasks = tasks_of(3000)
    first = dict(list(tasks.items())[:1000])
    archive = Archive(first)
    archive.least = 100
    while archive.look():
        pass
    for uid, task in list(tasks.items())[1000:1999]:
        first[uid] = task
        assert not archive.look()
    end(first)
    first |= dict(list(tasks.items())[1999:])
    while archive.look():
        pass
    assert len(archive) == 1999


def test_one_that_is_put_aside_takes_less_than_205_bytes() -> None:
    count = 1_000_000 >> 5  # a dict is as full as with a million
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tasks = tasks_of(count)
        end(tasks)
        archive = Archive(tasks)
        archive.least = 0
        as_tasks = tracemalloc.get_traced_memory()[0] - before
        while archive.look():
            pass
        tasks.clear()  # its places, which do not grow with those put aside
        each = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    assert len(archive) == count
    assert each < ENTRY_BYTES < as_tasks / count
