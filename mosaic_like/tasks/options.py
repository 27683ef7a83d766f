"""The options of a task: one frozen object, checked when it is made.

Each option is checked here, all wrong ones are named in one error. What an option does
is not known here. ``UNSET`` keeps what was said before, None unsets it.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import string
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ..core.placement import STRATEGIES
from ..proxies.limits import interrupt_of, timeout_of
from ..proxies.outputs import TaskDone, TaskOutput
from ..proxies.retries import check_retries, max_retries_of
from ..proxies.task import TaskProxy
from ..proxies.tessera import TesseraProxy
from .caching import expiration_of, key_function
from .concurrency import Concurrency, tags_of
from .storage import serializer_of, store_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class _Unset:
    """The only object of this class: no value was given."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"

    def __reduce__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        return False


UNSET: Final = _Unset()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """All that a task may be told; what was not said is as if it were None or empty.

    The public meaning of each stands at ``mosaic.task``.
    """

    name: str | None = None
    description: str | None = None
    tags: frozenset[str] = frozenset()
    version: str | None = None
    run_name: Any = None
    max_retries: int = 0
    retry_on: Any = Exception
    retry_if: Any = None
    retry_delay: Any = 0.0
    retry_jitter: float = 0.0
    timeout: float | None = None
    interrupt: str | None = None
    cache_key: Any = None
    cache_expiration: Any = None
    refresh_cache: bool | None = None
    persist: bool | None = None
    store: Any = None
    store_key: Any = None
    serializer: Any = "pickle"
    concurrency: Any = None
    cancel_if: Any = None
    log_prints: bool | None = None
    on_done: tuple[Any, ...] = ()
    on_failed: tuple[Any, ...] = ()
    on_state: tuple[Any, ...] = ()
    runtime: Any = None
    viz_value: Any = UNSET
    # Of a call, by ``Task.options`` alone.
    after: tuple[Any, ...] = ()
    delay: float | None = None
    batch_size: int | None = None

    def given(self) -> dict[str, Any]:
        """Those that say something, by name."""
        return {
            name: value
            for name, value in ((n, getattr(self, n)) for n in NAMES)
            if value is not _DEFAULTS[name] and value != _DEFAULTS[name]
        }


_FIELDS = dataclasses.fields(TaskOptions)
NAMES: tuple[str, ...] = tuple(field.name for field in _FIELDS)
_DEFAULTS: Mapping[str, Any] = MappingProxyType({f.name: f.default for f in _FIELDS})
OF_CALLS = frozenset({"after", "delay", "batch_size"})
_WORKER = re.compile(r"worker:\d+:\d+")
_RETRIES = ("retry_on", "retry_if", "retry_delay", "retry_jitter")


def check_options(given: Mapping[str, Any], *, of_call: bool = False) -> dict[str, Any]:
    """Options as ``TaskOptions`` has them.

    Args:
        given: by name; UNSET ones are left out, None gives the default.
        of_call: those of a call are among those that may be given.

    Raises:
        TypeError: unknown names, all of them, or a value of the wrong type.
        ValueError: a value out of range.
    """
    _check_names(given, of_call)
    checked: dict[str, Any] = {}
    errors: list[Exception] = []
    for name, value in given.items():
        if value is UNSET:
            continue
        if value is None:
            checked[name] = _DEFAULTS[name]
            continue
        try:
            checked[name] = _check(name, value)
        except (TypeError, ValueError) as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        kind = (
            TypeError if any(isinstance(e, TypeError) for e in errors) else ValueError
        )
        raise kind("; ".join(str(error) for error in errors))
    return checked


def merged(options: TaskOptions, given: Mapping[str, Any]) -> TaskOptions:
    """The same with others on top; see ``check_options``."""
    return dataclasses.replace(options, **check_options(given, of_call=True))


def _check_names(given: Mapping[str, Any], of_call: bool) -> None:
    known = [n for n in NAMES if of_call or n not in OF_CALLS]
    wrong = [name for name in given if name not in known]
    if not wrong:
        return
    hints = []
    for name in wrong:
        if name in OF_CALLS:
            hints.append(f"{name!r} (of a call: task.options({name}=...))")
            continue
        close = difflib.get_close_matches(name, known, 1)
        hints.append(f"{name!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))
    what = "option" if len(wrong) == 1 else "options"
    raise TypeError(
        f"unknown {what} of a task: {', '.join(hints)}; known: {', '.join(known)}"
    )


def _check(name: str, value: Any) -> Any:
    check = _CHECKS.get(name)
    return value if check is None else check(name, value)


def _wrong(name: str, value: Any, expected: str) -> TypeError:
    return TypeError(f"option {name!r}: found {value!r}, expected {expected}")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "a string")
    if name == "name" and not (value and value.isprintable()):
        raise ValueError(
            f"option 'name': found {value[:80]!r}, expected text that can be printed"
        )
    return value


def _retry(name: str, value: Any) -> Any:
    check_retries({name: value})
    return value


def _seconds(name: str, value: Any, *, zero: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, value, "seconds")
    if not (value > 0 or (zero and value == 0)):  # nan too
        least = "0 seconds or more" if zero else "more than 0 seconds"
        raise ValueError(f"option {name!r}: found {value!r}, expected {least}")
    return float(value)


def _bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "True, False or None")
    return value


def _callable(name: str, value: Any) -> Any:
    if not callable(value):
        raise _wrong(name, value, "a function or None")
    return value


def _hooks(name: str, value: Any) -> tuple[Any, ...]:
    hooks = (value,) if callable(value) else value
    if not isinstance(hooks, tuple | list) or not all(map(callable, hooks)):
        raise _wrong(name, value, "a function, or several")
    return tuple(hooks)


def _checked(check: Callable[[Any], Any]) -> Callable[[str, Any], Any]:
    """For an option that stays as it was given, if that is right."""

    def checked(name: str, value: Any) -> Any:
        check(value)
        return value

    return checked


def _concurrency(name: str, value: Any) -> Concurrency:
    if not isinstance(value, Concurrency):
        raise _wrong(name, value, "mosaic.Concurrency(...)")
    return value


def _run_name(name: str, value: Any) -> Any:
    if isinstance(value, str):
        try:
            list(string.Formatter().parse(value))
        except ValueError as error:
            raise ValueError(f"option {name!r}: {value!r}: {error}") from None
        return value
    if callable(value):
        return value
    raise _wrong(name, value, "a format string or a function of the parameters")


def _runtime(name: str, value: Any) -> Any:
    """A place as ``runtime=`` takes it; whether it is there shows at each call."""
    if isinstance(value, str):
        if value not in STRATEGIES and not _WORKER.fullmatch(value):
            known = ", ".join(map(repr, STRATEGIES))
            raise ValueError(
                f"option {name!r}: found {value!r}, expected the uid of a worker, such "
                f"as 'worker:0:1', or the name of a strategy ({known})"
            )
    elif not isinstance(value, TesseraProxy) and not isinstance(
        getattr(value, "indices", None), tuple
    ):
        raise _wrong(
            name, value, "one of runtime.workers, the uid of one, or a tessera"
        )
    return value


def _after(name: str, value: Any) -> tuple[Any, ...]:
    tasks = value if isinstance(value, tuple | list | set | frozenset) else (value,)
    for task in tasks:
        drawn = getattr(type(task), "__mosaic_drawn__", False)  # stands for a task
        if not drawn and not isinstance(task, TaskProxy | TaskDone | TaskOutput):
            raise _wrong(name, task, "tasks, or their done tokens")
    return tuple(tasks)


def _batch_size(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(name, value, "int")
    if value < 1:
        raise ValueError(f"option {name!r}: found {value}, expected at least 1")
    return value


def _interrupt(name: str, value: Any) -> Any:
    interrupt_of(value)
    return value


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = MappingProxyType(
    {
        "name": _text,
        "description": _text,
        "tags": lambda name, value: tags_of(value),
        "version": _text,
        "run_name": _run_name,
        "max_retries": lambda name, value: max_retries_of(value),
        **dict.fromkeys(_RETRIES, _retry),
        "timeout": lambda name, value: timeout_of(value),
        "interrupt": _interrupt,
        "cache_key": _checked(key_function),
        "cache_expiration": _checked(expiration_of),
        "refresh_cache": _bool,
        "persist": _bool,
        "store": lambda name, value: store_of(value),
        "store_key": _text,
        "serializer": _checked(serializer_of),
        "concurrency": _concurrency,
        "cancel_if": _callable,
        "runtime": _runtime,
        "log_prints": _bool,
        "on_done": _hooks,
        "on_failed": _hooks,
        "on_state": _hooks,
        "after": _after,
        "delay": lambda name, value: _seconds(name, value, zero=True),
        "batch_size": _batch_size,
    }
)
