"""The picklers that carry code: cloudpickle with the hooks of a payload.

Imported only when something has to travel by value. cloudpickle gives every class a
tracking id, so that a class which arrives twice is one class; what is added here is
that the second arrival leaves the class alone, where cloudpickle would put back the
class attributes, and the methods, that its sender had.
"""

from __future__ import annotations

import io
from types import FunctionType
from typing import Any

import cloudpickle
from cloudpickle import cloudpickle as internals

from .definitions import MAIN_MODULES, Definitions, is_importable
from .gathering import Bulk, Gatherer, Referent, definition
from .rebuilding import rebuilt, rebuilt_function

_UNFINISHED = "__mosaic_unfinished__"


def skeleton(make: Any, args: tuple[Any, ...]) -> Any:
    """An empty class to be filled, or the class itself if it is here already."""
    known = internals._DYNAMIC_CLASS_TRACKER_BY_ID.get(args[-2])
    if known is not None:
        return known
    made = make(*args)
    # By type: a metaclass may have thoughts about attributes.
    type.__setattr__(made, _UNFINISHED, True)
    return made


def fill(cls: type, state: Any) -> type:
    """Fill a skeleton; a class that was filled before stays as it is."""
    if _UNFINISHED in cls.__dict__:
        internals._class_setstate(cls, state)
        type.__delattr__(cls, _UNFINISHED)
    return cls


class AlonePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """All in one: no definitions, nothing beside the bytes, no references."""

    def __init__(self, file: Any, functions: list[FunctionType] | None = None) -> None:
        super().__init__(file, protocol=5)
        self._functions = functions

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if issubclass(kind, Referent):
            raise TypeError(f"a {kind.__name__} can travel only in a payload")
        if kind is FunctionType:
            return self._function(obj)
        reduced = rebuilt(obj) or super().reducer_override(obj)
        if issubclass(kind, type):
            return _class(reduced, obj)
        return reduced

    def _function(self, function: FunctionType) -> Any:
        made = rebuilt_function(function)
        if made is not None:
            return made
        if function.__module__ == "__mp_main__":
            reduced = self._dynamic_function_reduce(function)
        else:
            reduced = super().reducer_override(function)
        if self._functions is not None and reduced is not NotImplemented:
            self._functions.append(function)
        return reduced


class ValuePickler(Gatherer, cloudpickle.Pickler):  # type: ignore[misc]  # the same
    """For a whole value in which something travels by value and has no digest."""

    def __init__(self, file: Any, known: Definitions) -> None:
        Gatherer.__init__(self)
        cloudpickle.Pickler.__init__(self, file, 5, buffer_callback=self.set_aside)
        self._known = known

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is FunctionType:
            if is_importable(obj):
                return super().reducer_override(obj)
            return (
                self._defined(obj)
                or rebuilt_function(obj)
                or self._dynamic_function_reduce(obj)
            )
        if issubclass(kind, type):
            reduced = _class(super().reducer_override(obj), obj)
            if reduced is NotImplemented or reduced[0] is not skeleton:
                return reduced
            return self._defined(obj) or reduced
        if issubclass(kind, Referent):
            return self.mention(obj)
        if self.transform is not None:
            reduced = self.transform(obj)
            if reduced is not None:
                return reduced
        if kind is Bulk:
            return self.bulk(obj)
        if kind is memoryview:
            return self.memory(obj)
        if kind in self.arrays:
            return self.array(obj)
        return rebuilt(obj) or super().reducer_override(obj)

    def _defined(self, value: Any) -> tuple[Any, ...] | None:
        digest = self._known.digest(value)
        if digest is None:
            return None
        self.definitions[digest] = None
        return definition, (digest,)


def _class(reduced: Any, cls: type) -> Any:
    """How cloudpickle reduces a class, with our loaders for those by value."""
    if reduced is NotImplemented and cls.__module__ in MAIN_MODULES:
        reduced = internals._dynamic_class_reduce(cls)
    if reduced is NotImplemented or reduced[-1] is not internals._class_setstate:
        return reduced
    make, args, state = reduced[:3]
    return skeleton, (make, args), state, None, None, fill


def dump_alone(value: Any, functions: list[FunctionType] | None = None) -> bytes:
    """All of a value in its bytes; lists in ``functions`` those that went by value."""
    file = io.BytesIO()
    AlonePickler(file, functions).dump(value)
    return file.getvalue()
