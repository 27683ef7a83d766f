"""What a pickler gathers on its way through a value.

``Gatherer`` is the half that the plain and the cloudpickle pickler share: mentions of
tesserae and tasks become an index into the payload's handles, classes and functions
that travel by value become a digest, and large buffers are set aside to travel beside
the bytes. Nothing here pickles, and nothing here knows what a proxy is: proxies derive
from ``Referent`` and say it themselves.
"""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING, Any, Protocol

from ..text import is_utf8

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from .messages import SharedBuffers

LARGE_BYTES = 64 * 1024  # from here on a buffer travels beside the bytes
SEGMENT_BYTES = 256 * 1024  # of a payload, from which they go into shared memory
OUTPUT = "output"  # what is mentioned is one part of a task, whose key comes next
_FORMATS = frozenset("cbB?hHiIlLqQnNefdP")  # that a memoryview can be cast to


class Handle(Protocol):
    """A tessera or task as ``messages.Reference`` has it; alive while it is kept."""

    @property
    def kind(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def owner(self) -> int: ...


class Referent:
    """Base of what stands for something elsewhere, and is mentioned, not copied."""

    __slots__ = ()

    def __reference__(self) -> tuple[Handle, tuple[Any, ...]]:
        """What is mentioned, and small picklable arguments for who resolves it."""
        raise NotImplementedError

    def __copy__(self) -> Self:
        return self  # as a function is: what it stands for is not here

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"{self!r} cannot be pickled by itself, since nobody would count it: it "
            "travels as an argument of a call, or in what a method returns"
        )


class Mapped:
    """Base of what shared memory is seen through: nobody writes to it meanwhile."""

    __slots__ = ()


class Stored(Protocol):
    """The large buffers of a payload, in segments."""

    @property
    def handles(self) -> tuple[Handle, ...]:
        """The segments, in the order of ``wire.places``."""

    @property
    def wire(self) -> SharedBuffers:
        """As it goes over the wire."""

    def views(self) -> tuple[memoryview, ...]:
        """The buffers, in order, read-only; they keep their segments."""


class Segments(Protocol):
    """Shared memory for the buffers of payloads; from any thread."""

    def store(self, views: Sequence[memoryview], bases: Sequence[Any]) -> Stored | None:
        """Copy them; None if there is no shared memory now: they travel as frames.

        Args:
            views: contiguous bytes.
            bases: of each, the unchanging object whose memory it is, or None.
        """


class Payload:
    """A pickled value with what does not fit into bytes.

    Args:
        data: the pickle.
        handles: what it mentions, by index; kept alive by being here.
        definitions: digests of what a peer must have been told before.
        buffers: the large buffers, in order.
        shared: the large buffers, if they are in segments: the last handles.
        outputs: of what is mentioned only in parts: index and key.
    """

    __slots__ = (
        "buffers",
        "data",
        "definitions",
        "handles",
        "nbytes",
        "outputs",
        "shared",
    )

    def __init__(
        self,
        data: bytes,
        handles: tuple[Handle, ...] = (),
        definitions: tuple[bytes, ...] = (),
        buffers: tuple[bytes | memoryview, ...] = (),
        shared: Stored | None = None,
        outputs: tuple[tuple[int, int | str], ...] = (),
    ) -> None:
        self.data = data
        self.handles = handles
        self.definitions = definitions
        self.buffers = buffers
        self.shared = shared
        self.outputs = outputs
        self.nbytes = len(data)
        if shared is not None:
            self.nbytes += sum(nbytes for _, _, nbytes in shared.wire.layout)
        elif buffers:
            self.nbytes += sum(memoryview(b).nbytes for b in buffers)

    @property
    def inside(self) -> tuple[bytes | memoryview, ...]:
        """The large buffers for who reads it in this process."""
        return self.buffers if self.shared is None else self.shared.views()

    def framed(self) -> Payload:
        """The same for who cannot open its segments."""
        if self.shared is None:
            return self
        handles = self.handles[: -len(self.shared.handles)]
        views = self.shared.views()
        return Payload(self.data, handles, self.definitions, views)

    def __repr__(self) -> str:
        return (
            f"<Payload of {self.nbytes} bytes, {len(self.handles)} handles, "
            f"{len(self.definitions)} definitions, {len(self.buffers)} buffers>"
        )


def carries_key(key: Any) -> bool:
    """Whether a message can carry the key of a part as it is."""
    kind = type(key)
    if kind is int:
        return bool(-(1 << 63) <= key < 1 << 63)
    return kind is str and is_utf8(key)


def reference(*args: Any) -> Any:
    """Stands in a pickle for a Referent; only the unpickler of a payload knows it."""
    raise pickle.UnpicklingError("a reference can be read only as part of a payload")


def definition(digest: bytes) -> Any:
    """Stands in a pickle for a class or function that was defined to this peer."""
    raise pickle.UnpicklingError("a definition can be read only as part of a payload")


def apart(data: Any, is_plain: bool) -> Any:
    """Stands in a pickle for a value whose own pickle is large, and travels beside."""
    raise pickle.UnpicklingError("a large pickle can be read only as part of a payload")


class _Apart:
    """Is pickled as the call of ``apart``."""

    def __init__(self, is_plain: bool) -> None:
        self._is_plain = is_plain

    def __reduce__(self) -> tuple[Any, ...]:
        return apart, (pickle.PickleBuffer(b""), self._is_plain)


def _in_buffers(buffer: pickle.PickleBuffer) -> bool:
    return False


# What stands for a pickle that is large itself, which is the first of the buffers; by
# whether it needs no more than buffers to be read.
_STANDING = tuple(
    pickle.dumps(_Apart(is_plain), 5, buffer_callback=_in_buffers)
    for is_plain in (False, True)
)


def beside(data: bytes) -> Payload:
    """A value of nothing but bytes as a payload, so that they travel as a buffer."""
    return Payload(_STANDING[True], buffers=(data,))


def is_apart(data: bytes) -> bool:
    """The value's own pickle is its first buffer."""
    return len(data) == len(_STANDING[0]) and data in _STANDING


class Bulk:
    """Large ``bytes`` or ``bytearray``: pickle has no hook for the exact types."""

    __slots__ = ("value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self.value = value


def viewed(buffer: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    """Builds the read-only view that a memoryview arrives as."""
    view = memoryview(buffer).toreadonly().cast("B")
    cast: Any = view.cast  # to any format that it may be of
    result: memoryview = (
        cast(form) if len(shape) == 1 or not view.nbytes else cast(form, shape)
    )
    return result


def masked_array(cls: Any, data: Any, state: tuple[Any, ...]) -> Any:
    """Builds what ``Gatherer.array`` took apart."""
    mask, fill_value, hard_mask, info = state
    array = cls(data, mask=mask, hard_mask=hard_mask)
    array._fill_value = fill_value
    array._optinfo.update(info)
    return array


def dated_array(numbers: Any, dtype: Any) -> Any:
    """Builds an array of dates from their numbers."""
    return numbers.view(dtype)


def array_types() -> tuple[type, ...]:
    """The array types whose layout may need help; numpy is never imported for it."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return ()
    masked = sys.modules.get("numpy.ma")
    found = getattr(numpy, "ndarray", None), getattr(masked, "MaskedArray", None)
    return tuple(kind for kind in found if kind is not None)


class Gatherer:
    """The state of one pickling, and the reducers that fill it."""

    clear_memo: Callable[[], None]  # the pickler's
    segments: Segments | None = None
    # How a value is reduced that users want to travel otherwise; see `transforming`.
    transform: Callable[[Any], tuple[Any, ...] | None] | None = None

    def __init__(self) -> None:
        self.arrays: tuple[type, ...] = ()
        self.handles: dict[tuple[int, int], int] = {}
        self.kept: list[Handle] = []
        self.outputs: dict[tuple[int, int | str], None] = {}
        self.whole: set[int] = set()  # indices of what is wanted as a whole
        self.definitions: dict[bytes, None] = {}
        self.views: list[memoryview] = []
        self.copies: list[Any] = []

    def finish(self, data: bytes) -> bytes | Payload:
        """What a value of this pickle has become: that alone, or with what goes beside.

        A pickle that is large itself travels as buffers do: it is shared, spilled,
        counted and sent in chunks as they are.
        """
        if len(data) >= SEGMENT_BYTES:
            data = self._set_apart(data)
        if not (self.kept or self.definitions or self.views):
            return data
        return self._take(data)

    def forget(self) -> None:
        """It is not used again.

        It refers to itself: all that it has met would live until the collector comes.
        """
        vars(self).clear()
        self.clear_memo()

    def _set_apart(self, data: bytes) -> bytes:
        # First, since what stands for it is read before what is in it.
        self.views.insert(0, memoryview(data))
        return _STANDING[not (self.kept or self.definitions)]

    def _take(self, data: bytes) -> Payload:
        """The payload, and a clean state for the next value."""
        handles = tuple(self.kept)
        shared = self._store()
        buffers: tuple[bytes | memoryview, ...] = ()
        if shared is not None:
            handles += shared.handles
        elif self.views:
            buffers = tuple(map(self._own, self.views))
        payload = Payload(data, handles, tuple(self.definitions), buffers, shared)
        if self.outputs:
            whole = self.whole
            payload.outputs = tuple(o for o in self.outputs if o[0] not in whole)
            self.outputs = {}
        self.whole = set()
        self.handles = {}
        self.kept = []
        self.definitions = {}
        self.views = []
        self.copies = []
        return payload

    def _store(self) -> Stored | None:
        """The buffers in shared memory, if they are large enough together."""
        views = self.views
        if (
            self.segments is None
            or not views
            or sum(view.nbytes for view in views) < SEGMENT_BYTES
        ):
            return None
        return self.segments.store(views, [self._base(view) for view in views])

    def _own(self, view: memoryview) -> bytes | memoryview:
        # Who made the call may change the array right after it.
        return bytes(view) if self._base(view) is None else view

    def mention(self, referent: Referent) -> tuple[Any, ...]:
        # By the class: on a proxy every public name belongs to the user's object.
        handle, args = type(referent).__reference__(referent)
        key = handle.kind, handle.uid
        index = self.handles.get(key)
        if index is None:
            index = self.handles[key] = len(self.kept)
            self.kept.append(handle)
        if args[0] == OUTPUT and carries_key(args[1]):
            self.outputs[index, args[1]] = None
        else:
            self.whole.add(index)
        return reference, (index, *args)

    def bulk(self, wrapped: Bulk) -> tuple[Any, ...]:
        return type(wrapped.value), (pickle.PickleBuffer(wrapped.value),)

    def array(self, array: Any) -> Any:
        """A large strided or masked array as contiguous buffers; else as it is."""
        kind: Any = type(array)
        if array.nbytes < LARGE_BYTES or array.dtype.hasobject:
            return NotImplemented
        if kind is self.arrays[0]:  # numpy.ndarray itself
            if array.dtype.kind in "mM":  # the buffer protocol has no dates
                return dated_array, (array.view("i8"), array.dtype)
            flags = array.flags
            if flags.c_contiguous or flags.f_contiguous:
                return NotImplemented
            copy = array.copy()
            self.copies.append(copy)  # ours already: not to be copied again
            return copy.__reduce_ex__(5)
        # The mask as it is kept: one that is missing is not to become an array.
        info = dict(array._optinfo)
        state = array._mask, array._fill_value, array._hardmask, info
        return masked_array, (kind, array.data, state)

    def memory(self, view: memoryview) -> tuple[Any, ...]:
        """A memoryview arrives as a read-only one of the same format and shape."""
        if view.format.lstrip("@") not in _FORMATS:
            raise TypeError(
                f"a memoryview of format {view.format!r} cannot travel: pass the array "
                "that it views, or cast it to bytes"
            )
        buffer = pickle.PickleBuffer(view if view.c_contiguous else view.tobytes())
        return viewed, (buffer, view.format, view.shape)

    def set_aside(self, buffer: pickle.PickleBuffer) -> bool:
        """The pickler's buffer callback: False takes the buffer out of the bytes."""
        view = buffer.raw()
        if view.nbytes < LARGE_BYTES:
            return True
        self.views.append(view)
        return False

    def _base(self, view: memoryview) -> Any:
        """What the memory belongs to, if nobody can change it; else None."""
        owner: Any = view.obj
        if any(owner is copy for copy in self.copies):
            return owner
        if not view.readonly:
            return None
        # An array that came in a message stands on the message's own bytes.
        for _ in range(8):
            if type(owner) is bytes or isinstance(owner, Mapped):
                return owner
            if type(owner) is memoryview:
                owner = owner.obj
            elif type(owner) in self.arrays:
                owner = owner.base
            else:
                return None
        return None
