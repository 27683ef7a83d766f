"""A wait that is to end with CycleError waits for nobody any more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from mosaic_like.core import cycles
from mosaic_like.core.task import RUNNING
from mosaic_like.core.tessera import MAIN
from mosaic_like.errors import CycleError
from mosaic_like.runtimes.cycles import Cycles
from mosaic_like.runtimes.waits import Waits

if TYPE_CHECKING:
    from mosaic_like.core.call import Call
    from mosaic_like.core.task import Task
    from mosaic_like.runtimes.actor import ActorRuntime


def task(uid: int) -> Task:
    """A plain method that runs."""
    tessera = SimpleNamespace(uid=uid, options=SimpleNamespace(name="A#1"), limit=1)
    return cast(
        "Task",
        SimpleNamespace(
            uid=uid,
            state=RUNNING,
            lane=MAIN,
            settled=False,
            tessera=tessera,
            name="A#1.f",
            inside=(),
            rare=None,
            cancelled=None,
        ),
    )


def test_a_refused_wait_below_others_is_no_edge_of_another_circle() -> None:
    """It raises only when what its thread has begun since has ended: until then those
    that wait for it would be told that they wait in a circle."""
    below, top = task(1), task(2)
    waits = Waits()
    runtime = SimpleNamespace(
        incarnation=7,
        limits={},
        worker=SimpleNamespace(tasks={1: below, 2: top}),
        executor=SimpleNamespace(main=SimpleNamespace(stack=[below, top]), waits=waits),
    )
    call = cast("Call", SimpleNamespace(uid=3, stream=SimpleNamespace(owner=8)))
    wait = waits.blocked(below, call, True, lambda: None)
    state = Cycles(cast("ActorRuntime", runtime))

    def kinds() -> list[int]:
        vertex = state.vertex(1, True)
        assert vertex is not None
        return [edge.kind for edge in vertex.edges]

    assert kinds() == [cycles.UNDER, cycles.BELOW]
    state.refuse(1, wait.stamp, "calls wait in a circle")
    assert isinstance(wait.error, CycleError)
    assert kinds() == [cycles.UNDER]
