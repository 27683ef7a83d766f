"""Tasks on real processes: order, arguments, waiting, cancelling, what is known."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import specimens as s
from specimens import RunIn

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_a_call_runs_without_being_awaited(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        for _ in range(5):
            counter.add(1)
        assert await counter.value().result() == 5

    cluster(main)


def test_awaiting_gives_the_task_and_result_the_value(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        task = s.Counter.remote().add(1)
        assert await task is task
        assert await task.result() == 1
        assert await task.result() == 1
        assert await task.exception() is None
        assert task.done()
        assert task.state == "done"
        assert task.name.endswith(".add")
        assert task.method == "add"
        assert not task.cancelled()
        assert not task.cancel()
        assert [move.state for move in task.history] == ["pending", "done"]
        assert "done" in repr(task)
        assert task.runtime_id in {w.uid for w in runtime.workers}
        with pytest.raises(TypeError, match=r"p\.done\(\)"):
            bool(task.done)

    cluster(main)


def test_calls_of_eight_callers_keep_their_order(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        target = s.Counter.remote()
        callers = [s.Caller.remote(target) for _ in range(8)]
        await mosaic.gather(c.many("note", 200, i) for i, c in enumerate(callers))
        await runtime.barrier(20)
        notes = await target.notes().result()
        assert len(notes) == 1600
        for i in range(8):
            assert [n for mark, n in notes if mark == i] == list(range(200))

    cluster(main)


def test_a_hundred_thousand_calls_may_be_outstanding(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        tasks = [counter.add(1) for _ in range(100_000)]
        assert await tasks[-1].result() == 100_000
        assert await mosaic.gather(tasks) == list(range(1, 100_001))
        del tasks
        assert await counter.value().result() == 100_000

    cluster(main)


def test_futures_and_callbacks(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        task = counter.add(1)
        called: list[Any] = []
        task.add_done_callback(called.append)
        assert await task.init_future is task
        assert await task.done_future is task
        task.add_done_callback(called.append)
        assert called == [task, task]
        failed = counter.fail("odd")
        with pytest.raises(ValueError, match="odd"):
            await failed.done_future
        future = counter.add(1).as_future()
        assert await asyncio.wrap_future(future) == 2
        broken = counter.fail("odd").as_future()
        with pytest.raises(ValueError, match="odd"):
            await asyncio.wrap_future(broken)
        bytes_ = counter.identity(b"x" * 200_000)
        assert 200_000 <= await bytes_.size() < 201_000
        assert await bytes_.size(pending=True) >= 200_000
        await bytes_.result()
        assert await bytes_.size(pending=True) == 0
        assert 200_000 <= await bytes_.size() < 201_000

    cluster(main)


def test_threads_wait_and_the_loop_may_not(cluster: RunIn, tmp_path: Any) -> None:
    async def main(runtime: Any) -> None:
        slow = s.Slow.remote()
        counter = s.Counter.remote()
        task = counter.add(1)
        early = slow.hold(str(tmp_path / "early"))
        with pytest.raises(RuntimeError, match=r"await task\.result\(\)"):
            early.get()
        with pytest.raises(RuntimeError, match=r"await task\.result\(\)"):
            early.wait()
        (tmp_path / "early").touch()
        assert await task.result() == 1

        def thread() -> None:
            assert counter.add(1).get() == 2
            assert counter.add(1).get(timeout=20) == 3
            waited = counter.add(1)
            assert waited.wait(20) is waited
            held = slow.hold(str(tmp_path / "go"))
            with pytest.raises(TimeoutError, match=r"0\.01 s; it goes on"):
                held.wait(0.01)
            with pytest.raises(TimeoutError):
                held.get(timeout=0)
            with pytest.raises(TimeoutError):
                held.as_future().result(0.01)
            (tmp_path / "go").touch()
            assert held.get(20) == "held"
            with pytest.raises(ValueError, match="odd"):
                counter.fail("odd").get(20)
            assert counter.add(1).as_future().result(20) == 5
            big = counter.identity(np.ones(100_000))
            assert big.get(20).sum() == 100_000
            made = s.Counter.remote(7)
            assert made.value().get(20) == 7
            tasks = [counter.identity(i) for i in range(5)]
            ended = list(mosaic.as_completed(tasks, timeout=20))
            assert set(ended) == set(tasks)
            with pytest.raises(TimeoutError, match="1 task has not ended"):
                list(mosaic.as_completed([slow.hold(str(tmp_path / "late"))], 0.01))
            (tmp_path / "late").touch()

        await asyncio.to_thread(thread)

    cluster(main)


def test_a_task_that_has_not_started_is_cancelled(
    cluster: RunIn, tmp_path: Any
) -> None:
    async def main(runtime: Any) -> None:
        slow = s.Slow.remote()
        held = slow.hold(str(tmp_path / "go"))
        queued = slow.mark("never")
        assert queued.cancel("not needed")
        with pytest.raises(mosaic.TaskCancelledError, match="not needed") as info:
            await queued
        assert info.value.verdict is mosaic.Verdict.NOT_STARTED
        assert queued.cancelled()
        assert queued.state == "cancelled"
        assert not queued.cancel()
        other = s.Counter.remote()
        waiting = other.add(held)
        assert waiting.cancel()
        with pytest.raises(mosaic.TaskCancelledError):
            await waiting
        dependent = other.identity(queued)
        with pytest.raises(mosaic.TaskCancelledError, match="argument"):
            await dependent
        future = queued.as_future()
        assert isinstance(
            await asyncio.to_thread(future.exception, 20),
            concurrent.futures.CancelledError,
        )
        (tmp_path / "go").touch()
        assert await held.result() == "held"
        assert await slow.mark("x").result() == ["hold", "x"]
        assert await other.value().result() == 0

    cluster(main)


async def _until(path: Any) -> None:
    while not path.exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.002)


def test_what_runs_is_cancelled(cluster: RunIn, tmp_path: Any) -> None:
    async def main(runtime: Any) -> None:
        slow = s.Slow.remote()
        for name in ("forever", "sleep"):
            started = tmp_path / name
            task = getattr(slow, name)(str(started))
            await _until(started)
            assert task.cancel("enough")
            with pytest.raises(mosaic.TaskCancelledError, match="enough") as info:
                await task
            assert info.value.verdict is mosaic.Verdict.MAYBE_RAN
            assert task.cancelled()
        assert await slow.mark("x").result() == ["x"]

    cluster(main)


def test_cancelling_who_waits_does_not_cancel_the_task(
    cluster: RunIn, tmp_path: Any
) -> None:
    async def main(runtime: Any) -> None:
        slow = s.Slow.remote()
        held = slow.hold(str(tmp_path / "go"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await held
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(held.result(), 0.02)
        (tmp_path / "go").touch()
        assert await held.result() == "held"

    cluster(main)


def test_gather_wait_and_as_completed(cluster: RunIn, tmp_path: Any) -> None:
    async def main(runtime: Any) -> None:
        counter, slow = s.Counter.remote(), s.Slow.remote()
        assert await mosaic.gather() == []
        assert await mosaic.gather(counter.add(1), counter.add(1)) == [1, 2]
        assert await mosaic.gather([counter.add(1)]) == [3]
        held = slow.hold(str(tmp_path / "go"))
        with pytest.raises(ValueError, match="odd"):
            await mosaic.gather(held, counter.fail("odd"))
        assert not held.done()
        done, pending = await mosaic.wait(
            [held, counter.add(1)], return_when="FIRST_COMPLETED"
        )
        assert [len(done), pending] == [1, {held}]
        done, pending = await mosaic.wait([held], timeout=0.01)
        assert [done, pending] == [set(), {held}]
        broken = counter.fail("x")
        done, pending = await mosaic.wait([held, broken], return_when="FIRST_EXCEPTION")
        assert done == {broken}
        assert isinstance(await broken.exception(), ValueError)
        order = []
        async for task in mosaic.as_completed([held, counter.identity("fast")]):
            order.append(await task.result())
            (tmp_path / "go").touch()
        assert order == ["fast", "held"]
        values = await mosaic.gather(
            counter.identity(1), counter.fail("y"), return_exceptions=True
        )
        assert values[0] == 1
        assert isinstance(values[1], ValueError)
        with pytest.raises(TypeError, match="gather takes tasks"):
            await mosaic.gather(counter.add(1), 3)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="no tasks"):
            await mosaic.wait([])
        again = slow.hold(str(tmp_path / "again"))
        with pytest.raises(TimeoutError, match=r"1 task has not ended in 0.01 s"):
            async for _ in mosaic.as_completed([again], timeout=0.01):
                pass
        (tmp_path / "again").touch()
        array = s.Counter.options(len=2).remote(1)
        assert await mosaic.gather(array.value()) == [1, 1]

    cluster(main)


def test_a_window_draws_lazily(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        drawn = 0

        def source() -> Iterator[Any]:
            nonlocal drawn
            for i in range(50):
                drawn += 1
                yield counter.identity(i)

        seen = []
        async for task in mosaic.as_completed(source(), window=4):
            seen.append(await task.result())
            assert drawn <= len(seen) + 4
        assert sorted(seen) == list(range(50))
        drawn = 0

        def thread() -> None:
            count = 0
            for _ in mosaic.as_completed(source(), window=4, timeout=20):
                count += 1
                assert drawn <= count + 4
            assert count == 50

        await asyncio.to_thread(thread)

    cluster(main)


def test_asyncio_takes_tasks_as_awaitables(cluster: RunIn, tmp_path: Any) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        tasks = await asyncio.gather(counter.add(1), counter.add(1))
        assert [await t.result() for t in tasks] == [1, 2]
        assert list(await asyncio.gather(counter.add(1).result(), counter.n)) == [3, 3]
        async with asyncio.TaskGroup() as group:
            a = group.create_task(counter.add(1).result())
            b = group.create_task(counter.add(1).result())
        assert [a.result(), b.result()] == [4, 5]
        with pytest.raises(ExceptionGroup) as info:
            async with asyncio.TaskGroup() as group:
                group.create_task(counter.fail("in a group").result())
        assert isinstance(info.value.exceptions[0], ValueError)
        slow = s.Slow.remote()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await slow.hold(str(tmp_path / "go")).result()
        (tmp_path / "go").touch()

    cluster(main)


def test_a_task_may_be_awaited_on_another_loop(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        there = counter.identity(np.ones(100_000))

        async def elsewhere() -> None:
            async with asyncio.timeout(20):
                assert await counter.add(1).result() == 1
                assert (await there.result()).sum() == 100_000
                tasks = [counter.add(1) for _ in range(100)]
                assert await mosaic.gather(tasks) == list(range(2, 102))
                assert await counter.n == 101
                made = s.Counter.remote(3)
                assert await made is made
                async for task in mosaic.as_completed([made.value()]):
                    assert await task.result() == 3
                await runtime.barrier(20)
                done, _ = await mosaic.wait([made.value()])
                assert len(done) == 1
                with pytest.raises(ValueError, match="x"):
                    await counter.fail("x")

        await asyncio.to_thread(asyncio.run, elsewhere())

    cluster(main)


def test_a_forgotten_await_is_named(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        task: Any = s.Counter.remote().add(1)
        for mistake in (
            lambda: task + 1,
            lambda: bool(task),
            lambda: len(task),
            lambda: list(task),
            lambda: task[0],
            lambda: task < 2,
            lambda: 2 * task,
            lambda: -task,
            lambda: float(task),
            lambda: f"{task:.2f}",
        ):
            with pytest.raises(TypeError, match="await"):
                mistake()
        with pytest.raises(AttributeError, match="await"):
            _ = task.shape
        assert "add" in f"{task}"
        await task

    cluster(main)


def test_a_temporary_proxy_may_be_awaited(cluster: RunIn) -> None:
    """The first trap: the proxy is a temporary that only the await holds."""

    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        for _ in range(3):
            await counter.add(1)
            gc.collect()
        assert await s.Counter.remote(2).value().result() == 2
        assert await (await s.Counter.remote(3)).value().result() == 3

    cluster(main)


def test_what_is_dropped_is_freed_without_another_message(cluster: RunIn) -> None:
    """The second trap: a receive loop that keeps the last one until the next comes."""

    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        task = counter.identity(np.ones(10))
        value = await task.result()
        array = weakref.ref(value)
        uid = task._call.uid
        del task, value
        assert array() is None
        assert uid not in runtime.caller.calls
        # at the worker: the constructor's argument goes with the call that brought it
        watcher = mosaic.remote(Watcher)()
        await watcher.take(Weak())
        assert await watcher.is_gone().result()

    cluster(main)


class Weak:
    """May be referred to weakly."""


class Watcher:
    """Looks whether its last argument is gone."""

    def take(self, item: Weak) -> None:
        self.ref = weakref.ref(item)

    def is_gone(self) -> bool:
        return self.ref() is None


def test_a_failed_task_does_not_leak_by_its_traceback(cluster: RunIn) -> None:
    """The third trap: traceback, the frame of __await__, the proxy."""

    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        gc.disable()
        try:
            for wait in ("await", "result"):
                task = counter.fail("kept")
                kept = None
                try:
                    await (task if wait == "await" else task.result())
                except ValueError as error:
                    kept = error
                assert kept is not None
                assert kept.__traceback__ is not None
                # nothing but this frame and the argument here hold it
                assert sys.getrefcount(task) == 2, wait
        finally:
            gc.enable()

    cluster(main)


def test_retries_run_at_once_and_are_counted(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        flaky = mosaic.remote(Flaky, max_retries=2)()
        assert await flaky.plain(2).result() == "after 2"
        assert await flaky.coroutine(2).result() == "after 2"
        with pytest.raises(OSError, match="try 3") as info:
            await flaky.plain(9)
        flaky.fresh()
        assert "attempt 3" in "".join(info.value.__notes__)
        with pytest.raises(OSError, match="try 3") as info:
            await flaky.coroutine(9)
        flaky.fresh()
        assert "attempt 3" in "".join(info.value.__notes__)
        once = mosaic.remote(Flaky)()
        with pytest.raises(OSError, match="try 1") as info:
            await once.plain(1)
        once.fresh()
        assert "attempt 1" in "".join(info.value.__notes__)
        assert await once.plain.options(max_retries=1)(1).result() == "after 1"
        assert await once.coroutine(1, max_retries=1).result() == "after 1"
        with pytest.raises(OSError, match="try 1"):
            await flaky.plain(1, max_retries=0)
        flaky.fresh()
        with pytest.raises(mosaic.RemoteError, match="SystemExit"):
            await flaky.leave()
        assert await flaky.leave_count().result() == 1
        with pytest.raises(ValueError, match="at least 0"):
            flaky.plain.options(max_retries=-1)
        with pytest.raises(TypeError, match="unknown option 'max_retry'"):
            flaky.plain.options(max_retry=1)

    cluster(main)


class Flaky:
    """Fails so many times."""

    def __init__(self) -> None:
        self.tries = 0
        self.left = 0

    def _try(self, failures: int) -> str:
        self.tries += 1
        if self.tries <= failures:
            raise OSError(f"try {self.tries}")
        self.tries = 0
        return f"after {failures}"

    def fresh(self) -> None:
        self.tries = 0

    def plain(self, failures: int) -> str:
        return self._try(failures)

    async def coroutine(self, failures: int) -> str:
        await asyncio.sleep(0)
        return self._try(failures)

    def leave(self) -> None:
        self.left += 1
        raise SystemExit(3)

    def leave_count(self) -> int:
        return self.left


def test_a_thread_that_never_awaits_sees_its_calls_run(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()

        def work() -> None:
            for _ in range(500):
                counter.add(1)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        assert await counter.value().result() == 2000

    cluster(main)


def test_a_callback_that_fails_harms_nothing(
    cluster: RunIn, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(runtime: Any) -> None:
        task = s.Counter.remote().add(1)

        def bad(_: Any) -> None:
            raise KeyError("callback")

        task.add_done_callback(bad)
        assert await task.result() == 1

    cluster(main)
    assert "a callback of Counter#" in caplog.text
