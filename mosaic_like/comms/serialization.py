"""Values to bytes and back: one Serializer for each runtime.

Plain values go through marshal, which costs half of pickle: it takes integers of any
size and lone surrogates, and both ends are the same Python (``Hello`` says so). Its
bytes never begin with 0x80, which is how every pickle begins. Anything else goes
through a reused C pickler; what that cannot take, through cloudpickle, as a whole, so
that identity holds inside one call. Nothing here knows proxies or links.

    plain         one of PLAIN exactly, or arguments of these and no keywords
    payload       references, definitions and large buffers beside the bytes

Arrays of 64 KiB and more arrive as read-only views of the message, or of shared memory
if they have 256 KiB together: copy to write. A memoryview arrives as a read-only one.
``bytes`` and ``bytearray`` of that size go beside the bytes when they are an argument
or result themselves; inside a container pickle has no hook for them, and copies. A
pickle that is large itself, as that of a long list, travels as a buffer too.
"""

from __future__ import annotations

import io
import marshal
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any

from ..errors import MosaicError, SerializationError
from . import gathering
from .definitions import MAIN_MODULES, Definitions, is_importable
from .gathering import (
    LARGE_BYTES,
    SEGMENT_BYTES,
    Bulk,
    Gatherer,
    Handle,
    Payload,
    Referent,
    Segments,
)
from .messages import PICKLED
from .rebuilding import KINDS

__all__ = [
    "LARGE_BYTES",
    "PLAIN",
    "Handle",
    "Payload",
    "Referent",
    "Serializer",
    "is_importable",
]

# What marshal takes without a look at its size.
_SCALARS = frozenset({int, float, str, bool, type(None)})
PLAIN = _SCALARS | {bytes}
_BULK = frozenset({bytes, bytearray})
_MARSHAL_VERSION = 2  # without back references, which cost a third of the time
_MARK = gathering.__name__.encode()

Transform = Callable[[Any], tuple[Any, ...] | None]
Resolve = Callable[[int, tuple[Any, ...]], Any]
Buffers = Iterable[Any]
# What is called, and the names of its positional arguments; asked only for an error.
Describe = Callable[[], tuple[str, Sequence[str]]]


class _TravelsByValue(Exception):
    """The C pickler met what only cloudpickle can take."""


class _File:
    """What a pickler writes to: a list costs less than a BytesIO."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write


class _Pickler(Gatherer, pickle.Pickler):
    """The ordinary pickler, used again and again."""

    def __init__(self, known: Definitions) -> None:
        Gatherer.__init__(self)
        self.chunks: list[bytes] = []
        file = _File(self.chunks.append)
        pickle.Pickler.__init__(self, file, 5, buffer_callback=self.set_aside)
        self._known = known

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is FunctionType or issubclass(kind, type):
            # The C pickler takes anything of __main__ and says nothing.
            if obj.__module__ in MAIN_MODULES or "<locals>" in obj.__qualname__:
                return self._define(obj)
            return NotImplemented
        if issubclass(kind, Referent):
            return self.mention(obj)
        if self.transform is not None:
            reduced = self.transform(obj)
            if reduced is not None:
                return reduced
        if kind in self.arrays:
            return self.array(obj)
        if kind is Bulk:
            return self.bulk(obj)
        if kind is memoryview:
            return self.memory(obj)
        if kind in KINDS:
            raise _TravelsByValue
        return NotImplemented

    def _define(self, value: Any) -> tuple[Any, ...]:
        digest = self._known.digest(value)
        if digest is None:
            raise _TravelsByValue
        self.definitions[digest] = None
        return gathering.definition, (digest,)


class _Unpickler(pickle.Unpickler):
    """Knows what the loaders of a payload stand for."""

    def __init__(
        self, data: Any, buffers: Buffers, known: Definitions, resolve: Resolve | None
    ) -> None:
        buffers = iter(buffers)  # what is in a large pickle takes those that are left
        super().__init__(io.BytesIO(data), buffers=buffers)
        self._buffers = buffers
        self._known = known
        self._resolve = resolve

    def find_class(self, module: str, name: str) -> Any:
        if module == gathering.__name__:
            if name == "definition":
                return self._known.load
            if name == "reference":
                return _referring(self._resolve)
            if name == "apart":
                return _apart(self._buffers, self._known, self._resolve)
        return super().find_class(module, name)


def _referring(resolve: Resolve | None) -> Callable[..., Any]:
    """What loads a reference.

    Not a method of the unpickler: its memory keeps what was found, so that would be a
    circle, and the grants in it would live until the collector comes by.
    """
    if resolve is None:
        raise pickle.UnpicklingError("a reference where none was expected")

    def reference(index: int, *args: Any) -> Any:
        return resolve(index, args)

    return reference


def _apart(
    buffers: Buffers, known: Definitions, resolve: Resolve | None
) -> Callable[..., Any]:
    """What loads a pickle that came as a buffer; no method, for the same reason."""

    def apart(data: Any, is_plain: bool) -> Any:
        if data[0] != PICKLED:
            return marshal.loads(data)
        if is_plain:
            return pickle.loads(data, buffers=buffers)
        return _Unpickler(data, buffers, known, resolve).load()

    return apart


class Serializer:
    """Pickles and unpickles for one runtime; from any thread.

    Args:
        segments: shared memory for the large buffers, if there is any.
    """

    def __init__(self, segments: Segments | None = None) -> None:
        self._known = Definitions()
        self._segments = segments
        self._free: list[_Pickler] = []
        self._arrays: tuple[type, ...] = ()
        self._modules = 0  # how many were imported when those were looked for
        # Of users' transformers, if there are any: see `transforming`.
        self.transforming: Callable[[], Transform] | None = None
        self.blob = self._known.blob
        self.define = self._known.define
        self.mentioned = self._known.mentioned

    # -- to bytes ----------------------------------------------------------------------

    def dumps(self, value: Any, *, what: str = "") -> bytes | Payload:
        """A result, or any single value, as it is now.

        Args:
            value: what to pickle.
            what: what it is, for errors, such as ``the result of Solver.solve``.

        Raises:
            SerializationError: it cannot travel; the text has the path to what cannot.
        """
        kind = type(value)
        if kind in _SCALARS:
            return marshal.dumps(value, _MARSHAL_VERSION)
        if kind in _BULK:
            if len(value) >= LARGE_BYTES:
                value = Bulk(value)
            elif kind is bytes:
                return marshal.dumps(value, _MARSHAL_VERSION)
        try:
            return self._dumps(value)
        except (MosaicError, MemoryError):
            raise
        except Exception as error:
            from .diagnosis import explain

            raise explain([("", value)], what or "a result", error) from error

    def dumps_call(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        describe: Describe | None = None,
    ) -> bytes | Payload:
        """The arguments of a call, as they are now.

        Args:
            args: positional arguments.
            kwargs: keyword arguments.
            describe: gives, for errors, what is called and the names of its positional
                arguments.

        Raises:
            SerializationError: an argument cannot travel; nothing is to be sent.
        """
        value: Any = (args, kwargs)
        if not kwargs and _SCALARS.issuperset(map(type, args)):
            data = marshal.dumps(args, _MARSHAL_VERSION)
            if len(data) < SEGMENT_BYTES:
                return data  # else a pickle, which can travel beside the message
        elif not _BULK.isdisjoint(map(type, args)) or (
            kwargs and not _BULK.isdisjoint(map(type, kwargs.values()))
        ):
            small = sum(len(a) for a in args if type(a) in _BULK) < LARGE_BYTES
            if small and not kwargs and PLAIN.issuperset(map(type, args)):
                return marshal.dumps(args, _MARSHAL_VERSION)
            value = _wrapped(args, kwargs)
        try:
            return self._dumps(value)
        except (MosaicError, MemoryError):
            raise
        except Exception as error:
            from .diagnosis import explain, named

            call, names = describe() if describe is not None else ("", ())
            raise explain(named(args, kwargs, names), call, error) from error

    def dumps_class(self, cls: type) -> bytes | Payload:
        """A class, as a construction carries it: with no more than definitions beside.

        Raises:
            SerializationError: it cannot travel, or not by itself.
        """
        what = f"class {cls.__qualname__}"
        sent = self.dumps(cls, what=what)
        if isinstance(sent, bytes) or not (sent.handles or sent.buffers):
            return sent
        if sent.framed().handles:
            raise SerializationError(
                f"{what} mentions a tessera or task, in a global name that a method "
                "uses, in a closure or in an attribute: give it to the constructor as "
                "an argument, and keep it in self"
            )
        return self.dumps_alone(cls)

    def dumps_alone(self, value: Any) -> bytes:
        """Everything in the bytes: no references, definitions or buffers beside them.

        Raises whatever pickling raises.
        """
        from .by_value import dump_alone

        return dump_alone(value)

    def _dumps(self, value: Any) -> bytes | Payload:
        pickler: _Pickler | None
        try:
            pickler = self._free.pop()
        except IndexError:
            pickler = _Pickler(self._known)
            pickler.segments = self._segments
        if len(sys.modules) != self._modules:
            self._find_arrays()
        pickler.arrays = self._arrays
        transforming = self.transforming
        pickler.transform = None if transforming is None else transforming()
        try:
            pickler.dump(value)
        except (MosaicError, MemoryError, RecursionError):
            raise
        except Exception:
            pickler.forget()  # its state is unknown
            pickler = None
        if pickler is None:
            return self._dumps_by_value(value)
        chunks = pickler.chunks
        # Nearly always one chunk; large parts come as chunks of their own.
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        pickler.clear_memo()
        result = pickler.finish(data)
        self._free.append(pickler)
        return result

    def _dumps_by_value(self, value: Any) -> bytes | Payload:
        from .by_value import ValuePickler

        file = io.BytesIO()
        pickler = ValuePickler(file, self._known)
        pickler.segments = self._segments
        pickler.arrays = self._arrays
        if self.transforming is not None:
            pickler.transform = self.transforming()
        try:
            pickler.dump(value)
            return pickler.finish(file.getvalue())
        finally:
            pickler.forget()

    def _find_arrays(self) -> None:
        # numpy itself imports its masked arrays only when they are first used.
        self._modules = len(sys.modules)
        self._arrays = gathering.array_types()

    # -- from bytes --------------------------------------------------------------------

    def loads(
        self, data: Any, buffers: Buffers = (), resolve: Resolve | None = None
    ) -> Any:
        """A value of ``dumps``.

        Args:
            data: its bytes.
            buffers: its large buffers, in order.
            resolve: called with the index of a handle and the arguments that its
                Referent gave; what it returns stands in the value.
        """
        if data[0] != PICKLED:
            return marshal.loads(data)
        return self._loads(data, buffers, resolve)

    def loads_call(
        self, data: Any, buffers: Buffers = (), resolve: Resolve | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of ``dumps_call``."""
        if data[0] != PICKLED:
            return marshal.loads(data), {}
        call: tuple[tuple[Any, ...], dict[str, Any]]
        call = self._loads(data, buffers, resolve)
        return call

    def _loads(self, data: Any, buffers: Buffers, resolve: Resolve | None) -> Any:
        raw = data if type(data) is bytes else bytes(data)
        # An unpickler in Python costs for each global; few pickles need it.
        if _MARK in raw:
            return _Unpickler(raw, buffers, self._known, resolve).load()
        return pickle.loads(raw, buffers=buffers)


def _wrapped(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments with large bytes wrapped; the same object in the same wrap."""
    wraps: dict[int, Bulk] = {}

    def wrap(value: Any) -> Any:
        if type(value) not in _BULK or len(value) < LARGE_BYTES:
            return value
        return wraps.setdefault(id(value), Bulk(value))

    return tuple(map(wrap, args)), {k: wrap(v) for k, v in kwargs.items()}
