"""What users have registered to change values on their way: asked by the picklers.

A transformer has a function that makes something else of a value where that is pickled,
and one that makes the value again where it is read. The second one is pickled with each
such value, so only who sends needs to know of a transformer. Who tells whom of one is
not known here.
"""

from __future__ import annotations

import functools
import threading
import types
from typing import TYPE_CHECKING, Any

from ..errors import MosaicError, SerializationError
from ..ids import maker
from .gathering import Bulk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Pickle takes these as they are, and asks nobody.
NEVER_ASKED = frozenset(
    {
        *(int, float, str, bool, bytes, bytearray, type(None)),
        *(tuple, list, dict, set, frozenset, type, types.FunctionType),
    }
)
_CONTAINERS = (tuple, list, set, frozenset)
_MORE = (*_CONTAINERS, dict)


class Transformer:
    """One of them.

    Args:
        encode: gives what is to travel instead of a value.
        decode: gives the value again.
        where: whether a value is concerned.
    """

    __slots__ = ("decode", "encode", "where")

    def __init__(
        self,
        encode: Callable[[Any], Any],
        decode: Callable[[Any], Any],
        where: type | tuple[type, ...] | Callable[[Any], Any],
    ) -> None:
        self.encode = encode
        self.decode = decode
        self.where = where

    def concerns(self, value: Any) -> bool:
        """Whether it is to be encoded."""
        where = self.where
        if isinstance(where, type | tuple):
            return isinstance(value, where)
        return bool(where(value))


class Transformers:
    """Those of one runtime, the newest first; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By key: those that were not needed yet are read when they are.
        self._found: dict[int, Transformer | Callable[[], Transformer | None]] = {}
        self._order: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self._order)

    def add(
        self, key: int, found: Transformer | Callable[[], Transformer | None]
    ) -> None:
        """One more, or what reads it; that gives None if it cannot be read."""
        with self._lock:
            self._found[key] = found
            self._order = (key, *(k for k in self._order if k != key))

    def remove(self, keys: Iterable[int]) -> None:
        """These are used no longer."""
        with self._lock:
            for key in keys:
                self._found.pop(key, None)
            self._order = tuple(k for k in self._order if k in self._found)

    def remove_of(self, incarnation: int) -> None:
        """Those that one runtime has made are used no longer."""
        self.remove([key for key in self._order if maker(key) == incarnation])

    def _get(self, key: int) -> Transformer | None:
        with self._lock:
            found = self._found.get(key)
            if found is None or isinstance(found, Transformer):
                return found
        read = found()
        if read is None:
            self.remove([key])
        else:
            with self._lock:
                if key in self._found:
                    self._found[key] = read
        return read

    def for_one(self) -> Callable[[Any], tuple[Any, ...] | None]:
        """What a pickler asks while it pickles one value."""
        return functools.partial(self._reduce, {})

    def _reduce(self, encoded: dict[int, Any], value: Any) -> tuple[Any, ...] | None:
        """How a pickler is to reduce a value; None: as it would anyway.

        Args:
            encoded: what encode has given in this pickle, by id: is not encoded again.
            value: that it has met.

        Raises:
            SerializationError: a function of a transformer has raised.
        """
        if id(value) in encoded or type(value) is Bulk:
            return None
        for key in self._order:
            transformer = self._get(key)
            if transformer is None:
                continue
            step: Any = transformer.where
            try:
                if not transformer.concerns(value):
                    continue
                step = transformer.encode
                made = step(value)
            except MosaicError:
                raise
            except Exception as error:
                raise SerializationError(
                    f"a {type(value).__name__} cannot travel: {_name(step)}, which "
                    "was given to runtime.transformer() for such values, raised "
                    f"{type(error).__name__}: {error}; mend it, or have its where= "
                    "leave this value out"
                ) from error
            _exempt(made, encoded)
            if made is value:
                return None
            if id(value) in encoded:
                raise SerializationError(
                    f"a {type(value).__name__} cannot travel: what {_name(step)} made "
                    "of it, which was given to runtime.transformer(), has the value "
                    "itself in it; return a copy, or the value alone to leave it as it "
                    "is"
                )
            return transformer.decode, (made,)
        return None


def _exempt(made: Any, encoded: dict[int, Any]) -> None:
    """It and what stands in it are not encoded again; kept, so that ids are unique."""
    encoded[id(made)] = made
    items: Iterable[Any] = ()
    if isinstance(made, dict):
        items = made.values()
    elif isinstance(made, _CONTAINERS):
        items = made
    for item in items:
        is_asked = type(item) not in NEVER_ASKED or isinstance(item, _MORE)
        if is_asked and id(item) not in encoded:
            _exempt(item, encoded)


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", repr(function)))
