"""The options ``max_retries=`` and ``retry_*=``: of a call, or of a whole tessera.

Here they are checked, and made into bytes that travel with the call or the tessera;
what they say is in ``core/retries.py``. They are pickled apart from the arguments: they
are needed only by a call that has failed, perhaps for its arguments.
"""

from __future__ import annotations

import inspect
import logging
import pickle
from typing import TYPE_CHECKING, Any

from ..core.retries import CONDITION, DELAY, JITTER, ON, OPTIONS, delay_of
from ..errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..core.retries import FailedAttempt, RetryPolicy

logger = logging.getLogger(__name__)

ALL = ("max_retries", *OPTIONS)


def max_retries_of(value: Any) -> int:
    """The option ``max_retries``.

    Raises:
        TypeError: it is no int.
        ValueError: it is negative.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"option 'max_retries': found {value!r}, expected int")
    if value < 0:
        raise ValueError(f"option 'max_retries': found {value}, expected at least 0")
    return value


def check_retries(options: Mapping[str, Any]) -> dict[str, Any]:
    """The ``retry_*`` among some options, as a policy takes them.

    Raises:
        TypeError: one of the wrong type, or a function that cannot be called as it is.
        ValueError: one that is out of range.
    """
    given: dict[str, Any] = {}
    if ON in options:
        given[ON] = _classes(options[ON])
    if CONDITION in options:
        given[CONDITION] = condition = options[CONDITION]
        if condition is not None:
            if not callable(condition):
                raise TypeError(
                    f"option {CONDITION!r}: found {condition!r}, expected a function "
                    "of the exception and the attempt, or None"
                )
            _check_call(CONDITION, condition, "exception", "attempt")
    if DELAY in options:
        given[DELAY] = delay = delay_of(options[DELAY])
        if callable(delay):
            _check_call(DELAY, delay, "retry")
    if JITTER in options:
        given[JITTER] = _jitter(options[JITTER])
    return given


def _classes(value: Any) -> tuple[type[Exception], ...]:
    kinds = value if isinstance(value, tuple) else (value,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(
                f"option {ON!r}: found {value!r}, expected an exception class or a "
                "tuple of them"
            )
        if not issubclass(kind, Exception):
            raise ValueError(
                f"option {ON!r}: found {kind.__name__}; only what is an Exception is "
                "retried, neither CancelledError nor KeyboardInterrupt nor SystemExit"
            )
    if not kinds:
        raise ValueError(
            f"option {ON!r}: found (), expected at least one exception class; "
            "max_retries=0 retries nothing"
        )
    return kinds


def _jitter(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"option {JITTER!r}: found {value!r}, expected 0 to 1")
    if not 0 <= value <= 1:  # nan too
        raise ValueError(f"option {JITTER!r}: found {value!r}, expected 0 to 1")
    return float(value)


def _check_call(option: str, function: Any, *arguments: str) -> None:
    """It takes so many arguments, as far as that can be known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # of C code, perhaps
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise TypeError(
            f"option {option!r}: {function!r} is called as "
            f"{option}({', '.join(arguments)}), which does not fit: {error}"
        ) from None


def dump_retries(options: Mapping[str, Any], whose: str) -> bytes:
    """The ``retry_*`` among some options as they travel; nothing if there are none.

    Args:
        options: of a tessera or a call.
        whose: for errors, such as ``Solver.solve``.

    Raises:
        SerializationError: a function or class that cannot travel.
        TypeError, ValueError: as ``check_retries``.
    """
    if not any(name in options for name in OPTIONS):
        return b""
    given = check_retries(options)
    from ..comms.by_value import dump_alone  # it is heavy, and few calls need it

    try:
        return dump_alone(given)
    except Exception:
        for name, value in given.items():
            try:
                dump_alone(value)
            except Exception as error:
                raise SerializationError(
                    f"option {name!r} of {whose} cannot travel to its worker: "
                    f"{type(error).__name__}: {error}; use a function of a module, or "
                    "one that refers to nothing that cannot be pickled"
                ) from error
        raise


def load_retries(data: bytes) -> dict[str, Any]:
    """What ``dump_retries`` gave; it raises whatever unpickling raises."""
    found: dict[str, Any] = pickle.loads(data) if data else {}
    return found


def ask_here(policy: RetryPolicy, error: BaseException, failed: FailedAttempt) -> bool:
    """Whether ``retry_if`` agrees, asked by the caller: where the method ran is lost.

    Nobody can wait here for what a coroutine function says. If it raises, that is
    logged and noted at the error, and it does not agree.
    """
    if policy.condition is None:
        return True
    try:
        answer = policy.condition(error, failed)
        if inspect.iscoroutine(answer):
            answer.close()
            raise TypeError(
                "it is a coroutine function, which is asked only where the method runs"
            )
        return bool(answer)
    except Exception as own:  # it is the user's
        said = f"its {CONDITION} raised {type(own).__name__}: {own}"
        logger.error("%s: %s; no retry", failed.name, said)
        error.add_note(f"  it was not tried again: {said}")
        return False
