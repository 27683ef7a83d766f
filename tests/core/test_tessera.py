"""The states of a tessera and its mailbox, in every order of events.

The mailbox is driven by a recording runner: calls end only when the test says so.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like.comms.messages import Extra, Options, Submit
from mosaic_like.core.task import (
    CANCEL_EVENT,
    FINISH,
    PENDING,
    QUEUED,
    RUNNING,
    START,
    Task,
    received,
)
from mosaic_like.core.tessera import (
    INLINE,
    LOOP,
    MAIN,
    THREAD,
    Tessera,
    TesseraState,
)
from mosaic_like.errors import InvalidTransitionError

EVENTS = ("built", "error", "close", "closed", "lost")
MOVES = {
    ("pending", "built"): "listening",
    ("pending", "error"): "failed",
    ("pending", "close"): "closing",
    ("pending", "lost"): "lost",
    ("listening", "close"): "closing",
    ("listening", "lost"): "lost",
    ("closing", "built"): "closing",
    ("closing", "error"): "failed",
    ("closing", "closed"): "stopped",
    ("closing", "lost"): "lost",
    ("failed", "close"): "failed",
}
LANES = {"main": MAIN, "loop": LOOP, "inline": INLINE, "thread": THREAD}
SERIAL = (MAIN, THREAD)


@dataclass
class Recorder:
    """A runner whose calls end when the test says so, or at once."""

    at_once: bool = False
    started: list[Task] = field(default_factory=list)
    active: list[Task] = field(default_factory=list)
    most: int = 0
    depth: int = 0
    deepest: int = 0

    def lane(self, tessera: Tessera, method: str, /) -> int:
        return LANES.get(method, LOOP)

    def construct(self, task: Task, /) -> None:
        self.start(task)

    def start_run(self, run: list[Task], /) -> None:
        for task in run:
            self.start(task)

    def start(self, task: Task, /) -> None:
        self.started.append(task)
        self.active.append(task)
        self.most = max(self.most, len(self.active))
        if self.at_once:
            self.depth += 1
            self.deepest = max(self.deepest, self.depth)
            self.end(task)
            self.depth -= 1

    def end(self, task: Task) -> None:
        self.active.remove(task)
        if task.state != RUNNING:
            task.move(START)
        task.move(FINISH)
        task.tessera.finished()


def tessera_of(
    runner: Recorder,
    *,
    is_async: bool = False,
    max_concurrency: int | None = None,
    built: bool = True,
) -> Tessera:
    options = Options("T#1", is_async=is_async, max_concurrency=max_concurrency)
    tessera = Tessera(1, 2, options, runner)
    if built:
        tessera.instance = object()
        tessera.move("built")
    return tessera


def call(
    tessera: Tessera,
    uid: int,
    *,
    caller: int = 2,
    method: str = "main",
    missing: int = 0,
    ordered: bool = True,
) -> Task:
    extra = Extra(ordered=ordered) if missing or not ordered else None
    task = received(Submit(uid, 1, 0, method, b"", extra), caller, tessera)
    task.state = PENDING if extra else QUEUED  # as WorkerState makes them
    task.missing = missing
    return task


def here(task: Task) -> None:
    """The last argument has come."""
    task.missing = 0
    task.tessera.arguments_here(task)


def cancel(task: Task) -> None:
    task.tessera.remove(task)
    task.move(CANCEL_EVENT)


# -- states ----------------------------------------------------------------------------


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", list(TesseraState))
def test_an_event_moves_a_tessera_as_the_table_says_or_not_at_all(
    state: TesseraState, event: str
) -> None:
    tessera = tessera_of(Recorder())
    tessera.state = state
    expected = MOVES.get((state.value, event))
    if expected is None:
        with pytest.raises(InvalidTransitionError):
            tessera.move(event)
        assert tessera.state is state
    else:
        tessera.move(event)
        assert tessera.state.value == expected


# -- the mailbox, by example -----------------------------------------------------------


def test_nothing_starts_before_the_constructor_has_ended() -> None:
    runner = Recorder()
    tessera = tessera_of(runner, built=False)
    tasks = [call(tessera, uid) for uid in range(3)]
    for task in tasks:
        tessera.enqueue(task)
    assert runner.started == []
    tessera.instance = object()
    tessera.dispatch()
    assert runner.started == tasks


def test_a_call_that_lacks_an_argument_holds_back_only_its_own_caller() -> None:
    runner = Recorder()
    tessera = tessera_of(runner, is_async=True)
    first = call(tessera, 1, caller=2, method="loop", missing=1)
    second = call(tessera, 2, caller=2, method="loop")
    other = call(tessera, 3, caller=3, method="loop")
    for task in (first, second, other):
        tessera.enqueue(task)
    assert runner.started == [other]
    here(first)
    assert runner.started == [other, first, second]


def test_an_unordered_call_goes_past_a_blocked_one() -> None:
    runner = Recorder()
    tessera = tessera_of(runner)
    blocked = call(tessera, 1, missing=1)
    free = call(tessera, 2, ordered=False)
    tessera.enqueue(blocked)
    tessera.enqueue(free)
    assert runner.started == [free]


def test_an_unordered_call_that_lacks_an_argument_is_among_the_waiting() -> None:
    tessera = tessera_of(Recorder())
    task = call(tessera, 1, missing=1, ordered=False)
    tessera.enqueue(task)
    assert tessera.waiting() == [task]
    cancel(task)
    assert tessera.waiting() == []


def test_plain_calls_go_ahead_only_behind_their_own_kind() -> None:
    runner = Recorder()
    tessera = tessera_of(runner)
    tasks = [
        call(tessera, uid, method=m)
        for uid, m in enumerate(["main", "main", "loop", "main"])
    ]
    for task in tasks:
        tessera.enqueue(task)
    assert runner.started == tasks[:2]
    runner.end(tasks[0])
    assert runner.started == tasks[:2]
    runner.end(tasks[1])
    assert runner.started == tasks[:3]
    runner.end(tasks[2])
    assert runner.started == tasks


def test_two_threads_are_never_in_one_object() -> None:
    runner = Recorder()
    tessera = tessera_of(runner, is_async=True)
    tasks = [
        call(tessera, uid, method=m) for uid, m in enumerate(["thread", "loop", "loop"])
    ]
    for task in tasks:
        tessera.enqueue(task)
    assert runner.started == tasks[:1]
    runner.end(tasks[0])
    assert runner.started == tasks


def test_calls_that_end_where_they_start_do_not_nest() -> None:
    runner = Recorder()
    tessera = tessera_of(runner)
    first = call(tessera, 0, method="loop")
    tessera.enqueue(first)
    tasks = [call(tessera, uid, method="inline") for uid in range(1, 2001)]
    for task in tasks:
        tessera.enqueue(task)
    runner.at_once = True
    runner.end(first)
    assert runner.started == [first, *tasks]
    assert runner.deepest == 1


def test_the_closing_call_waits_for_all_that_is_queued_or_lacks_arguments() -> None:
    runner = Recorder()
    tessera = tessera_of(runner, is_async=True)
    blocked = call(tessera, 1, method="loop", missing=1)
    alone = call(tessera, 2, method="loop", missing=1, ordered=False)
    running = call(tessera, 3, caller=3, method="loop")
    for task in (blocked, alone, running):
        tessera.enqueue(task)
    closing = call(tessera, 4, caller=4, method="loop")
    tessera.move("close")
    closing.state = PENDING  # as its Submit has an Extra
    tessera.close(closing)
    here(blocked)
    here(alone)
    assert closing not in runner.started
    runner.end(blocked)
    runner.end(running)
    assert closing not in runner.started
    runner.end(alone)
    assert runner.started[-1] is closing


def test_the_closing_call_goes_when_the_last_blocked_one_is_cancelled() -> None:
    runner = Recorder()
    tessera = tessera_of(runner)
    blocked = call(tessera, 1, missing=1)
    tessera.enqueue(blocked)
    closing = call(tessera, 2)
    tessera.move("close")
    closing.state = PENDING  # as its Submit has an Extra
    tessera.close(closing)
    assert runner.started == []
    cancel(blocked)
    assert runner.started == [closing]


def test_clearing_takes_all_that_waits_but_the_closing_call() -> None:
    runner = Recorder()
    tessera = tessera_of(runner)
    running = call(tessera, 1, method="loop")
    queued = call(tessera, 2, method="loop")
    blocked = call(tessera, 3, caller=3, missing=1)
    for task in (running, queued, blocked):
        tessera.enqueue(task)
    closing = call(tessera, 4, caller=4)
    tessera.move("close")
    closing.state = PENDING  # as its Submit has an Extra
    tessera.close(closing)
    assert tessera.clear() == [queued, blocked]
    assert tessera.waiting() == [closing]
    runner.end(running)
    assert runner.started == [running, closing]


# -- the mailbox, in every order -------------------------------------------------------

METHODS = st.sampled_from(["main", "loop", "inline", "thread"])
EVENT = st.one_of(
    st.tuples(
        st.just("call"),
        st.integers(2, 4),
        METHODS,
        st.integers(0, 2),
        st.booleans(),
    ),
    st.tuples(st.just("argument"), st.integers(0, 50)),
    st.tuples(st.just("end"), st.integers(0, 50)),
    st.tuples(st.just("cancel"), st.integers(0, 50)),
    st.tuples(st.just("build")),
    st.tuples(st.just("close")),
)


class Run:
    """One run of events, checked after each."""

    def __init__(self, is_async: bool, limit: int | None) -> None:
        self.runner = Recorder()
        self.tessera = tessera_of(
            self.runner, is_async=is_async, max_concurrency=limit, built=False
        )
        self.limit = (limit or 1000) if is_async else 1
        self.calls: list[Task] = []
        self.ended: set[int] = set()
        self.closing: Task | None = None

    def apply(self, event: tuple[object, ...]) -> None:
        what, *rest = event
        if what == "call" and self.closing is None:
            caller, method, missing, ordered = rest
            task = call(
                self.tessera,
                len(self.calls),
                caller=caller,  # type: ignore[arg-type]
                method=method,  # type: ignore[arg-type]
                missing=missing,  # type: ignore[arg-type]
                ordered=ordered,  # type: ignore[arg-type]
            )
            self.calls.append(task)
            self.tessera.enqueue(task)
        elif what == "argument":
            self._argument(int(rest[0]))  # type: ignore[call-overload]
        elif what == "end":
            self._end(int(rest[0]))  # type: ignore[call-overload]
        elif what == "cancel":
            waiting = [t for t in self.tessera.waiting() if t is not self.closing]
            if waiting:
                task = waiting[int(rest[0]) % len(waiting)]  # type: ignore[call-overload]
                cancel(task)
                self.ended.add(task.uid)
        elif what == "build" and self.tessera.instance is None:
            self.tessera.instance = object()
            self.tessera.move("built")
            self.tessera.dispatch()
        elif what == "close" and self.closing is None:
            self.closing = call(self.tessera, -1, caller=9, method="main")
            self.tessera.move("close")
            self.closing.state = PENDING
            self.tessera.close(self.closing)
        self.check()

    def _argument(self, which: int) -> None:
        lacking = [t for t in self.calls if t.missing and not t.settled]
        if lacking:
            task = lacking[which % len(lacking)]
            task.missing -= 1
            if not task.missing:
                self.tessera.arguments_here(task)

    def _end(self, which: int) -> None:
        # A serial lane ends its calls in the order in which it got them.
        candidates: list[Task] = []
        for task in self.runner.active:
            if task.lane not in SERIAL or not any(
                t.lane == task.lane for t in candidates
            ):
                candidates.append(task)
        if candidates:
            task = candidates[which % len(candidates)]
            self.ended.add(task.uid)
            self.runner.end(task)

    def check(self) -> None:
        active = self.runner.active
        assert self.tessera.active == len(active)
        lanes = {t.lane for t in active}
        if lanes & set(SERIAL):
            assert len(lanes) == 1, "two threads in one object"
        else:
            assert len(active) <= self.limit
        started = [t for t in self.runner.started if t is not self.closing]
        by_caller: dict[int, list[int]] = defaultdict(list)
        for task in started:
            assert not task.missing
            if task.extra is None or task.extra.ordered:
                by_caller[task.caller].append(task.uid)
        for uids in by_caller.values():
            assert uids == sorted(uids), "a caller's calls start in call order"
        if self.closing in self.runner.started:
            assert self.runner.started[-1] is self.closing
        self._check_all_are_somewhere(started)

    def _check_all_are_somewhere(self, started: list[Task]) -> None:
        waiting = {t.uid for t in self.tessera.waiting()}
        gone = {t.uid for t in started} | self.ended
        for task in self.calls:
            assert (task.uid in waiting) != (task.uid in gone)

    def settle(self) -> None:
        """Let everything come and end; nothing may be forgotten."""
        self.apply(("build",))
        while any(t.missing and not t.settled for t in self.calls):
            self.apply(("argument", 0))
        for _ in range(len(self.calls) + 2):
            self.apply(("end", 0))
        assert not self.runner.active
        assert not self.tessera.queue
        assert not self.tessera.blocked
        assert not self.tessera.waiting()
        assert self.ended >= {t.uid for t in self.calls}
        if self.closing is not None:
            assert self.closing.settled


@settings(max_examples=400, deadline=None)
@given(
    st.booleans(),
    st.sampled_from([None, 1, 2, 3]),
    st.lists(EVENT, max_size=40),
)
def test_a_mailbox_keeps_its_promises_in_every_order_of_events(
    is_async: bool, limit: int | None, events: list[tuple[object, ...]]
) -> None:
    run = Run(is_async, limit)
    for event in events:
        run.apply(event)
    run.settle()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(2, 3), st.integers(0, 1)), max_size=30))
def test_a_free_stream_is_never_held_back_by_a_blocked_one(
    calls: list[tuple[int, int]],
) -> None:
    runner = Recorder()
    tessera = tessera_of(runner, is_async=True)
    expected: deque[int] = deque()
    blocked: set[int] = set()
    for uid, (caller, missing) in enumerate(calls):
        tessera.enqueue(
            call(tessera, uid, caller=caller, method="loop", missing=missing)
        )
        if missing:
            blocked.add(caller)
        if caller not in blocked:
            expected.append(uid)
    assert [t.uid for t in runner.started] == list(expected)
