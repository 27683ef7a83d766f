"""Blocking in plain methods: what runs meanwhile, and circles."""

from __future__ import annotations

import asyncio
import threading
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import specimens as s
from specimens import RunIn

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@mosaic.tessera
class Nested:
    """Blocks in plain methods."""

    def __init__(self, other: Any = None) -> None:
        self.other = other
        self.log: list[str] = []

    def point(self, other: Any) -> None:
        self.other = other

    def logged(self) -> list[str]:
        return self.log

    def leaf(self, x: Any = 1) -> Any:
        self.log.append(f"leaf {x}")
        return x

    def ask(self, name: str, *args: Any) -> Any:
        return getattr(self.other, name)(*args).get(20)

    async def aask(self, name: str, *args: Any) -> Any:
        return await getattr(self.other, name)(*args).result()

    def mixed(self, x: int) -> int:
        """A plain method that waits for a coroutine that waits for a plain one."""
        return int(self.other.aask("leaf", x).get(20))

    def made(self, x: int) -> int:
        """Makes one, asks it, and drops it."""
        inner = Nested.remote()
        beside = Nested.options(runtime=inner).remote()
        return int(inner.leaf(x).get(20)) + int(beside.leaf(x).get(20))

    def many(self, count: int) -> list[int]:
        tasks = [self.other.leaf(i) for i in range(count)]
        return [t.get(20) for t in tasks]

    def all_ways(self) -> list[Any]:
        task = self.other.leaf(1)
        first = task.wait(20) is task
        future = self.other.leaf(2).as_future()
        second = future.result(20)
        third = self.other.leaf(3).as_future().exception(20)
        tasks = [self.other.leaf(i) for i in range(4)]
        ended = sorted(t.get(20) for t in mosaic.as_completed(tasks, 20))
        return [first, second, third, ended]

    def in_time(self, path: str) -> str:
        task = self.other.hold(path)
        try:
            task.get(timeout=0.02)
        except TimeoutError as error:
            Path(path).touch()
            return f"{error}|{task.get(20)}"
        return "no error"

    def fails(self) -> str:
        try:
            self.other.fail("inner").get(20)
        except ValueError as error:
            return f"caught {error}"
        return "no error"

    def gate(self, started: str, path: str) -> Any:
        """Wait for a call of another, which ends when it is told."""
        Path(started).touch()
        self.log.append("gate opens")
        value = self.other.hold(path).get(20)
        self.log.append("gate closes")
        return value

    def from_a_thread(self) -> Any:
        """A thread of the user waits, not the main one."""
        found: list[Any] = []
        thread = threading.Thread(
            target=lambda: found.append(self.other.leaf(7).get(20))
        )
        thread.start()
        thread.join(20)
        return found

    async def on_the_loop(self) -> str:
        try:
            self.other.leaf(1).get(20)
        except RuntimeError as error:
            return str(error)
        return "no error"


def test_calls_wait_inside_each_other_on_one_worker(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        for places in ([runtime.workers[0]], runtime.workers):
            members = [
                s.Caller.options(runtime=places[i % len(places)]).remote()
                for i in range(11)
            ]
            depth = await members[0].chain(0, members[1:]).result()
            assert depth == 10

    cluster(main)


def test_two_workers_that_call_each_other_do_not_stop(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        # From one worker to the other and back, twelve deep, from both sides.
        for places in ([first, second], [second, first]):
            members = [
                s.Caller.options(runtime=places[i % 2]).remote() for i in range(13)
            ]
            assert await members[0].chain(0, members[1:]).result() == 12

    cluster(main)


def test_two_workers_that_wait_for_each_other_do_not_stop(cluster: RunIn) -> None:
    """No circle of calls: only the two main threads stand in each other's way."""

    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        on_first = Nested.options(runtime=first).remote()
        on_second = Nested.options(runtime=second).remote()
        a = Nested.options(runtime=first).remote(on_second)
        b = Nested.options(runtime=second).remote(on_first)
        calls = [x.ask("leaf", i) for i in range(20) for x in (a, b)]
        assert await mosaic.gather(calls) == [i for i in range(20) for _ in "ab"]

    cluster(main)


def test_descendants_run_on_the_thread_that_waits(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        leaf = Nested.options(runtime=first).remote()
        middle = Nested.options(runtime=second).remote(leaf)
        outer = Nested.options(runtime=first).remote(middle)
        # first waits for second, which waits for what must run on first
        assert await outer.ask("ask", "leaf", 5).result() == 5
        assert await outer.ask("aask", "leaf", 6).result() == 6
        assert await outer.mixed(7).result() == 7
        assert await outer.made(8).result() == 16

    cluster(main)


def test_every_way_of_waiting_goes_through_get(cluster: RunIn, tmp_path: Any) -> None:
    async def main(runtime: Any) -> None:
        place = runtime.workers[0]
        leaf = Nested.options(runtime=place).remote()
        waiting = Nested.options(runtime=place).remote(leaf)
        assert await waiting.many(50).result() == list(range(50))
        ways = await waiting.all_ways().result()
        assert ways == [True, 2, None, [0, 1, 2, 3]]
        assert "await task.result()" in await waiting.on_the_loop().result()
        counter = s.Counter.options(runtime=place).remote()
        failing = Nested.options(runtime=place).remote(counter)
        assert await failing.fails().result() == "caught inner"
        slow = s.Slow.options(runtime=runtime.workers[1]).remote()
        timed = Nested.options(runtime=place).remote(slow)
        text = await timed.in_time(str(tmp_path / "go")).result()
        assert "0.02 s; it goes on|held" in text
        far = Nested.options(runtime=runtime.workers[1]).remote()
        threads = Nested.options(runtime=place).remote(far)
        assert await threads.from_a_thread().result() == [7]

    cluster(main)


def test_calls_of_others_stay_queued_meanwhile(cluster: RunIn, tmp_path: Any) -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        slow = s.Slow.options(runtime=second).remote()
        waiting = Nested.options(runtime=first).remote(slow)
        other = Nested.options(runtime=first).remote()
        await waiting
        await other
        started = tmp_path / "started"
        gate = waiting.gate(str(started), str(tmp_path / "go"))
        while not started.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.002)
        unrelated = other.leaf("unrelated")
        own = waiting.leaf("own")
        done, pending = await mosaic.wait([unrelated, own], timeout=0.05)
        assert not done
        assert pending == {unrelated, own}
        (tmp_path / "go").touch()
        assert await gate.result() == "held"
        assert await own.result() == "own"
        assert await waiting.logged().result() == [
            "gate opens",
            "gate closes",
            "leaf own",
        ]
        assert await unrelated.result() == "unrelated"

    cluster(main)


def test_a_call_to_itself_is_a_circle_at_once(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first = runtime.workers[0]
        one = Nested.options(runtime=first).remote()
        one.point(one)
        with pytest.raises(mosaic.CycleError, match=r"Nested#\d+\.leaf can only start"):
            await one.ask("leaf")
        # over another tessera of the same worker
        two = Nested.options(runtime=first).remote(one)
        one.point(two)
        with pytest.raises(mosaic.CycleError):
            await one.ask("ask", "leaf")
        assert await one.leaf(3).result() == 3
        assert await two.leaf(4).result() == 4

    cluster(main)


def test_a_cancel_reaches_a_method_that_waits(cluster: RunIn, tmp_path: Any) -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        slow = s.Slow.options(runtime=second).remote()
        waiting = Nested.options(runtime=first).remote(slow)
        started = tmp_path / "started"
        gate = waiting.gate(str(started), str(tmp_path / "go"))
        while not started.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.002)
        assert gate.cancel()
        with pytest.raises(mosaic.TaskCancelledError):
            await gate
        assert await waiting.leaf(1).result() == 1
        (tmp_path / "go").touch()
        # Cancelled too: it holds no thread any more, if it had begun at all.
        assert await slow.mark("x").result() in (["x"], ["hold", "x"])

    cluster(main)


def test_too_deep_a_nesting_is_an_error(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        members = s.Caller.options(len=70, runtime=runtime.workers[0]).remote()
        await members
        rest = list(members)
        with pytest.raises(RecursionError, match="64 plain methods"):
            await rest[0].chain(0, rest[1:])
        assert await rest[0].leaf(1).result() == 1

    cluster(main)


def test_no_way_of_waiting_stops_the_loop_for_ever(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        one = Nested.remote()
        executor = mosaic.Executor()

        task = one.leaf()
        future = executor.submit(abs, -1)

        def waiting(timeout: float | None) -> Iterator[Callable[[], Any]]:
            yield lambda: task.get(timeout)
            yield lambda: task.wait(timeout)
            yield lambda: task.as_future().result(timeout)
            yield lambda: task.as_future().exception(timeout)
            yield lambda: futures.wait([future, task.as_future()], timeout)
            yield lambda: list(futures.as_completed([future], timeout))
            yield lambda: list(mosaic.as_completed([task], timeout))
            yield executor.shutdown

        for timeout in (None, 20):
            for wait in waiting(timeout):
                with pytest.raises(RuntimeError, match="would stop the loop"):
                    wait()
        # A look does not wait, and what has ended needs none.
        assert not futures.wait([future], 0).done
        assert await asyncio.wrap_future(future) == 1
        assert future.result() == 1
        assert list(futures.as_completed([future])) == [future]
        executor.shutdown()

    cluster(main)
