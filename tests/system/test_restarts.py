"""Tesserae that are built again when their worker is lost, and the calls on them."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from moved_calls import Waits, end, forgotten
from processes import halt

import mosaic_like as mosaic
from mosaic_like import (
    PoisonedCall,
    RuntimeDisconnectedError,
    TaskCancelledError,
    TaskState,
    TaskTimeoutError,
    WorkerDied,
)
from mosaic_like.core import limits
from mosaic_like.errors import Verdict
from mosaic_like.runtimes import seeking

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_S = 40.0


@mosaic.tessera(max_restarts=3)
class Notebook:
    """Keeps what it is told; only its constructor's arguments outlive a worker."""

    def __init__(self, title: Any = "", path: str = "") -> None:
        self.title = title
        self.path = path
        self.lines: list[Any] = []

    def note(self, line: Any) -> None:
        self.lines.append(line)

    def read(self) -> list[Any]:
        return self.lines

    def about(self) -> Any:
        return self.title

    def pid(self) -> int:
        return os.getpid()

    def size(self, data: Any) -> int:
        return len(data)

    def copies(self, count: int) -> bytes:
        return b"x" * count

    def block(self, path: str) -> int:
        """Tell that it runs, and do nothing else: the first time; then how often."""
        runs = append(path)
        if runs == 1:
            time.sleep(LIMIT_S)
        return runs

    def crash(self, path: str, times: int = 1) -> int:
        """End the worker so many times, then say how often it ran."""
        runs = append(path)
        if runs <= times:
            die()
        return runs

    def me(self) -> Any:
        return mosaic.current_tessera()

    def __close__(self) -> None:
        if self.path:
            append(self.path)


@mosaic.tessera
class Reader:
    """Has a proxy that somebody else made."""

    def __init__(self, notebook: Any = None) -> None:
        self.notebook = notebook

    async def notes(self, who: str, count: int) -> None:
        for number in range(count):
            self.notebook.note((who, number))

    async def read(self) -> Any:
        return await self.notebook.read().result()

    def echo(self, *values: Any) -> Any:
        return values

    def make(self, where: Any) -> Any:
        return Notebook.options(runtime=where).remote("made elsewhere")

    def pid(self) -> int:
        return os.getpid()

    def drop(self) -> None:
        self.notebook = None
        gc.collect()


def append(path: str) -> int:
    """Add a line to a file; how many there are."""
    with open(path, "a") as file:
        file.write("x\n")
    return lines(path)


def lines(path: Any) -> int:
    try:
        with open(path) as file:
            return len(file.readlines())
    except FileNotFoundError:
        return 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(LIMIT_S)


async def until(condition: Any) -> None:
    """Wait for what only a file or a count in another process tells."""
    while not condition():  # noqa: ASYNC110 -- no event tells it
        await asyncio.sleep(0.005)


async def kill_worker_of(proxy: Any) -> None:
    os.kill(await proxy.pid().result(), signal.SIGKILL)


def run(main: Any, workers: int = 2) -> None:
    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(runtime)

    mosaic.run(bounded, num_workers=workers)


def test_what_had_not_started_goes_to_the_next_life_in_the_order_of_each_caller(
    tmp_path: Path,
) -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        notebook = Notebook.options(runtime=first).remote(["a list"])
        reader = Reader.options(runtime=second).remote(notebook)
        events = mosaic.monitor(notebook)
        pid = await notebook.pid().result()
        path = str(tmp_path / "ran")
        running = notebook.block(path)
        mine = [notebook.note(("head", number)) for number in range(50)]
        large = notebook.size(bytes(3_000_000))  # which goes in shared memory
        # Who waits for these elsewhere learns where they went.
        other = Reader.options(runtime=second).remote()
        dependent = other.echo(notebook.about(), notebook.copies(300_000))
        chain = notebook.size(notebook.about())
        await until(lambda: lines(path))  # else those of the reader may be before it
        await reader.notes("reader", 50)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="Notebook#1 is built again") as caught:
            await running
        assert caught.value.verdict is Verdict.MAYBE_RAN
        await mosaic.gather(mine)
        assert await large.result() == 3_000_000
        about, copies = await dependent.result()
        assert (about, len(copies)) == (["a list"], 300_000)
        assert await chain.result() == 1
        assert mine[0].state is TaskState.DONE
        assert mine[0].reason is None
        found = await reader.read().result()
        assert len(found) == 100
        for who in ("head", "reader"):
            assert [k for name, k in found if name == who] == list(range(50))
        assert await notebook.about().result() == ["a list"]
        where = mosaic.info(notebook).runtime_id  # on either, if one was soon replaced
        assert await notebook.me().result() == notebook
        changes = [await anext(events) for _ in range(3)]
        assert [event.change.value for event in changes] == ["up", "down", "restarted"]
        assert changes[1].cause == "killed by SIGKILL"
        assert changes[2][1:] == (where, "", 1)

    run(main)


def test_what_may_have_run_is_run_again_only_if_its_options_say_so(
    tmp_path: Path,
) -> None:
    async def main(runtime: Any) -> None:
        notebook = Notebook.options(max_restarts=5).remote()
        paths = [str(tmp_path / name) for name in ("once", "again", "named")]
        # Of Exception in general it is not known that it stands for a death.
        once = notebook.crash.options(max_retries=1)(paths[0])
        with pytest.raises(WorkerDied):
            await once
        again = notebook.crash.options(idempotent=True)(paths[1])
        after = notebook.note("after")
        assert await again.result() == 2
        assert again.attempt == 2
        named = {"max_retries": 1, "retry_on": RuntimeDisconnectedError}
        assert await notebook.crash.options(**named)(paths[2]).result() == 2
        await after
        assert [lines(path) for path in paths] == [1, 2, 2]
        # The condition counts, too: it is asked here, where the call was made.
        asked = tmp_path / "said"

        def agree(error: Exception, failed: Any) -> bool:
            name = type(error).__name__
            asked.write_text(f"{os.getpid()} {name} {failed!r}")
            return True

        def refuse(error: Exception, failed: Any) -> bool:
            raise ZeroDivisionError("not even that")

        path = str(tmp_path / "asked")
        agreed = notebook.crash.options(retry_if=agree, **named)(path)
        assert await agreed.result() == 2
        expected = f"{os.getpid()} WorkerDied <attempt 1 of 2 of Notebook#1.crash>"
        assert asked.read_text() == expected
        with pytest.raises(WorkerDied) as caught:
            await notebook.crash.options(retry_if=refuse, **named)(path, 3)
        assert "its retry_if raised ZeroDivisionError" in caught.value.__notes__[-1]
        assert lines(path) == 3

    run(main)


def test_a_call_that_ran_when_two_workers_ended_is_refused(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        notebook = Notebook.options(idempotent=True, max_restarts=5).remote()
        path = str(tmp_path / "ran")
        poison = notebook.crash(path, 99)
        after = [notebook.note(number) for number in range(10)]
        with pytest.raises(PoisonedCall, match=r"Notebook#1\.crash .*SIGKILL.* and w"):
            await poison
        await mosaic.gather(after)
        assert await notebook.read().result() == list(range(10))
        assert lines(path) == 2

    run(main)


def test_the_same_where_calls_overlap_go_ahead_or_were_cancelled(
    tmp_path: Path,
) -> None:
    async def main(runtime: Any) -> None:
        path = str(tmp_path / "at once")
        options = {"idempotent": True, "max_restarts": 5}
        overlapping = Overlapping.options(**options).remote()
        beside = overlapping.wait()
        poison = overlapping.crash(path)
        before = overlapping.count()
        with pytest.raises(PoisonedCall, match=r"Overlapping#1\.crash .*SIGKILL.* and"):
            await poison
        # It ran at both deaths, too: nobody can tell whose fault they were.
        with pytest.raises(PoisonedCall, match=r"Overlapping#1\.wait ran on two"):
            await beside
        assert await before.result()
        assert lines(path) == 2
        # After a call that was cancelled in the queue, and behind one that went ahead.
        notebook = Notebook.options(**options).remote()
        path = str(tmp_path / "one by one")
        cancelled = notebook.note(overlapping.pause(0.1))
        poison = notebook.crash(path, 99)
        ahead = notebook.note.options(ordered=False)("ahead")
        cancelled.cancel()
        with pytest.raises(PoisonedCall, match=r"Notebook#1\.crash ran on two"):
            await poison
        await ahead
        assert lines(path) == 2

    run(main)


@mosaic.tessera(is_async=True)
class Overlapping:
    async def wait(self) -> None:
        await asyncio.Event().wait()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def crash(self, path: str) -> None:
        append(path)
        await asyncio.sleep(0.05)  # the others have begun
        die()

    async def count(self) -> bool:
        return True


def test_a_call_that_moved_is_found_as_long_as_somebody_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeking, "_LATE_S", 3600.0)  # the test says when that is over

    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        notebook = Notebook.options(runtime=first).remote("title")
        pid = await notebook.pid().result()
        waits = [Waits.options(runtime=second).remote(), Waits.local()]
        path = str(tmp_path / "ran")
        running = notebook.block(path)
        tasks = [notebook.about(), notebook.copies(300_000)]
        quoted = [mosaic.quote(task) for task in tasks]
        await mosaic.gather(one.keep(quoted) for one in waits)
        await until(lambda: lines(path))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await running
        expected = [await end(task) for task in tasks]
        assert expected == ["title", 300_000]
        del tasks, quoted
        await forgotten(runtime, 2)
        assert await mosaic.gather(one.ends() for one in waits) == [expected] * 2
        waits.clear()
        await forgotten(runtime, 0)  # nobody holds them any more

    run(main)


def test_without_restarts_left_all_is_lost_and_says_so() -> None:
    async def main(runtime: Any) -> None:
        notebook = await Notebook.options(max_restarts=1).remote()
        reader = await Reader.remote(notebook)
        events = notebook.monitor()
        await kill_worker_of(notebook)
        while not await kill_again(notebook, reader):
            reader = await Reader.remote(notebook)  # it was beside the notebook
        with pytest.raises(WorkerDied, match=r"built again once and is not any more"):
            await notebook.read()
        assert "lost" in repr(notebook)
        seen = [event.change.value async for event in events]
        assert seen == ["up", "down", "restarted", "down"]
        with pytest.raises(WorkerDied, match=r"max_restarts"):
            await reader.read()

    async def kill_again(notebook: Any, reader: Any) -> bool:
        """Unless the reader lives in the same worker."""
        pids = await mosaic.gather(notebook.pid(), reader.pid())
        if pids[0] == pids[1]:
            return False
        os.kill(pids[0], signal.SIGKILL)
        return True

    run(main, 3)


def test_it_waits_for_a_worker_and_shows_that(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        path = str(tmp_path / "ran")
        notebook = await Notebook.remote()
        running = notebook.block(path)
        waiting = notebook.note(1)
        await until(lambda: lines(path))
        os.kill(runtime.workers[0].pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await running
        # There is no other worker, and none can have joined in the same moment.
        assert (waiting.state, waiting.reason) == (TaskState.PENDING, "lost")
        assert "pending, lost" in repr(waiting)
        assert mosaic.info(notebook).state == "restarting"
        assert "restarting" in repr(notebook)
        late = notebook.read()
        assert await late.result() == [1]
        moves = [(move.state.value, move.reason) for move in waiting.history]
        assert moves == [("pending", None), ("pending", "lost"), ("done", None)]
        times = [move.time_s for move in waiting.history]
        assert times == sorted(times)

    run(main, 1)


def test_counts_stay_right_over_a_move(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        path = str(tmp_path / "closed")
        notebook = Notebook.options(runtime=first).remote("held", path)
        reader = Reader.options(runtime=second).remote(notebook)
        assert await reader.read().result() == []
        await kill_worker_of(notebook)
        del notebook
        gc.collect()
        assert await reader.read().result() == []  # only it holds it now
        assert len(runtime.worker.kept) == 1
        await reader.drop()
        await until(lambda: lines(path) and not runtime.worker.kept)
        # Dropped while it has calls, one of which moves.
        blocked = str(tmp_path / "ran")
        notebook = Notebook.remote("dropped", path)
        pid = await notebook.pid().result()
        running = notebook.block.options(idempotent=True)(blocked)
        waiting = notebook.about()
        del notebook
        await until(lambda: lines(blocked))
        os.kill(pid, signal.SIGKILL)
        assert await running.result() == 2
        assert await waiting.result() == "dropped"
        await until(lambda: lines(path) == 2 and not runtime.worker.kept)
        del running, waiting
        await until(lambda: len(runtime.worker.holders) == 0)

    run(main)


def test_a_constructor_that_a_death_broke_off_runs_again(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        assert lines(tmp_path / "built") == 0
        # The second time its construction is younger than the calls that wait for it.
        fragile = Fragile.remote(str(tmp_path / "built"), 2)
        calls = [fragile.value() for _ in range(3)]
        await fragile
        assert await mosaic.gather(calls) == [3, 3, 3]
        # And one that raises, the next time, ends it.
        broken = Broken.remote(str(tmp_path / "broken"))
        await broken
        await kill_worker_of(broken)
        with pytest.raises(ValueError, match="the second time"):
            await broken.pid()

    run(main)


@mosaic.tessera(max_restarts=2)
class Fragile:
    def __init__(self, path: str, deaths: int) -> None:
        self.runs = append(path)
        if self.runs <= deaths:
            die()

    def value(self) -> int:
        return self.runs


@mosaic.tessera(max_restarts=2)
class Broken:
    def __init__(self, path: str) -> None:
        if append(path) > 1:
            raise ValueError("the second time")

    def pid(self) -> int:
        return os.getpid()


def test_it_ends_with_who_made_it_and_when_it_is_closed() -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        maker = Reader.options(runtime=first).remote()
        made = await maker.make(second.uid).result()
        assert await made.about().result() == "made elsewhere"
        closed = await Notebook.options(runtime=second).remote()
        events = mosaic.monitor(closed)
        await mosaic.close(closed)
        with pytest.raises(LookupError, match="closed"):
            await closed.read()
        assert [event.change.value async for event in events] == ["up"]
        await kill_worker_of(maker)
        while (error := await made.about().exception()) is None:
            pass  # that its maker is lost may be under way
        assert isinstance(error, RuntimeDisconnectedError | LookupError)
        os.kill(second.pid, signal.SIGKILL)
        with pytest.raises((WorkerDied, LookupError)):
            await closed.read()

    run(main)


def test_from_a_worker_that_is_drained_it_moves_with_its_state() -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        total = Total.options(runtime=first).remote()
        before = [total.add(1) for _ in range(20)]
        await before[0]
        draining = asyncio.create_task(runtime.drain(first))
        during = []
        while not draining.done():
            during.append(total.add(1))
            await asyncio.sleep(0.01)
        await draining
        sums = await mosaic.gather(*before, *during, total.add(1))
        assert sums == list(range(1, len(sums) + 1))
        assert mosaic.info(total).runtime_id == second.uid

    run(main)


@mosaic.tessera(max_restarts=1)
class Total:
    def __init__(self) -> None:
        self.total = 0

    def add(self, k: int) -> int:
        self.total += k
        return self.total

    def __checkpoint__(self) -> int:
        return self.total

    def __restore__(self, total: int) -> None:
        self.total = total


@mosaic.tessera(max_restarts=1, idempotent=True)
class Slow:
    """Its second constructor waits for a file."""

    def __init__(self, path: str) -> None:
        end_s = time.monotonic() + LIMIT_S
        if append(path) > 1:
            while not os.path.exists(path + " go") and time.monotonic() < end_s:
                time.sleep(0.01)

    async def wait(self, path: str) -> None:
        append(path)
        await asyncio.Event().wait()

    async def pid(self) -> int:
        return os.getpid()


def test_what_has_run_is_never_said_not_to_have_started_when_it_ends_before_it_does(
    tmp_path: Path,
) -> None:
    async def main(runtime: Any) -> None:
        here, other = runtime.workers
        built, ran = str(tmp_path / "built"), str(tmp_path / "ran")
        cancelled = Slow.options(runtime=here).remote(built)
        late = Slow.options(runtime=here).remote(built + " late")
        lost = Slow.options(runtime=here).remote(built + " lost")
        task, task_lost = cancelled.wait(ran), lost.wait(ran)
        await late
        await until(lambda: lines(ran) == 2)
        task_late = late.wait.options(timeout=6.0)(ran)
        await until(lambda: lines(ran) == 3)
        os.kill(here.pid, signal.SIGKILL)
        await until(lambda: lines(built) == 2)  # its worker has it
        task.cancel()
        with pytest.raises(mosaic.TaskCancelledError):
            await task
        with pytest.raises(mosaic.TaskTimeoutError, match=r"not (started|sent) again"):
            await task_late
        os.kill(other.pid, signal.SIGKILL)
        error = await task_lost.exception()
        assert isinstance(error, WorkerDied)
        errors: list[Any] = [await task.exception(), await task_late.exception()]
        for ended in (*errors, error):
            assert ended.verdict is Verdict.MAYBE_RAN
        assert lines(ran) == 3

    run(main)


def test_what_waits_for_the_next_life_can_be_cancelled(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        path = str(tmp_path / "ran")
        notebook = Notebook.remote()
        running = notebook.block.options(idempotent=True)(path)
        waiting = [notebook.note(number) for number in range(3)]
        await until(lambda: lines(path))
        os.kill(runtime.workers[0].pid, signal.SIGKILL)
        await until(lambda: waiting[0].reason == "lost")
        assert waiting[1].cancel()
        with pytest.raises(mosaic.TaskCancelledError) as caught:
            await waiting[1]
        assert caught.value.verdict is Verdict.NOT_STARTED
        assert await running.result() == 2
        assert await notebook.read().result() == [0, 2]

    run(main, 1)


def test_what_was_cancelled_is_cancelled_although_its_worker_died_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "PATIENCE_S", LIMIT_S)  # until the head goes on alone

    async def main(runtime: Any) -> None:
        again = Overlapping.options(max_restarts=3, idempotent=True).remote()
        both = Overlapping.remote(), again
        unwanted = [each.wait() for each in both]
        await mosaic.gather(each.count() for each in both)
        (worker,) = runtime.workers
        halt(worker.pid)
        late = [each.wait.options(timeout=0.1)() for each in both]
        for call in unwanted:
            call.cancel("it is not needed")
        await until(lambda: all(runtime.limiting.is_ending(c._call) for c in late))
        os.kill(worker.pid, signal.SIGKILL)
        for call in unwanted:
            with pytest.raises(TaskCancelledError, match="was cancelled: it is") as why:
                await call
            assert "is lost: killed by SIGKILL while it ran Over" in str(why.value)
            assert str(why.value).endswith(".wait may have run")
            assert why.value.verdict is Verdict.MAYBE_RAN
            assert call.cancelled()
            assert call.reason == "it is not needed"
        for call in late:
            with pytest.raises(TaskTimeoutError, match=r"in time .*1\), and .*SIGKILL"):
                await call

    run(main, 1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_restarts": -1}, ValueError),
        ({"max_restarts": 1.5}, TypeError),
        ({"max_restarts": 1, "restart_within": 0}, ValueError),
        ({"max_restarts": 1, "restart_within": "long"}, TypeError),
        ({"restart_within": 10}, ValueError),
        ({"checkpoint_calls": 10}, ValueError),
        ({"max_restarts": 1, "checkpoint_calls": 0}, ValueError),
        ({"max_restarts": 1, "checkpoint_s": -1.0}, ValueError),
        ({"max_restarts": 1, "name": "one", "detached": True}, ValueError),
        ({"idempotent": 1}, TypeError),
    ],
)
def test_options_that_mean_nothing_are_refused_at_once(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="option"):
        mosaic.tessera(**options)
