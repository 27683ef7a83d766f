"""When a call that has raised runs again, and after how long; there is no clock here.

The options come from two places, the tessera and the call; of each the call's counts.
How often is not said here: that is ``max_retries``, which travels by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# The names of the options, and of what travels.
ON, CONDITION, DELAY, JITTER = OPTIONS = (
    "retry_on",
    "retry_if",
    "retry_delay",
    "retry_jitter",
)
Uniform = Callable[[float, float], float]


class FailedAttempt:
    """What ``retry_if`` is told of the attempt that failed, beside the exception.

    Args:
        uid: of the task, as its caller has it.
        name: of the tessera and the method.
        attempt: which one failed, from 1.
        max_retries: how many there may be after the first.
    """

    __slots__ = ("attempt", "max_retries", "name", "uid")

    def __init__(self, uid: str, name: str, attempt: int, max_retries: int) -> None:
        self.uid = uid
        self.name = name
        self.attempt = attempt
        self.max_retries = max_retries

    def __repr__(self) -> str:
        return f"<attempt {self.attempt} of {self.max_retries + 1} of {self.name}>"


class RetryPolicy:
    """The options of one call.

    Args:
        layers: those of the tessera, then those of the call, checked.
    """

    __slots__ = ("condition", "delay", "jitter", "on")

    def __init__(self, *layers: Mapping[str, Any]) -> None:
        options: dict[str, Any] = {}
        for layer in layers:
            options.update(layer)
        on = options.get(ON, Exception)
        self.on: tuple[type[Exception], ...] = on if isinstance(on, tuple) else (on,)
        self.condition: Callable[..., Any] | None = options.get(CONDITION)
        self.delay: Any = options.get(DELAY, 0.0)
        self.jitter: float = options.get(JITTER, 0.0)

    def concerns(self, error: BaseException) -> bool:
        """``retry_on`` names it."""
        return isinstance(error, self.on)

    def delay_s(self, retry: int, uniform: Uniform) -> float:
        """Seconds before a retry, counted from 1.

        Args:
            retry: which.
            uniform: a random number between two, such as ``random.uniform``.

        Raises:
            TypeError, ValueError: what the user's function gave is no time; or
            whatever that function raises.
        """
        delay = self.delay
        if callable(delay):
            seconds = seconds_of(delay(retry), f"what retry_delay({retry}) gave")
        elif isinstance(delay, tuple):
            seconds = delay[min(retry, len(delay)) - 1]
        else:
            seconds = delay
        if seconds and self.jitter:
            return uniform(seconds * (1 - self.jitter), seconds * (1 + self.jitter))
        return seconds


def seconds_of(value: Any, what: str) -> float:
    """A time to wait.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative, infinite or not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what}: found {value!r}, expected seconds")
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{what}: found {value!r}, expected seconds, 0 or more")
    return float(value)


def delay_of(value: Any) -> Any:
    """The option ``retry_delay`` as a policy has it: a float, a tuple or a function.

    Raises:
        TypeError: it is none of the three.
        ValueError: an empty sequence, or a number that is no time.
    """
    what = f"option {DELAY!r}"
    if callable(value):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        if not value:
            raise ValueError(f"{what}: found {value!r}, expected at least one delay")
        return tuple(seconds_of(item, what) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"{what}: found {value!r}, expected seconds, a sequence of seconds, or a "
            "function of the number of the retry"
        )
    return seconds_of(value, what)
