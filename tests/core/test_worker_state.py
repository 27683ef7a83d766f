"""The owner's side: construction, calls, arguments, ends and losses, case by case.

Runtimes 2 and 3 make calls, 4 and 5 own tesserae; nothing moves but by the test.
"""

from __future__ import annotations

import inspect
import itertools
import json
import re

import pytest
from simulation import LARGE, Runtime, TaskProxy, TesseraProxy, World

from mosaic_like import ids
from mosaic_like.comms import messages as wire
from mosaic_like.core.completion import BuiltAgain
from mosaic_like.core.task import CANCELLED, DONE, FAILED
from mosaic_like.core.tessera import TesseraState
from mosaic_like.runtimes.actor import ActorRuntime
from mosaic_like.runtimes.handling import Handling
from mosaic_like.runtimes.head import Head
from mosaic_like.runtimes.monitor import Monitor
from mosaic_like.runtimes.node import Node
from mosaic_like.runtimes.worker import Worker


def add(runtime: Runtime, target: TesseraProxy, *arguments: TaskProxy) -> TaskProxy:
    return runtime.call(target, "co", "add", arguments)


def receive(runtime: Runtime, sender: int) -> None:
    while runtime.world.links[sender, runtime.incarnation]:
        runtime.receive(sender)


def fail_construction(owner: Runtime) -> None:
    task = owner.main.popleft()
    task.move(2)
    owner.worker.lifecycle.not_built(task, b"no")


def ended(*tasks: TaskProxy) -> list[tuple[int, object]]:
    return [(task.call.state, task.call.result) for task in tasks]


def test_a_failed_construction_fails_what_is_queued_and_what_comes_later(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    queued = [add(head, counter) for _ in range(3)]
    receive(owner, 2)
    fail_construction(owner)
    later = add(head, counter)
    world.settle()
    assert ended(*queued, later) == [(FAILED, b"no")] * 4


def test_a_failed_construction_fails_the_unordered_call_that_lacks_an_argument(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter, other = head.create(4), head.create(4)
    value = add(head, other)
    waiting = head.call(counter, "co", "add", (value,), ordered=False)
    receive(owner, 2)
    fail_construction(owner)
    world.settle()
    assert ended(waiting) == [(FAILED, b"no")]


@pytest.mark.parametrize("where", [4, 5])
def test_a_failed_argument_of_a_construction_fails_it_and_its_calls(
    world: World, head: Runtime, where: int
) -> None:
    failed = head.call(head.create(4), "co", "fail")
    before = head.create(where, (failed,))
    early = add(head, before)
    world.settle()
    after = head.create(where, (failed,))  # known to have failed when it comes
    late = add(head, after)
    world.settle()
    assert [state for state, _ in ended(failed, early, late)] == [FAILED] * 3


def test_a_tessera_that_is_dropped_while_its_construction_waits_ends_its_calls(
    world: World, head: Runtime, owner: Runtime
) -> None:
    failed = head.call(head.create(5), "co", "fail")
    counter = head.create(4, (failed,))
    call = add(head, counter)
    del counter
    head.tick()
    receive(owner, 2)
    world.settle()
    assert call.call.state == FAILED
    del failed, call
    head.made.clear()
    world.settle()
    assert [r.left_over() for r in world.live] == [{}] * 4


@pytest.mark.parametrize("length", [3, 5000])
def test_a_failure_runs_through_a_chain_of_any_length_at_once(
    world: World, head: Runtime, length: int
) -> None:
    counter = head.create(4)
    first = head.call(counter, "co", "fail")
    chain = [first]
    for _ in range(length):
        chain.append(head.call(counter, "co", "add", (chain[-1],)))
    world.settle()
    assert {state for state, _ in ended(*chain)} == {FAILED}
    assert chain[-1].call.result == b"upstream"


def test_a_cancelled_argument_cancels_those_that_depend_on_it(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter, other = head.create(4), head.create(5)
    blocker = add(head, counter)
    first = add(head, counter)
    here, there = add(head, counter, first), add(head, other, first)
    receive(owner, 2)
    head.cancel(first)
    world.settle()
    assert [s for s, _ in ended(blocker, first, here, there)] == [
        DONE,
        CANCELLED,
        CANCELLED,
        CANCELLED,
    ]


def test_a_released_tessera_closes_after_the_call_that_waits_for_an_argument(
    world: World, head: Runtime, owner: Runtime
) -> None:
    value = add(head, head.create(5))
    call = add(head, head.create(4), value)
    world.tick_all()
    receive(owner, 2)
    world.settle()
    assert ended(call) == [(DONE, b"1")]


def test_a_close_waits_for_the_calls_of_others_that_lack_arguments(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    world.settle()
    value = add(head, head.create(5))
    waiting = add(head, counter, value)
    closing = head.call(counter, "co", "close", kind=wire.CLOSE)
    after = add(head, counter)
    world.settle()
    assert [s for s, _ in ended(waiting, closing, after)] == [DONE, DONE, FAILED]
    assert after.call.result == b"error"
    assert owner.worker.tesserae[counter.uid].state is TesseraState.STOPPED


def test_a_kill_ends_what_is_queued_waits_and_runs(
    world: World, head: Runtime, owner: Runtime
) -> None:
    next(head.uids)  # those with even uids are not asynchronous
    counter = head.create(4)
    world.settle()
    value = add(head, head.create(5))
    running, queued = add(head, counter), add(head, counter)
    waiting = add(head, counter, value)
    alone = head.call(counter, "co", "add", (value,), ordered=False)
    receive(owner, 2)
    owner.run(0)
    kill = head.call(counter, "co", "kill", kind=wire.KILL)
    receive(owner, 2)
    receive(head, 4)
    assert {s for s, _ in ended(queued, waiting, alone)} == {CANCELLED}
    world.settle()
    assert [s for s, _ in ended(running, kill)] == [CANCELLED, DONE]


def test_a_kill_of_a_tessera_that_is_closing_does_not_take_back_the_close(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    world.settle()
    running = add(head, counter)
    closing = head.call(counter, "co", "close", kind=wire.CLOSE)
    kill = head.call(counter, "co", "kill", kind=wire.KILL)
    receive(owner, 2)
    head.cancel(closing)
    world.settle()
    assert [s for s, _ in ended(running, closing, kill)] == [CANCELLED, DONE, FAILED]
    assert owner.worker.tesserae[counter.uid].state is TesseraState.STOPPED


def test_a_kill_ends_a_construction_that_lacks_an_argument(
    world: World, head: Runtime, owner: Runtime
) -> None:
    value = add(head, head.create(5))
    counter = head.create(4, (value,))
    call = add(head, counter)
    head.call(counter, "co", "kill", kind=wire.KILL)
    receive(owner, 2)
    receive(head, 4)
    assert call.call.settled
    assert owner.worker.tesserae[counter.uid].state is TesseraState.FAILED
    later = add(head, counter)
    again = head.call(counter, "co", "kill", kind=wire.KILL)
    world.settle()
    assert [s for s, _ in ended(later, again)] == [FAILED, FAILED]
    gone = wire.REASONS[wire.GONE].encode()
    assert [later.call.result, again.call.result] == [gone, gone]


def test_calls_for_a_tessera_that_has_not_come_yet_wait_for_it(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    other = head.create(5)
    relay = head.call(other, "co", "relay", (counter,))
    receive(world.runtimes[5], 2)
    world.runtimes[5].run(0)
    while world.runtimes[5].runnable:
        world.runtimes[5].run(0)
    receive(owner, 5)
    assert owner.left_over().keys() == {"parked", "holders"}
    world.settle()
    assert relay.call.state == DONE
    assert world.objects[counter.uid].added == 1


def test_a_parked_call_that_is_cancelled_never_runs(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    other = world.runtimes[3]
    other.streams[counter.uid] = counter.stream  # as if it had been passed there
    stream = type(counter.stream)(counter.uid, "Object")
    other.caller.placed(stream, other.boxes[4])
    proxy = TesseraProxy(other, counter.uid, stream, None)
    first, second = add(other, proxy), add(other, proxy)
    other.cancel(first)
    receive(owner, 3)
    world.settle()
    assert [s for s, _ in ended(first, second)] == [CANCELLED, DONE]
    assert world.objects[counter.uid].added == 1


def test_parked_calls_end_when_the_maker_is_lost(world: World) -> None:
    maker, owner, other = (world.runtimes[i] for i in (2, 4, 5))
    counter = maker.create(4)
    tessera = maker.create(5)
    maker.call(tessera, "co", "relay", (counter,))
    receive(other, 2)
    while other.runnable:
        other.run(0)
    world.links[2, 4].clear()
    world.crash(2)
    world.settle()
    assert owner.left_over() == {}
    assert all(call.settled for call in other.made.values())


def test_who_waits_for_a_call_that_a_lost_caller_did_not_send_learns_it(
    world: World,
) -> None:
    maker, waiter = world.runtimes[2], world.runtimes[5]
    counter, other = maker.create(4), maker.create(5)
    world.settle()
    call = add(maker, counter)
    dependent = add(maker, other, call)
    receive(waiter, 2)
    receive(world.runtimes[4], 5)  # the question is there before the call
    world.links[2, 4].clear()
    world.crash(2)
    world.settle()
    assert dependent.call.uid not in waiter.worker._dependents
    assert world.runtimes[4].left_over().keys() <= {"tesserae", "holders"}
    assert not waiter.caller.asking.awaited


def test_a_question_about_a_call_of_a_lost_caller_is_answered(world: World) -> None:
    world.crash(2)
    owner = world.runtimes[4]
    owner.lose(2)
    owner.worker.telling.subscribe((2 << 40) + 7, 5)
    receive(world.runtimes[5], 4)
    assert "subscribers" not in owner.left_over()


def test_a_call_that_is_released_before_its_end_is_forgotten_at_its_end(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    world.settle()
    call = add(head, counter)
    receive(owner, 2)
    uid = call.uid
    owner.worker.release(wire.Release([uid]), (), 2)
    assert owner.worker.tasks[uid].released
    world.settle()
    assert uid not in owner.worker.tasks
    assert ended(call)[0][0] == DONE


def test_an_end_is_told_to_who_asked_and_dropped_it_before(
    world: World, head: Runtime
) -> None:
    counter, other = head.create(4), head.create(5)
    world.settle()
    call = add(head, counter)
    dependent = add(head, other, call)
    receive(world.runtimes[5], 2)
    receive(world.runtimes[4], 5)
    head.cancel(dependent)
    receive(world.runtimes[5], 2)
    receive(head, 5)
    del call, dependent
    head.made.clear()
    world.settle()
    tables = [world.runtimes[i].left_over().keys() for i in (4, 5)]
    assert all(keys <= {"tesserae", "holders"} for keys in tables)


def test_a_large_result_stays_until_it_is_asked_for(
    world: World, head: Runtime, owner: Runtime
) -> None:
    task = head.call(head.create(4), "co", "large")
    world.settle()
    assert task.call.result.size == LARGE
    head.watch(task)
    head.watch(task)
    world.settle()
    assert json.loads(task.call.result) == {}
    assert not head.caller.asking.fetching


def test_a_large_result_goes_from_worker_to_worker(world: World, head: Runtime) -> None:
    large = head.call(head.create(4), "co", "large")
    other = head.create(5)
    calls = [add(head, other, large) for _ in range(2)]
    world.settle()
    assert [s for s, _ in ended(*calls)] == [DONE, DONE]
    assert large.call.result.size == LARGE, "the head has not got it"


def test_a_call_out_of_its_number_fails_alone(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    world.settle()
    counter.stream.number = 5
    wrong = add(head, counter)
    world.settle()
    assert wrong.call.state == FAILED


MEMBERSHIP = {"Welcome", "Refused", "Joined", "Lost", "Stop"}
ACTORS = {
    *("Create", "Submit", "Done", "Failed", "Cancel", "Running", "Subscribe"),
    *("Fetch", "Value", "Item", "Credit", "Release", "ReleaseGrants", "Retain"),
    *("Holding", "LossSeen", "Define", "Quiesce", "Quiet", "Waiting"),
    "Circle",
}


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        (Head, MEMBERSHIP | ACTORS | {"Output", "Stopped"}),
        (Worker, MEMBERSHIP | ACTORS),
        (Node, MEMBERSHIP | {"Stopped"}),
        (Monitor, MEMBERSHIP | {"Hello", "Exited", "Stopped"}),
    ],
)
def test_each_message_that_a_runtime_may_get_has_a_handler(
    runtime: type, expected: set[str]
) -> None:
    handled: set[str] = set()
    table = [Handling] if issubclass(runtime, ActorRuntime) else []
    for cls in [*runtime.__mro__[:-1], *table]:
        source = inspect.getsource(cls)
        handled.update(re.findall(r"wire\.(\w+): ", source))
        handled.update(re.findall(r"handlers\[wire\.(\w+)\]", source))
    assert expected <= handled


def test_every_message_is_for_somebody() -> None:
    known = {kind.__name__ for kind in wire.AnyMessage.__args__}
    rest = {"Output", "Stopped", "Hello", "Exited", "Interrupt"}
    copies = {"Copy", "Uncopy", "Copied"}  # see Copies
    segments = {"Adopt", "Locate", "Returned", "Located"}  # see Keeper and Sharing
    segments |= {"Ledger", "Spilled"}
    memory = {"AskMemory", "MemoryOf", "Waits"}  # see Inventory and Admitting
    names = {"Claim", "Claimed", "Named", "Unnamed", "Share", "Shared"}
    names |= {"AskNames", "Names"}  # see NameTable
    chunks = {"Chunk", "Taken", "Unwanted"}  # see Transfers
    leaving = {"Drain", "Leaving", "LeavingSeen"}  # see core.leaving
    leaving |= {"Inherit", "HeldBy", "Inherited"}
    functions = {"Learn", "Recall", "Recalled"}  # see tasks.host and Recalls
    functions |= {"Ran", "Again", "Ending"}
    functions |= {"Still", "Helped"}  # see Standstill and Helping
    functions |= {"Transform"}  # see runtimes.transforming
    restarts = {"Find", "Moved", "Ended", "Closed"}  # see core.restarts
    restarts |= {"Seek", "Keep", "Resent"}  # see Seeking
    restarts |= {"Save", "Saved"}  # see Saving
    restarts |= {"Retire", "Retired", "Bind", "Broke", "Unbound"}  # see core.bonds
    slots = {"TakeSlots", "TakenSlots", "FreeSlots", "SetLimit"}  # see SlotTable
    assert known == (
        (MEMBERSHIP | ACTORS | rest | copies | segments | names | memory | chunks)
        | leaving
        | functions
        | restarts
        | slots
        | {"Beat", "SeenBy"}
    )


def test_callers_of_a_life_that_is_built_again_hear_of_it_where_its_home_is_lost(
    world: World, head: Runtime, owner: Runtime
) -> None:
    counter = head.create(4)
    world.settle()
    first, late, later = itertools.islice(ids.uids(3), 3)
    told = world.links[4, 3]

    def call(uid: int, number: int) -> None:
        message = wire.Submit(uid, counter.uid, number, "add", b"")
        owner.worker.submit(message, (), 3)

    lifecycle = owner.worker.lifecycle
    owner.worker.tesserae[counter.uid].instance = None  # nothing starts
    call(first, 0)
    lifecycle.end(counter.uid, BuiltAgain("why"))
    call(late, 1)
    assert not told  # its home says what becomes of them
    owner.lose(2)
    call(later, 2)
    messages = [message for data in told for message in wire.decode(data)]
    ends = [each.uid for each in messages if isinstance(each, wire.Failed)]
    assert ends == [first, late, later]


def test_a_call_that_has_ended_keeps_its_arguments_no_longer(
    world: World, head: Runtime
) -> None:
    world.puts_aside = False
    counter = head.create(4)
    plain, loop = (head.call(counter, m, "add") for m in ("plain", "co"))
    failing = head.call(counter, "co", "fail")
    world.settle()
    tasks = world.runtimes[4].worker.tasks
    assert [tasks[call.uid].data for call in (plain, loop, failing)] == [b""] * 3
