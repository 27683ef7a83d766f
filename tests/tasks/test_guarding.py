"""Calls with a policy, in every order of what can happen: nothing waits for ever, no
slot leaks, no limit is passed.

The guards, the slots of a runtime and the table of the monitor are the real ones; what
they hang on is played here: the loop, the links, and calls that run and end.
"""

from __future__ import annotations

from collections import deque
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mosaic_like import task
from mosaic_like.core.call import Call, Stream, rare
from mosaic_like.core.slots import SlotTable
from mosaic_like.core.task import CANCELLED, DONE, FAILED, PREPARE
from mosaic_like.runtimes.slots import Slots
from mosaic_like.tasks.concurrency import Concurrency
from mosaic_like.tasks.guarding import Guard, Guards
from mosaic_like.tasks.options import TaskOptions
from mosaic_like.tasks.planning import Plan
from mosaic_like.tasks.prepared import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable

ME = 5
LIMITS = {"a": 1, "b": 2}
AGAIN = ("again", "again")  # as likely as an end


@task
def some_function() -> None:
    """Whose calls are guarded."""


class Timer:
    def __init__(self, world: World, then: Callable[[], Any]) -> None:
        self._world, self.then = world, then

    def cancel(self) -> None:
        if self in self._world.timers:
            self._world.timers.remove(self)


class World:
    """A runtime, its loop, its queue of function tasks and the monitor, in one."""

    context = None
    causes: dict[int, Any]

    def __init__(self) -> None:
        self.causes = {}
        self.caller = SimpleNamespace(calls={})
        # Keeps what may be retried.
        self.connections = SimpleNamespace(keep=lambda prepared: None)
        self.runtime = self.loop = self  # as functions, and as a runtime
        self.handlers: dict[type, Callable[..., Any]] = {}
        self.timers: list[Timer] = []
        self.soon: deque[Callable[[], Any]] = deque()
        self.up: deque[Any] = deque()  # to the monitor, in order
        self.down: deque[Any] = deque()
        self.held: dict[int, Any] = {}
        self.running: dict[int, Prepared] = {}
        self.calls: list[Call] = []
        self.table = SlotTable()
        self.slots = Slots(self)  # type: ignore[arg-type]  # what it needs of one
        self.slots.joined()
        self.guards = Guards(self)
        self._uids = count(1)
        for name, limit in LIMITS.items():
            self.table.set_limit(ME, f"tag:{name}", limit)

    # -- the loop and the links --------------------------------------------------------

    def call_later(self, delay_s: float, then: Any, context: Any) -> Timer:
        self.timers.append(Timer(self, then))
        return self.timers[-1]

    def call_soon(self, then: Any, context: Any) -> None:
        self.soon.append(then)

    def outbox(self, incarnation: int) -> World:
        return self

    def send(self, item: Any) -> None:
        """Of a link: a message; of the queue: a call."""
        if isinstance(item, Prepared):
            self.held.pop(item.call.uid)
            self.running[item.call.uid] = item
        else:
            self.up.append(item)

    def move(self) -> bool:
        """One message, or what the loop has to do; False: nothing is to be done."""
        if self.soon:
            self.soon.popleft()()
        elif self.up:
            message = self.up.popleft()
            kind = type(message).__name__
            if kind == "TakeSlots":
                sends = self.table.take(ME, message)
            else:
                sends = self.table.free(ME, message.numbers)
            self.down.extend(answer for _, answer in sends)
        elif self.down:
            message = self.down.popleft()
            self.handlers[type(message)](message, (), 1)
        else:
            return False
        return True

    # -- calls -------------------------------------------------------------------------

    def submit(self, plan: Plan, payload: Any = b"") -> Call:
        stream = Stream(0, "task")
        call = Call(next(self._uids), stream, "f", None, 0, 0.0, PREPARE)
        self.calls.append(call)
        made: Any = self
        prepared = Prepared(made, some_function, (), {}, call, payload, None, plan)
        Guard(self.guards, prepared, plan).begin(prepared.proxy())
        return call

    def end(self, call: Call, state: int) -> None:
        assert call.state < DONE
        self.running.pop(call.uid, None)
        self.held.pop(call.uid, None)
        call.state, call.result = state, b"N"
        waiters, call.waiters = call.waiters or [], None
        for waiter in waiters:
            waiter()

    def again(self, prepared: Prepared) -> None:
        """As ``Functions`` does it when a worker hands a call back."""
        call = prepared.call
        del self.running[call.uid]
        guard = rare(call).guard
        guard.between()
        timer = self.call_later(1.0, None, None)
        timer.then = lambda: guard.again(lambda: self.send(prepared))
        self.held[call.uid] = timer.cancel

    def cancel(self, call: Call, reason: str) -> bool:
        then = self.held.pop(call.uid, None)
        if then is not None:
            then()
        rare(call).told = CANCELLED, reason
        self.end(call, CANCELLED)
        return True

    # -- Functions and the runtime -----------------------------------------------------

    def hold(self, call: Call, then: Any) -> None:
        assert call.state < DONE
        self.held[call.uid] = then

    def refuse(self, call: Call, error: Any, reason: str, kind: int) -> None:
        rare(call).reason = reason
        self.end(call, FAILED)

    def give_data(self, call: Call, data: Any, reason: str) -> None:
        rare(call).reason = reason
        self.end(call, DONE)

    def when_settled(self, call: Call, then: Any) -> None:
        if call.state >= DONE:
            then()
        else:
            call.waiters = [*(call.waiters or []), then]

    def is_away(self, call: Call) -> bool:
        return False

    def error_of(self, call: Call) -> Exception:
        return ValueError(call.uid)

    # -- TaskProxy ---------------------------------------------------------------------

    @property
    def peers(self) -> World:
        return self

    ticking = True

    @property
    def dropped(self) -> list[Any]:
        return []


def drain(world: World) -> None:
    while world.move():
        pass


def tagged(*names: str) -> Plan:
    plan = Plan(TaskOptions())
    plan.tags = frozenset(names)
    return plan


def test_an_attempt_that_comes_again_waits_for_its_slot_anew() -> None:
    world = World()
    first = world.submit(tagged("a"))
    drain(world)
    world.again(world.running[first.uid])
    second = world.submit(tagged("a"))
    drain(world)
    assert list(world.running) == [second.uid]
    world.timers.pop().then()
    drain(world)
    assert (first.reason, list(world.running)) == ("limit", [second.uid])
    world.end(second, FAILED)
    drain(world)
    assert list(world.running) == [first.uid]
    world.end(first, DONE)
    drain(world)
    assert len(world.table) == 0


def test_a_task_that_is_cancelled_while_it_waits_lets_the_next_one_run() -> None:
    world = World()
    calls = [world.submit(tagged("a", "b")) for _ in range(3)]
    drain(world)
    world.cancel(calls[1], "away")
    world.end(calls[0], DONE)
    drain(world)
    assert list(world.running) == [calls[2].uid]


RULES = (
    st.none()
    | st.none()
    | st.builds(
        Concurrency,
        limit=st.integers(1, 2),
        scope=st.sampled_from(("running", "submitted")),
        on_conflict=st.sampled_from(("wait", "drop", "error", "reuse")),
    )
)


class GuardWorld(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.plans: dict[int, Plan] = {}

    @rule(
        tags=st.sets(st.sampled_from(sorted(LIMITS))),
        concurrency=RULES,
        delay=st.sampled_from((False, False, True)),
        key=st.sampled_from((None, None, None, "k")),
        fails=st.integers(0, 9),
    )
    def submit(
        self, tags: set[str], concurrency: Any, delay: bool, key: Any, fails: int
    ) -> None:
        options = TaskOptions(concurrency=concurrency, delay=1.0 if delay else None)
        plan = Plan(options)
        plan.tags, plan.key = frozenset(tags), key
        if fails == 0:
            plan.error = ValueError("of a key")
        if concurrency is not None:
            # One name for each kind of rule, since each brings its own limit.
            plan.slot = concurrency.slot(repr(concurrency), {})
        call = self.world.submit(plan)
        self.plans[call.uid] = plan

    @rule(times=st.integers(1, 9))
    def move(self, times: int) -> None:
        for _ in range(times):
            self.world.move()

    @precondition(lambda self: self.world.timers)
    @rule(which=st.integers(0, 9))
    def tick(self, which: int) -> None:
        timers = self.world.timers
        timers.pop(which % len(timers)).then()

    @precondition(lambda self: self.world.running)
    @rule(which=st.integers(0, 9), how=st.sampled_from((DONE, FAILED, *AGAIN)))
    def end(self, which: int, how: Any) -> None:
        """Done, failed or lost, or an attempt has failed and another waits."""
        running = list(self.world.running.values())
        prepared = running[which % len(running)]
        if how in AGAIN:
            self.world.again(prepared)
        else:
            self.world.end(prepared.call, how)

    @rule(which=st.integers(0, 99))
    def cancel(self, which: int) -> None:
        """At any moment of its life."""
        open_ones = [call for call in self.world.calls if call.state < DONE]
        if open_ones:
            self.world.cancel(open_ones[which % len(open_ones)], "away")

    @invariant()
    def no_limit_is_passed(self) -> None:
        running = [self.plans[uid] for uid in self.world.running]
        for name, limit in LIMITS.items():
            assert sum(name in plan.tags for plan in running) <= limit
        for plan in running:
            same = [p for p in running if p.slot == plan.slot]
            assert plan.slot is None or len(same) <= plan.slot.limit

    def teardown(self) -> None:
        """All go on: then all end, and nothing is kept."""
        world = self.world
        for _ in range(10_000):
            if world.move():
                continue
            if world.timers:
                world.timers.pop().then()
            elif world.running:
                world.end(next(iter(world.running.values())).call, DONE)
            else:
                break
        assert [call for call in world.calls if call.state < DONE] == []
        assert len(world.table) == 0
        assert all(not world.table.used(f"tag:{name}") for name in LIMITS)
        assert world.slots._asked == {}
        assert world.guards.same == {}
        assert world.held == {}
        assert all(rare(call).guard is None for call in world.calls)


TestGuardWorld = GuardWorld.TestCase
TestGuardWorld.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
