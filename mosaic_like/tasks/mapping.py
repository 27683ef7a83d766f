"""The arguments of many calls from those of one ``map`` or ``starmap``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..proxies.outputs import TaskDone, TaskOutput
from ..proxies.task import TaskProxy
from .annotations import Marked, Unmapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..proxies.schema import Method

Call = tuple[tuple[Any, ...], dict[str, Any]]
# Iterable, and yet one value.
_WHOLE = (
    str,
    bytes,
    bytearray,
    memoryview,
    Mapping,
    TaskProxy,
    TaskOutput,
    TaskDone,
    Marked,
)


def mapped_arguments(
    method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[Call]:
    """The arguments of each call of a ``map``.

    Raises:
        TypeError: nothing is iterable.
        ValueError: the iterables differ in length.
    """
    columns: list[Any] = [_column(value) for value in args]
    named = {name: _column(value) for name, value in kwargs.items()}
    lengths: dict[str, int] = {}
    for index, column in enumerate(columns):
        if type(column) is list:
            lengths[_name(method, index)] = len(column)
    for name, column in named.items():
        if type(column) is list:
            lengths[name] = len(column)
    if not lengths:
        raise TypeError(
            f"{method.name}.map: no argument is iterable; write "
            f"{method.name}.submit(...) for one call"
        )
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise ValueError(
            f"{method.name}.map: the iterables differ in length: {found}; wrap what is "
            "one value for all calls in unmapped(...)"
        )
    return _rows(columns, named, next(iter(lengths.values())))


def _rows(columns: list[Any], named: dict[str, Any], length: int) -> Iterator[Call]:
    for index in range(length):
        args = tuple(c[index] if type(c) is list else c.value for c in columns)
        yield (
            args,
            {
                name: c[index] if type(c) is list else c.value
                for name, c in named.items()
            },
        )


def _column(value: Any) -> Any:
    """A list of what each call takes, or an ``Unmapped`` of what all take."""
    if isinstance(value, Unmapped):
        return value
    if isinstance(value, _WHOLE) or not isinstance(value, Iterable):
        return Unmapped(value)
    try:
        return list(value)
    except TypeError:
        return Unmapped(value)  # such as an array without dimensions


def _name(method: Method, index: int) -> str:
    if method.signature is None:
        return f"argument {index}"
    names = [
        p.name
        for p in method.signature.parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return names[index] if index < len(names) else f"argument {index}"


def starmap_arguments(
    name: str,
    params: Iterable[tuple[Any, ...] | dict[str, Any]],
    common: Mapping[str, Any] | None,
) -> Iterator[Call]:
    """The arguments of each call of a ``starmap``; see there.

    Raises:
        TypeError: an item is neither a tuple nor a dict, or no dict beside ``common``.
    """
    if not isinstance(params, Iterable):
        raise TypeError(
            f"{name}.starmap: found {params!r}, expected an iterable of tuples or dicts"
        )
    if common is not None and not isinstance(common, Mapping):
        raise TypeError(f"{name}.starmap: common={common!r}, expected a dict")
    items = list(params)
    for index, item in enumerate(items):
        if not isinstance(item, tuple | dict):
            raise TypeError(
                f"{name}.starmap: item {index} is {item!r}; expected a tuple of "
                "positional or a dict of keyword arguments"
            )
        if common is not None and not isinstance(item, dict):
            raise TypeError(
                f"{name}.starmap: item {index} is a tuple, and arguments common to "
                "all are keywords: give each item as a dict"
            )
    for item in items:
        if isinstance(item, dict):
            yield (), {**(common or {}), **item}
        else:
            yield item, {}
