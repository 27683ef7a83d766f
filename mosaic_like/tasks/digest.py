"""A digest of values and of code that is the same in every process.

Equal values have equal digests where Python says how they are equal: the order of a
dict or set does not count, nor which parts are one object. Arrays count by their type,
shape and bytes; other objects by what pickling would take of them. Functions and
classes count by their code: not by file and line, so that moving one changes nothing.
Classes that others find by name count by that alone; of all others the bases, methods,
properties and class attributes count, as they are now. Of what a function reads from
its module only the names count, not what stands there. Tasks count by an identity that
the caller gives. Nothing here knows of caches.
"""

from __future__ import annotations

import copyreg
import functools
import hashlib
import sys
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any

from ..comms.definitions import is_importable
from ..comms.serialization import Referent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DIGEST_BYTES = 16
_DEEPEST = 400  # containers inside each other; each takes two frames
_EXACT = (int, str, bool, type(None), type(Ellipsis), type(NotImplemented))
_BUFFERS = (bytes, bytearray, memoryview)
# Of a class: where it stands, what is said of it, and what the interpreter keeps there.
_NO_CONTENT = frozenset(
    {
        "__abstractmethods__",
        "__annotations__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__qualname__",
        "__static_attributes__",
        "_abc_impl",
    }
)


class Unhashable(TypeError):
    """There is nothing by which this value could be known again."""


def digest_of(value: Any, identity: Callable[[Any], Any] | None = None) -> str:
    """A digest of a value, as text.

    Args:
        value: of any kind that can be pickled, functions and classes too.
        identity: what stands for a task or another proxy in it; without it there may
            be none.

    Raises:
        Unhashable: the value, or a part of it, has no content that could be read.

    >>> digest_of({"a": 1, "b": {2, 3}}) == digest_of({"b": {3, 2}, "a": 1})
    True
    >>> digest_of(1) == digest_of(1.0)
    False
    """
    walk = _Walk(identity)
    try:
        walk.add(value)
    except RecursionError:
        raise Unhashable("it is nested too deeply") from None
    return walk.hash.hexdigest()


class _Around:
    """What the walks of one value share."""

    __slots__ = ("classes", "highest", "inside")

    def __init__(self) -> None:
        # What the value at hand is in, by id, with its depth: a cycle ends there.
        self.inside: dict[int, int] = {}
        self.highest = 0  # depth of the outermost that a cycle has led back to
        # Classes, which each of their instances mentions, and their digests, by id.
        self.classes: dict[int, tuple[type, bytes]] = {}


class _Walk:
    """Puts a value into a hash, part by part, with a mark before each."""

    def __init__(
        self, identity: Callable[[Any], Any] | None, around: _Around | None = None
    ) -> None:
        self.hash = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._identity = identity
        self._around = _Around() if around is None else around

    def mark(self, kind: str, *what: Any) -> None:
        """What comes, and how much of it: no two walks look alike by chance."""
        text = f"{kind}:{':'.join(map(str, what))};"
        self.hash.update(text.encode("utf-8", "surrogatepass"))

    def add(self, value: Any) -> None:
        kind = type(value)
        if kind in _EXACT:
            text = repr(value) if kind is not str else value
            self.mark(kind.__name__, len(text), text)
        elif kind is float or kind is complex:
            self.mark(kind.__name__, repr(value))
        elif kind in _BUFFERS:
            view = memoryview(value)
            self.mark("bytes", kind.__name__, view.nbytes)
            self.hash.update(view if view.contiguous else view.tobytes())
        else:
            self._add_container(value, kind)

    def _add_container(self, value: Any, kind: type) -> None:
        around = self._around
        inside = around.inside
        known = inside.get(id(value))
        if known is not None:
            around.highest = min(around.highest, known)
            self.mark("above", len(inside) - known)
            return
        if len(inside) > _DEEPEST:
            raise Unhashable("it is nested too deeply")
        inside[id(value)] = len(inside)
        try:
            if kind is list or kind is tuple:
                self.mark(kind.__name__, len(value))
                for item in value:
                    self.add(item)
            elif kind is dict or kind is MappingProxyType:
                self._add_unordered("dict", value.items())
            elif kind is set or kind is frozenset:
                self._add_unordered(kind.__name__, value)
            else:
                self._add_object(value, kind)
        finally:
            del inside[id(value)]

    def _add_unordered(self, kind: str, items: Iterable[Any]) -> None:
        found = sorted(map(self._part, items))
        self.mark(kind, len(found))
        for digest in found:
            self.hash.update(digest)

    def _part(self, value: Any) -> bytes:
        part = _Walk(self._identity, self._around)
        part.add(value)
        return part.hash.digest()

    # -- what is no container ----------------------------------------------------------

    def _add_object(self, value: Any, kind: type) -> None:
        if isinstance(value, Referent):
            if self._identity is None:
                raise Unhashable(f"a {kind.__name__} has no content here")
            self.mark("identity", kind.__name__)
            self.add(self._identity(value))
        elif kind is FunctionType:
            self._add_function(value)
        elif kind is CodeType:
            self._add_code(value)
        elif kind is CellType:
            self.mark("cell")
            try:
                self.add(value.cell_contents)
            except ValueError:
                self.mark("empty")  # of a function that is not defined yet
        elif kind is MethodType:
            self.mark("method")
            self.add(value.__func__)
            self.add(value.__self__)
        elif kind is BuiltinFunctionType and isinstance(value.__self__, ModuleType):
            self.mark("builtin", value.__module__, value.__qualname__)
        elif kind is ModuleType:
            self.mark("module", value.__name__)
        elif isinstance(value, type):
            self._add_class(value)
        elif not self._add_array(value):
            self._add_reduced(value)

    def _add_function(self, function: FunctionType) -> None:
        self.mark("function", function.__name__)
        self.add(function.__code__)
        self.add(function.__defaults__)
        self.add(function.__kwdefaults__)
        names = function.__code__.co_freevars
        for name, cell in zip(names, function.__closure__ or (), strict=False):
            try:
                self.add(cell)
            except Unhashable as error:
                raise Unhashable(
                    f"the variable {name!r} of {function.__qualname__}: {error}"
                ) from None

    def _add_code(self, code: CodeType) -> None:
        self.mark("code", code.co_flags, code.co_argcount, code.co_kwonlyargcount)
        self.add(code.co_code)
        self.add(code.co_names)
        self.add(code.co_varnames)
        self.add(code.co_consts)

    def _add_class(self, cls: type) -> None:
        self.mark("class", cls.__module__, cls.__qualname__)
        if is_importable(cls):
            return
        around = self._around
        _, digest = around.classes.get(id(cls), (cls, b""))
        if not digest:
            depth = around.inside[id(cls)]
            before, around.highest = around.highest, depth
            try:
                digest = self._part(_content(cls))
            except Unhashable as error:
                raise Unhashable(f"the class {cls.__qualname__}: {error}") from None
            if around.highest == depth:  # else it is another one in another place
                around.classes[id(cls)] = cls, digest
            around.highest = min(before, around.highest)
        self.hash.update(digest)

    def _add_array(self, value: Any) -> bool:
        numpy = sys.modules.get("numpy")  # who has an array has imported it
        if numpy is None or not isinstance(value, numpy.ndarray | numpy.generic):
            return False
        array = numpy.ascontiguousarray(value)
        self.mark("array", type(value).__name__, array.dtype.descr, numpy.shape(value))
        if array.dtype.hasobject:
            self.add(array.tolist())
        else:
            self.hash.update(array.reshape(-1).view(numpy.uint8))
        mask = getattr(value, "mask", None)
        if mask is not None:
            self.add(numpy.asarray(mask))
        return True

    def _add_reduced(self, value: Any) -> None:
        """By what pickle would take of it."""
        kind = type(value)
        reduce = copyreg.dispatch_table.get(kind)
        try:
            reduced = reduce(value) if reduce else value.__reduce_ex__(4)
        except Unhashable:
            raise
        except Exception as error:
            raise Unhashable(f"a {kind.__qualname__}: {error}") from None
        if isinstance(reduced, str):
            self.mark("global", getattr(value, "__module__", ""), reduced)
            wrapped = getattr(value, "__wrapped__", None)  # as lru_cache has it
            if wrapped is not None:
                self.add(wrapped)
            return
        make, args, *rest = reduced
        self.mark("object", len(reduced))
        self.add(make)
        self.add(args)
        for index, part in enumerate(rest):
            if index and part is not None and index < 3:  # items of a list or dict
                part = list(part) if index == 1 else dict(part)
            self.add(part)


def _content(cls: type) -> list[Any]:
    """What there is to a class, in builtin containers."""
    attributes = {
        name: (type(value).__name__, _undecorated(value))
        for name, value in vars(cls).items()
        if name not in _NO_CONTENT
        and not isinstance(value, GetSetDescriptorType | MemberDescriptorType)
    }
    return [type(cls), list(cls.__bases__), attributes]


def _undecorated(value: Any) -> Any:
    """The functions of what a class makes of them."""
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    if isinstance(value, property):
        return [value.fget, value.fset, value.fdel]
    if isinstance(value, functools.cached_property):
        return value.func
    return value
