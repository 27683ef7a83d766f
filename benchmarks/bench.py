"""What a row is given, and how blocks of ours and of the baseline are interleaved.

A block of ours and one of the baseline take turns, so that whatever else the machine
does falls on both. What counts is the median of the blocks, and of the ratios of those
that followed each other: a machine that is slow for a while is slow for both.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import TYPE_CHECKING, Any

from .row import Result, Target

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .baseline import Baseline


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The runtime (None for rows that start their own), the baseline, the effort."""

    runtime: Any
    baseline: Baseline
    blocks: int
    quick: bool

    async def rate(
        self,
        name: str,
        ours: Callable[[], Awaitable[float]],
        target: Target,
        *,
        calls: int,
        unit: str = "calls/s",
        against_pipelined: bool = False,
    ) -> Result:
        """A row of calls a second; ``ours`` makes so many calls and gives seconds."""
        await ours()  # warm: connections, caches, code paths
        # Short, since our loop stands still meanwhile.
        block = min(calls, 20_000)
        ours_s, baseline_s = [], []
        for _ in range(self.blocks):
            ours_s.append(await ours())
            if against_pipelined:
                baseline_s.append(self.baseline.pipelined(block) / block)
        against_s = [each_s * calls for each_s in baseline_s]
        return rates(name, ours_s, against_s, target, calls=calls, unit=unit)

    async def latency(
        self,
        name: str,
        ours: Callable[[int], Awaitable[list[float]]],
        target: Target,
        *,
        calls: int,
    ) -> Result:
        """A row of microseconds; ``ours(n)`` gives the seconds of each of n calls."""
        await ours(calls)
        ours_s, baseline_s = [], []
        for _ in range(4 * self.blocks):
            ours_s.append(statistics.median(await ours(calls)))
            baseline_s.append(statistics.median(self.baseline.ping(calls)))
        return latencies(name, ours_s, baseline_s, target)


def rates(
    name: str,
    ours_s: list[float],
    baseline_s: list[float],
    target: Target,
    *,
    calls: int = 1,
    unit: str = "calls/s",
) -> Result:
    """A row of calls a second.

    Args:
        name: of the row.
        ours_s: what so many calls took, in each block.
        baseline_s: the same of the baseline; empty: there is none.
        target: what the ratio is held to, or ours where there is no baseline.
        calls: in each block of both.
        unit: of the rate.
    """
    return Result(
        name=name,
        unit=unit,
        ours=calls / statistics.median(ours_s),
        baseline=calls / statistics.median(baseline_s) if baseline_s else None,
        ratio=ratio(baseline_s, ours_s),
        target=target,
        spread=spread(ours_s),
    )


def latencies(
    name: str, ours_s: list[float], baseline_s: list[float], target: Target
) -> Result:
    """A row of microseconds; the seconds are of one call, in each block."""
    return Result(
        name=name,
        unit="us",
        ours=statistics.median(ours_s) * 1e6,
        baseline=statistics.median(baseline_s) * 1e6,
        ratio=ratio(ours_s, baseline_s),
        target=target,
        spread=spread(ours_s),
    )


def ratio(over: list[float], under: list[float]) -> float | None:
    """The median of those of blocks that followed each other; None: there are none."""
    ratios = [a / b for a, b in zip(over, under, strict=False)]
    return statistics.median(ratios) if ratios else None


def spread(values: list[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values)
