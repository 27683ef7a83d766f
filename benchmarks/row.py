"""What one row of the table is, and how it is printed. Nothing is measured here.

Three ways to judge: a ratio to the baseline of the same run (only that counts on a
noisy machine), a value with a unit of its own, or nothing, for the baseline itself.
"""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

_SYMBOLS: Final = {"at least": ">=", "at most": "<="}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A limit for the ratio, where there is a baseline, else for the value.

    ``absolute``: for the value anyway; what the baseline does is only to be seen.
    """

    limit: float
    sense: Literal["at least", "at most"]
    absolute: bool = False


def at_least(limit: float, *, absolute: bool = False) -> Target:
    return Target(limit=limit, sense="at least", absolute=absolute)


def at_most(limit: float) -> Target:
    return Target(limit=limit, sense="at most")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a row found.

    ``ratio`` is that to the baseline, ``spread`` is (slowest - fastest) / median of our
    blocks.
    """

    name: str
    unit: str
    ours: float
    target: Target | None = None
    baseline: float | None = None
    ratio: float | None = None
    spread: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None if there is none."""
        if self.target is None:
            return None
        by_value = self.ratio is None or self.target.absolute
        judged = self.ours if by_value else self.ratio
        assert judged is not None
        if self.target.sense == "at least":
            return judged >= self.target.limit
        return judged <= self.target.limit

    def as_dict(self) -> dict[str, object]:
        return {**dataclasses.asdict(self), "met": self.met}


HEADINGS: Final = ("row", "ours", "blocking", "ratio", "target", "spread", "")


def header() -> str:
    return _line(HEADINGS)


def format_row(result: Result) -> str:
    if result.target is None:
        target = "-"
    else:
        by_ratio = result.ratio is not None and not result.target.absolute
        mark = "x" if by_ratio else f" {result.unit}"
        target = f"{_SYMBOLS[result.target.sense]} {result.target.limit:,g}{mark}"
    return _line(
        (
            result.name,
            _value(result.ours, result.unit),
            "-" if result.baseline is None else _value(result.baseline, result.unit),
            "-" if result.ratio is None else f"{result.ratio:.2f}x",
            target,
            "-" if result.spread is None else f"{result.spread:.0%}",
            {None: "", True: "ok", False: "MISSED"}[result.met],
        )
    )


def _value(value: float, unit: str) -> str:
    digits = 0 if value >= 1000 else 1 if value >= 10 else 3
    return f"{value:,.{digits}f} {unit}"


def _line(cells: tuple[str, ...]) -> str:
    name, *middle, met = cells
    widths = (17, 17, 8, 17, 7)
    aligned = [f"{cell:>{width}}" for cell, width in zip(middle, widths, strict=True)]
    return " ".join((f"{name:<38}", *aligned, met)).rstrip()
