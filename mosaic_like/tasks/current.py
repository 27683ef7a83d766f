"""What ``current_task()`` says of the function or method that runs, beside its names.

Nothing of it is kept while a call runs: it is found, or read again, when it is asked.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from .. import session
from ..comms.messages import CALL, STREAM
from .attempt import HIDDEN, Attempt
from .calling import Caller
from .code import found_at, located

if TYPE_CHECKING:
    from ..core.task import Task as Running
    from .function import Task


def parameters(running: Running) -> dict[str, Any]:
    """The arguments by name, with defaults, read again from the call.

    Raises:
        RuntimeError: it is a constructor, or something else than a function or method.
    """
    function = _callee(running)
    kind = CALL if running.extra is None else running.extra.kind
    if function is None or kind not in (CALL, STREAM):
        raise RuntimeError(
            f"current_task().parameters: {running.name} is neither a function nor a "
            "method; use the arguments that it was given"
        )
    args, kwargs = session.current().load_call(running)
    kwargs.pop(HIDDEN, None)
    if _is_of_executor(function):
        given = [*getattr(function, "args", ()), *args]
        function, args = given[0], given[1:]
    found = inspect.signature(function).bind(*args, **kwargs)
    found.apply_defaults()
    return dict(found.arguments)


def task(running: Running) -> Task[..., Any] | None:
    """The function that runs, as a task; None: it is a method.

    With its options where it stands in a module, else without.
    """
    from .function import Task
    from .marking import task as made_of

    if not running.tessera.options.stateless:
        return None
    function = _callee(running)
    if _is_of_executor(function):
        return None
    place = located(function)
    known = None if place is None else found_at(*place)
    return known if isinstance(known, Task) else made_of(function)


def info(running: Running) -> dict[str, str]:
    """Name, key and version, as a ``cache_key`` function is told them."""
    whole = task(running)
    if whole is not None:
        return {"name": whole.name, "key": whole.key, "version": whole.version or ""}
    cls = type(running.tessera.instance)
    key = f"{cls.__module__}:{cls.__qualname__}.{running.method}"
    return {"name": running.name, "key": key, "version": ""}


def _is_of_executor(function: Any) -> bool:
    """What calls the function that an ``Executor`` was given, its first argument."""
    if isinstance(function, functools.partial):
        function = function.func
    return type(function) is Caller


def _callee(running: Running) -> Any:
    """What the call was of; None: that is not known any more, or not yet."""
    instance = running.tessera.instance
    found = None if instance is None else getattr(instance, running.method, None)
    return found.fn if isinstance(found, Attempt) else found
