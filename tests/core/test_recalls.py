"""What a worker gives back has not run and never will, however the events fall."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_submit_run import CALLERS, OWNER, Runtime

from mosaic_like.comms import messages as wire
from mosaic_like.core.task import (
    CANCEL_EVENT,
    QUEUED,
    RUNNING,
    STARTED,
    Task,
)

CALLER = CALLERS[0]
FIRST = CALLER << 40
HOST = 10


class Worker(Runtime):
    """Its thread takes up calls in two steps, as ``PlainCalls.run`` does."""

    def __init__(self, *, stateless: bool = True) -> None:
        super().__init__()
        self.tessera(HOST, is_async=False, built=True)
        self.worker.tesserae[HOST].options.stateless = stateless
        self.handed: list[Task] = []
        self.taken: Task | None = None  # its state was moved, its mark not looked at
        self.current: Task | None = None
        self.ran: list[int] = []
        self.count = 0

    def arrived(self, message: Any, buffers: Any, sender: int) -> Any:
        return message.data

    def start(self, task: Task, /) -> None:
        task.handed = True
        self.handed.append(task)

    def submit(self, extra: wire.Extra | None = None) -> int:
        uid = FIRST + self.count
        message = wire.Submit(uid, HOST, self.count, "main", b"i", extra)
        self.count += 1
        self.worker.submit(message, (), CALLER)
        return uid

    def take(self) -> None:
        """The thread moves the state of the next call."""
        if self.taken is None and self.current is None and self.handed:
            task = self.handed.pop(0)
            if STARTED[task.state] < 0:
                assert task.outcome is not None
                self.leave(task)
                return
            task.state = RUNNING
            self.taken = task

    def look(self) -> None:
        """It looks at the mark, and runs the call or leaves it alone."""
        task, self.taken = self.taken, None
        if task is None:
            return
        if task.cancelled is not None:
            self.leave(task)
        else:
            self.current = task
            self.ran.append(task.uid)

    def leave(self, task: Task) -> None:
        self.worker.failed(task, CANCEL_EVENT, wire.CANCELLED, b"")

    def finish(self) -> None:
        task, self.current = self.current, None
        if task is not None:
            task.raw = b"i"
            self.worker.finished(task, b"i\0\0\0\0")

    def recall(self, *uids: int, sender: int = CALLER) -> list[int]:
        self.worker.recalls.asked(list(uids), sender)
        answer = self.outboxes[sender].sent[-1]
        assert type(answer) is wire.Recalled
        assert answer.asked == list(uids)
        return sorted(answer.taken)

    def given_back(self) -> list[int]:
        sent = self.outboxes[CALLER].sent
        answers = [m for m in sent if type(m) is wire.Recalled]
        return [uid for answer in answers for uid in answer.taken]

    def ends(self) -> list[int]:
        sent = self.outboxes[CALLER].sent
        return [m.uid for m in sent if type(m) in (wire.Done, wire.Failed)]


def test_what_runs_stays_and_what_is_behind_it_is_given_back() -> None:
    worker = Worker()
    one, two, three = (worker.submit() for _ in range(3))
    worker.take()
    worker.look()
    assert worker.recall(one, two, three) == [two, three]
    assert set(worker.worker.tasks) == {one}
    worker.finish()
    for _ in range(2):
        worker.take()
    assert worker.ends() == [one]  # nothing is told of the others
    assert not worker.worker.tesserae[HOST].active


def test_one_that_was_given_back_may_come_again() -> None:
    worker = Worker()
    one, two = worker.submit(), worker.submit()
    assert worker.recall(two) == [two]
    worker.worker.submit(wire.Submit(two, HOST, 2, "main", b"i"), (), CALLER)
    for _ in range(3):
        worker.take()
        worker.look()
        worker.finish()
    assert worker.ran == worker.ends() == [one, two]


@pytest.mark.parametrize("who", ["others", "objects", "subscribed", "unknown"])
def test_what_somebody_else_may_know_stays(who: str) -> None:
    worker = Worker(stateless=who != "objects")
    uid = worker.submit()
    if who == "subscribed":
        worker.worker.telling.subscribe(uid, CALLERS[1])
    if who == "unknown":
        assert worker.recall(uid + 1) == []
    sender = CALLERS[1] if who == "others" else CALLER
    if who != "unknown":
        assert worker.recall(uid, sender=sender) == []
    worker.take()
    worker.look()
    worker.finish()
    assert worker.ran == [uid]


def test_what_takes_another_goes_back_with_it() -> None:
    worker = Worker()
    first = worker.submit()
    reference = wire.Reference(wire.TASK, first, OWNER)
    second = worker.submit(wire.Extra(references=[reference], ordered=False))
    assert worker.worker.tasks[second].state <= QUEUED
    assert worker.recall(first, second) == [first, second]
    assert not worker.worker.tasks
    assert not worker.worker._dependents


def test_what_a_call_behind_it_takes_stays() -> None:
    worker = Worker()
    worker.submit()
    first = worker.submit()
    reference = wire.Reference(wire.TASK, first, OWNER)
    second = worker.submit(wire.Extra(references=[reference], ordered=False))
    assert worker.recall(first) == []
    assert worker.recall(second, first) == [second]  # asked for in no order
    assert worker.recall(first) == [first]


_EVENTS = st.lists(
    st.one_of(
        st.sampled_from(["submit", "submit", "take", "look", "finish"]),
        st.lists(st.integers(0, 9), min_size=1, max_size=4),
    ),
    max_size=40,
)


@given(events=_EVENTS)
def test_each_call_runs_or_is_given_back_and_never_both(events: list[Any]) -> None:
    worker = Worker()
    for event in events:
        if isinstance(event, list):
            worker.recall(*(FIRST + index for index in dict.fromkeys(event)))
        else:
            getattr(worker, event)()
    for _ in range(worker.count + 1):
        worker.take()
        worker.look()
        worker.finish()
    back = worker.given_back()
    assert len(back) == len(set(back))
    assert sorted(worker.ran + back) == [FIRST + i for i in range(worker.count)]
    assert worker.ends() == worker.ran
    assert not worker.worker.tesserae[HOST].active
