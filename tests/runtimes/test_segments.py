"""Segments, their mappings, and the stock of those that are used again."""

from __future__ import annotations

import _thread
import contextlib
import errno
import gc
import os
import resource
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mosaic_like.runtimes import mapping, segments
from mosaic_like.runtimes.mapping import Maps, Window, address_of, views
from mosaic_like.runtimes.segments import (
    create,
    open_place,
    place_of,
    size_class,
    write,
)
from mosaic_like.runtimes.stock import Stock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20


class Handle:
    """What a window keeps."""


@pytest.fixture
def filled() -> Iterator[tuple[int, Any]]:
    """A segment with an array in it from byte 64 on."""
    fd = create(MIB)
    array: Any = np.arange(100_000.0)
    write(fd, memoryview(array), 64)
    yield fd, array
    with contextlib.suppress(OSError):
        os.close(fd)


def window_on(maps: Maps, fd: int, handle: Any = None) -> Any:
    return maps.window(place_of(fd), handle, 800_000)


def test_what_was_written_is_read_without_a_copy(filled: tuple[int, Any]) -> None:
    fd, array = filled
    window = window_on(Maps(), fd)
    (view,) = views([window], [(0, 64, array.nbytes)])
    assert np.array_equal(np.frombuffer(view), array)
    assert address_of(view) == window.mapping.address + 64
    assert isinstance(view.obj, Window)
    assert view.format == "B"


def test_a_view_cannot_be_written_to(filled: tuple[int, Any]) -> None:
    fd, array = filled
    (view,) = views([window_on(Maps(), fd)], [(0, 64, array.nbytes)])
    assert view.readonly
    read = np.frombuffer(view)
    with pytest.raises(ValueError, match="read-only"):
        read[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        read.flags.writeable = True


def test_the_last_view_lets_go_of_the_handle(filled: tuple[int, Any]) -> None:
    fd, array = filled
    handle = Handle()
    gone = weakref.ref(handle)
    maps = Maps()
    window = window_on(maps, fd, handle)
    del handle
    mapping = weakref.ref(window.mapping)
    (view,) = views([window], [(0, 64, array.nbytes)])
    part = np.frombuffer(view)[10:20].reshape(2, 5)
    del window, view
    assert gone() is not None
    assert part[0, 0] == 10
    del part
    assert gone() is None
    assert mapping() is not None  # kept for the next value
    maps.trim(float("inf"))
    assert mapping() is None


def test_a_segment_is_mapped_once_and_costs_no_descriptor(
    filled: tuple[int, Any],
) -> None:
    fd, _ = filled
    before = len(os.listdir("/proc/self/fd"))
    maps = Maps()
    windows = [window_on(maps, fd) for _ in range(50)]
    assert len({window.mapping.address for window in windows}) == 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_mappings_are_kept_for_a_while_and_not_all(filled: tuple[int, Any]) -> None:
    maps = Maps()
    fds = [create(MIB) for _ in range(Maps.KEPT + 5)]
    try:
        for now_s, fd in enumerate(fds):
            maps.window(place_of(fd), None, 1, float(now_s))
    finally:
        for fd in fds:
            os.close(fd)
    lines = Path("/proc/self/maps").read_text().count("/memfd:mosaic")
    assert lines == Maps.KEPT
    assert maps.trim(20.0)
    assert not maps.trim(100.0)
    assert "/memfd:mosaic" not in Path("/proc/self/maps").read_text()


def test_a_number_that_was_used_again_is_noticed(filled: tuple[int, Any]) -> None:
    fd, _ = filled
    place = place_of(fd)
    os.close(fd)
    with pytest.raises(OSError, match="No such file"):
        open_place(place)
    other = create(MIB)
    try:
        assert other == fd
        with pytest.raises(OSError, match="another file") as caught:
            open_place(place)
        assert caught.value.errno == errno.ESTALE
    finally:
        os.close(other)


def test_another_process_reads_it(filled: tuple[int, Any]) -> None:
    fd, array = filled
    place = place_of(fd)
    fields = tuple(getattr(place, name) for name in place.__struct_fields__)
    script = f"""
import numpy as np
from mosaic_like.comms.messages import Place
from mosaic_like.runtimes.mapping import Maps, views
window = Maps().window(Place{fields}, None, 1)
print(np.frombuffer(views([window], [(0, 64, {array.nbytes})])[0]).sum())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.strip() == str(array.sum()), done.stderr


def test_sizes_are_powers_of_two_from_256_kib_on() -> None:
    assert size_class(1) == 256 << 10
    assert size_class(256 << 10) == 256 << 10
    assert size_class((256 << 10) + 1) == 512 << 10
    assert size_class(1 << 30) == 1 << 30


# -- the stock -------------------------------------------------------------------------


@pytest.fixture
def stock() -> Iterator[Stock]:
    stock = Stock(free_bytes=4 * MIB)
    yield stock
    stock.close()


def parts_of(*arrays: Any) -> tuple[list[tuple[int, memoryview]], int]:
    parts, end = [], 0
    for array in arrays:
        parts.append((end, memoryview(array).cast("B")))
        end += segments.aligned(array.nbytes)
    return parts, end


def content(segment: Any, nbytes: int) -> Any:
    return np.frombuffer(os.pread(segment.fd, nbytes, 0), dtype="u1")


def test_memory_that_came_back_is_used_again(stock: Stock) -> None:
    first = np.full(MIB, 7, "u1")
    segment = stock.take(1, 9, *parts_of(first))
    stock.returned(1, 0.0)
    for uid, fill in ((2, 8), (3, 9)):  # the first that is mapped, then the mapped one
        again = stock.take(uid, 9, *parts_of(np.full(MIB, fill, "u1")))
        assert again is segment
        assert (content(again, MIB) == fill).all()
        stock.returned(uid, 0.0)
    smaller = stock.take(4, 9, *parts_of(np.full(600_000, 1, "u1")))
    assert smaller is segment
    assert stock.made == 1


def test_memory_on_loan_is_not_touched(stock: Stock) -> None:
    one = stock.take(1, 9, *parts_of(np.full(MIB, 1, "u1")))
    two = stock.take(2, 9, *parts_of(np.full(MIB, 2, "u1")))
    assert one is not two
    assert (content(one, MIB) == 1).all()


def test_buffers_begin_at_64_bytes(stock: Stock) -> None:
    arrays = [np.arange(n, dtype="u1") for n in (100_001, 70_000, 250)]
    parts, nbytes = parts_of(*arrays)
    segment = stock.take(1, 9, parts, nbytes)
    for (offset, _), array in zip(parts, arrays, strict=True):
        assert offset % 64 == 0
        got = os.pread(segment.fd, array.nbytes, offset)
        assert got == array.tobytes()


def test_what_is_kept_free_is_bounded(stock: Stock) -> None:
    for uid in range(10):
        stock.take(uid, 9, *parts_of(np.zeros(MIB, "u1")))
    big = stock.take(99, 9, *parts_of(np.zeros(5 * MIB, "u1")))
    for uid in (99, *range(10)):
        stock.returned(uid, float(uid))
    assert big.fd == -1
    assert stock.free_bytes == 4 * MIB
    assert stock.trim(8.0)  # those of 8 and 9 were used after
    assert stock.free_bytes == MIB
    assert not stock.trim(9.0)
    assert stock.free_bytes == 0


def test_what_is_kept_free_takes_few_descriptors(
    stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock, "_most", 3)
    for size in (MIB // 4, MIB // 2, MIB):
        for uid in range(3):
            stock.take(uid, 9, *parts_of(np.zeros(size, "u1")))
        for uid in range(3):
            stock.returned(uid, float(size))
    assert stock.free_bytes == 3 * MIB  # those used last


def test_what_an_unknown_one_returns_is_nothing(stock: Stock) -> None:
    stock.returned(77, 0.0)
    assert stock.free_bytes == 0


def test_segments_of_a_lost_warehouse_go_when_nobody_here_needs_them(
    stock: Stock,
) -> None:
    held = stock.take(1, 9, *parts_of(np.zeros(MIB, "u1")))
    sent = stock.take(2, 9, *parts_of(np.zeros(MIB, "u1")))
    sent.held = False
    other = stock.take(3, 8, *parts_of(np.zeros(MIB, "u1")))
    stock.lost(9, 10.0)
    assert list(stock.on_loan) == [3]
    assert stock.trim(9.0)
    assert min(held.fd, sent.fd) >= 0
    assert stock.trim(10.0)
    assert (held.fd >= 0, sent.fd, other.fd >= 0) == (True, -1, True)
    held.held = False
    assert not stock.trim(10.0)
    assert held.fd == -1


def test_too_many_are_refused_with_what_to_do(
    stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock, "_most", 2)
    for uid in range(2):
        stock.take(uid, 9, *parts_of(np.zeros(MIB, "u1")))
    with pytest.raises(OSError, match=r"2 segments are in use.*ulimit -n"):
        stock.take(3, 9, *parts_of(np.zeros(MIB, "u1")))


def test_where_no_descriptor_is_free_it_is_an_oserror(stock: Stock) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            stock.take(1, 9, *parts_of(np.zeros(MIB, "u1")))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not stock.on_loan


def test_a_system_without_memfd_is_an_oserror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(OSError, match="no memfd_create") as caught:
        create(MIB)
    assert caught.value.errno == errno.ENOSYS


def test_threads_never_get_the_same_segment(stock: Stock) -> None:
    failed: list[str] = []

    def use(first: int) -> None:
        data = np.full(MIB // 2, first % 251, "u1")
        for uid in range(first, first + 60):
            segment = stock.take(uid, 9, *parts_of(data))
            if not (content(segment, data.nbytes) == first % 251).all():
                failed.append(f"{uid} was overwritten")
            stock.returned(uid, 0.0)

    threads = [threading.Thread(target=use, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failed
    assert not stock.on_loan


def test_what_two_threads_copy_is_whole(
    stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.arange(16 * MIB + 12_345, dtype="u4").view("u1")[3:-2]
    stock._free_bytes = 1 << 30
    begun: list[str] = []
    start = _thread.start_new_thread

    def noted(copying: Callable[[], None], arguments: tuple[()]) -> None:
        begun.append("thread")
        if len(begun) == 2:
            raise RuntimeError("can't start new thread")
        if len(begun) == 3:
            copy = mapping._system.memmove

            def without_memory(*arguments: Any) -> None:
                monkeypatch.setattr(mapping._system, "memmove", copy)
                raise MemoryError

            monkeypatch.setattr(mapping._system, "memmove", without_memory)
            with contextlib.suppress(MemoryError):
                copying()
            return
        start(copying, arguments)

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(_thread, "start_new_thread", noted)
    # Fresh memory, two threads, none to be had, one that fails, two again.
    for uid in range(5):
        segment = stock.take(uid, 9, *parts_of(data))
        assert np.array_equal(content(segment, data.nbytes), data)
        stock.returned(uid, 0.0)
        data = data[::-1].copy()
    assert len(begun) == 4


def test_no_segment_is_used_again_into_which_another_thread_may_still_copy(
    stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.arange(4 * MIB, dtype="u4").view("u1")
    stock._free_bytes = 1 << 30
    stock.take(1, 9, *parts_of(data))
    stock.returned(1, 0.0)
    assert stock.free_bytes == data.nbytes
    released = threading.Event()

    class Interrupted:
        """The lock by which the one thread waits for the other."""

        acquired = 0

        def acquire(self) -> None:
            self.acquired += 1
            if self.acquired == 2:
                raise KeyboardInterrupt

        release = staticmethod(released.set)

    with monkeypatch.context() as patched:
        patched.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
        patched.setattr(_thread, "allocate_lock", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            stock.take(2, 9, *parts_of(data))
    assert released.wait(30)
    assert not stock.free_bytes
    assert not stock.on_loan


def test_a_copy_lets_go_of_the_gil(stock: Stock) -> None:
    data = np.zeros(64 * MIB, "u1")
    stock._free_bytes = 1 << 30
    for uid in (1, 2):  # both ways of copying
        stock.take(uid, 9, *parts_of(data))
        stock.returned(uid, 0.0)
    ran = threading.Event()
    over = threading.Event()

    def count() -> None:
        while not over.is_set():
            ran.set()
            time.sleep(0)  # gives way to the other thread

    thread = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(30.0)  # so that nothing but a release lets others run
    try:
        thread.start()
        for uid in range(3, 53):  # others may keep the second processor for a while
            ran.clear()
            stock.take(uid, 9, *parts_of(data))
            if ran.is_set():
                break
            stock.returned(uid, 0.0)
        assert ran.is_set()
    finally:
        over.set()
        sys.setswitchinterval(interval)
        thread.join(30)


def test_nothing_is_left_of_a_stock(stock: Stock) -> None:
    for uid in range(3):
        stock.take(uid, 9, *parts_of(np.zeros(MIB, "u1")))
    stock.returned(0, 0.0)
    stock.lost(9, 0.0)
    stock.close()
    gc.collect()
    names = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if Path(f"/proc/self/fd/{fd}").is_symlink()
    ]
    assert not [name for name in names if "memfd:mosaic" in name]
