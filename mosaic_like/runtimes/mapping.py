"""Segments in the memory of this process: mappings, windows on them, copying.

All of it goes through ctypes: that lets go of the GIL, and a mapping made so keeps no
descriptor open, as ``mmap.mmap`` does. It is imported with the first large value.
"""

from __future__ import annotations

import _thread
import ctypes
import itertools
import os
import threading
import types
from collections import OrderedDict
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from ..comms.gathering import Mapped
from .booting import STREAMED_COPY_BYTES
from .segments import open_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..comms.messages import Place

_PROT_READ, _PROT_WRITE, _MAP_SHARED = 1, 2, 1
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_MADV_POPULATE_READ = 22  # a third of the time of ..._WRITE, and does the same here
_SHARED_COPY_BYTES = 16 << 20  # from which on a second thread is worth its start
_PIECE_BYTES = STREAMED_COPY_BYTES
_MAP_FAILED = (1 << (8 * ctypes.sizeof(ctypes.c_void_p))) - 1


class _Buffer(ctypes.Structure):
    """A ``Py_buffer``; the layout is part of the stable interface of Python."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


class _System:
    """The C functions, with their types."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self.mmap = libc.mmap
        self.mmap.restype = pointer
        self.mmap.argtypes = (
            *(pointer, size, ctypes.c_int, ctypes.c_int, ctypes.c_int),
            ctypes.c_long,
        )
        self.munmap = libc.munmap
        self.munmap.argtypes = (pointer, size)
        self.mremap = libc.mremap
        self.mremap.restype = pointer
        self.mremap.argtypes = (pointer, size, size, ctypes.c_int, pointer)
        self.madvise = libc.madvise
        self.madvise.argtypes = (pointer, size, ctypes.c_int)
        self.memmove = libc.memmove
        self.memmove.restype = pointer
        self.memmove.argtypes = (pointer, pointer, size)
        self._take = ctypes.pythonapi.PyObject_GetBuffer
        self._take.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
        self._give_back = ctypes.pythonapi.PyBuffer_Release
        self._give_back.argtypes = (ctypes.c_void_p,)
        self._give_back.restype = None

    def address(self, view: memoryview) -> int:
        """Where contiguous memory begins; the view must outlive what is done there."""
        buffer = _Buffer()
        self._take(view, ctypes.byref(buffer), 0)
        address: int = buffer.buf or 0
        self._give_back(ctypes.byref(buffer))
        return address


_system = _System()
address_of: Callable[[memoryview], int] = _system.address


def _mapped(found: int | None, size: int) -> int:
    """The address, or why there is none."""
    if found is None or found == _MAP_FAILED:
        code = ctypes.get_errno()
        raise OSError(code, f"mapping {size} bytes: {os.strerror(code)}")
    return found


class Mapping:
    """A whole segment in the memory of this process, until the last use of it ends."""

    __slots__ = ("__weakref__", "address", "size")

    def __init__(self, fd: int, size: int, *, writable: bool = False) -> None:
        protection = _PROT_READ | (_PROT_WRITE if writable else 0)
        self.size = 0
        self.address = _mapped(
            _system.mmap(None, size, protection, _MAP_SHARED, fd, 0), size
        )
        self.size = size

    def move(self, fd: int) -> None:
        """See a file with the same content at the same address from now on.

        Whoever reads there meanwhile notices nothing, and what was there before is
        not kept in memory by this process any more.
        """
        size = self.size
        # In two steps, since what can fail must not leave a hole.
        found = _mapped(_system.mmap(None, size, _PROT_READ, _MAP_SHARED, fd, 0), size)
        how = _MREMAP_MAYMOVE | _MREMAP_FIXED
        try:
            _mapped(_system.mremap(found, size, size, how, self.address), size)
        except OSError:
            _system.munmap(found, size)
            raise

    def populate(self, nbytes: int) -> None:
        """Map what is there already at once, which saves a fault for each page.

        Args:
            nbytes: from the beginning. An old kernel cannot: then faults do it.
        """
        _system.madvise(self.address, nbytes, _MADV_POPULATE_READ)

    def fill(self, offset: int, view: memoryview) -> None:
        """Copy contiguous bytes to memory that was touched before.

        Two threads share a large copy, since one does not use up what the memory gives
        (64 MiB took 9.4 ms with one and 6.9 with two): each takes the next piece, so
        that a second one that gets no processor costs nothing.
        """
        nbytes = view.nbytes
        if nbytes < _SHARED_COPY_BYTES or len(os.sched_getaffinity(0)) < 2:
            self._copy(offset, view, iter((0,)), nbytes)
            return
        pieces = itertools.count(0, _PIECE_BYTES)  # whose next() is atomic
        ended = _thread.allocate_lock()
        ended.acquire()
        whole: list[bool] = []

        def help_with_it() -> None:
            try:
                self._copy(offset, view, pieces, _PIECE_BYTES)
                whole.append(True)
            finally:
                ended.release()

        try:
            # ``threading`` would wait until it runs.
            _thread.start_new_thread(help_with_it, ())
        except RuntimeError:  # no more threads are to be had
            ended.release()
            whole.append(True)
        try:
            self._copy(offset, view, pieces, _PIECE_BYTES)
        finally:
            ended.acquire()
        if not whole:  # no memory for what a thread needs, for example
            self._copy(offset, view, iter((0,)), nbytes)

    def _copy(
        self, offset: int, view: memoryview, starts: Iterator[int], nbytes: int
    ) -> None:
        """Copy the pieces of so many bytes that begin there, up to the end."""
        to, source = self.address + offset, address_of(view)
        for start in starts:
            if start >= view.nbytes:
                return
            size = min(nbytes, view.nbytes - start)
            _system.memmove(to + start, source + start, size)

    def memory(self) -> memoryview:
        """The bytes; only to be used while the mapping is kept."""
        return memoryview((ctypes.c_ubyte * self.size).from_address(self.address))

    def __del__(self, munmap: Any = _system.munmap) -> None:
        if self.size:
            munmap(self.address, self.size)


class Window(Mapped):
    """A mapped segment as one holder sees it: views on it keep the window.

    The classes that are made have memory: they are arrays of ctypes, too. The window
    keeps its handle, and so the right to the segment, until the last view has gone.
    """

    handle: Any  # of the segment
    place: Place
    mapping: Mapping
    used: int  # bytes of what its holder got in it


_Key = tuple[int, int, int]


def _key(place: Place) -> _Key:
    """What is one file for ever: an inode is given to another when its file is gone."""
    return place.device, place.inode, place.token


class Maps:
    """The segments that this process has mapped to read them; each is mapped once.

    Those used last stay mapped for a while, since their memory is used again.

    Args:
        kept_bytes: of which so many are kept, and one.
    """

    KEPT = 32
    KEPT_BYTES = 1 << 30

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._mappings: WeakValueDictionary[_Key, Mapping] = WeakValueDictionary()
        self._kept: OrderedDict[_Key, tuple[Mapping, float]] = OrderedDict()
        self._types: dict[int, Any] = {}  # by size: powers of two, so they are few
        self._lock = threading.Lock()  # protects the three above

    def window(self, place: Place, handle: Any, used: int, now_s: float = 0.0) -> Any:
        """Open a segment, if it is not mapped, as a new window.

        Raises:
            OSError: it cannot be opened there any more, or not mapped.
        """
        key = _key(place)
        with self._lock:
            mapping = self._mappings.get(key)
            if mapping is None or mapping.size != place.size:
                fd = open_place(place)
                try:
                    mapping = Mapping(fd, place.size)
                finally:
                    os.close(fd)
                self._mappings[key] = mapping
            self._keep(key, mapping, now_s)
            window = self._type(place.size).from_address(mapping.address)
        window.mapping = mapping
        window.handle = handle
        window.place = place
        window.used = used
        return window

    def move(self, device: int, inode: int, place: Place) -> None:
        """A segment went into a file: do not keep it in memory here.

        Args:
            device: of the segment.
            inode: of the segment.
            place: of the file.

        Raises:
            OSError: the file cannot be opened or mapped; all stays as it is.
        """
        with self._lock:
            memory = device, inode, 0
            mapping = self._mappings.get(memory)
            if mapping is None or mapping.size != place.size:
                return
            fd = open_place(place)
            try:
                mapping.move(fd)
            finally:
                os.close(fd)
            del self._mappings[memory]
            self._mappings[_key(place)] = mapping
            kept = self._kept.pop(memory, None)
            if kept is not None:
                self._kept[_key(place)] = kept

    def trim(self, before_s: float) -> bool:
        """Let go of what was not opened since; whether something is kept still."""
        kept = self._kept
        with self._lock:
            while kept:
                key, (_, used_s) = next(iter(kept.items()))
                if used_s > before_s:
                    return True
                del kept[key]
        return False

    def _keep(self, key: _Key, mapping: Mapping, now_s: float) -> None:
        kept = self._kept
        kept[key] = mapping, now_s
        kept.move_to_end(key)
        while len(kept) > self.KEPT or (
            len(kept) > 1 and sum(m.size for m, _ in kept.values()) > self._kept_bytes
        ):
            kept.popitem(last=False)

    def _type(self, size: int) -> Any:
        kind = self._types.get(size)
        if kind is None:
            memory: Any = ctypes.c_ubyte * size
            kind = types.new_class("Window", (Window, memory))
            self._types[size] = kind
        return kind


def views(windows: Sequence[Any], layout: Any) -> tuple[memoryview, ...]:
    """The buffers of a payload, read-only, in order."""
    # Through a PickleBuffer: the views of ctypes have a format that nothing takes.
    bases = [
        base if type(base) is memoryview else PickleBuffer(base).raw().toreadonly()
        for base in windows
    ]
    return tuple(bases[i][offset : offset + nbytes] for i, offset, nbytes in layout)
