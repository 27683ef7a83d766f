"""Deadlines, and what callers and owners do when one is over; no clock but the test's.

Runtimes 2 and 3 make calls, 4 and 5 own tesserae; see ``simulation.py``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.comms import messages as wire
from mosaic_like.core.limits import (
    GRACE_S,
    NUDGE_S,
    PATIENCE_S,
    Deadlines,
    Late,
    Limit,
    Limits,
    Pursuit,
    Step,
    interrupt_of,
    reason_of,
)
from mosaic_like.core.task import CANCELLED, DONE, FAILED, QUEUED, RUNNING, received
from mosaic_like.core.tessera import Tessera

if TYPE_CHECKING:
    from simulation import Runtime, TaskProxy, TesseraProxy, World

UIDS = st.integers(1, 8)
MOMENTS = st.floats(0, 100, allow_nan=False)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), UIDS, MOMENTS),
            st.tuples(st.just("drop"), UIDS, MOMENTS),
            st.tuples(st.just("due"), UIDS, MOMENTS),
        ),
        max_size=300,
    )
)
def test_deadlines_are_due_in_order_and_only_the_last_one_set(
    moves: list[tuple[str, int, float]],
) -> None:
    deadlines = Deadlines()
    model: dict[int, float] = {}
    for what, uid, at_s in moves:
        if what == "set":
            deadlines.set(uid, at_s)
            model[uid] = at_s
        elif what == "drop":
            deadlines.drop(uid)
            model.pop(uid, None)
        else:
            expected = sorted((at, u) for u, at in model.items() if at <= at_s)
            assert deadlines.due(at_s) == [u for _, u in expected]
            model = {u: at for u, at in model.items() if at > at_s}
        assert len(deadlines) == len(model)
        assert deadlines.first_s == (min(model.values()) if model else None)
        assert (uid in deadlines) == (uid in model)
        assert deadlines.get(uid) == model.get(uid)


def test_deadlines_that_were_kept_take_no_memory() -> None:
    deadlines = Deadlines()
    for uid in range(10_000):
        deadlines.set(uid, 1e9)
        deadlines.drop(uid)
    assert len(deadlines._heap) < 100


def test_a_call_is_nudged_until_it_is_given_up() -> None:
    pursuit = Pursuit()
    pursuit.begin(7, "enough", 10.0)
    pursuit.begin(7, "asked again", 10.2)
    assert pursuit.due(10.0 + NUDGE_S - 0.01) == []
    now_s, steps = 10.0, []
    while (first_s := pursuit.first_s) is not None:
        assert first_s > now_s
        now_s = first_s
        steps += pursuit.due(now_s)
    assert {uid for uid, _, _ in steps} == {7}
    assert {why for _, _, why in steps} == {"enough"}
    kinds = [step for _, step, _ in steps]
    assert kinds[-1] is Step.GIVE_UP
    assert set(kinds[:-1]) == {Step.NUDGE}
    assert now_s == pytest.approx(10.0 + PATIENCE_S)
    assert not len(pursuit)


def test_a_call_that_ended_is_not_pursued() -> None:
    pursuit = Pursuit()
    pursuit.begin(7, "", 0.0)
    pursuit.ended(7)
    assert pursuit.due(100.0) == []
    pursuit.begin(7, "", 200.0)  # such as its next attempt
    assert pursuit.due(200.0 + NUDGE_S) == [(7, Step.NUDGE, "")]


def test_a_caller_waits_longer_than_its_owner() -> None:
    assert NUDGE_S < GRACE_S < PATIENCE_S < GRACE_S + 1


@given(
    st.none() | st.floats(0.1, 10), st.none() | st.floats(0.1, 10), st.floats(0, 1e6)
)
def test_each_attempt_has_its_time_but_none_has_more_than_the_calls_around_it(
    attempt_s: float | None, left_s: float | None, now_s: float
) -> None:
    if attempt_s is None and left_s is None:
        return
    final_s = None if left_s is None else now_s + left_s
    limit = Limit(1, attempt_s, final_s, now_s)
    for later_s in (now_s, now_s + 3.0):
        limit.again(later_s)
        own_s = math.inf if attempt_s is None else later_s + attempt_s
        around_s = math.inf if final_s is None else final_s
        assert limit.deadline_s == min(own_s, around_s)
    assert not limit.why(now_s).final
    assert limit.why(now_s + 100).final == (left_s is not None)


def test_who_is_told_the_time_is_told_whose_it_was() -> None:
    assert "timeout=2" in Limit(1, 2.0, None, 0.0).why(2.0)
    assert "timeout=2" in Limit(1, 2.0, 50.0, 0.0).why(2.0)
    assert "timeout" not in Limit(1, 2.0, 1.0, 0.0).why(1.0)
    assert "timeout" not in Limit(1, None, 1.0, 0.0).why(1.0)


def test_the_limits_of_calls_that_ended_are_swept_out() -> None:
    open_ones: set[int] = set()
    limits = Limits(open_ones.__contains__)
    for uid in range(10_000):
        open_ones.add(uid)
        limits.add(Limit(uid, 1e6, None, 0.0))
        open_ones.discard(uid - 3)
    assert len(limits) < 200
    assert set(limits.by_uid) >= open_ones


def test_only_open_calls_are_late() -> None:
    open_ones = {1, 2}
    limits = Limits(open_ones.__contains__)
    for uid in (1, 2, 3):
        limits.add(Limit(uid, float(uid), None, 0.0))
    open_ones.discard(1)
    assert [limit.uid for limit in limits.due(5.0)] == [2]
    limits.again(2, 5.0)
    assert limits.first_s == 7.0
    assert limits.get(3) is None
    limits.again(3, 5.0)  # it is forgotten


def test_a_reason_is_a_cancel_unless_it_is_the_time() -> None:
    assert reason_of("enough") == reason_of(None) == wire.CANCELLED
    assert reason_of(Late("timeout=1")) == wire.TIMEOUT
    assert not Late("x").final
    assert Late("x", final=True).final


def test_a_call_says_how_it_is_stopped_else_its_tessera() -> None:
    options = wire.Options("Object", interrupt=wire.KILL_WORKER)
    tessera = Tessera(1, 2, options, None)  # type: ignore[arg-type] # nothing runs

    def of(extra: wire.Extra | None) -> int:
        return interrupt_of(received(wire.Submit(3, 1, 0, "m", b"", extra), 2, tessera))

    assert of(None) == of(wire.Extra()) == wire.KILL_WORKER
    assert of(wire.Extra(interrupt=wire.FLAG)) == wire.FLAG


# -- the states ------------------------------------------------------------------------


def add(runtime: Runtime, target: TesseraProxy, method: str = "plain") -> TaskProxy:
    return runtime.call(target, method, "add")


def receive(runtime: Runtime, sender: int) -> None:
    while world_links(runtime)[sender, runtime.incarnation]:
        runtime.receive(sender)


def world_links(runtime: Runtime) -> dict[tuple[int, int], object]:
    return runtime.world.links  # type: ignore[return-value] # only their truth counts


def ends(*tasks: TaskProxy) -> list[tuple[int, str | None]]:
    return [
        (t.call.state, None if t.call.rare is None else t.call.rare.reason)
        for t in tasks
    ]


@pytest.mark.parametrize(
    ("why", "end"), [("no", (CANCELLED, "cancelled")), (Late("x"), (FAILED, "timeout"))]
)
def test_a_call_in_the_queue_of_its_thread_ends_at_once_and_never_runs(
    world: World, head: Runtime, owner: Runtime, why: str, end: tuple[int, str]
) -> None:
    counter = head.create(4)
    world.settle()
    first, second = add(head, counter), add(head, counter)
    receive(owner, 2)
    owner.run(0)  # the first runs, the second stands behind it
    owner.worker.stopping.cancel(second.uid, why)
    receive(head, 4)
    assert ends(second) == [end]
    assert first.call.state < DONE
    third = add(head, counter)
    world.settle()
    assert world.objects[counter.uid].added == 2
    assert [t.call.state for t in (first, third)] == [DONE, DONE]


def test_a_call_that_its_thread_takes_while_it_is_settled_ends_once(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter, waiter = head.create(4), world.runtimes[5]
    world.settle()
    call = add(head, counter)
    receive(owner, 2)
    task = owner.main[0]
    owner.worker.stopping.cancel(call.uid, "no")
    # The thread had found it queued just before, and says so now.
    task.state = RUNNING
    owner.worker.telling.subscribe(call.uid, 5)  # and so it looks to who asks
    owner.main.popleft()
    owner.worker.failed(task, 6, wire.CANCELLED, b"cancelled")
    assert task.state == CANCELLED
    assert world.links[4, 5]  # it is told
    waiter.receive(4)
    world.settle()
    assert ends(call) == [(CANCELLED, "cancelled")]
    assert task.tessera.active == 0


@pytest.mark.parametrize("method", ["plain", "co"])
def test_what_does_not_stop_is_given_up_and_its_tessera_is_busy_until_it_returns(
    world: World, head: Runtime, owner: Runtime, method: str
) -> None:
    counter = head.create(4)
    world.settle()
    call, later = add(head, counter, method), add(head, counter, method)
    receive(owner, 2)
    owner.run(0)
    task = owner.worker.tasks[call.uid]
    outcome = owner.outcomes[id(task)]
    owner.worker.stopping.cancel(call.uid, "enough")
    owner.outcomes[id(task)] = outcome  # it goes on
    assert owner.worker.stopping.abandon(call.uid) is task
    receive(head, 4)
    assert ends(call) == [(CANCELLED, "cancelled")]
    assert task.tessera.active
    assert list(owner.worker.stopping.abandoned) == [call.uid]
    assert owner.worker.stopping.abandon(call.uid) is None
    world.settle()
    assert not owner.worker.stopping.abandoned
    assert ends(call) == [(CANCELLED, "cancelled")]
    assert later.call.state == DONE
    assert task.tessera.active == 0
    assert "finished" not in vars(owner.worker)


def test_a_construction_that_is_given_up_fails_its_calls_and_returns_in_vain(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    call = add(head, counter)
    receive(owner, 2)
    owner.run(0)
    (task,) = owner.main
    outcome = owner.outcomes[id(task)]
    owner.worker.stopping.cancel(task.uid, "enough")
    owner.outcomes[id(task)] = outcome
    assert owner.worker.stopping.abandon(task.uid) is task
    receive(head, 4)
    assert call.call.state == FAILED
    world.settle()
    assert not owner.worker.stopping.abandoned


def test_a_plain_method_that_returns_although_it_was_cancelled_is_cancelled(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    world.settle()
    call, other = add(head, counter), add(head, counter)
    receive(owner, 2)
    owner.run(0)
    task = owner.worker.tasks[call.uid]
    outcome = owner.outcomes[id(task)]
    owner.worker.stopping.cancel(call.uid, "enough")
    owner.outcomes[id(task)] = outcome
    world.settle()
    assert ends(call) == [(CANCELLED, "cancelled")]
    assert other.call.state == DONE
    assert "finished" not in vars(owner.worker)


def test_a_cancel_that_overtakes_the_call_is_kept_for_it(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    world.settle()
    first, second = add(head, counter, "co"), add(head, counter, "co")
    owner.worker.stopping.cancel(first.uid, "from another holder", 5)
    assert "submit_run" in vars(owner.worker)
    world.settle()
    assert ends(first) == [(CANCELLED, "cancelled")]
    assert second.call.state == DONE
    assert world.objects[counter.uid].added == 1
    assert not owner.worker._early_cancels
    assert "submit_run" not in vars(owner.worker)


def test_a_cancel_for_what_a_lost_runtime_did_not_send_is_forgotten(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    world.settle()
    call = add(head, counter)
    owner.worker.stopping.cancel(call.uid, "from another holder", 5)
    world.links[2, 4].clear()
    world.crash(2)
    world.settle()
    assert not owner.worker._early_cancels


def test_a_call_comes_with_its_time(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    world.settle()
    add(head, counter)
    receive(owner, 2)
    (task,) = owner.main
    assert task.state == QUEUED
    task.extra = wire.Extra(remaining_s=0.0)
    assert owner.worker.stopping.limit(task, 10.0) is None
    task.extra = wire.Extra(remaining_s=5.0, timeout_s=2.0)
    assert owner.worker.stopping.limit(task, 10.0) is not None
    owner.worker.stopping.late(11.9)
    assert not task.settled
    owner.worker.stopping.late(12.0)
    assert task.state == FAILED


def test_a_caller_whose_owner_is_silent_gives_up_and_counts_the_late_answer(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    world.settle()
    call = add(head, counter)
    credit = call.call.stream.credit
    head.caller.give_up(call.call, FAILED, wire.TIMEOUT, b"late")
    assert ends(call) == [(FAILED, "timeout")]
    assert call.call.stream.credit == credit
    world.settle()
    assert call.call.result == b"late"
    assert call.call.stream.credit == credit + 1
    assert not head.caller.given_up


def test_a_caller_forgets_what_a_lost_owner_will_never_answer(
    world: World, head: Runtime
) -> None:
    call = add(head, head.create(4))
    head.caller.give_up(call.call, CANCELLED, wire.CANCELLED, b"")
    world.crash(4)
    world.settle()
    assert not head.caller.given_up


def test_a_late_order_for_an_attempt_that_is_over_is_ignored(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    world.settle()
    call = add(head, counter)
    receive(owner, 2)
    owner.worker.stopping.on_cancel(wire.Cancel(call.uid, "t", wire.TIMEOUT, 1), 2, 2)
    (task,) = owner.main
    assert task.cancelled is None
    assert task.state == QUEUED
    owner.worker.stopping.on_cancel(wire.Cancel(call.uid, "t", wire.TIMEOUT, 2), 2, 2)
    assert task.state == FAILED


def test_another_attempt_takes_back_that_the_last_one_was_late_but_no_cancel(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    world.settle()
    calls = [add(head, counter, "co"), add(head, counter, "co")]
    receive(owner, 2)
    for call, why in zip(calls, (Late("t"), "no"), strict=True):
        owner.run(0)
        task = owner.worker.tasks[call.uid]
        outcome = owner.outcomes[id(task)]
        owner.worker.stopping.cancel(call.uid, why)
        owner.outcomes[id(task)] = outcome
        task.cancelled = None  # its thread goes on with the next attempt
        owner.worker.stopping.retrying(task, 2, 5.0)
        assert task.cancelled == (None if type(why) is Late else why)
        while owner.runnable and not task.settled:
            owner.run(0)
    world.settle()
    assert [c.call.state for c in calls] == [DONE, CANCELLED]


def test_the_calls_made_inside_some_are_found(head: Runtime, world: World) -> None:
    counter = head.create(4)
    world.settle()
    calls = [add(head, counter) for _ in range(3)]
    for call, parent in zip(calls, (11, 12, 11), strict=True):
        call.call.inside = [10, parent]
    assert {c.uid for c in head.caller.inside({11})} == {calls[0].uid, calls[2].uid}
    calls[2].call.method = "__close__"
    assert [c.uid for c in head.caller.inside({11})] == [calls[0].uid]
    world.settle()
    assert head.caller.inside({11, 12}) == []


def test_a_held_call_that_is_late_ends_here(world: World, head: Runtime) -> None:
    counter = head.create(4)
    counter.stream.credit = 0
    call = add(head, counter)
    head.caller.late(call.call, Late("timeout=1"), 1)
    assert ends(call) == [(FAILED, "timeout")]
    world.settle()
    assert world.objects[counter.uid].added == 0
