"""Whether a value was changed in place: a mark of what is in it, to be compared later.

A value is pickled, and the pickle and the memory that can be written are hashed (about
1.5 GB/s); memory that nobody can write is known by its place, which costs nothing and
is kept alive by the mark. Tesserae, tasks, parameters, classes and functions are known
by what they are, not by what is in them. Nothing here travels.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from types import FunctionType
from typing import Any

from ..comms.serialization import Referent
from .outputs import TaskOutput

_SCALARS = frozenset({int, float, str, bool, type(None), bytes, complex})


class Fingerprint:
    """The mark of one value; equal marks: nothing was changed.

    >>> data = [1, 2]
    >>> before = Fingerprint(data)
    >>> before == Fingerprint(data)
    True
    >>> data[0] = 3
    >>> before == Fingerprint(data)
    False
    """

    __slots__ = ("_fixed", "_kept", "_what")

    def __init__(self, value: Any) -> None:
        self._fixed: list[tuple[int, int]] = []  # address, bytes
        self._kept: list[Any] = []  # so that no other value gets the same place
        if type(value) in _SCALARS:
            # As text, since nan differs from itself and -0.0 does not from 0.0.
            exact = repr(value) if isinstance(value, float | complex) else value
            self._what: Any = (type(value), exact)
            return
        digest = hashlib.sha1(usedforsecurity=False)
        file = io.BytesIO()
        try:
            _Marker(file, self, digest).dump(value)
        except Exception:
            # What cannot be pickled cannot travel either: who sends it gets the error.
            self._kept.append(value)
            self._what = id(value)
        else:
            digest.update(file.getbuffer())
            self._what = digest.digest()

    def keep(self, address: int, size_bytes: int, owner: Any) -> None:
        self._fixed.append((address, size_bytes))
        self._kept.append(owner)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprint):
            return NotImplemented
        return self._fixed == other._fixed and bool(self._what == other._what)

    __hash__ = None  # type: ignore[assignment]  # compared, never looked up


class _Marker(pickle.Pickler):
    def __init__(self, file: io.BytesIO, mark: Fingerprint, digest: Any) -> None:
        super().__init__(file, 5, buffer_callback=self._buffer)
        self._mark = mark
        self._digest = digest

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Referent):
            handle, args = type(obj).__reference__(obj)
            which = repr(args[1:]) if isinstance(obj, TaskOutput) else ""
            return handle.kind, handle.uid, args[0], which
        if isinstance(obj, type | FunctionType):
            self._mark.keep(id(obj), 0, obj)
            return id(obj)
        link = getattr(type(obj), "_mosaic_link", None)
        if link is not None:
            found = link(obj)
            if found is not None:
                return found.root._mosaic_handle.uid
        return None

    def _buffer(self, buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        place = _fixed_place(view)
        if place is None:
            self._digest.update(view)
        else:
            self._mark.keep(place, view.nbytes, view)
        return False


def _fixed_place(view: memoryview) -> int | None:
    """The address of memory that nobody can write; None if it is not that."""
    owner: Any = view.obj
    if not view.readonly or owner is None:
        return None
    if type(owner) is bytes:
        return id(owner)
    place: int | None = None
    # An array that is read-only may be a view of one that is not.
    while hasattr(owner, "__array_interface__"):
        address, read_only = owner.__array_interface__["data"]
        if not read_only:
            return None
        place = address if place is None else place
        if owner.base is None:
            return place
        owner = owner.base
    try:
        return place if memoryview(owner).readonly else None
    except TypeError:
        return None
