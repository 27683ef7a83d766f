"""F1, F2: a worker is killed, or ends by what its user's code does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import processes
from actors import Actor
from cells import Cell
from history import Event
from history import Outcome as O
from processes import ended

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from program import Made, Stage

LOST_BEFORE = (O.LOST_NOT_STARTED,)
LOST_WHILE = (O.LOST_MAYBE_RAN,)
LOST_AFTER = (O.LOST_RESULT, O.LOST_MAYBE_RAN)
ANY_LOSS = (O.LOST_NOT_STARTED, O.LOST_MAYBE_RAN, O.LOST_RESULT)


def kill(stage: Stage) -> None:
    """SIGKILL the first worker, now."""
    stage.fault()
    os.kill(stage.first.pid, signal.SIGKILL)


def halt(stage: Stage) -> None:
    """Stop the first worker."""
    processes.halt(stage.first.pid)


async def others_go_on(stage: Stage) -> None:
    """After the fault: a worker that was not hit answers, and one is there again."""
    for made in stage.calls(stage.b, most=5):
        await made.task
    again = await stage.replaced()
    fresh = mosaic.remote(Actor, runtime=again)(stage.folder)
    await stage.call(fresh).task.result()


async def killed_while_joining(stage: Stage) -> None:
    """m1: the one that replaces a killed worker is killed before it has joined."""
    calls = stage.calls(stage.b)
    server = stage.runtime.hold.cluster._server.pid
    before = children(server)
    kill(stage)
    deadline_s = time.monotonic() + 10
    while not (new := children(server) - before):  # the loop stands still: no Welcome
        assert time.monotonic() < deadline_s
    os.kill(new.pop(), signal.SIGKILL)
    for made in calls:
        await made.task
    await others_go_on(stage)


def children(pid: int) -> set[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return {int(number) for number in file.read().split()}


async def killed_before_delivery(stage: Stage) -> None:
    """m2: it stands still, is sent calls, and is killed."""
    halt(stage)
    stage.calls(stage.a, LOST_BEFORE)
    stage.calls(stage.b)
    await stage.jitter()
    kill(stage)
    await others_go_on(stage)


async def killed_with_a_queue(stage: Stage) -> None:
    """m3: one call runs, others wait behind it, also those of another worker."""
    gate = stage.gate()
    first = stage.call(stage.a, f"gate {gate}", expect=LOST_WHILE)
    await stage.started(first)
    stage.calls(stage.a, LOST_BEFORE)
    count = stage.rng.randint(1, 20)
    stage.relayed(stage.a, count, LOST_BEFORE)
    stage.calls(stage.b)
    await stage.delivered(stage.first)
    await stage.jitter()
    kill(stage)
    await others_go_on(stage)


async def killed_while_running(stage: Stage) -> None:
    """m4: a plain method or a coroutine runs."""
    gate = stage.gate()
    if stage.rng.random() < 0.5:
        running = stage.call(stage.a, f"gate {gate}", expect=LOST_WHILE)
    else:
        running = stage.call(stage.a, gate, method="arun", expect=LOST_WHILE)
    stage.calls(stage.b)
    await stage.started(running)
    await stage.jitter()
    kill(stage)
    await others_go_on(stage)


async def ended_and_not_told(
    stage: Stage,
    actor: Any,
    expect: tuple[O, ...],
    held: tuple[O, ...] = (O.VALUE,),
    **options: Any,
) -> Made:
    """m5: a plain method has ended, and a coroutine keeps the loop from saying so.

    Args:
        stage: of the run.
        actor: on the first worker.
        expect: how the call may end.
        held: how the coroutine may, which goes on until the gate of the call is opened.
        options: of the call.
    """
    holder = mosaic.remote(Actor, runtime=stage.first)(stage.folder)
    gate, until = stage.gate(), stage.gate()
    running = stage.call(actor, f"gate {gate}", expect=expect, **options)
    await stage.started(running)
    await stage.started(stage.call(holder, until, method="hold_loop", expect=held))
    stage.open(gate)
    await stage.ended(running)
    running.gate = until
    return running


async def killed_before_the_reply(stage: Stage) -> None:
    """m5: what ran is known to have."""
    await ended_and_not_told(stage, stage.a, LOST_AFTER, LOST_WHILE)
    await stage.jitter()
    kill(stage)
    await others_go_on(stage)


async def killed_with_replies_under_way(stage: Stage) -> None:
    """m6: this loop stands still from before the ends until after the death."""
    calls = stage.calls(stage.a, (O.VALUE, *ANY_LOSS))
    stage.runtime.peers.flush_all()
    stage.wait_ended(*calls)
    pid = stage.first.pid
    kill(stage)
    stage.history.wait(lambda: ended(pid), "end of the worker")
    await others_go_on(stage)


async def killed_while_pulled(stage: Stage) -> None:
    """m7: 64 MiB are on their way here, and to the other worker."""
    size = 64 << 20
    large = stage.call(stage.a, "", size, expect=(O.VALUE, O.LOST_RESULT))
    used = stage.call(
        stage.b, "", 0, large.task, expect=(O.VALUE, O.UPSTREAM, *ANY_LOSS)
    )
    await large.task  # it has ended, and to pull it has begun
    await stage.jitter(0.05)
    kill(stage)
    with contextlib.suppress(mosaic.RuntimeDisconnectedError):
        assert len(await large.task.result()) == size
    await asyncio.wait([asyncio.ensure_future(used.task.exception())])
    await others_go_on(stage)


async def killed_with_its_proxies_under_way(stage: Stage) -> None:
    """m8: a result of it, and it itself, are on their way to a third runtime."""
    small = stage.call(stage.a, expect=(O.VALUE, *ANY_LOSS))
    gate = stage.gate()
    running = stage.call(stage.a, f"gate {gate}", expect=(*LOST_BEFORE, *LOST_WHILE))
    await asyncio.sleep(0)
    os.kill(stage.second.pid, signal.SIGSTOP)
    keeps = stage.call(stage.b, [stage.a], method="keep")
    may_fail = (O.VALUE, O.UPSTREAM, *ANY_LOSS)
    stage.call(stage.b, "", 0, small.task, expect=may_fail)
    stage.call(stage.b, "", 0, running.task, expect=may_fail, ordered=False)
    stage.runtime.peers.flush_all()
    kill(stage)
    await stage.jitter()
    os.kill(stage.second.pid, signal.SIGCONT)
    await keeps.task
    await stage.call(stage.b, method="drop").task
    await others_go_on(stage)


async def killed_while_idle(stage: Stage) -> None:
    """m11: nothing runs there; what is called later is told at once."""
    stage.calls(stage.a)
    await stage.settled()
    pid = stage.first.pid
    kill(stage)
    stage.history.wait(lambda: ended(pid), "end of the worker")
    stage.calls(stage.a, LOST_BEFORE)
    await others_go_on(stage)


class ClosesLate(Actor):
    """Does not get to the end of its ``__close__``."""

    def __close__(self) -> None:
        super().__close__()
        time.sleep(20)


def killed_while_all_stops(stage: Stage) -> None:
    """m10: in the middle of ``__close__``; the rest of the end is in order."""
    killed_in_close(stage, lambda runtime: runtime.workers[0].pid)


def killed_in_close(stage: Stage, pid_of: Callable[[Any], int]) -> None:
    """Kill one of a cluster that stops, while something closes on its first worker."""
    kept = []

    def kill_when_closing(pid: int) -> None:
        history = stage.history
        history.wait(lambda: bool(history.count(Event.CLOSED)), "__close__")
        stage.fault()
        os.kill(pid, signal.SIGKILL)

    async def main(runtime: Any) -> None:
        first = runtime.workers[0]
        closing = mosaic.remote(ClosesLate, runtime=first)(stage.folder)
        await closing.pid()
        pid = pid_of(runtime)
        threading.Thread(target=kill_when_closing, args=(pid,)).start()
        kept.append(closing)

    mosaic.run(main, num_workers=2)
    stage.ended_within(5.0)


# -- F2 --------------------------------------------------------------------------------


def ends_by(do: str, says: str) -> Callable[[Stage], Awaitable[None]]:
    """m4: what the method does ends its worker, and the error says how."""

    async def play(stage: Stage) -> None:
        running = stage.call(stage.a, do, expect=LOST_WHILE)
        stage.calls(stage.a, LOST_BEFORE)
        stage.calls(stage.b)
        await stage.started(running)
        stage.fault()
        error = await running.task.exception()
        if says not in f"{error} {getattr(error, '__notes__', '')}":
            stage.left.append(f"the error does not say {says!r}: {error}")
        await others_go_on(stage)

    return play


async def tries_to_exit(stage: Stage) -> None:
    """m4: ``sys.exit`` is an error of the call, and ends nobody."""
    stage.call(stage.a, "sys_exit 3", expect=(O.RAISED,))
    stage.calls(stage.a)
    await stage.settled()
    assert await stage.a.pid().result() == stage.first.pid


CELLS = (
    Cell("F1", "m1", killed_while_joining),
    Cell("F1", "m2", killed_before_delivery),
    Cell("F1", "m3", killed_with_a_queue, in_ci=True),
    Cell("F1", "m4", killed_while_running),
    Cell("F1", "m5", killed_before_the_reply),
    Cell("F1", "m6", killed_with_replies_under_way),
    Cell("F1", "m7", killed_while_pulled),
    Cell("F1", "m7-frames", killed_while_pulled, options=(("segments", False),)),
    Cell("F1", "m8", killed_with_its_proxies_under_way),
    Cell("F1", "m10", killed_while_all_stops),
    Cell("F1", "m11", killed_while_idle),
    Cell("F2", "segfault", ends_by("crash", "SIGSEGV"), in_ci=True),
    Cell("F2", "exit", ends_by("leave 3", "status 3")),
    Cell("F2", "abort", ends_by("abort", "SIGABRT")),
    Cell("F2", "sys-exit", tries_to_exit),
)
