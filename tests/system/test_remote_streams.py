"""Generators called on proxies, in real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import threading
import time
from pathlib import Path  # noqa: TC003 -- the workers have it too
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from specimens import RunIn

WAIT_S = 15.0


@mosaic.tessera
class Box:
    def __init__(self) -> None:
        self.value = 0

    def get(self) -> int:
        return self.value

    def put(self, value: int) -> None:
        self.value = value


@mosaic.tessera
class Source:
    def __init__(self) -> None:
        self.made = 0
        self.log: list[Any] = []
        self.kept: list[Any] = []

    def count(self, n: int, fail: bool = False) -> Iterator[int]:
        try:
            for i in range(n):
                self.made += 1
                yield i
            if fail:
                raise ValueError("after the items")
        finally:
            self.log.append(("closed", threading.current_thread().name))

    async def acount(self, n: int, fail: bool = False) -> AsyncIterator[int]:
        try:
            for i in range(n):
                self.made += 1
                yield i
            if fail:
                raise ValueError("after the items")
        finally:
            await asyncio.sleep(0)
            self.log.append(("closed", threading.current_thread().name))

    def sleepy(self) -> Iterator[int]:
        try:
            yield 1
            time.sleep(60)
            yield 2
        finally:
            self.log.append("woken")

    async def asleepy(self) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(60)
            yield 2
        finally:
            self.log.append("awoken")

    def stubborn(self) -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise OSError("while closing")

    def arrays(self, n: int, size: int) -> Iterator[bytearray]:
        data = bytearray(size)
        for i in range(n):
            self.made += 1
            data[0] = i
            yield data

    def boxes(self, n: int) -> Iterator[Any]:
        for i in range(n):
            box: Any = Box.remote()
            box.put(i)
            yield {"box": box, "task": box.get()}

    def odd(self) -> Iterator[Any]:
        try:
            yield 1
            yield threading.Lock()
        finally:
            self.log.append("odd")

    def get_log(self) -> list[Any]:
        return self.log

    def get_made(self) -> int:
        return self.made

    def pid(self) -> int:
        return os.getpid()

    async def __aiter__(self) -> AsyncIterator[str]:
        for word in ("a", "b", "c"):
            yield word

    def tell(self, witness: Any) -> None:
        self.kept.append(witness)

    def __close__(self) -> None:
        for witness in self.kept:
            witness.see(sorted(self.log))


@mosaic.tessera
class Witness:
    def __init__(self) -> None:
        self.log: list[Any] = []

    def see(self, log: list[Any]) -> None:
        self.log = log

    def seen(self) -> list[Any]:
        return self.log


@mosaic.tessera
class Walker:
    """Its ``__aiter__`` is no generator."""

    def __init__(self) -> None:
        self.left = 40

    def __aiter__(self) -> Walker:
        return self

    async def __anext__(self) -> int:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return self.left


@mosaic.tessera
class Reader:
    """Consumes streams inside methods."""

    def total(self, source: Any, method: str, n: int) -> int:
        return sum(getattr(source, method)(n))

    async def atotal(self, source: Any, method: str, n: int) -> int:
        total = 0
        async for item in getattr(source, method)(n):
            total += item
        return total

    def first(self, source: Any) -> int:
        item: int = next(iter(source.count(1000)))
        return item

    def hold(self, source: Any) -> int:
        self.stream = source.acount(1000)
        item: int = self.stream.next(WAIT_S)
        return item

    def pid(self) -> int:
        return os.getpid()

    def dies(self, read: Path) -> Iterator[int]:
        yield from range(5)
        end_s = time.monotonic() + WAIT_S
        while not read.exists() and time.monotonic() < end_s:
            time.sleep(0.005)
        os.kill(os.getpid(), 9)


async def into(found: list[Any], stream: Any) -> None:
    """Take all items, also those before an error."""
    async for item in stream:
        found.append(item)  # noqa: PERF401 - what came before an error must stay


async def eventually(ask: Callable[[], Any], expected: Any) -> None:
    """Ask until it is so; each question is a round trip."""
    deadline = time.monotonic() + WAIT_S
    while (found := await ask().result()) != expected:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.005)


def test_items_arrive_in_order_and_the_error_after_them(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        source: Any = Source.remote()
        for method in (source.count, source.acount):
            assert [i async for i in method(100)] == list(range(100))
            assert [i async for i in method(0)] == []
            found: list[int] = []
            with pytest.raises(ValueError, match="after the items"):
                await into(found, method(40, fail=True))
            assert found == list(range(40))
        assert [word async for word in source] == ["a", "b", "c"]
        walker: Any = Walker.remote()
        assert [i async for i in walker] == list(range(39, -1, -1))
        # Two at once, of one tessera, taken in turn.
        first, second = source.count(50), source.acount(50)
        pairs = [(item, await anext(second)) async for item in first]
        assert pairs == [(i, i) for i in range(50)]
        with pytest.raises(StopAsyncIteration):
            await anext(first)
        with pytest.raises(TypeError, match="cannot travel"):
            pickle.dumps(first)
        with pytest.raises(RuntimeError, match="async for"):
            next(iter(source.count(3)))
        log = await source.get_log().result()
        assert ("closed", "MainThread") in log
        assert ("closed", "mosaic loop") in log
        # The proxy is a temporary: the stream keeps its tessera.
        made = [i async for i in Source.remote().count(40)]
        assert made == list(range(40))

    cluster(main)


def test_a_slow_consumer_holds_the_generator_and_others_go_on(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        source: Any = Source.remote()
        for method in (source.count, source.acount):
            before = await source.get_made().result()
            stream = method(1000)
            assert await anext(stream) == 0
            # Calls on the tessera run while the stream waits; it never runs far ahead.
            for _ in range(20):
                made = await source.get_made().result() - before
                assert made <= 16
            await eventually(source.get_made, before + 16)
            await stream.aclose()
        stream = source.arrays(100, 5 << 20)
        first = await anext(stream)
        assert first[0] == 0
        before = await source.get_made().result()
        for _ in range(10):
            assert await source.get_made().result() - before <= 6
        assert [item[0] async for item in stream] == list(range(1, 100))

    cluster(main)


def test_a_stream_ends_where_its_consumer_goes(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        source: Any = Source.remote()
        closed = 0

        async def one_more() -> None:
            nonlocal closed
            closed += 1
            await eventually(lambda: source.get_log(), closed_log(closed))

        def closed_log(n: int) -> list[tuple[str, str]]:
            return log_of[:n]

        main_thread, loop = ("closed", "MainThread"), ("closed", "mosaic loop")
        log_of = [main_thread, loop, main_thread, loop, main_thread, loop, main_thread]
        for method in (source.count, source.acount):
            async for item in method(1000):
                if item == 20:
                    break
            await one_more()
        for method in (source.count, source.acount):
            stream = method(1000)
            await anext(stream)
            await stream.aclose()
            closed += 1
            assert await source.get_log().result() == closed_log(closed)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            await stream.aclose()
        for method in (source.count, source.acount):
            stream = method(1000)
            await anext(stream)
            assert stream.cancel("enough")
            with pytest.raises(mosaic.TaskCancelledError, match="enough"):
                await into([], stream)
            await one_more()

        taken = asyncio.Event()  # one that has not begun has nothing to close

        async def consume() -> None:
            async for _ in source.count(10**9):
                taken.set()
                await asyncio.sleep(0.001)

        consumer = asyncio.create_task(consume())
        await taken.wait()
        await eventually(lambda: source.get_log(), closed_log(closed))
        consumer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await consumer
        del consumer
        await one_more()
        stream = source.stubborn()
        await anext(stream)
        with pytest.raises(OSError, match="while closing"):
            await stream.aclose()
        # What waits where it is: a coroutine when its consumer goes, plain code when
        # it is cancelled.
        async for _ in source.asleepy():
            break
        await eventually(lambda: source.get_log(), [*closed_log(7), "awoken"])
        stream = source.sleepy()
        await anext(stream)
        stream.cancel()
        with pytest.raises(mosaic.TaskCancelledError):
            await anext(stream)
        assert await source.get_log().result() == [*closed_log(7), "awoken", "woken"]

    cluster(main)


def test_streams_are_consumed_in_threads_and_in_methods(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        where = [w.uid for w in runtime.workers]
        source: Any = Source.options(runtime=where[0]).remote()
        total = await asyncio.to_thread(lambda: sum(source.count(200)))
        assert total == sum(range(200))

        def leaves() -> int:
            with contextlib.closing(source.count(1000)) as stream:
                item: int = next(stream)
                return item

        assert await asyncio.to_thread(leaves) == 0
        # On its own worker, where the main thread has to run the generator's steps
        # while the method waits, and on the other.
        for uid in where:
            reader: Any = Reader.options(runtime=uid).remote()
            for name in ("total", "atotal"):
                for method in ("count", "acount"):
                    task = getattr(reader, name)(source, method, 100)
                    assert await task.result() == sum(range(100))
            assert await reader.first(source).result() == 0

    cluster(main)


def test_items_may_be_proxies_large_or_nothing_that_travels(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        source: Any = Source.remote()
        items = [item async for item in source.boxes(20)]
        assert [await item["task"].result() for item in items] == list(range(20))
        assert [await item["box"].get().result() for item in items] == list(range(20))
        stream = source.odd()
        assert await anext(stream) == 1
        with pytest.raises(mosaic.SerializationError):
            await anext(stream)
        assert await source.get_log().result() == ["odd"]
        large = [item async for item in source.arrays(5, 1 << 20)]
        assert [(item[0], len(item)) for item in large] == [
            (i, 1 << 20) for i in range(5)
        ]

    cluster(main)


def test_streams_end_with_their_tessera_their_worker_or_their_consumer(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        where = [w.uid for w in runtime.workers]
        source: Any = Source.options(runtime=where[0]).remote()
        reader: Any = Reader.options(runtime=where[1]).remote()
        # The consumer's worker dies: the generator is closed.
        assert await reader.hold(source).result() == 0
        os.kill(await reader.pid().result(), 9)
        await eventually(lambda: source.get_log(), [("closed", "mosaic loop")])
        # The producer's worker dies: what came before is there, then the error.
        await runtime.wait_for_workers(2, WAIT_S)
        other: Any = Reader.options(runtime=where[1]).remote()
        found: list[int] = []
        with pytest.raises(mosaic.WorkerDied):  # noqa: PT012 - what it does is a loop
            async for item in other.dies(tmp_path / "read"):
                found.append(item)
                if item == 4:
                    (tmp_path / "read").touch()
        assert found == list(range(5))

    cluster(main)


def test_a_closed_tessera_ends_its_streams_before_it_is_closed(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        source: Any = Source.remote()
        stream, other = source.count(1000), source.acount(1000)
        await anext(stream)
        await anext(other)
        witness: Any = Witness.local()
        await source.tell(witness)
        await mosaic.close(source)
        for each in (stream, other):
            with pytest.raises(LookupError, match="closed"):
                await into([], each)
        await eventually(
            witness.seen, [("closed", "MainThread"), ("closed", "mosaic loop")]
        )

    cluster(main)
