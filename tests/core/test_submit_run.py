"""Calls that came together are taken as if each had come alone."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.comms import messages as wire
from mosaic_like.core.caller import CallerState
from mosaic_like.core.task import (
    CANCEL_EVENT,
    DONE,
    ERROR_EVENT,
    START,
    STATES,
    Task,
)
from mosaic_like.core.telling import TRAVELLING_BYTES
from mosaic_like.core.tessera import INLINE, LOOP, MAIN, THREAD, Tessera
from mosaic_like.core.worker import WorkerState

OWNER, CALLERS = 1, (2, 3)
LANES = {"main": MAIN, "inline": INLINE, "loop": LOOP, "thread": THREAD}
METHODS = ("main", "inline", "loop", "thread", "other")


@dataclass
class Outbox:
    incarnation: int
    bytes_out: int = 0
    shares_memory: bool = False
    sent: list[Any] = field(default_factory=list)

    def send(self, message: Any, payload: Any = None) -> None:
        self.sent.append(message)

    def send_ends(self, messages: list[Any]) -> None:
        self.sent += messages


class Runtime:
    """The ports of a WorkerState; what is started ends when the test says so."""

    incarnation = OWNER

    def __init__(self) -> None:
        self.outboxes = {uid: Outbox(uid) for uid in CALLERS}
        self.started: list[Task] = []
        self.order: list[int] = []
        self.inline_ends = True
        caller = CallerState(self)  # type: ignore[arg-type]  # no call is made here
        self.worker = WorkerState(self, self, caller, self.outboxes)  # type: ignore[arg-type]  # the ports that these calls need

    def tessera(self, uid: int, *, is_async: bool, built: bool) -> Tessera:
        options = wire.Options(name=f"T#{uid}", is_async=is_async)
        tessera = Tessera(uid, CALLERS[0], options, self)
        self.worker.tesserae[uid] = tessera
        self.worker.holders.add(uid)
        if built:
            tessera.instance = object()
            tessera.move("built")
        return tessera

    def outbox(self, incarnation: int) -> Outbox | None:
        return self.outboxes.get(incarnation)

    def failure(self, task: Task, reason: int, why: Any) -> bytes:
        return str(why).encode()

    def lane(self, tessera: Tessera, method: str, /) -> int:
        return LANES.get(method, LOOP)

    def construct(self, task: Task, /) -> None:
        raise AssertionError("nothing is built here")

    def start(self, task: Task, /) -> None:
        self.started.append(task)
        self.order.append(task.uid)
        if task.lane == INLINE and self.inline_ends:
            self.end(-1)  # as it does: before anything else starts

    def start_run(self, run: list[Task], /) -> None:
        assert len({(t.tessera.uid, t.caller, t.lane) for t in run}) == 1
        for task in run:
            self.start(task)

    def end(self, choice: int) -> None:
        if self.started:
            task = self.started.pop(choice % len(self.started))
            task.move(START)
            self.worker.finished(task, b"i\0\0\0\0")

    def seen(self) -> Any:
        return (
            self.order,
            {uid: STATES[t.state] for uid, t in self.worker.tasks.items()},
            {
                uid: (t.active, t.lane if t.active else None, t.numbers,
                      [task.uid for task in t.waiting()])
                for uid, t in self.worker.tesserae.items()
            },
            {uid: o.sent for uid, o in self.outboxes.items()},
        )  # fmt: skip


def by_runs(runtime: Runtime, batch: list[Any], sender: int) -> None:
    index = 0
    while index < len(batch):
        taken = runtime.worker.submit_run(batch, index, sender)
        assert taken > index
        index = taken


def one_by_one(runtime: Runtime, batch: list[Any], sender: int) -> None:
    for message in batch:
        runtime.worker.submit(message, (), sender)


calls = st.tuples(
    st.sampled_from((10, 11, 12)),  # of which the last has not been built
    st.sampled_from(METHODS),
    st.sampled_from((0, 0, 0, 0, 0, 0, 1)),  # numbers that are left out
)
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(CALLERS), st.lists(calls, min_size=1, max_size=8)),
        st.integers(0, 7),
    ),
    max_size=12,
)


@given(steps=steps, is_async=st.booleans())
def test_a_run_of_calls_is_taken_as_the_calls_one_by_one(
    steps: list[Any], is_async: bool
) -> None:
    runtimes = Runtime(), Runtime()
    for runtime in runtimes:
        runtime.tessera(10, is_async=is_async, built=True)
        runtime.tessera(11, is_async=False, built=True)
        runtime.tessera(12, is_async=False, built=False)
    uid = 100
    numbers: dict[tuple[int, int], int] = {}
    for step in steps:
        if isinstance(step, int):
            for runtime in runtimes:
                runtime.end(step)
        else:
            sender, made = step
            batch = []
            for target, method, gap in made:
                uid += 1
                number = numbers.get((sender, target), 0) + gap
                numbers[sender, target] = number + 1
                batch.append(wire.Submit(uid, target, number, method, b"i\0\0\0\0"))
            by_runs(runtimes[0], batch, sender)
            one_by_one(runtimes[1], batch, sender)
        assert runtimes[0].seen() == runtimes[1].seen()


ends = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.sampled_from(("small", "small", "small", "large", "failed", "told before")),
    ),
    max_size=10,
)


@given(calls=st.lists(calls, max_size=24), ends=ends, is_async=st.booleans())
def test_ends_that_are_found_together_are_told_as_one_by_one(
    calls: list[Any], ends: list[tuple[int, str]], is_async: bool
) -> None:
    runtimes = Runtime(), Runtime()
    for runtime in runtimes:
        for uid in (10, 11, 12):
            runtime.tessera(uid, is_async=is_async, built=uid < 12)
        for number, (target, method, _) in enumerate(calls):
            caller = CALLERS[number % 5 == 0]
            runtime.worker.submit(
                wire.Submit(100 + number, target, 0, method, b""), (), caller
            )
            runtime.worker.tesserae[target].numbers.clear()
        ended = found(runtime, ends)
        if runtime is runtimes[0]:
            while ended:
                runtime.worker.finished_alike(ended, len(ended))
                if ended:
                    told(runtime, *ended.popleft())
        else:
            for task, value in ended:
                told(runtime, task, value)
    seen = [list(runtime.seen()) for runtime in runtimes]
    for one in seen:  # the order of ends is not promised
        one[-1] = {
            uid: sorted(sent, key=lambda end: end.uid) for uid, sent in one[-1].items()
        }
    assert seen[0] == seen[1]


def found(runtime: Runtime, ends: list[tuple[int, str]]) -> deque[tuple[Task, Any]]:
    """What the loop finds of started calls, as another thread has left it."""
    ended: deque[tuple[Task, Any]] = deque()
    for choice, how in ends:
        if not runtime.started:
            break
        task = runtime.started.pop(choice % len(runtime.started))
        task.move(START)
        value: Any = b"i" * (3 if how != "large" else TRAVELLING_BYTES + 1)
        if how == "told before":
            runtime.worker.settle(task, CANCEL_EVENT, wire.CANCELLED, "a user")
        ended.append((task, None if how == "failed" else value))
    return ended


def told(runtime: Runtime, task: Task, value: Any) -> None:
    if value is None:
        runtime.worker.failed(task, ERROR_EVENT, wire.ERROR, b"no such image")
    else:
        runtime.worker.finished(task, value)


@pytest.mark.parametrize("waited_for", [False, True])
def test_the_ends_of_a_run_are_told_to_the_caller_and_to_who_waits(
    waited_for: bool,
) -> None:
    runtime = Runtime()
    tessera = runtime.tessera(10, is_async=False, built=True)
    tessera.lanes["inline"] = INLINE  # it has been called before
    runtime.inline_ends = False  # ``finished_run`` tells it
    batch = [wire.Submit(uid, 10, uid - 100, "inline", b"") for uid in (100, 101)]
    by_runs(runtime, batch, CALLERS[0])
    if waited_for:
        runtime.worker.holders.retain(CALLERS[0], 101, CALLERS[1])
        runtime.worker.telling.subscribe(101, CALLERS[1])
    for task in runtime.started:
        task.state = DONE
        task.outcome = wire.Done(task.uid, b"")
    runtime.worker.finished_run(runtime.started)
    assert tessera.active == 0
    assert [m.uid for m in runtime.outboxes[CALLERS[0]].sent] == [100, 101]
    told = [m.uid for m in runtime.outboxes[CALLERS[1]].sent]
    assert told == ([101] if waited_for else [])


def test_what_a_run_left_running_is_started_after_it() -> None:
    runtime = Runtime()
    runtime.tessera(10, is_async=False, built=True)
    batch = [
        wire.Submit(100, 10, 0, "inline", b""),
        wire.Submit(101, 10, 1, "loop", b""),
        wire.Submit(102, 10, 2, "inline", b""),
    ]
    by_runs(runtime, batch, CALLERS[0])
    assert runtime.order == [100, 101]
    runtime.end(0)
    assert runtime.order == [100, 101, 102]
