"""What a program does, in rounds that each leave nothing behind.

Each is a coroutine function of two tesserae, on two workers, and asserts what comes of
it. How often which of them runs, and what is measured meanwhile, is in ``soaking``.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    Round = Callable[[Any, Any], Awaitable[None]]

LONG_S: Final = 30.0  # what is cancelled would take so long


class Member:
    """Has a method of each kind."""

    def __init__(self, *, fails: bool = False) -> None:
        if fails:
            raise ValueError("as it should")
        self.count = 0

    def add(self, number: int) -> int:
        self.count += number
        return self.count

    def echo(self, value: Any) -> Any:
        return value

    def fail(self) -> None:
        raise ValueError("as it should")

    def nap(self, seconds: float) -> None:
        time.sleep(seconds)

    async def rest(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def array(self, count: int) -> Any:
        return np.arange(count, dtype="f8")

    def total(self, array: Any) -> float:
        return float(array.sum())

    def make(self) -> Any:
        return mosaic.remote(Member)()

    def ask(self, other: Any) -> int:
        number: int = other.add(1).get()
        return number

    def count_up(self, count: int) -> Iterator[int]:
        yield from range(count)

    async def count_slowly(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number


@mosaic.task
def square(number: int) -> int:
    return number * number


@mosaic.task(max_retries=1)
def refuse(number: int) -> None:
    raise ValueError(number)


@mosaic.task(timeout=0.02)
def be_late() -> None:
    time.sleep(LONG_S)


@mosaic.task(cache_key=mosaic.input_hash)
def remember(number: int) -> int:
    return number


async def raises(kind: type[BaseException], what: Awaitable[Any]) -> None:
    try:
        await what
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


async def calls(first: Any, second: Any) -> None:
    assert await mosaic.gather(first.echo(i) for i in range(200)) == list(range(200))


async def failures(first: Any, second: Any) -> None:
    await raises(ValueError, first.fail().result())
    await raises(ValueError, refuse.submit(1).result())
    await raises(ValueError, mosaic.gather(first.fail(), second.echo(1)))


async def tesserae(first: Any, second: Any) -> None:
    many = [mosaic.remote(Member)() for _ in range(20)]
    assert await mosaic.gather(one.add(1) for one in many) == [1] * 20
    await raises(ValueError, mosaic.remote(Member)(fails=True).add(1).result())


async def ended_tesserae(first: Any, second: Any) -> None:
    closed, killed = (mosaic.remote(Member)() for _ in range(2))
    await closed.add(1)
    await mosaic.close(closed)
    killed.nap(LONG_S)
    await mosaic.kill(killed)


async def cancelled(first: Any, second: Any) -> None:
    napping, queued = first.nap(LONG_S), first.echo(1)
    resting = second.rest(LONG_S)
    await asyncio.sleep(random.random() * 0.005)
    for task in (queued, napping, resting):
        task.cancel()
    for task in (queued, napping, resting):
        await raises(mosaic.TaskCancelledError, task.result())


async def late(first: Any, second: Any) -> None:
    await raises(TimeoutError, be_late.submit().result())
    resting = second.rest(LONG_S)
    await raises(TimeoutError, asyncio.wait_for(resting.result(), 0.005))
    resting.cancel()


async def arrays(first: Any, second: Any) -> None:
    for count in (10, 5_000, 100_000, 500_000):
        found = await second.total(first.array(count)).result()
        assert found == count * (count - 1) / 2
    value = np.ones(50_000)
    assert (await first.echo(value).result()).sum() == 50_000


async def values(first: Any, second: Any) -> None:
    put = await mosaic.put(np.ones(random.choice((10, 200_000))))
    sums = await mosaic.gather(first.total(put), second.total(put))
    assert sums[0] == sums[1]


async def streams(first: Any, second: Any) -> None:
    left_at = random.randrange(40)  # which may be after its end
    for stream in (first.count_up(30), second.count_slowly(30)):
        async for number in stream:
            if number == left_at:
                break


async def chains(first: Any, second: Any) -> None:
    task = first.echo(0)
    for number in range(50):
        task = (second, first)[number % 2].echo([task, number])
    await task


async def nested(first: Any, second: Any) -> None:
    await first.ask(second)
    made = await second.make().result()
    assert await first.ask(made).result() == 1
    passed = await first.echo(second.echo([made])).result()
    assert await passed[0].add(1).result() == 2


async def functions(first: Any, second: Any) -> None:
    assert sum(await mosaic.gather(square.map(range(50)))) == 40_425
    assert await remember.submit(number := random.randrange(50)).result() == number
    chain = square.submit(1)
    for _ in range(10):
        chain = square.submit(chain)
    assert await chain.result() == 1


ROUNDS: Final[tuple[Round, ...]] = (
    *(calls, failures, tesserae, ended_tesserae, cancelled, late, arrays, values),
    *(streams, chains, nested, functions),
)
