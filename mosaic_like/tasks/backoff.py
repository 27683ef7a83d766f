"""Delays before retries that grow: ``retry_delay=exponential_backoff(...)``."""

from __future__ import annotations

import math
from typing import Any


class ExponentialBackoff:
    """What ``exponential_backoff`` gives: a function of the number of the retry."""

    __slots__ = ("base", "factor", "maximum")

    def __init__(self, base: float, factor: float, maximum: float | None) -> None:
        self.base = base
        self.factor = factor
        self.maximum = maximum

    def __call__(self, retry: int) -> float:
        most = math.inf if self.maximum is None else self.maximum
        try:
            delay = self.base * self.factor ** (retry - 1)
        except OverflowError:
            delay = math.inf
        # No clock counts further, and a task that waits for ever says nothing.
        return float(min(delay, most, _LONGEST_S)) if self.base else 0.0

    def __repr__(self) -> str:
        return f"exponential_backoff({self.base}, {self.factor}, {self.maximum})"


_LONGEST_S = 1e9


def exponential_backoff(
    base: float, factor: float = 2.0, maximum: float | None = None
) -> ExponentialBackoff:
    """Seconds before each retry that grow by a factor, up to a maximum.

    Args:
        base: seconds before the first retry.
        factor: by which each is longer than the one before, 1 or more.
        maximum: seconds that none is longer than; None: any.

    Raises:
        ValueError: a negative ``base``, a factor below 1 or a negative maximum.
        TypeError: one that is no number.

    >>> [exponential_backoff(0.5, maximum=3)(retry) for retry in (1, 2, 3, 4)]
    [0.5, 1.0, 2.0, 3.0]
    """
    _check("base", base, 0.0)
    _check("factor", factor, 1.0)
    if maximum is not None:
        _check("maximum", maximum, 0.0)
    return ExponentialBackoff(base, factor, maximum)


def _check(name: str, value: Any, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"exponential_backoff: {name}={value!r}, expected a number")
    if not (value >= least and math.isfinite(value)):
        raise ValueError(
            f"exponential_backoff: {name}={value!r}, expected {least:g} or more"
        )
