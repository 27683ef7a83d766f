"""Tasks on real processes: order, arguments, waiting, cancelling, what is known."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import mosaic_like as mosaic
import numpy as np
import pytest
import specimens as s
from mosaic_like.proxies.task import TaskProxy
from specimens import RunIn


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


def test_arguments_are_taken_at_the_call(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        for size in (4, 100_000):
            array, items, text = np.zeros(size), [1], bytearray(b"a" * size)
            task = counter.identity((array, items, text))
            array[:] = 7
            items.append(2)
            text[:] = b"b" * size
            arrived, numbers, letters = await task.result()
            assert arrived.sum() == 0
            assert numbers == [1]
            assert letters == b"a" * size

    cluster(main)


def test_tasks_are_arguments_at_any_depth(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = (s.Counter.options(runtime=w).remote() for w in runtime.workers)
        one = first.add(1)
        assert await second.add(one).result() == 1
        nested = second.identity({"a": [one, (one, 2)], "b": {"c": one}})
        assert await nested.result() == {"a": [1, (1, 2)], "b": {"c": 1}}
        pair = first.identity((10, [20]))
        table = first.identity({"k": 5, "done": 6, 0: 7})
        assert await second.add(pair.outputs[0]).result() == 11
        assert await second.identity(pair.outputs[1]).result() == [20]
        assert await second.identity(table.outputs["k"]).result() == 5
        assert await second.identity(table.outputs.k).result() == 5
        assert await second.identity([table.outputs["done"]]).result() == [6]
        assert await second.identity(table.outputs[0]).result() == 7
        assert await second.identity(one.outputs[0]).result() == 1
        assert await pair.outputs[-1].result() == [20]
        single = first.identity((3,))
        assert await single.result() == (3,)
        assert await single.outputs[0].result() == 3
        big = first.identity(np.arange(100_000))
        assert (await second.identity([big]).result())[0].sum() == 4999950000
        keyword = second.add(k=one, times=first.identity(3))
        assert await keyword.result() == 14
        with pytest.raises(IndexError):
            await pair.outputs[5].result()
        with pytest.raises(KeyError):
            await table.outputs["none"].result()
        with pytest.raises(IndexError):
            await second.identity(pair.outputs[5])

    cluster(main)


def test_a_token_only_orders(cluster: RunIn, tmp_path: Any) -> None:
    async def main(runtime: Any) -> None:
        first, second = (s.Slow.options(runtime=w).remote() for w in runtime.workers)
        held = first.hold(str(tmp_path / "go"))
        after = second.mark("after", held.outputs.done)
        other = s.Counter.options(runtime=runtime.workers[1]).remote()
        nested = other.identity([1, {"x": held.done}])
        await other.value()
        assert not after.done()
        (tmp_path / "go").touch()
        assert await after.result() == ["after"]
        assert await nested.result() == [1, {"x": None}]
        assert await held.done is None
        assert held.done()

    cluster(main)


def test_a_task_in_a_result_stays_a_task(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote(4)
        caller = s.Caller.remote(counter)
        inner = await caller.pass_on("add", 1).result()
        assert isinstance(inner, TaskProxy)
        assert await inner.result() == 5
        assert await counter.add(inner).result() == 10
        del inner
        gc.collect()
        assert await counter.value().result() == 10

    cluster(main)


def test_a_method_of_a_result_runs_where_the_result_is(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = (s.Counter.options(runtime=w).remote() for w in runtime.workers)
        words = first.identity(["b", "a"])
        assert await words.remote.index("a").result() == 1
        assert await words.remote.count(x := "b").result() == 1
        assert x == "b"
        number = second.identity("a")
        assert await words.remote.index(number).result() == 1
        built = first.identity(s.Counter(3))
        assert await built.remote.add(4).result() == 7
        with pytest.raises(AttributeError, match="nothing"):
            await built.remote.nothing()
        with pytest.raises(AttributeError, match="private"):
            built.remote._secret()
        with pytest.raises(ValueError, match="not in list"):
            await words.remote.index("z")
        with pytest.raises(mosaic.UpstreamError):
            await first.fail().remote.real()

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
            with pytest.raises(TimeoutError, match="1 tasks have not ended"):
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
    while not path.exists():
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
        done, pending = await mosaic.wait(
            [held, broken], return_when="FIRST_EXCEPTION"
        )
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
            await mosaic.gather(counter.add(1), 3)
        with pytest.raises(ValueError, match="no tasks"):
            await mosaic.wait([])
        again = slow.hold(str(tmp_path / "again"))
        with pytest.raises(TimeoutError):
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
        assert await asyncio.gather(counter.add(1).result(), counter.n) == [3, 3]
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
        ):
            with pytest.raises(TypeError, match="await"):
                mistake()
        with pytest.raises(AttributeError, match="await"):
            task.shape
        assert "add" in f"{task}"
        await task

    cluster(main)


def test_a_temporary_proxy_may_be_awaited(cluster: RunIn) -> None:
    """The first trap: the proxy is a temporary that only the await holds."""

    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        for _ in range(20):
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


# -- loops and barriers ----------------------------------------------------------------


def test_a_loop_has_a_worker_for_each_item(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        pool = s.Counter.options(len=runtime.num_workers).remote()
        await pool
        taken: set[str] = set()
        most = 0

        @runtime.async_for(range(12), "abcdefghijkl")
        async def loop(worker: Any, number: int, letter: str) -> tuple[int, str, int]:
            nonlocal most
            assert worker.uid not in taken
            taken.add(worker.uid)
            most = max(most, len(taken))
            pid = await pool.pid(runtime=worker).result()
            assert pid == worker.pid
            taken.discard(worker.uid)
            return number, letter, pid

        results = await loop
        assert [(n, x) for n, x, _ in results] == list(
            zip(range(12), "abcdefghijkl", strict=True)
        )
        assert most == 2
        assert len({pid for _, _, pid in results}) == 2
        assert await runtime.async_for([])(loop) == []

    cluster(main)


def test_loops_nest_without_waiting_for_each_other(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        holders: dict[str, int] = {}

        @runtime.async_for(range(4))
        async def outer(worker: Any, i: int) -> list[Any]:
            @runtime.async_for(range(3))
            async def middle(inner_worker: Any, j: int) -> list[Any]:
                holders[inner_worker.uid] = holders.get(inner_worker.uid, 0) + 1
                await asyncio.sleep(0)

                @runtime.async_for(range(2))
                async def deepest(_: Any, k: int) -> tuple[int, int, int]:
                    await asyncio.sleep(0)
                    return i, j, k

                return await deepest

            both = await asyncio.gather(middle, middle)
            return both[0]

        results = await outer
        assert results[3][2][1] == (3, 2, 1)
        # all workers were given back
        assert len(await runtime.async_for(range(4))(_uid_of)) == 4

    async def _uid_of(worker: Any, _: int) -> str:
        return str(worker.uid)

    cluster(main)


def test_an_inner_loop_runs_on_the_worker_of_the_outer_item(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        inside: list[bool] = []
        both = asyncio.Barrier(2)

        @runtime.async_for(range(2))
        async def outer(worker: Any, _: int) -> None:
            async with asyncio.timeout(20):
                await both.wait()  # now all workers are taken

            @runtime.async_for(range(3))
            async def inner(own: Any, _: int) -> None:
                inside.append(own == worker)

            await inner
            async with asyncio.timeout(20):
                await both.wait()

        await outer
        assert inside == [True] * 6

    cluster(main)


def test_a_failing_item_gives_its_worker_back(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        ended: list[int] = []
        failing = asyncio.Event()

        @runtime.async_for(range(100))
        async def loop(worker: Any, i: int) -> None:
            if i == 1:
                failing.set()
                raise KeyError("item 1")
            await failing.wait()
            ended.append(i)

        with pytest.raises(KeyError, match="item 1"):
            await loop
        assert ended[0] == 0  # what ran went on to its end
        assert len(ended) < 3  # and no more was started

        @runtime.async_for(range(3), timeout=0.02)
        async def stuck(worker: Any, i: int) -> None:
            await asyncio.Event().wait()

        with pytest.raises(TimeoutError, match="0 of 3 items"):
            await stuck

        both = asyncio.Barrier(2)

        @runtime.async_for(range(2))
        async def after(worker: Any, i: int) -> int:
            async with asyncio.timeout(20):
                await both.wait()  # needs both workers at once
            return i

        assert await after == [0, 1]

    cluster(main)


_LOST = """
import asyncio, os
import mosaic_like as mosaic

@mosaic.tessera
class Echo:
    def pid(self): return os.getpid()
    def identity(self, x): return x

async def main(runtime):
    pool = Echo.options(len=2).remote()
    await pool
    victim = runtime.workers[1]
    tries = []

    async def body(worker, i):
        tries.append((i, worker.uid))
        task = pool.identity(i, runtime=worker)
        if worker == victim:
            os.kill(victim.pid, 9)
            await pool.pid(runtime=worker)
        return await task.result()

    assert await runtime.async_for(range(6))(body) == list(range(6))
    lost = [i for i, uid in tries if uid == victim.uid]
    assert len(lost) == 1
    assert [i for i, _ in tries].count(lost[0]) == 2

    @runtime.async_for(range(1), safe=False)
    async def unsafe(worker, i):
        os.kill(worker.pid, 9)
        await Echo.options(runtime=worker).remote().pid()

    try:
        await unsafe
    except mosaic.RuntimeDisconnectedError:
        print("raised")

async def bounded(runtime):
    async with asyncio.timeout(20):
        await main(runtime)

mosaic.run(bounded, num_workers=2)
"""


def test_an_item_whose_worker_was_lost_runs_again(run_script: Any) -> None:
    result = run_script(_LOST)
    assert result.code == 0, result.stderr
    assert result.stdout == "raised\n"
    assert "item 1 runs again" in result.stderr


def test_a_barrier_waits_for_calls_made_inside_calls(
    cluster: RunIn, tmp_path: Any
) -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        slow = s.Slow.options(runtime=second).remote()
        caller = s.Caller.options(runtime=first).remote(slow)
        over = s.Caller.options(runtime=second).remote(caller)
        await over.fire("fire", "hold", str(tmp_path / "go"))
        with pytest.raises(TimeoutError, match="not reached in 0.05 s"):
            await runtime.barrier(0.05)
        with pytest.raises(TimeoutError):
            await runtime.barrier(timeout=0)
        (tmp_path / "go").touch()
        await runtime.barrier(20)
        assert await slow.order == ["hold"]
        # held up by nothing: nothing to wait for
        await runtime.barrier()

    cluster(main)


def test_what_is_registered_runs_at_the_next_barrier(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        seen: list[int] = []

        async def look() -> None:
            seen.append(await counter.value().result())
            counter.add(10)

        runtime.register_barrier_task(look)
        counter.add(1)
        await runtime.barrier()
        assert seen == [1]
        await runtime.barrier()
        assert seen == [1]
        assert await counter.n == 11

        async def bad() -> None:
            raise KeyError("registered")

        runtime.register_barrier_task(bad)
        with pytest.raises(KeyError, match="registered"):
            await runtime.barrier()
        await runtime.barrier()
        with pytest.raises(TypeError, match="coroutine function"):
            runtime.register_barrier_task(3)

    cluster(main)


def test_the_runtime_knows_its_workers(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        assert [w.uid for w in runtime.workers] == ["worker:0:0", "worker:0:1"]
        assert runtime.workers[1].indices == (0, 1)
        assert runtime.num_workers == 2
        assert runtime.get_worker("worker:0:1") == runtime.workers[1]
        assert [n.uid for n in runtime.nodes] == ["node:0"]
        with pytest.raises(LookupError, match="there are: worker:0:0"):
            runtime.get_worker("worker:0:5")
        await runtime.wait_for_workers(2, timeout=1)
        with pytest.raises(TimeoutError, match="2 of 3 workers"):
            await runtime.wait_for_workers(3, timeout=0.01)
        with pytest.raises(LookupError):
            s.Counter.options(runtime="worker:1:0").remote()

    cluster(main)


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
