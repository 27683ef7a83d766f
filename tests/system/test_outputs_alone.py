"""``outputs[key]`` of a large value moves that part alone, wherever it is read."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from large_values import until
from processes import halt

import mosaic_like as mosaic
from mosaic_like.comms import messages as wire
from mosaic_like.errors import (
    MosaicError,
    RuntimeDisconnectedError,
    TaskCancelledError,
    UpstreamError,
)
from mosaic_like.proxies.outputs import NoSuchOutput
from mosaic_like.session import current

if TYPE_CHECKING:
    from collections.abc import Callable

    from specimens import RunIn

# Numbers, in a pickle that is too small for shared memory, where nothing moves.
MANY = 60_000
BYTES = 150_000
SMALL = 10_000  # bytes that a part and all around it may take


class Meter:
    """Counts the bytes of values that come to this process."""

    def __init__(self, runtime: Any) -> None:
        self.nbytes = 0
        for kind in (wire.Done, wire.Value):
            runtime.handlers[kind] = self._counting(runtime.handlers[kind])

    def _counting(self, handler: Callable[..., None]) -> Callable[..., None]:
        def count(message: Any, buffers: Any, sender: int) -> None:
            self.nbytes += len(message.data)
            self.nbytes += sum(memoryview(b).nbytes for b in buffers)
            handler(message, buffers, sender)

        return count

    def taken(self) -> int:
        """Since it was asked last."""
        nbytes, self.nbytes = self.nbytes, 0
        return nbytes


METERS: dict[int, Meter] = {}  # of the workers, each in its own process


class Solver:
    """Makes values of several parts, and takes parts."""

    def pid(self) -> int:
        return os.getpid()

    def pair(self) -> tuple[Any, ...]:
        return 1, list(range(MANY)), "x"

    def table(self) -> dict[str, Any]:
        return {"a": 5, "é": 6, "array": np.ones(MANY), "b": list(range(MANY))}

    def whole(self) -> list[int]:
        return list(range(MANY))

    def fail(self) -> Any:
        raise ValueError("no value")

    def same(self, *values: Any, **named: Any) -> Any:
        return [*values, *named.values()]

    def length(self, value: Any) -> int:
        return len(value)

    def read(self, other: Any) -> Any:
        part = other.pair().outputs[2]
        return part.get(), part.get(10)

    def measure(self) -> None:
        METERS[0] = Meter(current())

    def taken(self) -> int:
        return METERS[0].taken()

    def holds(self) -> int:
        """How many tasks live here that are no call of this tessera."""
        gc.collect()
        return sum(task.method == "outputs" for task in current().worker.tasks.values())

    def freeze(self, path: str) -> None:
        threading.Event().wait(0 if os.path.exists(path) else 20)


def solvers(runtime: Any) -> list[Any]:
    cls = mosaic.tessera(Solver)
    return [cls.options(runtime=w).remote() for w in runtime.workers[:2]]


async def ended(*tasks: Any) -> None:
    """Wait for them; nothing of their values comes here."""
    for task in tasks:
        await task


async def _arguments(first: Any, second: Any) -> None:
    await second.measure()
    pair, table, whole = first.pair(), first.table(), first.whole()
    await second.same(pair.outputs[0])  # before it is there
    await ended(pair, table, whole)
    await second.taken()
    assert await second.same(pair.outputs[0]).result() == [1]
    assert await second.same([{"k": pair.outputs[-1]}]).result() == [[{"k": "x"}]]
    both = second.same(pair.outputs[0], pair.outputs[2], k=table.outputs.a)
    assert await both.result() == [1, "x", 5]
    assert await second.same(table.outputs["é"]).result() == [6]
    assert await second.taken().result() < SMALL
    assert await second.length(pair.outputs[1]).result() == MANY
    assert await second.length(whole.outputs[0]).result() == MANY
    assert await second.taken().result() > BYTES
    # Beside the whole a part is of no use; nor can every key travel.
    assert len(await second.length(table.outputs["array"]).result() * [0]) == MANY
    assert await second.same(pair.outputs[np.int64(0)]).result() == [1]
    a, b = await second.same(pair.outputs[0], pair).result()
    assert (a, len(b)) == (1, 3)


async def _results(runtime: Any, first: Any, second: Any) -> None:
    meter = Meter(runtime)
    pair, table = first.pair(), first.table()
    await ended(pair, table)
    assert await pair.outputs[0].result() == 1
    assert await table.outputs["a"].result() == 5
    assert await asyncio.to_thread(pair.outputs[2].get, 10) == "x"
    assert await second.read(first).result() == ("x", "x")
    assert meter.taken() < SMALL
    assert await pair.size(pending=True) > BYTES
    assert len(await pair.outputs[1].result()) == MANY
    assert (await table.outputs.array.result()).sum() == MANY
    assert await pair.size(pending=True) > BYTES
    assert len(await pair.result()) == 3  # and once it is here:
    assert await pair.outputs[2].result() == "x"
    pair = table = None
    for solver in (first, second):

        async def gone(solver: Any = solver) -> bool:
            return not await solver.holds().result()

        await until(gone)


@pytest.mark.parametrize("segments", [True, False])
def test_only_the_part_moves(segments: bool) -> None:
    async def main(runtime: Any) -> None:
        async with asyncio.timeout(25):
            if segments:
                await runtime.sharing.ready()
            first, second = solvers(runtime)
            await _arguments(first, second)
            await _results(runtime, first, second)

    mosaic.run(main, num_workers=2, segments=segments)


def test_a_part_dies_with_the_owner_of_the_whole() -> None:
    async def main(runtime: Any) -> None:
        async with asyncio.timeout(25):
            first, second = solvers(runtime)
            pair, other = first.pair(), first.pair()
            await ended(pair, other, second.pid())
            pid = await first.pid().result()
            halt(pid)  # what is asked now is never answered
            taking = second.same(pair.outputs[0])
            reading = asyncio.ensure_future(other.outputs[0].result())
            beside = mosaic.tessera(Solver).options(runtime=runtime.workers[1]).remote()
            await beside.pid().result()
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(UpstreamError):
                await taking
            with pytest.raises(RuntimeDisconnectedError):
                await reading
            with pytest.raises(RuntimeDisconnectedError):
                await pair.outputs[2].result()
            with pytest.raises(MosaicError):
                await second.same(pair.outputs[2])

    mosaic.run(main, num_workers=2)


# The tests above have clusters of their own, those below share one.


def test_a_method_that_runs_delays_no_part(cluster: RunIn, tmp_path: Any) -> None:
    async def main(runtime: Any) -> None:
        first, second = solvers(runtime)
        pair = first.pair()
        await pair
        busy = first.freeze(str(tmp_path / "never"))
        async with asyncio.timeout(25):
            assert await pair.outputs[0].result() == 1
            assert await second.same(pair.outputs[2]).result() == ["x"]
        assert not busy.done()
        busy.cancel()
        with pytest.raises(TaskCancelledError):
            await busy

    cluster(main)


def test_what_is_wrong_with_a_part_is_said_as_ever(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = solvers(runtime)
        pair, table, whole = first.pair(), first.table(), first.whole()
        await ended(pair, table, whole)
        texts = {
            (pair, 7): r"^outputs\[7\]: the value is a tuple of 3",
            (table, "q"): r"^outputs\['q'\]: the value is a dict with 'a', 'é'",
            (whole, 1): r"^outputs\[1\]: a list has only outputs\[0\]",
        }
        for (task, key), text in texts.items():
            with pytest.raises(NoSuchOutput, match=text):
                await task.outputs[key].result()
            with pytest.raises(NoSuchOutput, match=text):
                await asyncio.to_thread(task.outputs[key].get, 10)
            with pytest.raises(NoSuchOutput, match=text):
                await second.same(task.outputs[key])
        failed = first.fail()
        with pytest.raises(ValueError, match="no value"):
            await failed.outputs[0].result()
        with pytest.raises(UpstreamError, match="no value"):
            await second.same(failed.outputs[0])

    cluster(main)


def test_a_cancelled_task_has_no_parts(cluster: RunIn, tmp_path: Any) -> None:
    async def main(runtime: Any) -> None:
        first, second = solvers(runtime)
        busy = first.freeze(str(tmp_path / "never"))
        pair = first.pair()
        taking, reading = second.same(pair.outputs[0]), pair.outputs[0].result()
        pair.cancel()
        for waiting in (taking, reading):
            with pytest.raises(TaskCancelledError):
                await waiting
        busy.cancel()
        with pytest.raises(TaskCancelledError):
            await busy

    cluster(main)
