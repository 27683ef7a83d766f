"""Rows about a whole program: first result after ``python script``, stopping."""

from __future__ import annotations

import functools
import statistics
from typing import TYPE_CHECKING, Final

from . import programs
from .bench import spread
from .row import Result, at_most

if TYPE_CHECKING:
    from collections.abc import Callable

    from .bench import Bench

# time.monotonic is one clock for all processes of a host.
_HELLO: Final = """
import json, time
import mosaic_like as mosaic

@mosaic.tessera
class Hello:
    def ping(self, x):
        return x

async def main(runtime):
    hellos = [Hello.options(runtime=worker).remote() for worker in runtime.workers]
    tasks = [hello.ping(i) for i, hello in enumerate(hellos)]
    assert [await task.result() for task in tasks] == [0, 1]
    first_s = time.monotonic()
    print(json.dumps({"first_s": first_s, "stopping_s": time.monotonic()}))

mosaic.run(main, num_workers=2)
"""

_IMPORT: Final = """
import json, time
before_s = time.monotonic()
import mosaic_like
mosaic_like.run  # not merely a folder of that name
print(json.dumps({"import_ms": (time.monotonic() - before_s) * 1000}))
"""


@functools.cache
def _hellos(runs: int) -> list[programs.Report]:
    """Two rows come from the same runs."""
    return [programs.run(_HELLO) for _ in range(runs)]


def _runs(bench: Bench) -> int:
    return 3 if bench.quick else 9


def first_result(bench: Bench) -> Result:
    reports = _hellos(_runs(bench))
    taken_s = [report.values["first_s"] - report.begin_s for report in reports]
    return Result(
        name="first result, 2 workers",
        unit="s",
        ours=statistics.median(taken_s),
        target=at_most(0.6),
        spread=spread(taken_s),
    )


def stop(bench: Bench) -> Result:
    """From the end of main to the end of the interpreter."""
    reports = _hellos(_runs(bench))
    taken_s = [report.end_s - report.values["stopping_s"] for report in reports]
    return Result(
        name="stop, 2 workers",
        unit="s",
        ours=statistics.median(taken_s),
        target=at_most(0.2),
        spread=spread(taken_s),
    )


def imported(bench: Bench) -> Result:
    taken_ms = [
        programs.run(_IMPORT).values["import_ms"] for _ in range(2 * _runs(bench))
    ]
    return Result(
        name="import mosaic_like",
        unit="ms",
        ours=statistics.median(taken_ms),
        target=at_most(150),
        spread=spread(taken_ms),
    )


ROWS: Final[dict[str, Callable[[Bench], Result]]] = {
    "import": imported,
    "first-result": first_result,
    "stop": stop,
}
