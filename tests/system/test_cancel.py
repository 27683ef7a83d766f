"""Cancelling on real processes: coroutines, plain methods, what does not want to stop.

Waits are bounded by the fixture; what has to have begun touches a file.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import time
from pathlib import Path  # noqa: TC003 - the workers have it too
from typing import TYPE_CHECKING, Any

import pytest
from large_values import until
from specimens import Slow, catch_all

import mosaic_like as mosaic
from mosaic_like import TaskCancelledError, Verdict
from mosaic_like.runtimes import limits, watchdog

if TYPE_CHECKING:
    from specimens import RunIn

GRACE_S = 1.0  # after which waiters are let go
SOON_S = 10.0  # of a slow machine; what is not stopped takes FOR_EVER_S
FOR_EVER_S = 60.0  # longer than any test


class Hard(Slow):
    """Stops when it likes to."""

    def __init__(self) -> None:
        super().__init__()
        self.was: list[str] = []

    def seen(self) -> list[str]:
        return self.was

    def pid(self) -> int:
        return os.getpid()

    def stubborn(self, begun: Path, go: Path, enough: int = 0) -> str:
        """Catch all that is raised, until that file is there and it was enough."""
        caught = catch_all(begun, lambda caught: caught >= enough and go.exists())
        self.was += ["interrupted"] * caught
        return "at last"

    def watches_the_flag(self, begun: Path) -> str:
        begun.touch()
        me = mosaic.current_task()
        end_s = time.monotonic() + FOR_EVER_S
        while not me.cancelled and time.monotonic() < end_s:
            time.sleep(0.002)
        self.was.append("flag" if me.cancelled else "nothing")
        return "tidied up"

    def holds_the_interpreter(self, begun: Path) -> None:
        """A C call that lets no other thread run, for ever as far as tests go."""
        begun.touch()
        re.match(r"(a+)+$", "a" * 60 + "b")

    def spins(self, begun: Path) -> None:
        begun.touch()
        end_s = time.monotonic() + FOR_EVER_S
        while time.monotonic() < end_s:
            pass

    def ignores_all_signals(self) -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if number != signal.SIGCHLD:
                signal.signal(number, signal.SIG_IGN)

    async def swallows(self, begun: Path) -> str:
        begun.touch()  # noqa: ASYNC240 - one call
        try:
            await asyncio.sleep(FOR_EVER_S)
        except asyncio.CancelledError:
            return "swallowed"
        return "slept"

    async def stands(self, begun: Path, name: str = "stands") -> None:
        begun.touch()  # noqa: ASYNC240 - one call
        try:
            await asyncio.sleep(FOR_EVER_S)
        except asyncio.CancelledError:
            self.was.append(name)
            raise

    def calls_and_waits(self, other: Any, begun: Path) -> None:
        other.stands(begun, "of a plain one").get(FOR_EVER_S)

    async def calls_and_awaits(self, other: Any, begun: Path) -> None:
        await other.stands(begun, "of a coroutine")

    async def calls_others(self, others: list[Any], begun: Path) -> None:
        first, *rest = others
        await first.calls_others(rest, begun) if rest else await first.stands(begun)

    async def calls_many(self, other: Any, begun: Path, behind: Path) -> None:
        running = other.spins(begun)
        await mosaic.gather(running, *(other.touches(behind) for _ in range(20)))

    def runs_until(self, begun: Path, path: Path) -> None:
        begun.touch()
        while not path.exists():
            time.sleep(0.002)

    def touches(self, path: Path) -> None:
        path.touch()

    def gives_a_coroutine(self, begun: Path, path: str) -> Any:
        return self.stays(begun, path)

    async def stays(self, begun: Path, path: str) -> str:
        begun.touch()  # noqa: ASYNC240 - one call
        return await self.ahold(path)

    def passes_on(self, other: Any, begun: Path) -> Any:
        """Give the task itself."""
        return other.stands(begun)


async def begins(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - made by another process
        await asyncio.sleep(0.002)


async def stopped_in_s(task: Any, why: str = "") -> float:
    start_s = time.monotonic()
    assert task.cancel(why)
    with pytest.raises(TaskCancelledError) as caught:
        await task
    assert caught.value.verdict is Verdict.MAYBE_RAN
    assert why in str(caught.value)
    return time.monotonic() - start_s


def test_a_cancelled_call_that_waits_on_the_main_thread_holds_up_no_other(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        make = mosaic.remote(Hard, runtime=runtime.workers[0])
        source, other, hard = make(), make(), make()
        await mosaic.gather(source.pid(), other.pid(), hard.mark("first"))
        begun, go = tmp_path / "begun", tmp_path / "go"
        held = other.hold(str(go))
        # While the thread is held all three come to it; then it puts off the last.
        never = source.gives_a_coroutine(begun, str(tmp_path / "held"))
        takes = hard.mark("takes", never)
        behind = other.mark("behind")
        go.touch()
        await mosaic.gather(held, behind)
        await begins(begun)
        takes.cancel()
        assert isinstance(await takes.exception(), TaskCancelledError)
        async with asyncio.timeout(SOON_S):
            assert await hard.mark("later").result() == ["first", "later"]
            await mosaic.close(hard)
        never.cancel()
        await never.exception()

    cluster(main)


@pytest.mark.parametrize("method", ["spins", "stands", "sleep"])
def test_what_lets_itself_be_stopped_is_stopped_at_once(
    cluster: RunIn, tmp_path: Path, method: str
) -> None:
    async def main(runtime: Any) -> None:
        hard = mosaic.remote(Hard)()
        begun = tmp_path / "begun"
        task = getattr(hard, method)(begun)
        await begins(begun)
        assert await stopped_in_s(task, "enough") < SOON_S
        assert await hard.mark("after").result() == ["after"]

    cluster(main)


def test_what_does_not_stop_lets_its_waiters_go_and_its_tessera_is_busy(
    cluster: RunIn, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main(runtime: Any) -> None:
        hard = mosaic.remote(Hard)()
        beside = mosaic.remote(Hard, runtime=hard, inline=True)()
        begun, go = tmp_path / "begun", tmp_path / "go"
        start_s = time.monotonic()
        task = hard.stubborn(begun, go, 4)
        later = hard.mark("later")
        await begins(begun)
        assert GRACE_S * 0.9 < await stopped_in_s(task) < SOON_S
        # Nobody else has lost anything, and the calls behind it only wait.
        assert await beside.pid().result()
        assert not later.done()
        go.touch()
        assert await later.result() == ["later"]
        # Interrupted again and again, but with time between.
        spent_s = time.monotonic() - start_s
        assert 4 <= len(await hard.seen().result()) < 16 * spent_s
        assert task.state == "cancelled"

    cluster(main)
    text = capfd.readouterr().err
    lines = [line for line in text.splitlines() if "is busy until" in line]
    assert len(lines) == 1
    assert re.search(r"Hard#\d+\.stubborn on w0:\d was cancelled .* 1 s", lines[0])


def test_a_call_that_waits_behind_what_does_not_stop_is_cancelled_at_once(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        hard = mosaic.remote(Hard)()
        begun, go = tmp_path / "begun", tmp_path / "go"
        task = hard.stubborn(begun, go)
        waiting, last = hard.mark("never"), hard.mark("last")
        await begins(begun)
        assert waiting.cancel()
        with pytest.raises(TaskCancelledError) as caught:
            await waiting
        assert not task.done()
        assert caught.value.verdict is Verdict.NOT_STARTED
        go.touch()
        assert await task.result() == "at last"
        assert await last.result() == ["last"]

    cluster(main)


def test_a_method_that_watches_the_flag_is_never_interrupted(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        by_tessera = mosaic.remote(Hard, interrupt="flag")()
        by_call = mosaic.remote(Hard)()
        for hard, method in (
            (by_tessera, by_tessera.watches_the_flag),
            (by_call, by_call.watches_the_flag.options(interrupt="flag")),
        ):
            begun = tmp_path / f"begun {id(hard)}"
            task = method(begun)
            await begins(begun)
            assert await stopped_in_s(task) < SOON_S
            assert await hard.seen().result() == ["flag"]

    cluster(main)


@pytest.mark.parametrize("thread", [False, True])
def test_who_takes_what_was_cancelled_before_it_was_sent_is_cancelled(
    cluster: RunIn, thread: bool
) -> None:
    async def main(runtime: Any) -> None:
        first, other = (mosaic.remote(Hard, runtime=w)() for w in runtime.workers)
        await mosaic.gather(first.seen(), other.seen())
        first._mosaic_handle.stream.credit = 0
        task = first.seen()
        task.cancel("not needed")
        if thread:
            taker = await asyncio.to_thread(other.touches, task)
        else:
            taker = other.touches(task)
        async with asyncio.timeout(SOON_S):
            with pytest.raises(TaskCancelledError, match="it started: not needed"):
                await taker
        killed = mosaic.kill(first)  # for which no credit is needed
        async with asyncio.timeout(SOON_S):
            await killed

    cluster(main)


def test_what_has_stopped_while_the_loop_was_held_is_not_called_busy(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        worker = runtime.workers[0]
        loop = mosaic.remote(Loop, runtime=worker)()
        hard = mosaic.remote(Hard, runtime=worker, interrupt="flag")()
        begun, over = tmp_path / "begun", tmp_path / "over"
        task = hard.runs_until(begun, over)
        await begins(begun)
        await loop.cancel_and_hold(mosaic.quote(task), over)
        with pytest.raises(TaskCancelledError):
            await task
        assert await loop.said().result() == []

    cluster(main)


class Loop(logging.Handler):
    """Holds the loop of its worker; hears what is said of late cancels."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        logging.getLogger(limits.__name__).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    async def said(self) -> list[str]:
        return self.lines

    async def cancel_and_hold(self, task: Any, path: Path) -> None:
        mosaic.runtime().worker.stopping.cancel(task._call.uid, "")
        path.touch()  # noqa: ASYNC240 - the loop is to be held
        time.sleep(GRACE_S + 0.3)  # noqa: ASYNC251 - the same


def test_a_c_call_that_holds_the_interpreter_is_stopped_through_the_node(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        hard = mosaic.remote(Hard)()
        begun = tmp_path / "begun"
        pid = await hard.pid().result()
        task = hard.holds_the_interpreter(begun)
        await begins(begun)
        assert await stopped_in_s(task) < SOON_S
        assert await hard.pid().result() == pid

    cluster(main)


def test_a_worker_whose_methods_ignored_all_signals_can_be_interrupted(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        hard = mosaic.remote(Hard)()
        await hard.ignores_all_signals()
        begun = tmp_path / "begun"
        waits = mosaic.remote(Hard, runtime=hard)()
        await waits.ahold(str(begun), 0.2).exception()  # a while, in which it looks
        task = hard.sleep(begun)
        await begins(begun)
        assert await stopped_in_s(task) < SOON_S

    cluster(main)


def test_a_method_on_a_thread_of_its_own_is_stopped(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        hard = mosaic.remote(Hard, thread=True)()
        for number in range(5):
            begun = tmp_path / f"begun {number}"
            task = hard.spins(begun)
            await begins(begun)
            assert await stopped_in_s(task) < SOON_S
        assert await hard.mark("after").result() == ["after"]

    cluster(main)


def test_a_coroutine_that_swallows_its_cancel_has_its_value(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        hard = mosaic.remote(Hard)()
        begun = tmp_path / "begun"
        task = hard.swallows(begun)
        await begins(begun)
        task.cancel()
        assert await task.result() == "swallowed"

    cluster(main)


@pytest.mark.parametrize(
    ("method", "name"),
    [("calls_and_waits", "of a plain one"), ("calls_and_awaits", "of a coroutine")],
)
def test_calls_made_inside_a_cancelled_one_are_cancelled(
    cluster: RunIn, tmp_path: Path, method: str, name: str
) -> None:
    async def main(runtime: Any) -> None:
        here, there = runtime.workers
        hard = mosaic.remote(Hard, runtime=here)()
        other = mosaic.remote(Hard, runtime=there)()
        begun = tmp_path / "begun"
        task = getattr(hard, method)(other, begun)
        await begins(begun)
        assert await stopped_in_s(task) < SOON_S
        assert await other.seen().result() == [name]  # after it: it has ended

    cluster(main)


def test_calls_behind_one_that_is_cancelled_with_them_never_run(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        here, there = runtime.workers
        hard = mosaic.remote(Hard, runtime=here)()
        for number in range(8):
            other = mosaic.remote(Hard, runtime=there)()
            begun, path = tmp_path / f"begun {number}", tmp_path / f"behind {number}"
            task = hard.calls_many(other, begun, path)
            await begins(begun)
            task.cancel()
            await task.exception()
            assert await other.seen().result() == []  # after them: they have ended
            assert not path.exists()

    cluster(main)


def test_so_are_those_made_inside_them(cluster: RunIn, tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        chain = [mosaic.remote(Hard, runtime=w)() for w in runtime.workers * 2]
        begun = tmp_path / "begun"
        task = chain[0].calls_others(chain[1:], begun)
        await begins(begun)
        assert await stopped_in_s(task) < SOON_S
        assert await chain[-1].seen().result() == ["stands"]

    cluster(main)


def test_who_stops_waiting_cancels_nothing(cluster: RunIn, tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        hard = mosaic.remote(Hard)()
        path = tmp_path / "go on"
        task = hard.ahold(str(path))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await task
        waiter = asyncio.ensure_future(task.result())
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter

        async def fails() -> None:
            raise ValueError("one of the group")

        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - a group is two
            async with asyncio.TaskGroup() as group:
                waits = group.create_task(task.result())
                group.create_task(fails())
        assert [type(e) for e in caught.value.exceptions] == [ValueError]
        assert waits.cancelled()
        assert not task.done()
        path.touch()
        assert await task.result() == "held"
        async with asyncio.TaskGroup() as group:
            both = [group.create_task(hard.mark(x).result()) for x in "ab"]
        assert [len(t.result()) for t in both] == [2, 3]

    cluster(main)


def test_a_cancelled_task_is_an_error_in_a_group_and_cancels_nobody_here(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        hard = mosaic.remote(Hard)()
        begun = tmp_path / "begun"
        task = hard.stands(begun)
        await begins(begun)
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - a group is two
            async with asyncio.TaskGroup() as group:
                group.create_task(task.result())
                task.cancel()
        assert [type(e) for e in caught.value.exceptions] == [TaskCancelledError]

    cluster(main)


def test_another_holder_cancels(cluster: RunIn, tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        here, there = runtime.workers
        hard = mosaic.remote(Hard, runtime=here)()
        other = mosaic.remote(Hard, runtime=there)()
        begun = tmp_path / "begun"
        task = await other.passes_on(hard, begun).result()
        await begins(begun)
        assert await stopped_in_s(task, "by another holder") < SOON_S
        assert await hard.seen().result() == ["stands"]

    cluster(main)


def test_plain_calls_wait_for_a_coroutine_that_a_plain_method_gave(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        for options in ({}, {"thread": True}):
            hard = mosaic.remote(Hard, **options)()
            await hard
            path = tmp_path / f"held {len(options)}"
            begun = tmp_path / f"begun {len(options)}"
            held = hard.gives_a_coroutine(begun, str(path))
            marks = [hard.mark(x) for x in "abc"]
            beside = mosaic.remote(Hard, runtime=hard)()
            await begins(begun)
            await beside.mark("x")  # behind those in the thread's queue
            assert not any(m.done() for m in (held, *marks))
            path.touch()
            order = await marks[-1].result()
            assert order == ["ahold", "a", "b", "c"]

    cluster(main)


def test_a_coroutine_or_inline_method_that_holds_the_loop_is_named_once(
    cluster: RunIn, capfd: pytest.CaptureFixture[str]
) -> None:
    names = (r"Holder#\d+\.hold ", r"Holder#\d+\.ahold ")
    text = ""

    def named() -> list[int]:
        nonlocal text
        text += capfd.readouterr().err
        where = r"\(.*test_cancel\.py:\d+\) has held the loop"
        return [len(re.findall(name + where, text)) for name in names]

    async def main(runtime: Any) -> None:
        inline = mosaic.remote(Holder, inline=True)()
        coroutine = mosaic.remote(Holder)()
        await mosaic.gather(inline.hold(), coroutine.ahold())
        # It is no output of the calls, and may come after their ends.
        await until(lambda: all(named()))

    cluster(main)
    assert named() == [1, 1], text


class Holder(logging.Handler):
    """Lets nobody else run on the loop until that was said."""

    def __init__(self) -> None:
        super().__init__()
        time.sleep(0.3)  # so that nothing else is due on the loop when the call begins
        self.said = False
        logging.getLogger(watchdog.__name__).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.said = True

    def hold(self) -> None:
        end_s = time.monotonic() + SOON_S
        while not self.said and time.monotonic() < end_s:
            time.sleep(0.02)

    async def ahold(self) -> None:
        await asyncio.sleep(0)
        self.hold()
