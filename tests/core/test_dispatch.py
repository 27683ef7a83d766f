"""Which function task goes where: every task runs once, whatever comes in between."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.comms.messages import TASK, Cancel, Done, Submit
from mosaic_like.core.call import Call, Stream
from mosaic_like.core.caller import CallerState
from mosaic_like.core.dispatch import FunctionQueue
from mosaic_like.core.locality import NEAR_BYTES
from mosaic_like.core.payloads import Arrived
from mosaic_like.core.reclaiming import SHUN_S, STUCK_S
from mosaic_like.core.task import CANCELLED, DONE, FAILED
from mosaic_like.core.window import LEAST_WINDOW, Entry, Window

if TYPE_CHECKING:
    from collections.abc import Callable


class Worker:
    """What a worker has of the tasks of one submitter; it runs the first."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.bytes_out = 0
        self.shares_memory = False
        self.inbox: deque[int] = deque()
        self.is_running = False
        self.is_alive = True

    def send(self, message: Any, payload: Any = None) -> None:
        assert self.is_alive
        if type(message) is Submit:
            self.inbox.append(message.uid)
        else:
            assert type(message) is Cancel

    def send_ends(self, messages: list[Any]) -> None:
        raise AssertionError("it makes no calls")


class Mention:
    """A task among the arguments of another."""

    kind = TASK

    def __init__(self, call: Call) -> None:
        self.proxy = SimpleNamespace(_call=call)

    @property
    def uid(self) -> int:
        return int(self.proxy._call.uid)

    @property
    def owner(self) -> int:
        return int(self.proxy._call.stream.owner)


class Payload:
    """The arguments of a call that takes tasks."""

    def __init__(self, *calls: Call) -> None:
        self.handles = tuple(map(Mention, calls))
        self.data = b"x"
        self.nbytes = 1
        self.definitions = ()
        self.buffers = ()
        self.outputs = ()
        self.shared = None


class World:
    """A submitter and its workers; nothing happens by itself."""

    def __init__(self, workers: int = 2, *, overlaps: bool = False) -> None:
        self.caller = CallerState(self)  # type: ignore[arg-type]  # what is needed of a Caller
        self.queue = FunctionQueue(self, self.caller, overlaps=overlaps)
        self.workers: dict[int, Worker] = {}
        self.windows: dict[int, Window] = {}
        self.asked: list[tuple[int, list[int]]] = []
        self.calls: list[Call] = []
        self.ran: list[int] = []
        self.blocked = 0
        self.now_s = 100.0
        for _ in range(workers):
            self.join()

    # -- events ------------------------------------------------------------------------

    def join(self) -> Worker:
        worker = Worker(len(self.workers) + 1)
        self.workers[worker.incarnation] = worker
        stream = Stream(1000 + worker.incarnation, "task")
        stream.owner = worker.incarnation
        stream.outbox = worker  # type: ignore[assignment]  # what is needed of an Outbox
        window = self.queue.open(worker.incarnation, stream)
        self.windows[worker.incarnation] = window
        self.queue.dispatch()
        return worker

    def submit(self, *arguments: Call) -> Call:
        call = Call(len(self.calls) + 1, self.queue.unplaced, "f", None, 0, self.now_s)
        self.calls.append(call)
        payload: Any = Payload(*arguments) if arguments else b"\x00"
        self.caller.submit(call, payload, None, None)
        return call

    def run_next(self, worker: Worker) -> None:
        """It ends what it runs, and takes up the next."""
        if worker.is_alive and worker.inbox:
            uid = worker.inbox.popleft()
            self.ran.append(uid)
            self.caller.now_s = self.now_s
            self.caller.done(Done(uid, b"N"), (), worker.incarnation)
            self.caller.held.release_credited()

    def look(self, after_s: float = STUCK_S * 2) -> None:
        self.now_s += after_s
        self.queue.look(self.now_s)

    def answer(self, *, first_runs: bool = True) -> None:
        """Workers answer what they were asked."""
        for owner, uids in self.asked:
            worker = self.workers[owner]
            running = worker.inbox[0] if worker.inbox and first_runs else 0
            taken = {uid for uid in uids if uid in worker.inbox and uid != running}
            worker.inbox = deque(uid for uid in worker.inbox if uid not in taken)
            if worker.is_alive:
                self.queue.reclaiming.given_back(owner, uids, taken)
        self.asked = []

    def lose(self, worker: Worker) -> None:
        worker.is_alive = False
        window = self.windows[worker.incarnation]
        running = list(worker.inbox)[:1]
        self.lost_running = running
        self.caller.stream_failed(window.stream, "lost")
        self.caller.lost(worker.incarnation, "lost")
        self.queue.close(window)
        worker.inbox.clear()

    def held_by(self, incarnation: int) -> list[int]:
        return list(self.workers[incarnation].inbox)

    # -- Dispatching, and Caller -------------------------------------------------------

    def arm(self) -> None:
        pass

    def teach(self, window: Window, function: str) -> None:
        assert function == "f"

    def sent(self, call: Call, extra: Any) -> None:
        raise AssertionError("these have none")

    def recall(self, owner: int, uids: list[int]) -> None:
        self.asked.append((owner, uids))

    def failed(self, queue: FunctionQueue, entry: Entry) -> None:
        pass

    def stayed(self, queue: FunctionQueue, entry: Entry) -> None:
        pass

    def blocked_here(self) -> int:
        return self.blocked

    def survives(self, entry: Entry, cause: Any) -> Entry | None:
        return None if entry.call.uid in self.lost_running else entry

    def when_settled(self, call: Call, then: Callable[[], Any]) -> None:
        if call.state >= DONE:
            then()
        else:
            call.waiters = [*(call.waiters or ()), then]

    def settled(self, call: Call) -> None:
        waiters, call.waiters = call.waiters, None
        for then in waiters:
            then()

    def credit_spent(self) -> None:
        pass

    def unheard(self, call: Call) -> None:
        pass

    def release(self, call: Call) -> None:
        pass

    def lost_error(self, call: Call, cause: Any) -> bytes:
        return b"lost"

    def cancelled_error(self, call: Call, reason: str) -> bytes:
        return b"cancelled"

    def refuse_here(self, call: Call, kind: int, error: bytes) -> None:
        call.stream = Stream(0, "task")
        call.stream.owner = 99


def test_tasks_go_to_free_workers_first_and_wait_when_all_have_their_share() -> None:
    world = World(2)
    for _ in range(7):
        world.submit()
    assert [len(w.inbox) for w in world.workers.values()] == [2, 2]
    assert sorted(world.held_by(1) + world.held_by(2)) == [1, 2, 3, 4]
    assert list(world.queue.ready) == [5, 6, 7]


def test_a_task_that_ends_makes_room_for_the_next() -> None:
    world = World(1)
    for _ in range(3):
        world.submit()
    world.now_s += 0.010  # neither soon nor late
    world.run_next(world.workers[1])
    assert world.held_by(1) == [2, 3]


def test_a_window_that_was_full_is_filled_again_when_half_of_it_has_ended() -> None:
    world = World(1)
    window = world.windows[1]
    window.size = 8
    for _ in range(20):
        world.submit()
    world.now_s += 0.05  # neither soon nor late
    held = []
    for _ in range(9):
        held.append(len(world.held_by(1)))
        world.run_next(world.workers[1])
    assert held == [8, 7, 6, 5, 8, 7, 6, 5, 8]
    assert world.ran == list(range(1, 10))


def test_each_coroutine_that_ends_makes_room_for_another() -> None:
    world = World(1, overlaps=True)
    world.windows[1].size = 8
    for _ in range(20):
        world.submit()
    world.now_s += 0.05
    for _ in range(6):
        world.run_next(world.workers[1])
        assert len(world.held_by(1)) == 8


def test_the_window_grows_while_tasks_end_soon_and_shrinks_when_they_do_not() -> None:
    world = World(1)
    for _ in range(100):
        world.submit()
    for _ in range(6):
        world.run_next(world.workers[1])
    grown = world.windows[1].size
    assert grown > LEAST_WINDOW
    for _ in range(60):
        world.now_s += 0.2
        world.run_next(world.workers[1])
    assert world.windows[1].size == LEAST_WINDOW
    assert len(world.held_by(1)) <= grown


def test_the_window_does_not_grow_by_what_was_sent_before_it_grew() -> None:
    world = World(1)
    for _ in range(1000):
        world.submit()
    for _ in range(200):
        world.now_s += 0.001  # so 32 of them take as long as they may
        world.run_next(world.workers[1])
    assert 16 <= world.windows[1].size <= 64


def test_a_worker_that_has_had_nothing_yet_gets_half_of_what_another_has() -> None:
    world = World(2)
    window = world.windows[1]
    window.size = 100
    world.windows[2].recalled.add(7)  # it gave all back, a moment ago
    world.windows[2].asked_s = world.now_s
    for _ in range(40):
        world.submit()
    assert len(world.held_by(1)) == 40
    for _ in range(4):
        world.now_s += 0.1
        world.run_next(world.workers[1])
        world.look(0.0)
        world.answer()
    assert len(world.held_by(2)) == LEAST_WINDOW


def test_a_task_goes_to_its_place_also_when_that_had_given_back_all_it_had() -> None:
    world = World(2)
    world.windows[2].recalled.add(7)  # and nothing ends there any more
    world.windows[2].asked_s = world.now_s
    call = Call(1, world.queue.unplaced, "f", None, 0, world.now_s)
    world.queue.place(call, 2)
    world.caller.submit(call, b"\x00", None, None)
    assert world.held_by(2) == []
    world.look(2 * SHUN_S)
    assert world.held_by(2) == [1]


def test_a_task_goes_near_its_large_arguments_where_there_is_room() -> None:
    world = World(3)
    made = world.submit()
    owner = made.stream.owner
    made.state = DONE
    made.result = Arrived(b"", (), (), NEAR_BYTES)
    world.workers[owner].inbox.clear()
    made.stream.credit += 1
    for _ in range(LEAST_WINDOW):
        assert world.submit(made).stream.owner == owner
    assert world.submit(made).stream.owner != owner


def test_where_a_worker_has_no_room_others_of_its_host_are_near() -> None:
    world = World(4)
    made = world.submit()
    owner = made.stream.owner
    beside, *others = [w for w in world.windows.values() if w.owner != owner]
    world.windows[owner].machine = beside.machine = "A"
    for window in others:
        window.machine = "B"
    made.state = DONE
    made.result = Arrived(b"", (), (), NEAR_BYTES)
    world.workers[owner].inbox.clear()
    made.stream.credit += 1
    there = [world.submit(made).stream.owner for _ in range(2 * LEAST_WINDOW)]
    assert there == [owner] * LEAST_WINDOW + [beside.owner] * LEAST_WINDOW
    assert world.submit(made).stream.owner not in (owner, beside.owner)


def test_what_takes_a_task_goes_behind_it_to_the_same_worker() -> None:
    world = World(2)
    first = world.submit()
    second = world.submit(first)
    third = world.submit(second)
    fourth = world.submit(third)
    assert world.held_by(first.stream.owner) == [first.uid, second.uid]
    assert (
        not world.queue.unready.waiting
    )  # nobody waits for the news that they have ended
    world.run_next(world.workers[first.stream.owner])
    world.run_next(world.workers[first.stream.owner])
    assert third.stream.owner == fourth.stream.owner == first.stream.owner


def test_what_takes_tasks_of_two_workers_waits_for_both() -> None:
    world = World(2)
    one, other = world.submit(), world.submit()
    both = world.submit(one, other)
    assert one.stream.owner != other.stream.owner
    assert both.uid in world.queue.unready.waiting
    world.run_next(world.workers[1])
    assert both.uid in world.queue.unready.waiting
    world.run_next(world.workers[2])
    assert both.stream.outbox is not None


def test_what_lies_behind_a_long_task_is_called_back_when_others_are_idle() -> None:
    world = World(2)
    for _ in range(4):
        world.submit()
    world.run_next(world.workers[2])
    world.run_next(world.workers[2])
    world.look()
    ((owner, uids),) = world.asked
    assert owner == 1
    world.answer()
    assert world.held_by(1) == uids[:1]  # that runs
    assert world.held_by(2) == uids[1:]


def test_what_waits_behind_a_task_that_was_called_back_waits_for_it_elsewhere() -> None:
    world = World(2)
    first, second, third, fourth = (world.submit() for _ in range(4))
    behind = world.submit(third)  # which is on the worker of the first
    assert third.stream is first.stream
    world.run_next(world.workers[2])
    world.run_next(world.workers[2])
    world.look()
    later = []
    while not world.queue.ready:  # until there is no room any more
        later.append(world.submit())
    world.answer()
    assert third.stream is world.queue.unplaced
    world.run_next(world.workers[1])
    # Sent now, it would be held for its argument, and all after it there.
    assert not world.windows[1].stream.held
    for _ in range(12):
        world.run_next(world.workers[1])
        world.run_next(world.workers[2])
    calls = (first, second, third, fourth, behind, *later)
    assert all(call.state == DONE for call in calls)


def test_what_was_refused_is_not_asked_for_again_until_something_ends() -> None:
    world = World(2)
    long = world.submit()
    world.look()
    world.answer()
    world.look()
    assert not world.asked
    assert world.submit().stream.owner != long.stream.owner


def test_what_others_know_of_goes_back_to_the_worker_that_gave_it_back() -> None:
    world = World(2)
    for _ in range(4):
        world.submit()
    running, queued = world.held_by(1)
    world.run_next(world.workers[2])
    world.run_next(world.workers[2])
    world.look()
    world.queue.reclaiming.mentioned.add(queued)  # before the worker has answered
    world.answer()
    assert not world.held_by(2)
    world.run_next(world.workers[1])
    world.run_next(world.workers[1])
    assert world.ran[-2:] == [running, queued]


def test_a_worker_that_gave_all_back_is_left_alone_for_a_while() -> None:
    world = World(2)
    call = world.submit()
    owner = call.stream.owner
    world.look()
    world.answer(first_runs=False)  # it lies behind another submitter's
    assert call.stream.owner != owner
    assert world.windows[owner].recalled
    world.look(SHUN_S * 2)
    assert not world.windows[owner].recalled


def test_where_nobody_has_room_a_worker_that_gave_back_gets_some_again() -> None:
    world = World(2)
    for _ in range(3):
        world.submit()
    world.run_next(world.workers[2])
    world.look()
    world.answer()
    assert (world.held_by(1), world.held_by(2)) == ([1], [3])
    for _ in range(2):
        world.submit()
    assert list(world.queue.ready) == [5]
    world.look()
    assert list(world.queue.ready) == [5], "not so soon"
    world.look(SHUN_S)
    assert (world.held_by(1), world.held_by(2)) == ([1, 5], [3, 4])


def test_a_worker_that_was_to_get_no_more_may_be_used_again() -> None:
    world = World(2)
    world.queue.retire(2, world.now_s)
    for _ in range(3):
        world.submit()
    assert (world.held_by(1), world.held_by(2)) == ([1, 2], [])
    assert world.queue.restore(2)
    assert not world.queue.restore(9)
    world.queue.dispatch()
    assert world.held_by(2) == [3]


def test_what_a_blocked_thread_here_waits_for_comes_home_without_room() -> None:
    world = World(2)
    world.queue.home = world.windows[1]
    calls = [world.submit() for _ in range(6)]
    for call in calls:
        call.inside = [5, 77]
    world.blocked = 77
    world.look()
    world.answer(first_runs=False)
    assert not world.held_by(2)
    assert len(world.held_by(1)) == 6


def test_queued_tasks_of_a_lost_worker_go_elsewhere_and_the_running_one_is_lost() -> (
    None
):
    world = World(2)
    calls = [world.submit() for _ in range(6)]
    running, queued = world.held_by(1)
    world.lose(world.workers[1])
    assert calls[running - 1].state == FAILED
    for _ in range(5):
        world.run_next(world.workers[2])
    assert sorted(world.ran) == [u for u in range(1, 7) if u != running]
    assert queued in world.ran


def test_a_worker_that_is_to_leave_gets_no_more_and_gives_back() -> None:
    world = World(2)
    calls = [world.submit() for _ in range(4)]
    last = world.submit(calls[0])
    running, queued = world.held_by(1)
    world.queue.retire(1, world.now_s)
    world.answer()
    assert world.held_by(1) == [running]
    world.run_next(world.workers[1])
    for _ in range(5):
        world.run_next(world.workers[2])
    assert not world.held_by(1)
    assert sorted(world.ran) == [1, 2, 3, 4, last.uid]
    assert world.ran.index(queued) > 0
    world.queue.widen(10)
    assert world.submit().stream.owner == 2


def test_without_workers_tasks_wait_for_one() -> None:
    world = World(0)
    call = world.submit()
    worker = world.join()
    assert world.held_by(worker.incarnation) == [call.uid]


@pytest.mark.parametrize("where", ["ready", "waiting"])
def test_a_task_that_was_not_sent_is_cancelled_at_once(where: str) -> None:
    world = World(2)
    calls = [world.submit() for _ in range(6)]
    call = calls[5] if where == "ready" else world.submit(calls[0], calls[1])
    assert world.caller.cancel(call, "not needed")
    assert call.state == CANCELLED
    for _ in range(10):
        for worker in world.workers.values():
            world.run_next(worker)
    assert call.uid not in world.ran


def test_a_held_task_is_sent_by_whoever_holds_it() -> None:
    world = World(1)
    call = Call(1, world.queue.unplaced, "f", None, 0, 0.0)
    told = []
    world.queue.hold(call, lambda: told.append("withdrawn"))
    assert world.queue.withdraw(call)
    assert told == ["withdrawn"]
    assert not world.queue.withdraw(call)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["submit", "take", "run", "run", "look", "answer", "lose", "join", "cancel"]
        ),
        st.integers(0, 50),
        st.integers(0, 50),
    ),
    max_size=60,
)


@given(steps=_STEPS, workers=st.integers(1, 3), overlaps=st.booleans())
def test_every_task_ends_once_in_every_order_of_events(
    steps: list[tuple[str, int, int]], workers: int, overlaps: bool
) -> None:
    world = World(workers, overlaps=overlaps)
    lost: set[int] = set()
    for what, a, b in steps:
        calls, alive = world.calls, [w for w in world.workers.values() if w.is_alive]
        if what == "submit":
            world.submit()
        elif what == "take" and calls:
            arguments = {
                c.uid: c for c in (calls[a % len(calls)], calls[b % len(calls)])
            }
            world.submit(*arguments.values())
        elif what == "run" and alive:
            world.run_next(alive[a % len(alive)])
        elif what == "look":
            world.look(a / 100)
        elif what == "answer":
            world.answer(first_runs=b % 2 == 0)
        elif what == "lose" and len(alive) > 1:
            world.lose(alive[a % len(alive)])
            lost.update(world.lost_running)
        elif what == "join" and len(world.workers) < 5:
            world.join()
        elif what == "cancel" and calls:
            world.caller.cancel(calls[a % len(calls)], "")
    for _ in range(5 * len(world.calls) + 20):
        if all(call.settled for call in world.calls):
            break
        world.look(SHUN_S * 2)
        world.answer()
        for worker in world.workers.values():
            world.run_next(worker)
    assert all(call.settled for call in world.calls)
    assert len(world.ran) == len(set(world.ran))
    for call in world.calls:
        assert (call.state == DONE) == (call.uid in world.ran)
        assert call.state != FAILED or call.uid in lost
    for window in world.queue.windows.values():
        assert not window.load
    queue = world.queue
    assert not queue.ready
    assert not queue.unready.waiting
    assert not queue.pinned
