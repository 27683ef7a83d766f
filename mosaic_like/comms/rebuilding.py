"""What pickle knows only by a name that another process has not, made anew there.

``functools`` and ``typing`` make objects that pickle as a name, such as a function with
``lru_cache`` or a ``NewType``, or not at all, such as ``cached_property``. In a script
or a notebook the name means nothing to another process, and a class that only mentions
one of them could not travel. Here is how each is taken apart and put together. What a
peer can import never comes here.
"""

from __future__ import annotations

import functools
import sys
import typing
from typing import TYPE_CHECKING, Any

from .definitions import MAIN_MODULES, is_importable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType

Reduced = tuple[Any, ...]


class _Later:
    """Stands for a function that calls its own cache, until that is there."""

    __slots__ = ("__weakref__", "function")

    function: Any

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


# -- functools -------------------------------------------------------------------------


def cache(maxsize: int | None, typed: bool) -> Any:
    """An empty cache of a function that is still to come."""
    return functools.lru_cache(maxsize, typed)(_Later())


def fill_cache(cached: Any, function: Any) -> None:
    """Give it its function."""
    cached.__wrapped__.function = function
    functools.update_wrapper(cached, function)


def _reduce_cache(cached: Any) -> Reduced:
    parameters = cached.cache_parameters()
    args = (parameters["maxsize"], parameters["typed"])
    return cache, args, cached.__wrapped__, None, None, fill_cache


def cached_property(function: Any, name: str | None) -> Any:
    """One that belongs to a class already."""
    made = functools.cached_property(function)
    made.attrname = name
    return made


def _reduce_cached_property(made: Any) -> Reduced:
    return cached_property, (made.func, made.attrname)


def dispatcher() -> Any:
    """A function of ``singledispatch`` that has no functions yet."""
    return functools.singledispatch(_nothing)


def fill_dispatcher(made: Any, functions: dict[Any, Any]) -> None:
    """Give it its functions, by the types of their first argument."""
    for kind, function in functions.items():
        made.register(kind, function)
    functools.update_wrapper(made, functions[object])


def _nothing(*args: Any) -> None:
    """A singledispatch needs a function to begin with."""


_a_dispatcher: Any = functools.singledispatch(_nothing)
_DISPATCHER = _a_dispatcher.__code__  # that all of them share


def rebuilt_function(function: FunctionType) -> Reduced | None:
    """How a function travels that must be made anew; None: as others do."""
    if function.__code__ is not _DISPATCHER or is_importable(function):
        return None
    made: Any = function
    state = dict(made.registry)
    return dispatcher, (), state, None, None, fill_dispatcher


# -- typing ----------------------------------------------------------------------------


def new_type(name: str, module: str, supertype: Any) -> Any:
    """As it was where it was written."""
    make: Any = typing.NewType  # of a name that no type checker needs to know
    made = make(name, supertype)
    made.__module__ = module
    return made


def _reduce_new_type(made: Any) -> Reduced:
    return new_type, (made.__qualname__, made.__module__, made.__supertype__)


def parameters(kind: Any, name: str, module: str, bound: Any) -> Any:
    """A ParamSpec, or a TypeVarTuple, which has no bound."""
    made = kind(name) if bound is None else kind(name, bound=bound)
    made.__module__ = module
    return made


def _reduce_parameters(made: Any) -> Reduced | str:
    module = made.__module__  # there is no qualified name, which is_importable wants
    known: Any = getattr(sys.modules.get(module), made.__name__, None)
    if known is made and module not in MAIN_MODULES:
        name: str = made.__name__
        return name
    bound = getattr(made, "__bound__", None)
    return parameters, (type(made), made.__name__, module, bound)


_REDUCERS: dict[type, Callable[[Any], Reduced | str]] = {
    type(functools.lru_cache(_nothing)): _reduce_cache,
    functools.cached_property: _reduce_cached_property,
    typing.NewType: _reduce_new_type,
    typing.ParamSpec: _reduce_parameters,
    typing.TypeVarTuple: _reduce_parameters,
}
KINDS = frozenset(_REDUCERS)


def rebuilt(value: Any) -> Reduced | str | None:
    """How it travels if it must be made anew; None: as others do."""
    reduce = _REDUCERS.get(type(value))
    if reduce is None or is_importable(value):
        return None
    return reduce(value)
