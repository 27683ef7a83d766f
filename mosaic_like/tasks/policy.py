"""Where a task's policy meets its calls: before one is sent, and around an attempt.

The base asks here; what caching, concurrency, hooks and the like do stands in files of
their own. Tasks that have no such option never come here.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from .attempt import Attempt, wrapped
from .code import Code
from .concurrency import Concurrency
from .naming import check_run_name
from .planning import Planner, keeps_values
from .storage import check_store_key

if TYPE_CHECKING:
    from .options import TaskOptions


def is_needed(options: TaskOptions) -> bool:
    """Whether calls with these options are prepared first, and pass the gate."""
    return bool(
        options.after
        or options.batch_size is not None
        or options.runtime is not None
        or _has_policy(options)
    )


def _has_policy(options: TaskOptions) -> bool:
    return bool(
        options.delay
        or options.run_name is not None
        or options.cache_key is not None
        or options.concurrency is not None
        or options.tags
        or options.on_done
        or options.on_failed
        or options.on_state
        or keeps_values(options)
    )


def planner_of(options: TaskOptions) -> Planner | None:
    """What plans calls with these options; None: there is nothing to plan."""
    return Planner(options) if _has_policy(options) else None


def code_of(code: Code, old: TaskOptions | None, new: TaskOptions) -> Code:
    """What is sent to workers: the function, with what is done around an attempt there.

    Args:
        code: of the task whose options these were.
        old: its options; None: it is new.
        new: those of the new task.
    """
    if old is not None and _around(old) == _around(new):
        return code  # which need not be sent again
    fn = code.fn.fn if isinstance(code.fn, Attempt) else code.fn
    made = wrapped(fn, new, keeps_values(new))
    return code if made is fn and code.fn is fn else Code(made, code.name)


def _around(options: TaskOptions) -> tuple[Any, ...]:
    return options.cancel_if, options.log_prints, keeps_values(options)


def check_against(options: TaskOptions, fn: Any) -> None:
    """Raise for options that do not fit each other, or the function's signature."""
    if options.persist and options.store is None:
        raise ValueError(
            "option 'persist': True needs store=: the path of a directory, or an "
            "object with get, put, delete and in"
        )
    if options.store_key is not None and options.store is None:
        raise ValueError("option 'store_key': it needs store=, where the key is used")
    expires = options.cache_expiration is not None and keeps_values(options)
    if expires and not hasattr(options.store, "stored_at"):
        raise TypeError(
            f"option 'cache_expiration': the store {options.store!r} does not know how "
            "old its values are; give it a method stored_at(key), seconds since the "
            "epoch"
        )
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return  # of C code, perhaps
    name = str(options.name or getattr(fn, "__name__", type(fn).__name__))
    check_run_name(options.run_name, name, signature)
    if options.store_key is not None:
        check_store_key(options.store_key, options.store, signature.parameters)
    check = getattr(options.cache_key, "check", None)
    if check is not None:
        check(name, signature)
    if isinstance(options.concurrency, Concurrency):
        options.concurrency.check(name, signature)
