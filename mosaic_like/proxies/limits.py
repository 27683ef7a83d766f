"""The options ``timeout=`` and ``interrupt=``: of a call, or of all calls of a tessera.

Here they are checked and put into what goes with the call; what they do is in
``core/limits.py``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..comms.messages import FLAG, KILL_WORKER, RAISE, Extra, Options

if TYPE_CHECKING:
    from collections.abc import Mapping

INTERRUPTS = ("flag", "raise", "kill")
_WIRE = (FLAG, RAISE, KILL_WORKER)
OPTIONS = ("timeout", "interrupt")


def timeout_of(value: Any) -> float | None:
    """Seconds of the option ``timeout``; None: no limit.

    Raises:
        TypeError: it is no number.
        ValueError: it is not positive.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"option 'timeout': found {value!r}, expected seconds or None")
    if not value > 0:  # nan too
        raise ValueError(
            f"option 'timeout': found {value!r}, expected more than 0 seconds, or None "
            "for no limit"
        )
    return None if math.isinf(value) else float(value)


def interrupt_of(value: Any) -> int:
    """The option ``interrupt`` as messages have it.

    Raises:
        ValueError: it is none of the three.
    """
    if value not in INTERRUPTS:
        raise ValueError(
            f"option 'interrupt': found {value!r}, expected 'flag', 'raise' or 'kill'"
        )
    return _WIRE[INTERRUPTS.index(value)]


def check_limits(options: Mapping[str, Any]) -> None:
    """Raise for a ``timeout`` or ``interrupt`` that is out of range."""
    timeout_of(options.get("timeout"))
    if options.get("interrupt") is not None:
        interrupt_of(options["interrupt"])


def limits_among(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Those of them that are given; None: none is."""
    given = {n: options[n] for n in OPTIONS if options.get(n) is not None}
    return given or None


def limits_of(options: Options) -> dict[str, Any] | None:
    """The same, of a tessera where it lives."""
    given: dict[str, Any] = {}
    if options.timeout_s is not None:
        given["timeout"] = options.timeout_s
    if options.interrupt != RAISE:
        given["interrupt"] = INTERRUPTS[_WIRE.index(options.interrupt)]
    return given or None


def put_limits(options: Mapping[str, Any], extra: Extra | None) -> Extra | None:
    """What goes with a call that has these options."""
    timeout_s = timeout_of(options.get("timeout"))
    interrupt = options.get("interrupt")
    if timeout_s is None and interrupt is None:
        return extra
    extra = extra or Extra()
    extra.timeout_s = timeout_s
    extra.interrupt = None if interrupt is None else interrupt_of(interrupt)
    return extra
