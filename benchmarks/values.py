"""Rows about large values: from worker to worker, there and back, put once.

GiB/s of an echo count both ways. Arrays come back before the next round, as they do in
a loop over the same arrays, so that what is measured is memory that was used before.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, Final

from .bench import ratio, spread
from .row import Result, at_least, at_most

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .bench import Bench

MIB: Final = 1 << 20
GIB: Final = 1 << 30
WARM: Final = 6  # rounds until all segments that take turns are there and mapped


async def _pair(bench: Bench) -> tuple[Any, Any]:
    from .subjects import Arrays

    await bench.runtime.sharing.ready()
    first, second = (
        Arrays.options(runtime=worker).remote() for worker in bench.runtime.workers
    )
    while not (await first.ready().result() and await second.ready().result()):
        pass
    return first, second


def _memcpy_s(source: Any, target: Any) -> float:
    start_s = time.perf_counter()
    target[:] = source
    return time.perf_counter() - start_s


async def by_reference(bench: Bench) -> Result:
    """The copy that the maker makes, and the reader's first look at each page."""
    import numpy as np

    first, second = await _pair(bench)
    nbytes = 64 * MIB
    await first.make(nbytes)
    source = np.ones(nbytes, "u1")
    target = source.copy()
    ours_s, memcpy_s = [], []
    for index in range(WARM + bench.blocks):
        start_s = time.perf_counter()
        made = first.give()
        found = await second.pages(made).result()
        taken_s = time.perf_counter() - start_s
        if found != nbytes // 4096:
            raise AssertionError(f"{found} pages arrived")
        del made
        if index >= WARM:
            ours_s.append(taken_s)
            memcpy_s.append(_memcpy_s(source, target))
    return Result(
        name="64 MiB, worker to worker by reference",
        unit="GiB/s",
        ours=nbytes / GIB / statistics.median(ours_s),
        baseline=nbytes / GIB / statistics.median(memcpy_s),
        ratio=ratio(memcpy_s, ours_s),
        target=at_least(0.8),
        spread=spread(ours_s),
    )


async def read_again(bench: Bench) -> Result:
    first, second = await _pair(bench)
    await first.make(64 * MIB)
    made = first.give()
    await second.length(made)
    taken_s = []
    for _ in range(4 * bench.blocks):
        start_s = time.perf_counter()
        await second.length(made).result()
        taken_s.append(time.perf_counter() - start_s)
    return Result(
        name="64 MiB, read again",
        unit="us",
        ours=statistics.median(taken_s) * 1e6,
        target=at_most(2_000),
        spread=spread(taken_s),
    )


async def _echo(bench: Bench, nbytes: int, times: int, limit: float) -> Result:
    import numpy as np

    first, _ = await _pair(bench)
    array = np.ones(nbytes, "u1")
    taken_s = []
    for index in range(WARM + bench.blocks):
        start_s = time.perf_counter()
        for _ in range(times):
            await first.echo(array).result()
        if index >= WARM:
            taken_s.append((time.perf_counter() - start_s) / times)
    return Result(
        name=f"{nbytes // MIB} MiB, echo head - worker - head",
        unit="GiB/s",
        ours=2 * nbytes / GIB / statistics.median(taken_s),
        target=at_least(limit),
        spread=spread(taken_s),
    )


async def echo_large(bench: Bench) -> Result:
    return await _echo(bench, 128 * MIB, 1, 4.0)


async def echo_small(bench: Bench) -> Result:
    return await _echo(bench, MIB, 20 if bench.quick else 50, 1.0)


async def put_once(bench: Bench) -> Result:
    """Bytes that were copied, counted where they are: not a time."""
    import numpy as np

    import mosaic_like as mosaic

    first, second = await _pair(bench)
    nbytes = GIB // 8 if bench.quick else GIB
    array = np.ones(nbytes, "u1")

    async def copied() -> int:
        there = [await holder.copied().result() for holder in (first, second)]
        here: int = bench.runtime.sharing.bytes_copied
        return here + sum(there)

    before = await copied()
    value = await mosaic.put(array)
    for holder in (first, second, first, second):
        if await holder.length(value).result() != nbytes:
            raise AssertionError("not all of it arrived")
    return Result(
        name="put once, read by 4 tasks: moved",
        unit="x",
        ours=(await copied() - before) / nbytes,
        target=at_most(1.01),
    )


ROWS: Final[dict[str, Callable[[Bench], Awaitable[Result]]]] = {
    "values-by-reference": by_reference,
    "values-read-again": read_again,
    "values-echo-128": echo_large,
    "values-echo-1": echo_small,
    "values-put": put_once,
}
