"""Rows about large values that go in messages, as between hosts: without segments."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any, Final

from .bench import latencies, spread
from .row import Result, at_most
from .values import GIB, MIB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .bench import Bench

_PAUSE_S: Final = 0.001  # between two small calls: each is alone
_IDLE: Final = 300  # calls


def _run(main: Callable[[Any, Any], Awaitable[Result]]) -> Result:
    """``main`` of two tesserae of one worker, in a cluster of its own."""
    import mosaic_like as mosaic

    from .subjects import Arrays, Echo

    async def inside(runtime: Any) -> Result:
        worker = runtime.workers[0]
        echo = Echo.options(runtime=worker).remote()
        arrays = Arrays.options(runtime=worker).remote()
        await echo.ping(1).result()
        return await main(arrays, echo)

    result: Result = mosaic.run(inside, num_workers=1, segments=False)
    return result


async def _pings(echo: Any, until: asyncio.Future[Any] | None) -> list[float]:
    """Seconds of small calls until that is done, or of a good many."""
    taken_s: list[float] = []
    while len(taken_s) < _IDLE if until is None else not until.done():
        start_s = time.perf_counter()
        await echo.ping(1)
        taken_s.append(time.perf_counter() - start_s)
        await asyncio.sleep(_PAUSE_S)
    return taken_s


def _beside(bench: Bench, name: str, start: Callable[[Any, Any], Any]) -> Result:
    """Small calls while a large value moves, against those while nothing does.

    Args:
        bench: how much effort.
        name: of the row.
        start: gives what to await, of the tessera and an array.
    """
    nbytes = GIB // 4 if bench.quick else GIB

    async def main(arrays: Any, echo: Any) -> Result:
        import numpy as np

        array = np.ones(nbytes, "u1")
        array.flags.writeable = False
        await arrays.make(nbytes)
        during_s, idle_s = [], []
        for _ in range(1 + bench.blocks // 3):
            idle_s.append(statistics.median(await _pings(echo, None)))
            moving = asyncio.ensure_future(await start(arrays, array))
            during_s.append(statistics.median(await _pings(echo, moving)))
            await moving
        return latencies(name, during_s, idle_s, at_most(5))

    return _run(main)


def beside_argument(bench: Bench) -> Result:
    async def start(arrays: Any, array: Any) -> Any:
        return arrays.length(array).result()

    return _beside(bench, "p50 beside a 1 GiB argument in chunks", start)


def beside_result(bench: Bench) -> Result:
    async def start(arrays: Any, array: Any) -> Any:
        made = arrays.give()
        await made
        return made.result()

    return _beside(bench, "p50 beside a 1 GiB result in chunks", start)


def echo(bench: Bench) -> Result:
    """For information: there is no target."""

    async def main(arrays: Any, _: Any) -> Result:
        import numpy as np

        nbytes = 128 * MIB
        array = np.ones(nbytes, "u1")
        taken_s = []
        for index in range(2 + bench.blocks):
            start_s = time.perf_counter()
            await arrays.echo(array).result()
            if index >= 2:
                taken_s.append(time.perf_counter() - start_s)
        return Result(
            name="128 MiB, echo in chunks",
            unit="GiB/s",
            ours=2 * nbytes / GIB / statistics.median(taken_s),
            spread=spread(taken_s),
        )

    return _run(main)


ROWS: Final[dict[str, Callable[[Bench], Result]]] = {
    "chunks-beside-argument": beside_argument,
    "chunks-beside-result": beside_result,
    "chunks-echo-128": echo,
}
