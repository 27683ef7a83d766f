"""A task as JSON: the name of its function, and its options."""

from __future__ import annotations

import importlib
import json
import os
from typing import Any

from .code import located
from .function import Task, task
from .options import OF_CALLS

_REFERENCE = "$ref"  # in place of a function or class: where it is found


def to_json(made: Task[..., Any]) -> str:
    """See ``Task.to_json``."""
    found = located(made.fn)
    if found is None:
        raise ValueError(
            f"the function {made.name} has no name under which other programs find it "
            "(it is a lambda, a closure, or of __main__ or a notebook): put it into a "
            "module"
        )
    options = {
        name: _plain(name, value) for name, value in made._options.given().items()
    }
    return json.dumps({"task": ":".join(found), "options": options})


def from_json(text: str) -> Task[..., Any]:
    """See ``Task.from_json``."""
    try:
        read = json.loads(text)
        key, options = read["task"], read.get("options", {})
        options = {name: _whole(value) for name, value in options.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"no task as to_json() writes it: {type(error).__name__}: {error}"
        ) from None
    fn = _found(key)
    of_call = {name: options.pop(name) for name in OF_CALLS & set(options)}
    made: Task[..., Any] = task(fn.fn if isinstance(fn, Task) else fn, **options)
    return made.options(**of_call) if of_call else made


def _plain(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_plain(name, item) for item in value]
    if isinstance(value, frozenset | set):
        return sorted(_plain(name, item) for item in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    found = located(value) if callable(value) else None
    if found is None:
        raise ValueError(
            f"option {name!r}: {value!r} cannot be written as JSON; only plain values, "
            "and functions and classes of modules, can"
        )
    return {_REFERENCE: ":".join(found)}


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_whole, value))
    if isinstance(value, dict):
        return _found(value[_REFERENCE])
    return value


def _found(key: Any) -> Any:
    """What a module has under a name.

    Raises:
        LookupError: there is no such module here, or no such name in it.
    """
    module, _, name = str(key).partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise LookupError(f"there is no {key!r} here: {error}") from None
    return found
