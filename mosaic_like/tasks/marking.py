"""``mosaic.task``: the mark that makes a function a ``Task``, and what may be marked.

What a task can do then stands in ``function``, and how each option is checked in
``options``.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from .code import Code
from .function import Task
from .options import TaskOptions, check_options, merged
from .policy import check_against, code_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from .keywords import TaskKeywords

P = ParamSpec("P")
R = TypeVar("R")


@overload
def task(fn: Callable[P, R], /, **options: Unpack[TaskKeywords]) -> Task[P, R]: ...
@overload
def task(
    fn: None = None, /, **options: Unpack[TaskKeywords]
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(fn: Any = None, /, **options: Any) -> Any:
    """Make a function one whose calls can run in other processes.

    Args:
        fn: a function or coroutine function, or anything that can be called.
        name: for people; else the function's own.
        description: for people; else the first paragraph of its docstring.
        tags: strings, for limits and records.
        version: what is kept of another version is not used.
        run_name: of each call: a format string of its parameters, such as
            ``"{path}"``, or a function of the dict of them.
        max_retries: how often a call runs again that raises, whose time is over, or
            whose worker was lost while it ran.
        retry_on, retry_if, retry_delay, retry_jitter: after which errors, and when; see
            ``proxy.method.options``.
        timeout: seconds that each attempt has, from when it is sent to a worker.
        interrupt: how a plain function that runs is stopped; see
            ``proxy.method.options``.
        cache_key: ``"inputs"``, ``input_hash(ignore=...)``, or a function of the
            context and the parameters that gives a string, or None for no caching:
            calls with the same one run once.
        cache_expiration: seconds, or a timedelta, that a value is used for.
        refresh_cache: True: run it, and keep what it gives.
        persist: keep values in ``store``; by default if there is a ``cache_key``.
        store: a directory, or an object with ``get``, ``put``, ``delete``, ``in``.
        store_key: under which a value is kept there, a format string.
        serializer: ``"pickle"``, ``"json"``, or an object with ``dumps`` and ``loads``.
        concurrency: a ``Concurrency``: how many calls may run at once.
        cancel_if: a function of the value; if it says so, the task is cancelled.
        log_prints: True: what it prints becomes log lines of the program, by
            ``mosaic.logger()``; False: it is not shown.
        on_done, on_failed: a function, or several, of the info and the value or the
            exception; called on the loop of the runtime that submits, also for
            ``cached`` and ``reused``, and only for the last attempt. What they raise
            is logged.
        on_state: the same of the info and each transition.
        runtime: a worker, or its uid, where all calls run.
        viz_value: what a call gives in ``visualize``.

    Raises:
        TypeError: unknown options, all of which are named, a value of the wrong type,
            or ``fn`` cannot be called.
        ValueError: a value out of range.

    >>> import mosaic_like as mosaic
    >>> @mosaic.task(max_retries=2)
    ... def half(x: int) -> float: return x / 2
    >>> async def main():
    ...     return await half.map([2, 4]).result()
    >>> mosaic.run(main, num_workers=1)
    [1.0, 2.0]
    """
    made = TaskOptions(**check_options(options))

    def mark(function: Callable[P, R]) -> Task[P, R]:
        _check_function(function)
        given = made
        if isinstance(function, Task):
            given = merged(function._options, options)
            function = function.fn
        own: str = getattr(function, "__name__", type(function).__name__)
        name = given.name or own
        check_against(given, function)
        return Task(function, given, code_of(Code(function, name), None, given))

    return mark if fn is None else mark(fn)


def _check_function(function: Any) -> None:
    if isinstance(function, type) or not callable(function):
        hint = "; of a class @tessera makes remote objects"
        what = hint if isinstance(function, type) else ""
        raise TypeError(f"@task marks a function, not {function!r}{what}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"@task: {function.__qualname__} is a generator, which gives no value to "
            "send: return a list, or make it a method of a @tessera, which streams"
        )
