"""Classes and functions that travel by value: once to each peer, under a digest.

The blobs and what they define, for one runtime. What a digest stands for is loaded when
it is first needed, once, so that ``isinstance`` holds between calls and a class that
comes back to where it was made is the very same class. They are kept as long as the
runtime: so closures and lambdas, of which a loop makes any number, are no definitions.
Who needs to be told of a digest is not known here.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import sys
import threading
import weakref
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from ..errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAIN_MODULES = frozenset({"__main__", "__mp_main__"})
_MOST = 100_000  # that are kept
_DIGEST_BYTES = 16
# As a pickle has them, and each 16 bytes of a user's: SHORT_BINBYTES, and how many.
_DIGESTS = re.compile(rb"C\x10(?=(.{16}))", re.DOTALL)
MAX_LOCAL = 1000  # local classes; any further go inside the values that need them


def is_importable(value: Any) -> bool:
    """Whether another process finds this class or function by its name."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return False
    if module in MAIN_MODULES:
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


class _Made:
    """What is known of one class or function: its digest, or that it has none."""

    __slots__ = ("digest", "target", "watched")

    def __init__(
        self,
        target: weakref.ref[Any],
        digest: bytes | None,
        watched: list[tuple[dict[str, Any], str, Any]],
    ) -> None:
        self.target = target
        self.digest = digest
        self.watched = watched

    def holds(self, value: Any) -> bool:
        if self.target() is not value:
            return False
        # A global that a function reads was bound anew, as in a notebook.
        for namespace, name, bound in self.watched:
            if namespace.get(name) is not bound:
                return False
        return True


class Definitions:
    """All definitions that one runtime has made or was told."""

    def __init__(self) -> None:
        self._made: dict[int, _Made] = {}
        self._blobs: dict[bytes, bytes] = {}
        self._origins: dict[bytes, weakref.ref[Any]] = {}
        self._loaded: dict[bytes, Any] = {}
        self._locals = 0
        self._lock = threading.RLock()

    def digest(self, value: type | FunctionType) -> bytes | None:
        """The digest under which it travels; None: it goes inside the value."""
        made = self._made.get(id(value))
        if made is not None and made.holds(value):
            return made.digest
        with self._lock:
            return self._make(value)

    def _make(self, value: type | FunctionType) -> bytes | None:
        blob: bytes | None = None
        watched: list[tuple[dict[str, Any], str, Any]] = []
        if self._may_define(value):
            from .by_value import dump_alone

            functions: list[FunctionType] = []
            try:
                blob = dump_alone(value, functions)
            except Exception:
                # It mentions a proxy, or cannot travel at all; the value that holds
                # it is tried with it inside, and tells what is wrong.
                blob = None
            if isinstance(value, FunctionType):
                for function in functions:
                    watched.extend(_globals_of(function))
        digest = None
        if blob is not None:
            digest = _digest(blob)
            self._blobs[digest] = blob
        self._remember(value, digest, watched)
        return digest

    def _may_define(self, value: type | FunctionType) -> bool:
        name = value.__qualname__
        if "<locals>" not in name and "<lambda>" not in name:
            return True
        if isinstance(value, FunctionType) or self._locals >= MAX_LOCAL:
            return False
        self._locals += 1
        return True

    def _remember(
        self,
        value: Any,
        digest: bytes | None,
        watched: list[tuple[dict[str, Any], str, Any]],
    ) -> None:
        key = id(value)
        made = self._made

        def forget(target: weakref.ref[Any]) -> None:
            entry = made.get(key)
            if entry is not None and entry.target is target:
                del made[key]

        target = weakref.ref(value, forget)
        made[key] = _Made(target, digest, watched)
        if digest is not None:
            self._origins[digest] = target

    def blob(self, digest: bytes) -> bytes:
        """The bytes to tell a peer.

        Raises:
            LookupError: it was never made or told here.
        """
        try:
            return self._blobs[digest]
        except KeyError:
            raise LookupError(f"no definition {digest.hex()} is known here") from None

    def mentioned(self, data: bytes) -> list[bytes]:
        """The digests in a pickle that has come, and that is to be passed on as it is.

        There may be more than it needs: what looks like one.
        """
        return [d for d in _DIGESTS.findall(data) if d in self._blobs]

    def define(self, digest: bytes, blob: bytes) -> None:
        """A peer tells a definition; it is read when it is needed.

        Raises:
            ProtocolError: it is not what its digest says, or there are too many.
        """
        if digest in self._blobs:
            return
        if digest != _digest(blob):
            raise ProtocolError("a definition under a digest that is not its own")
        if len(self._blobs) >= _MOST:
            raise ProtocolError(f"one more than {_MOST} definitions")
        self._blobs[digest] = blob

    def load(self, digest: bytes) -> Any:
        """The class or function itself."""
        value = self._loaded.get(digest)
        if value is None:
            with self._lock:
                value = self._loaded.get(digest)
                if value is None:
                    value = self._load(digest)
        return value

    def _load(self, digest: bytes) -> Any:
        origin = self._origins.get(digest)
        value = origin() if origin is not None else None
        if value is None:
            value = pickle.loads(self.blob(digest))
            self._loaded[digest] = value
            self._remember(value, digest, [])
        return value


def _digest(blob: bytes) -> bytes:
    return hashlib.blake2b(blob, digest_size=_DIGEST_BYTES).digest()


def _globals_of(function: FunctionType) -> Iterator[tuple[dict[str, Any], str, Any]]:
    namespace = function.__globals__
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        for name in code.co_names:
            if name in namespace:
                yield namespace, name, namespace[name]
        codes.extend(c for c in code.co_consts if isinstance(c, CodeType))
