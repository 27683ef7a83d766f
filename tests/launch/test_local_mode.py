"""``mosaic.local``: all inline, for unit tests; row 39. No processes are started."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

import mosaic_like as mosaic
from mosaic_like import session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mosaic_like.runtimes.solo import Solo


@mosaic.task
def double(x: int) -> int:
    return 2 * x


@mosaic.task
async def later(x: int) -> int:
    await asyncio.sleep(0.01)
    return x


@mosaic.task
def fibonacci(n: int) -> int:
    if n < 2:
        return n
    return sum(task.get() for task in fibonacci.map([n - 1, n - 2]))


@mosaic.task
def nested(depth: int) -> int:
    if not depth:
        return 1
    with mosaic.Executor() as inner:
        futures = [inner.submit(nested, depth - 1) for _ in range(3)]
        return sum(f.result() for f in concurrent.futures.as_completed(futures))


@mosaic.tessera
class Counter:
    closed: list[int] = []  # this process's, where all of it runs

    def __init__(self) -> None:
        self.count = 0

    def add(self, k: int) -> int:
        self.count += k
        return self.count

    def items(self) -> Iterator[int]:
        yield 1
        time.sleep(0.001)
        yield 2

    def __close__(self) -> None:
        Counter.closed.append(self.count)


@pytest.fixture
def runtime() -> Iterator[Solo]:
    with mosaic.local() as runtime:
        yield runtime


def test_local_mode_has_run_it_when_submit_returns(runtime: Solo) -> None:
    task = double.submit(2)
    assert (task.state, task.get()) == ("done", 4)
    assert [t.state for t in double.map([1, 2])] == ["done", "done"]
    assert double.submit(double.submit(3)).get() == 12
    assert runtime.num_workers == 1
    assert mosaic.task(os.getpid).submit().get() == os.getpid()


def test_local_mode_of_nested_calls_ends(runtime: Solo) -> None:
    assert fibonacci.submit(7).get() == 13
    assert nested.submit(3).get() == 27


def test_local_mode_runs_a_call_inside_a_call_at_once(runtime: Solo) -> None:
    @mosaic.task
    def outer() -> str:
        return str(double.submit(1).state)

    assert outer.submit().get() == "done"


def test_local_mode_has_the_errors_of_a_cluster(runtime: Solo) -> None:
    @mosaic.task
    def fail() -> None:
        raise ValueError("no")

    task = fail.submit()
    assert (task.state, task.reason) == ("failed", "error")
    with pytest.raises(ValueError, match="no"):
        task.get()
    with pytest.raises(mosaic.UpstreamError):
        double.submit(task).get()
    with pytest.raises(TypeError, match="missing"):
        double.submit()  # type: ignore[call-overload]
    with pytest.raises(mosaic.SerializationError):
        double.submit(threading.Lock())  # type: ignore[call-overload]


def test_local_mode_takes_arguments_as_they_are_now(runtime: Solo) -> None:
    given = [1]
    task = mosaic.task(sorted).submit(given)
    given.append(2)
    assert task.get() == [1]


def test_local_mode_waits_for_what_takes_time(runtime: Solo) -> None:
    def flaky() -> int:
        Counter.closed.append(0)
        if len(Counter.closed) < 2:
            raise OSError
        return 1

    Counter.closed.clear()
    task = mosaic.task(flaky, max_retries=1, retry_delay=0.02).submit()
    assert (task.state, task.reason) == ("pending", "retry")
    assert (task.get(), task.attempt) == (1, 2)
    slow = later.submit(3)
    assert slow.state == "pending"
    with pytest.raises(TimeoutError):
        mosaic.task(asyncio.sleep).submit(600).get(0.01)
    assert slow.get() == 3
    assert [t.get() for t in mosaic.as_completed(later.map([4, 4]))] == [4, 4]
    with mosaic.Executor() as executor:
        futures = [executor.submit(double, 1), executor.submit(abs, 0)]
        assert concurrent.futures.wait(futures).not_done == set()
        assert list(executor.map(pow, [2, 3], [3, 2])) == [8, 9]


def test_local_mode_runs_tesserae_in_order_and_closes_them() -> None:
    Counter.closed.clear()
    with mosaic.local():
        counter = Counter.remote()
        assert [counter.add(1).state for _ in range(3)] == ["done"] * 3
        assert counter.add(1).get() == 4
        assert list(counter.items()) == [1, 2]
        other = Counter.remote()
        assert other.add(7).get() == 7
    assert Counter.closed == [7, 4]


def test_local_mode_has_graphs_policies_and_records(runtime: Solo) -> None:
    first = double.task(1)
    second = first.then(double)
    assert (first.state, second.state) == ("prepare", "prepare")
    seen: list[tuple[str, str]] = []
    with mosaic.record(lambda record: seen.append((record["name"], record["state"]))):
        assert second.submit().get() == 4
    assert seen == [("double", "done")] * 2
    mosaic.limits["db"] = 1
    limited = double.options(tags={"db"}, cache_key="inputs")
    assert [t.reason for t in limited.map([1, 1])] == [None, "cached"]


def test_a_call_is_said_to_be_made_where_it_stands(runtime: Solo) -> None:
    with_policy = double.options(tags={"a"})
    tasks = [
        double.submit(1),
        double.submit(x=1),
        with_policy.submit(1),
        double.task(1),
        with_policy.task(1),
        double.task(1).then(double),
        *double.map([1]),
        *with_policy.map([1]),
        *double.starmap([(1,)]),
    ]
    here = test_a_call_is_said_to_be_made_where_it_stands.__code__
    assert [task._call.code for task in tasks] == [here] * len(tasks)


async def test_as_completed_wait_and_map_give_what_has_ended_and_end_in_time() -> None:
    async with mosaic.local():
        never = mosaic.task(asyncio.sleep).submit(600)
        tasks = later.map([1, 2])
        found = {await t.result() async for t in mosaic.as_completed(tasks)}
        assert found == {1, 2}
        done, pending = await mosaic.wait([never, *tasks], timeout=0.01)
        assert (done, pending) == (set(tasks), {never})
        ends = aiter(mosaic.as_completed([never], timeout=0.01))
        with pytest.raises(TimeoutError):
            await anext(ends)
        assert never.cancel()


async def test_local_mode_on_a_loop() -> None:
    with mosaic.local():
        assert double.submit(2).state == "done"
        assert await later.submit(5).result() == 5
        assert await mosaic.gather(*later.map([1, 2])) == [1, 2]
        reference = await mosaic.put(bytes(300_000))
        assert await mosaic.task(len).submit(reference).result() == 300_000
        async with mosaic.TaskGroup() as group:
            task = group.submit(later, 1)
        assert task.state == "done"
        await mosaic.barrier(timeout=30)
        assert await asyncio.to_thread(lambda: later.submit(3).get()) == 3
        with pytest.raises(RuntimeError, match="await"):
            later.submit(3).get()


async def test_local_mode_gives_plain_functions_no_loop() -> None:
    @mosaic.task
    def outer(x: int) -> int:
        return double.submit(x).get() + asyncio.run(later.fn(1))

    async with mosaic.local():
        assert await outer.submit(2).result() == 5


def test_local_mode_works_in_other_threads(runtime: Solo) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda x: (double.submit(x).get(), later.submit(x).get()), [3])
        assert list(found) == [(6, 3)]
        assert sorted(pool.map(lambda x: double.submit(x).get(), range(50))) == [
            2 * x for x in range(50)
        ]


def test_local_mode_gives_back_the_runtime_that_was_there() -> None:
    assert session.peek() is None
    block = mosaic.local()
    with block as outer:
        with mosaic.local() as inner:
            assert session.peek() is inner
        task = double.submit(1)
        assert session.peek() is outer
    assert session.peek() is None
    with mosaic.local(), pytest.raises(RuntimeError, match="ended"):
        double.submit(task)
    with pytest.raises(RuntimeError, match="entered before"), block:
        pass


def test_local_mode_ends_what_waits() -> None:
    with mosaic.local():
        task = mosaic.task(asyncio.sleep).submit(600)
        assert task.state == "pending"
    assert task.state == "cancelled"


_PROGRAM = """
import os, mosaic_like as mosaic
async def main(runtime):
    pid = mosaic.task(os.getpid)
    return await pid.submit().result() == os.getpid(), runtime.num_workers
print(mosaic.run(main, num_workers=4))
with mosaic.init(num_workers=2):
    print(mosaic.task(len).submit("abc").get())
with mosaic.Executor() as executor:
    print(list(executor.map(abs, [-1])))
"""


def test_local_mode_by_the_environment_starts_no_cluster() -> None:
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, "MOSAIC_LOCAL": "1"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (result.stdout, result.stderr) == ("(True, 1)\n3\n[1]\n", "")
