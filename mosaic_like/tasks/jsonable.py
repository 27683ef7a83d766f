"""A task as JSON: the name of its function, and its options."""

from __future__ import annotations

import datetime
import json
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .backoff import ExponentialBackoff, exponential_backoff
from .caching import InputHash, input_hash
from .code import found_at, located
from .concurrency import Concurrency
from .function import Task
from .marking import task
from .options import OF_CALLS
from .storage import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_REFERENCE = "$ref"  # in place of a function or class: where it is found
_MADE = "$made"  # in place of what is made anew: by what, and from which arguments
# What is plain data in a shape of its own: what makes it, and the arguments for that.
_PARTS: Mapping[type, tuple[Callable[..., Any], tuple[str, ...]]] = MappingProxyType(
    {
        Concurrency: (
            Concurrency,
            ("limit", "key", "scope", "on_conflict", "strict"),
        ),
        DirectoryStore: (DirectoryStore, ("path",)),
        ExponentialBackoff: (exponential_backoff, ("base", "factor", "maximum")),
        InputHash: (input_hash, ("ignore",)),
        datetime.timedelta: (
            datetime.timedelta,
            ("days", "seconds", "microseconds"),
        ),
    }
)
_MAKERS = MappingProxyType({maker.__name__: maker for maker, _ in _PARTS.values()})


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
    if type(value) in _PARTS:
        maker, parts = _PARTS[type(value)]
        given = {part: _plain(name, getattr(value, part)) for part in parts}
        return {_MADE: maker.__name__, **given}
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
    if isinstance(value, dict) and _MADE in value:
        given = {name: _whole(part) for name, part in value.items() if name != _MADE}
        return _MAKERS[value[_MADE]](**given)
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
        return found_at(module, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise LookupError(f"there is no {key!r} here: {error}") from None
