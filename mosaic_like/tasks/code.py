"""A function as it is sent: once to each worker that calls it, not with each call.

An importable one goes by reference, also where ``@task`` stands before it and its name
means the Task; one of ``__main__`` or a notebook, a lambda or a closure goes by value.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import TYPE_CHECKING, Any

from ..comms.definitions import MAIN_MODULES

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..comms.serialization import Payload, Serializer
    from .submission import Functions


class Code:
    """One function, as the tasks of it share it.

    Args:
        fn: what runs in the worker.
        name: for people.
    """

    __slots__ = ("__weakref__", "fn", "is_async", "method", "name", "sender")

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self.fn = fn
        self.name = name
        self.is_async = inspect.iscoroutinefunction(fn) or (
            inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004 -- of an object that is called
        )
        # Of the runtime that has sent it last, and its name there.
        self.sender: Functions | None = None
        self.method = ""

    def dumps(self, serializer: Serializer) -> bytes | Payload:
        """The function as it travels.

        Raises:
            SerializationError: it cannot travel.
        """
        found = located(self.fn)
        value = self.fn if found is None else Located(*found)
        return serializer.dumps(value, what=f"the function {self.name}")

    def __del__(self) -> None:
        if self.sender is not None:
            self.sender.drop(self.method, self.is_async)


class Located:
    """Stands for a function of a module whose name there may mean the Task of it."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def load(self) -> Any:
        """The function itself; what it raises is that of ``found_at``."""
        found = found_at(self.module, self.name)
        return getattr(found, "fn", found) if _is_task(found) else found


def found_at(module: str, name: str) -> Any:
    """What a module has under a qualified name; it is imported.

    Raises:
        ImportError: the module cannot be imported where this runs.
        AttributeError: it has no such name there.
    """
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def located(fn: Any) -> tuple[str, str] | None:
    """Module and qualified name under which other processes find a function."""
    module = getattr(fn, "__module__", None)
    name = getattr(fn, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    if module in MAIN_MODULES or module not in sys.modules:
        return None
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is fn or (_is_task(found) and found.fn is fn):
        return module, name
    return None


def _is_task(value: Any) -> bool:
    return getattr(type(value), "__mosaic_task__", False) is True
