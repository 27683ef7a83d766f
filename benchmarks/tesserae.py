"""Rows about making tesserae."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from .row import Result, at_least

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .bench import Bench

TESSERAE: Final = 200


async def made_and_answering(bench: Bench) -> Result:
    from .subjects import Echo

    async def ours() -> float:
        start_s = time.perf_counter()
        proxies = [Echo.remote() for _ in range(TESSERAE)]
        answers = [proxy.ping(i) for i, proxy in enumerate(proxies)]
        for answer in answers:
            await answer
        return time.perf_counter() - start_s

    return await bench.rate(
        "200 tesserae made and answering",
        ours,
        at_least(10_000),
        calls=TESSERAE,
        unit="tesserae/s",
    )


ROWS: Final[dict[str, Callable[[Bench], Awaitable[Result]]]] = {
    "tesserae": made_and_answering,
}
