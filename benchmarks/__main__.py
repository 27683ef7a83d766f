"""``python -m benchmarks [--rows WORD ...] [--quick] [--json FILE]``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import calls, chunks, functions, memory, start, tesserae, values
from .baseline import Baseline, baseline
from .bench import Bench, spread
from .row import Result, format_row, header

if TYPE_CHECKING:
    from collections.abc import Callable


def ping_pong(bench: Bench) -> Result:
    taken_s = [statistics.median(bench.baseline.ping(500)) for _ in range(bench.blocks)]
    return Result(
        name="blocking pyzmq ping-pong, p50",
        unit="us",
        ours=statistics.median(taken_s) * 1e6,
        spread=spread(taken_s),
    )


def pipelined(bench: Bench) -> Result:
    count = calls.PIPELINED
    taken_s = [bench.baseline.pipelined(count) for _ in range(bench.blocks)]
    return Result(
        name="blocking pyzmq pipelined, 20k",
        unit="calls/s",
        ours=count / statistics.median(taken_s),
        spread=spread(taken_s),
    )


BASELINE: dict[str, Callable[[Bench], Result]] = {
    "baseline-ping-pong": ping_pong,
    "baseline-pipelined": pipelined,
}
# In one runtime with two workers.
INSIDE = {**calls.ROWS, **tesserae.ROWS, **values.ROWS, **functions.ROWS}
# Each starts programs, or a cluster, of its own.
OUTSIDE = {**start.ROWS, **memory.ROWS, **chunks.ROWS}
ROW_TIMEOUT_S = 120.0
NAMES = [*BASELINE, *INSIDE, *OUTSIDE]


class Table:
    """Prints and keeps each result as it comes; a row that fails costs only itself."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.failed: list[str] = []
        print(header(), flush=True)

    def add(self, result: Result) -> None:
        self.results.append(result)
        print(format_row(result), flush=True)

    def fail(self, name: str, error: Exception) -> None:
        self.failed.append(name)
        reason = str(error).strip().splitlines() or [""]
        print(f"{name:<38} {type(error).__name__}: {reason[-1][:120]}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 all rows were measured, 1 some failed; targets do not count."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="WORD",
        help="only rows whose name contains one of these: " + ", ".join(NAMES),
    )
    parser.add_argument("--quick", action="store_true", help="fewer blocks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="results, also here")
    options = parser.parse_args(arguments)
    words = options.rows or [""]
    chosen = [name for name in NAMES if any(word in name for word in words)]
    if not chosen:
        parser.error(f"no row has {' or '.join(words)} in its name")

    with baseline() as peer:
        table = measure(chosen, peer, quick=options.quick)
    if options.json:
        options.json.write_text(json.dumps(as_json(table), indent=2) + "\n")
    return 1 if table.failed else 0


def measure(chosen: list[str], peer: Baseline, *, quick: bool) -> Table:
    blocks = 3 if quick else 9
    outer = Bench(runtime=None, baseline=peer, blocks=blocks, quick=quick)
    table = Table()

    def apart(rows: dict[str, Callable[[Bench], Result]]) -> None:
        for name in filter(rows.__contains__, chosen):
            try:
                table.add(rows[name](outer))
            except Exception as error:  # said in the table, and in the exit status
                table.fail(name, error)

    async def inside(runtime: Any) -> None:
        bench = Bench(runtime=runtime, baseline=peer, blocks=blocks, quick=quick)
        for name in filter(INSIDE.__contains__, chosen):
            try:
                async with asyncio.timeout(ROW_TIMEOUT_S):
                    result = await INSIDE[name](bench)
                table.add(result)
            except Exception as error:
                table.fail(name, error)

    apart(BASELINE)
    if any(name in INSIDE for name in chosen):
        try:
            import mosaic_like as mosaic

            mosaic.run(inside, num_workers=2)
        except Exception as error:
            table.fail("runtime with 2 workers", error)
    apart(OUTSIDE)
    return table


def as_json(table: Table) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "rows": [result.as_dict() for result in table.results],
        "failed": table.failed,
    }


if __name__ == "__main__":
    sys.exit(main())
