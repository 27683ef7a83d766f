"""The table of a task's states: every state with every event."""

from __future__ import annotations

import pytest

from mosaic_like.comms.messages import Options, Submit
from mosaic_like.core.task import (
    EVENTS,
    STATES,
    Task,
    TaskState,
    following,
    received,
)
from mosaic_like.core.tessera import Tessera
from mosaic_like.errors import InvalidTransitionError

# As the public documentation has it, written out once more and not derived.
MOVES = {
    ("prepare", "submit"): "pending",
    ("prepare", "cancel"): "cancelled",
    ("prepare", "abort"): "aborted",
    ("pending", "ready"): "queued",
    ("pending", "done"): "done",
    ("pending", "upstream"): "failed",
    ("pending", "error"): "failed",
    ("pending", "lost"): "failed",
    ("pending", "cancel"): "cancelled",
    ("pending", "abort"): "aborted",
    ("queued", "start"): "running",
    ("queued", "lost"): "pending",
    ("queued", "error"): "failed",
    ("queued", "cancel"): "cancelled",
    ("queued", "abort"): "aborted",
    ("running", "done"): "done",
    ("running", "retry"): "pending",
    ("running", "error"): "failed",
    ("running", "lost"): "failed",
    ("running", "cancel"): "cancelled",
    ("failed", "retry"): "pending",
    ("failed", "abort"): "aborted",
    ("cancelled", "retry"): "pending",
    ("cancelled", "abort"): "aborted",
}
PAIRS = [(s, e) for s in range(len(STATES)) for e in range(len(EVENTS))]


class _Nobody:
    def lane(self, tessera: Tessera, method: str, /) -> int:
        return 0

    def construct(self, task: Task, /) -> None:
        raise AssertionError("nothing is built here")

    def start(self, task: Task, /) -> None:
        raise AssertionError("nothing is started here")

    def start_run(self, run: list[Task], /) -> None:
        raise AssertionError("nothing is started here")


def _task(state: int) -> Task:
    tessera = Tessera(1, 2, Options("Counter#1"), _Nobody())
    task = received(Submit(7, 1, 0, "add", b""), 2, tessera)
    task.state = state
    return task


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_an_event_moves_a_task_as_the_table_says_or_not_at_all(
    state: int, event: int
) -> None:
    expected = MOVES.get((STATES[state], EVENTS[event]))
    task = _task(state)
    if expected is None:
        with pytest.raises(InvalidTransitionError) as caught:
            following(state, event)
        assert (caught.value.state, caught.value.event) == (
            STATES[state],
            EVENTS[event],
        )
        with pytest.raises(InvalidTransitionError):
            task.move(event)
        assert task.state == state
    else:
        assert STATES[following(state, event)] == expected
        task.move(event)
        assert STATES[task.state] == expected


@pytest.mark.parametrize("state", range(len(STATES)))
def test_a_task_has_settled_from_done_on(state: int) -> None:
    ended = STATES[state] in ("done", "failed", "cancelled", "aborted")
    assert _task(state).settled is ended


def test_the_states_have_the_names_that_users_see() -> None:
    assert [str(state) for state in TaskState] == [
        "prepare",
        "pending",
        "queued",
        "running",
        "done",
        "failed",
        "cancelled",
        "aborted",
    ]
