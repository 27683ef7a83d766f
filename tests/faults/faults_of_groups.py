"""F1 where tesserae depend on each other: built again together, or ended together."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from actors import Actor
from cells import Cell
from faults_of_workers import (
    ANY_LOSS,
    LOST_AFTER,
    LOST_WHILE,
    ended_and_not_told,
    halt,
    kill,
)
from history import Event
from history import Outcome as O

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from program import Stage


@mosaic.tessera(max_restarts=3)
class Member(Actor):
    """One of a group."""


async def scene(
    stage: Stage, actor: Any, moment: str, before: tuple[O, ...], gate: str
) -> None:
    """Calls on one whose worker is about to be killed, up to the moment.

    Args:
        stage: of the run.
        actor: on the first worker.
        moment: of the table of faults.
        before: how those may end that have not started.
        gate: holds what is to be killed while it runs.
    """
    if moment == "m2":
        halt(stage)
        stage.calls(actor, before)
    elif moment == "m3":
        await stage.started(stage.call(actor, f"gate {gate}", expect=LOST_WHILE))
        stage.calls(actor, before)
        await stage.delivered(stage.first)
    elif moment == "m4":
        running = stage.call(actor, gate, method="arun", expect=LOST_WHILE)
        await stage.started(running)
    elif moment == "m5":
        await ended_and_not_told(stage, actor, LOST_AFTER, LOST_WHILE)
    elif moment == "m6":
        calls = stage.calls(actor, (O.VALUE, *ANY_LOSS))
        stage.runtime.peers.flush_all()
        stage.wait_ended(*calls)
    await stage.jitter(0.0 if moment == "m6" else 0.02)


def built_again(moment: str) -> Callable[[Stage], Awaitable[None]]:
    """A worker of a group is killed: those that it names begin anew, in order."""

    async def play(stage: Stage) -> None:
        members = [
            Member.options(runtime=worker).remote(stage.folder)
            for worker in stage.runtime.workers
        ]
        lost = members[0]
        stage.rng.shuffle(members)
        at = members.index(lost)
        strategy = stage.rng.choice(("one", "rest", "all"))
        goes_with = {"one": [], "rest": members[at + 1 :], "all": members}[strategy]
        await mosaic.gather(member.pid() for member in members)
        mosaic.supervise(*members, restart=strategy)
        gate = stage.gate()
        may_go = (O.VALUE, *LOST_WHILE)
        for member in members:
            if member is not lost:
                expect = may_go if member in goes_with else (O.VALUE,)
                # Not a plain one: the thread is needed for who is built there.
                stage.call(member, gate, method="arun", expect=expect)
                stage.calls(member, expect)
        await scene(stage, lost, moment, (O.VALUE,), stage.gate())
        made = stage.history.count(Event.MADE)
        kill(stage)
        for member in members:
            # It is not known here yet, and what is sent to one that goes is lost.
            stage.calls(member, may_go if member in goes_with else (O.VALUE,))
        count = len({lost, *goes_with})
        await stage.history.until(
            lambda: stage.history.count(Event.MADE) == made + count, "new members"
        )
        stage.open(gate)
        for member in members:
            for one in stage.calls(member, most=5):
                await one.task
        await stage.settled()
        await stage.replaced()
        assert stage.history.count(Event.CLOSED) == count - 1
        assert stage.history.count(Event.MADE) == made + count

    return play


def ended_together(moment: str) -> Callable[[Stage], Awaitable[None]]:
    """A worker is killed: what is linked to what it had ends too, and so on."""

    async def play(stage: Stage) -> None:
        workers = [*stage.runtime.workers, *stage.runtime.workers[1:]]
        chain = [mosaic.remote(Actor, runtime=w)(stage.folder) for w in workers]
        beside = chain.pop()  # and all others are linked, each to the next
        await mosaic.gather(one.pid() for one in (*chain, beside))
        for one, other in itertools.pairwise(chain):
            mosaic.link(*stage.rng.sample((one, other), 2))
        cancelled = (O.CANCELLED_NOT_STARTED, O.REFUSED)
        for one in chain[1:]:
            never, expect = stage.gate(), (O.CANCELLED_RUNNING,)
            running = stage.call(one, never, method="arun", expect=expect)
            await stage.started(running)
            stage.calls(one, cancelled)
        await scene(stage, chain[0], moment, (O.LOST_NOT_STARTED,), stage.gate())
        kill(stage)
        stage.calls(chain[0], (O.LOST_NOT_STARTED,))
        for one in chain[1:]:
            stage.calls(one, cancelled)
        stage.calls(beside)
        await stage.settled()
        for one in chain[1:]:
            stage.calls(one, (O.REFUSED,))
        stage.calls(beside)
        await stage.settled()
        await stage.replaced()
        assert stage.history.count(Event.CLOSED) == len(chain) - 1

    return play


THREE = (("num_workers", 3),)
MOMENTS = ("m2", "m3", "m4", "m5", "m6", "m11")

CELLS = (
    *(Cell("F1", f"group-{m}", built_again(m), options=THREE) for m in MOMENTS),
    *(Cell("F1", f"link-{m}", ended_together(m), options=THREE) for m in MOMENTS),
)
