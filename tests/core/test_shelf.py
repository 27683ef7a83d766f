"""The shelf of a warehouse: values, keys, and who has taken them, in every order.

Runtimes 2 and 3 make requests, 4 is the warehouse, 5 a worker that makes new values.
"""

from __future__ import annotations

import marshal
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import Payload, Proxy, Runtime, TaskProxy, World

from mosaic_like.comms import messages as wire
from mosaic_like.core.call import Call
from mosaic_like.core.payloads import Arrived
from mosaic_like.core.shelf import Shelf
from mosaic_like.core.task import CANCELLED, DONE, FAILED, PENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mosaic_like.core.task import Task

NONE = b"N"
CHOICES = st.binary(min_size=20, max_size=150)


class Keeper:
    """Keeps payloads as they came: here they are bytes, or only mention things."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # Of values that begin with "slow": where the rest will be, what to do then.
        self.coming: list[tuple[Arrived, Callable[[], None]]] = []

    def stored(self, message: wire.Submit, buffers: Any, sender: int) -> Any:
        assert message.extra is not None
        if message.data.startswith(b"slow"):
            arrived = Arrived(b"", message.data, size=1)
            arrived.shared = SimpleNamespace(why="")
            return arrived
        references = message.extra.references
        grants = self._runtime.grants.delivered(references, sender)
        return Payload(message.data, grants) if grants else message.data

    def locate(self, arrived: Arrived, then: Callable[[], None]) -> None:
        self.coming.append((arrived, then))

    def comes(self, why: str = "") -> None:
        """The rest of the value that is due next, or why there will be none."""
        arrived, then = self.coming.pop(0)
        arrived.size = bool(why)
        arrived.shared.why = why
        then()

    def passed_on(self, argument: Any) -> Any:
        result = argument.result
        if type(result) is Arrived:
            return Payload(result.data, result.grants)
        return result

    def publish(self, task: Task) -> None: ...

    def unpublish(self, uids: list[int]) -> None: ...


class Cluster:
    """A world with a warehouse and a worker whose methods make values."""

    def __init__(self) -> None:
        self.world = World(heads=2, workers=2)
        keeping = self.world.runtimes[4]
        self.keeper = Keeper(keeping)
        self.shelf = Shelf(self.keeper, keeping.worker, keeping)
        keeping.worker.shelf = self.shelf
        self.makers = {i: self.world.runtimes[i].create(5) for i in (2, 3)}
        ordinary = self.world.runtimes[5]._user_code

        def make(task: Task) -> Any:
            if b'"one more"' not in task.data:
                return ordinary(task)
            (before,) = (argument.result for argument in task.arguments)
            return str(1 if before == NONE else int(before) + 1).encode()

        self.world.runtimes[5]._user_code = make  # type: ignore[method-assign] # a fake

    def ask(
        self,
        kind: int,
        key: str,
        data: bytes = NONE,
        arguments: Iterable[Proxy] = (),
        by: int = 2,
        inside: Iterable[int] = (),
    ) -> TaskProxy:
        runtime = self.world.runtimes[by]
        call = Call(next(runtime.uids), runtime._foreign_stream(4), key, None, 0, 0.0)
        runtime._record(call)
        arguments = tuple(arguments)
        payload: Any = Payload(data, arguments) if arguments else data
        call.inside = list(inside) or None
        extra = wire.Extra(kind=kind)
        runtime.caller.submit(call, payload, extra, None)
        return TaskProxy(runtime, call)

    def exec(self, op: str = "one more", by: int = 2, key: str = "n") -> TaskProxy:
        runtime = self.world.runtimes[by]
        taken = self.ask(wire.TAKE_KEY, key, by=by)
        made = runtime.call(self.makers[by], "co", op, (taken,), ordered=False)
        data = marshal.dumps(taken.uid, 2)
        return self.ask(wire.REPLACE_KEY, key, data, (made, taken), by)

    def read(self, proxy: TaskProxy) -> Any:
        proxy.runtime.watch(proxy)
        self.settle()
        return proxy.call.result

    def move(self, choice: int) -> None:
        moves = self.world.moves()
        if moves:
            self.world.move(moves[choice % len(moves)])
            self.shelf.sweep()

    def settle(self) -> None:
        self.world.settle()
        self.shelf.sweep()
        while self.world.moves():  # what was swept has let others begin
            self.world.settle()
            self.shelf.sweep()

    def nothing_is_left(self) -> None:
        for runtime in self.world.live:
            runtime.made.clear()
        self.makers.clear()
        self.settle()
        assert [runtime.left_over() for runtime in self.world.live] == [
            {} for _ in self.world.live
        ]
        assert (self.shelf.keys, self.shelf.replacing) == ({}, {})


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_requests_wait_for_a_value_of_the_same_runtime_that_is_still_coming(
    cluster: Cluster,
) -> None:
    put = cluster.ask(wire.PUT_KEY, "n", b"slow")
    found = cluster.ask(wire.GET_KEY, "n")
    other = cluster.ask(wire.PUT, "put", b"slow too")
    small = cluster.ask(wire.PUT, "put", b"12")
    foreign = cluster.ask(wire.PUT, "put", b"34", by=3)
    cluster.settle()
    assert [t.call.state for t in (put, found, other, small)] == [PENDING] * 4
    assert cluster.read(foreign) == b"34"
    last = cluster.keeper.coming.pop()
    cluster.keeper.comes()
    assert cluster.read(put) == cluster.read(found) == b"slow"
    assert [t.call.state for t in (other, small)] == [PENDING] * 2
    cluster.keeper.coming.append(last)
    cluster.keeper.comes()
    assert cluster.read(other) == b"slow too"
    assert cluster.read(small) == b"12"
    drop = cluster.ask(wire.DROP_KEY, "n")
    cluster.settle()
    assert drop.call.state == DONE
    del put, found, other, small, foreign, drop
    cluster.nothing_is_left()


def test_a_value_that_never_comes_in_full_fails_and_lets_others_go(
    cluster: Cluster,
) -> None:
    put = cluster.ask(wire.PUT, "put", b"slow")
    small = cluster.ask(wire.PUT, "put", b"12")
    cluster.settle()
    cluster.keeper.comes("its maker is lost")
    cluster.settle()
    assert put.call.state == FAILED
    assert cluster.read(small) == b"12"
    del put, small
    cluster.nothing_is_left()


def test_a_put_that_is_cancelled_while_its_value_is_coming_lets_others_go(
    cluster: Cluster,
) -> None:
    unwanted: list[Arrived] = []
    cluster.world.runtimes[4].unwanted = unwanted.append  # type: ignore[method-assign,assignment]  # a fake
    put = cluster.ask(wire.PUT, "put", b"slow")
    small = cluster.ask(wire.PUT, "put", b"12")
    cluster.settle()
    put.runtime.caller.cancel(put.call, "not needed")
    cluster.settle()
    assert put.call.state == CANCELLED
    assert unwanted == [cluster.keeper.coming[0][0]]
    assert small.call.state == PENDING
    cluster.keeper.comes("nobody wants it any more")
    assert cluster.read(small) == b"12"
    del put, small
    cluster.nothing_is_left()


def test_a_put_is_kept_as_long_as_somebody_holds_it(cluster: Cluster) -> None:
    put = cluster.ask(wire.PUT, "put", b"12")
    cluster.settle()
    assert put.call.state == DONE
    assert cluster.read(put) == b"12"
    uid = put.uid
    assert uid in cluster.world.runtimes[4].worker.tasks
    del put
    cluster.settle()
    assert uid not in cluster.world.runtimes[4].worker.tasks
    cluster.nothing_is_left()


def test_a_put_that_is_an_argument_before_it_has_come_stands_for_its_value(
    cluster: Cluster,
) -> None:
    put = cluster.ask(wire.PUT, "put", b"12")
    head = cluster.world.runtimes[2]
    made = head.call(cluster.makers[2], "co", "one more", (put,))
    while cluster.world.links[2, 5]:  # the call comes first
        cluster.world.runtimes[5].receive(2)
    del put
    assert cluster.read(made) == b"13"
    del made
    cluster.nothing_is_left()


def test_a_value_holds_what_it_mentions(cluster: Cluster) -> None:
    inner = cluster.ask(wire.PUT, "put", b"1")
    outer = cluster.ask(wire.PUT, "put", b"{}", (inner,))
    uid = inner.uid
    del inner
    cluster.settle()
    assert uid in cluster.world.runtimes[4].worker.tasks
    del outer
    cluster.settle()
    assert uid not in cluster.world.runtimes[4].worker.tasks
    cluster.nothing_is_left()


def test_a_key_is_written_once(cluster: Cluster) -> None:
    first = cluster.ask(wire.PUT_KEY, "x", b"1")
    second = cluster.ask(wire.PUT_KEY, "x", b"2", by=3)
    cluster.settle()
    assert [first.call.state, second.call.state] == [DONE, FAILED]
    del first, second
    assert cluster.read(cluster.ask(wire.GET_KEY, "x")) == b"1"  # the key keeps it
    dropped = cluster.ask(wire.DROP_KEY, "x")
    again = cluster.ask(wire.PUT_KEY, "x", b"3")
    cluster.settle()
    assert [dropped.call.state, again.call.state] == [DONE, DONE]
    assert cluster.read(cluster.ask(wire.GET_KEY, "x", by=3)) == b"3"
    cluster.ask(wire.DROP_KEY, "x")
    del dropped, again
    cluster.nothing_is_left()


@pytest.mark.parametrize("kind", [wire.GET_KEY, wire.DROP_KEY])
def test_what_is_not_there_is_told_at_once(cluster: Cluster, kind: int) -> None:
    asked = cluster.ask(kind, "x")
    cluster.settle()
    assert asked.call.state == FAILED
    del asked
    cluster.nothing_is_left()


def test_a_value_that_was_read_outlives_its_key(cluster: Cluster) -> None:
    cluster.ask(wire.PUT_KEY, "x", b"1")
    found = cluster.ask(wire.GET_KEY, "x")
    cluster.ask(wire.DROP_KEY, "x")
    assert cluster.read(found) == b"1"
    del found
    cluster.nothing_is_left()


def test_a_value_that_is_dropped_is_gone_for_all_who_hold_it(cluster: Cluster) -> None:
    put = cluster.ask(wire.PUT, "put", b"1")
    cluster.settle()
    made = cluster.world.runtimes[2].call(cluster.makers[2], "co", "one more", (put,))
    dropped = cluster.ask(wire.DROP, "drop", marshal.dumps(put.uid, 2))
    again = cluster.ask(wire.DROP, "drop", marshal.dumps(12345, 2))
    while cluster.world.links[2, 4]:
        cluster.world.runtimes[4].receive(2)
    cluster.settle()
    assert [dropped.call.state, again.call.state] == [DONE, FAILED]
    assert made.call.state == FAILED
    cluster.read(put)
    assert put.call.state == FAILED
    del put, made, dropped, again
    cluster.nothing_is_left()


def test_execs_of_one_key_follow_each_other(cluster: Cluster) -> None:
    made = [cluster.exec(by=by) for by in (2, 3, 2, 3)]
    cluster.settle()
    assert sorted(int(cluster.read(m)) for m in made) == [1, 2, 3, 4]
    assert cluster.read(cluster.ask(wire.GET_KEY, "n")) == b"4"
    cluster.ask(wire.DROP_KEY, "n")
    made.clear()
    cluster.nothing_is_left()


def test_an_exec_that_fails_leaves_the_value_and_frees_the_key(
    cluster: Cluster,
) -> None:
    good, bad, after = cluster.exec(), cluster.exec("fail"), cluster.exec()
    cluster.settle()
    assert [t.call.state for t in (good, bad, after)] == [DONE, FAILED, DONE]
    assert bad.call.rare.reason == "error"  # told as its own failure
    assert cluster.read(after) == b"2"
    cluster.ask(wire.DROP_KEY, "n")
    del good, bad, after
    cluster.nothing_is_left()


def test_a_put_and_a_drop_wait_for_an_exec(cluster: Cluster) -> None:
    made = cluster.exec()
    put = cluster.ask(wire.PUT_KEY, "n", b"7", by=2)
    dropped = cluster.ask(wire.DROP_KEY, "n")
    again = cluster.ask(wire.PUT_KEY, "n", b"8")
    cluster.settle()
    states = [t.call.state for t in (made, put, dropped, again)]
    assert states == [DONE, FAILED, DONE, DONE]
    cluster.ask(wire.DROP_KEY, "n")
    del made, put, dropped, again
    cluster.nothing_is_left()


def test_a_key_that_was_taken_for_nothing_is_free_again(cluster: Cluster) -> None:
    taken = cluster.ask(wire.TAKE_KEY, "n")
    cluster.settle()
    after = cluster.exec(by=3)
    cluster.settle()
    assert after.call.state < DONE
    del taken  # its arguments could not travel
    cluster.settle()
    assert after.call.state == DONE
    cluster.ask(wire.DROP_KEY, "n")
    del after
    cluster.nothing_is_left()


@pytest.mark.parametrize("delivered", range(4))
def test_a_program_that_dies_in_an_exec_frees_the_key(
    cluster: Cluster, delivered: int
) -> None:
    cluster.settle()
    made = [cluster.exec(by=3), cluster.exec(by=3)]
    for _ in range(delivered):
        if cluster.world.links[3, 4]:
            cluster.world.runtimes[4].receive(3)
    cluster.world.crash(3)
    after = cluster.exec(by=2)
    cluster.settle()
    assert after.call.state == DONE
    cluster.ask(wire.DROP_KEY, "n")
    del made, after
    cluster.nothing_is_left()


def test_a_cancelled_exec_frees_the_key(cluster: Cluster) -> None:
    first, second = cluster.exec(), cluster.exec(by=3)
    for sender in (2, 3):
        while cluster.world.links[sender, 4]:
            cluster.world.runtimes[4].receive(sender)
    cluster.world.runtimes[2].cancel(first)
    cluster.settle()
    assert [first.call.state, second.call.state] == [CANCELLED, DONE]
    cluster.ask(wire.DROP_KEY, "n")
    del first, second
    cluster.nothing_is_left()


@pytest.mark.parametrize("kind", [wire.TAKE_KEY, wire.DROP_KEY, wire.PUT_KEY])
def test_what_would_wait_for_itself_is_refused(cluster: Cluster, kind: int) -> None:
    cluster.settle()
    made = cluster.exec()
    making = cluster.world.runtimes[2].call(cluster.makers[2], "co", "add").uid - 2
    while cluster.world.links[2, 4]:
        cluster.world.runtimes[4].receive(2)
    inner = cluster.ask(kind, "n", by=3, inside=[7, making])
    other = cluster.ask(kind, "n", by=3, inside=[7, making + 1000])
    while cluster.world.links[3, 4]:
        cluster.world.runtimes[4].receive(3)
    states = [
        cluster.world.runtimes[4].worker.tasks[proxy.uid].state
        for proxy in (inner, other)
    ]
    assert states == [FAILED, PENDING]
    cluster.settle()
    assert made.call.state == DONE
    del made, inner, other
    cluster.settle()
    cluster.ask(wire.DROP_KEY, "n")
    cluster.nothing_is_left()


def test_two_execs_that_wait_for_each_other_are_found(cluster: Cluster) -> None:
    cluster.settle()
    made = [cluster.exec(key="a"), cluster.exec(key="b")]
    uids = [
        uid
        for uid, call in cluster.world.runtimes[2].made.items()
        if call.method == "co"
    ]
    inner = [
        cluster.ask(wire.TAKE_KEY, "b", inside=[uids[0]]),
        cluster.ask(wire.TAKE_KEY, "a", inside=[uids[1]]),
    ]
    while cluster.world.links[2, 4]:
        cluster.world.runtimes[4].receive(2)
    tasks = cluster.world.runtimes[4].worker.tasks
    assert [tasks[proxy.uid].state for proxy in inner] == [PENDING, FAILED]
    del inner
    cluster.settle()
    assert all(proxy.call.state == DONE for proxy in made)
    for key in "ab":
        cluster.ask(wire.DROP_KEY, key)
    made.clear()
    cluster.nothing_is_left()


class _Draw:
    def __init__(self, choices: bytes) -> None:
        self._left = deque(choices)

    def __call__(self, count: int) -> int:
        return self._left.popleft() % count if self._left else 0

    def __bool__(self) -> bool:
        return bool(self._left)


@settings(max_examples=60, deadline=None)
@given(choices=CHOICES, lost=st.sampled_from([0, 0, 3, 5, 4]))
def test_in_every_order_each_exec_counts_once_and_no_key_stays_taken(
    choices: bytes, lost: int
) -> None:
    cluster = Cluster()
    world = cluster.world
    draw = _Draw(choices)
    execs: list[TaskProxy] = []
    others: list[TaskProxy] = []
    chosen: TaskProxy | None = None
    when = draw(60)
    for step in range(1000):
        if not draw:
            break
        if lost and step == when:
            world.crash(lost)
        by = 2 + draw(2)
        if by in world.crashed:
            by = 2
        what = draw(12)
        if what == 0:
            execs.append(cluster.exec(("one more", "one more", "fail")[draw(3)], by))
        elif what == 1:
            others.append(
                cluster.ask((wire.GET_KEY, wire.TAKE_KEY)[draw(2)], "n", by=by)
            )
        elif what == 2 and execs:
            chosen = execs[draw(len(execs))]
            if chosen.runtime.incarnation not in world.crashed:
                chosen.runtime.cancel(chosen)
        elif what == 3 and others:
            del others[draw(len(others))]
        elif what == 4:
            world.runtimes[by].tick()
        else:
            cluster.move(draw(256))
    others.clear()
    cluster.settle()
    alive = [t for t in execs if t.runtime.incarnation not in world.crashed]
    assert all(t.call.state >= DONE for t in alive), "nobody waits for ever"
    if 4 in world.crashed:
        return
    done = sum(t.call.state == DONE for t in alive)
    entry = cluster.shelf.keys.get("n")
    value = 0 if entry is None or entry.value is None else int(entry.value)
    if 3 in world.crashed:  # what became of its own is not known here
        assert value >= done
    else:
        assert value == done
    execs.clear()
    alive.clear()
    cluster.ask(wire.DROP_KEY, "n")
    del chosen
    cluster.nothing_is_left()
