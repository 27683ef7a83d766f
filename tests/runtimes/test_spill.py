"""Values in files: without names, and in place of memory that is mapped already."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mosaic_like.core.budget import Ledger, Rows
from mosaic_like.errors import MemoryOverflowError
from mosaic_like.runtimes import spill
from mosaic_like.runtimes.ledger import OwnLedger, open_ledger
from mosaic_like.runtimes.mapping import Maps, views
from mosaic_like.runtimes.segments import create, open_place, place_of
from mosaic_like.runtimes.stock import Stock

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
WAIT_S = 20.0


def parts_of(data: bytes) -> list[tuple[int, memoryview]]:
    return [(0, memoryview(data))]


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Stock]:
    """With room for 4 MiB of memory and 8 MiB of files."""
    ledger = Ledger([0] * 32)
    ledger.limits = 4 * MIB, 8 * MIB
    told: list[str] = []
    stock = Stock(no_room=told.append)
    stock.account.attach(Rows(ledger).give(5), lambda: ledger)
    stock.directory = str(tmp_path)
    stock.told = told  # type: ignore[attr-defined] # for the tests alone
    yield stock
    stock.close()


def test_a_file_has_no_name_and_is_for_its_user_alone(tmp_path: Path) -> None:
    fd = spill.create_file(str(tmp_path), 3 * MIB)
    try:
        found = os.fstat(fd)
        assert list(tmp_path.iterdir()) == []
        assert (found.st_nlink, found.st_mode & 0o777) == (0, 0o600)
        place = spill.file_place(fd)
        assert (place.size, place.token != 0) == (3 * MIB, True)
        assert not os.get_inheritable(fd)
        os.close(open_place(place))
    finally:
        os.close(fd)


def test_a_file_that_has_got_the_inode_of_another_is_told_from_it(
    tmp_path: Path,
) -> None:
    fd = spill.create_file(str(tmp_path), MIB)
    place = spill.file_place(fd)
    os.close(fd)
    again = spill.create_file(str(tmp_path), MIB)
    try:
        # As if the file system had given it the same one, which some do at once.
        other = msgspec.structs.replace(
            spill.file_place(again), token=place.token, pid=os.getpid()
        )
        with pytest.raises(OSError, match="another file"):
            open_place(other)
    finally:
        os.close(again)


def test_what_is_mapped_is_not_taken_for_a_lost_file_that_had_its_inode(
    tmp_path: Path,
) -> None:
    maps = Maps()
    fd = spill.create_file(str(tmp_path), MIB)
    try:
        place = spill.file_place(fd)
        window = maps.window(place, None, MIB)
        lost = msgspec.structs.replace(place, token=place.token ^ 1)
        with pytest.raises(OSError, match="another file"):
            maps.window(lost, None, MIB)
        assert maps.window(place, None, MIB).mapping is window.mapping
    finally:
        os.close(fd)


def test_a_directory_in_memory_is_not_taken_unasked(tmp_path: Path) -> None:
    if spill._in_memory("/dev/shm"):
        assert spill.default_directory("/dev/shm") in ("", "/var/tmp")
    if not spill._in_memory(str(tmp_path)):
        assert spill.default_directory(str(tmp_path)) == str(tmp_path)
        of_job = tmp_path / "job"
        environ = {"SLURM_TMPDIR": str(of_job)}
        # Other hosts may not have it.
        assert spill.default_directory(str(tmp_path), environ) == str(tmp_path)
        of_job.mkdir()
        assert spill.default_directory(str(tmp_path), environ) == str(of_job)
    assert spill.default_limit(str(tmp_path)) > 0
    assert spill.default_limit(str(tmp_path / "missing")) == 0


def test_a_ledger_is_seen_by_who_opens_it() -> None:
    own = OwnLedger()
    try:
        own.limits = 10, 5
        other = open_ledger(place_of(own.fd))
        assert other is not None
        own.use(1)
        other.write(1, 7, 3)
        assert (own.memory, own.files, other.limits) == (7, 3, (10, 5))
        place = place_of(own.fd)
    finally:
        own.close()
    assert open_ledger(place) is None


def test_where_there_is_no_memory_a_segment_is_a_file(stock: Stock) -> None:
    first = stock.take(1, 9, parts_of(b"1" * (3 * MIB)), 3 * MIB)
    second = stock.take(2, 9, parts_of(b"2" * (2 * MIB)), 2 * MIB)
    assert (first.in_file, second.in_file) == (False, True)
    assert (stock.account.memory, stock.account.files) == (3 * MIB, 2 * MIB)
    window = Maps().window(second.place, None, 2 * MIB)
    assert views([window], [(0, 0, 2 * MIB)])[0] == b"2" * (2 * MIB)
    stock.spilled(2, first.place)
    assert second.place == first.place
    stock.spilled(1, second.place)
    assert (stock.account.memory, stock.account.files) == (0, 0)


def test_memory_that_waits_to_be_used_again_is_given_up_first(stock: Stock) -> None:
    stock.take(1, 9, parts_of(bytes(2 * MIB)), 2 * MIB)
    stock.returned(1, 0.0)
    assert stock.free_bytes == stock.account.memory == 2 * MIB
    assert not stock.take(2, 9, parts_of(bytes(4 * MIB)), 4 * MIB).in_file
    assert stock.free_bytes == 0
    stock.returned(2, 0.0)  # more than half of all: not kept
    assert stock.account.memory == 0


def test_without_room_on_disk_it_stays_in_memory_and_is_told(stock: Stock) -> None:
    told: list[str] = stock.told  # type: ignore[attr-defined] # see the fixture
    stock.take(1, 9, parts_of(bytes(4 * MIB)), 4 * MIB)
    stock.take(2, 9, parts_of(bytes(7 * MIB)), 7 * MIB)
    assert not stock.take(3, 9, parts_of(bytes(2 * MIB)), 2 * MIB).in_file
    assert "8.0 MiB" in told[-1]
    stock.directory = "/nowhere"
    stock.take(4, 9, parts_of(bytes(MIB)), MIB)
    assert "No such file" in told[-1]
    stock.directory = ""
    stock.take(5, 9, parts_of(bytes(MIB)), MIB)
    assert stock.account.memory == 8 * MIB
    assert len(told) == 3


def test_a_disk_that_is_full_leaves_the_value_in_memory(
    stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock.take(1, 9, parts_of(bytes(4 * MIB)), 4 * MIB)
    really = os.pwrite

    def full(fd: int, data: Any, offset: int) -> int:
        if os.fstat(fd).st_nlink == 0 and "memfd" not in os.readlink(
            f"/proc/self/fd/{fd}"
        ):
            raise OSError(28, "No space left on device")
        return really(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    segment = stock.take(2, 9, parts_of(b"2" * (2 * MIB)), 2 * MIB)
    assert not segment.in_file
    assert (stock.account.memory, stock.account.files) == (6 * MIB, 0)
    window = Maps().window(segment.place, None, 2 * MIB)
    assert views([window], [(0, 0, 2 * MIB)])[0] == b"2" * (2 * MIB)


def test_a_value_larger_than_everything_is_refused_with_the_figures(
    stock: Stock,
) -> None:
    with pytest.raises(MemoryOverflowError, match=r"9\.0 MiB.*4\.0 MiB.*8\.0 MiB"):
        stock.take(1, 9, parts_of(bytes(9 * MIB)), 9 * MIB)
    assert (stock.account.memory, stock.account.files) == (0, 0)
    assert not stock.on_loan


def test_what_is_mapped_becomes_the_file_where_it_is(tmp_path: Path) -> None:
    fd = create(2 * MIB)
    os.pwrite(fd, b"a" * (2 * MIB), 0)
    place = place_of(fd)
    maps = Maps()
    view = views([maps.window(place, None, 2 * MIB)], [(0, 0, 2 * MIB)])[0]
    file = spill.create_file(str(tmp_path), 2 * MIB)
    os.pwrite(file, b"a" * MIB + b"b" * MIB, 0)  # to see that it is another
    maps.move(place.device, place.inode, spill.file_place(file))
    os.close(fd)
    assert bytes(view[:2]) == b"aa"
    assert bytes(view[-2:]) == b"bb"
    # Known by its new place, and its memory is in nobody's hands.
    again = maps.window(spill.file_place(file), None, 2 * MIB)
    assert len(maps._mappings) == 1
    assert f"{place.inode} /memfd" not in Path("/proc/self/maps").read_text()
    maps.move(
        place.device, place.inode, spill.file_place(file)
    )  # twice: nothing is done
    del again, view
    maps.trim(float("inf"))
    os.close(file)


def run_jobs(directory: str, jobs: list[spill.Job]) -> list[spill.Job]:
    """Written by a writer whose thread does what a loop would do."""
    done: list[spill.Job] = []
    ended = threading.Event()

    def post(function: Any, job: spill.Job) -> None:
        function(job)
        if len(done) == len(jobs):
            ended.set()

    writer = spill.Writer(directory, post, done.append)
    writer.start(jobs)
    assert ended.wait(WAIT_S)
    writer.close()
    return done


def a_job(uid: int, content: bytes, size: int) -> spill.Job:
    fd = create(size)
    os.pwrite(fd, content, 0)
    return spill.Job(uid, fd, len(content), size)


def test_where_no_thread_can_be_started_nothing_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    job = a_job(1, b"x", 4 * MIB)
    (done,) = run_jobs(str(tmp_path), [job])
    assert done.error is not None
    assert done.error.errno == errno.EAGAIN
    assert done.file < 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(job.fd)


def test_segments_are_copied_with_what_was_not_touched(tmp_path: Path) -> None:
    content = os.urandom(9 * MIB + 5)
    jobs = run_jobs(
        str(tmp_path), [a_job(1, content, 16 * MIB), a_job(2, b"x", 4 * MIB)]
    )
    assert [(job.uid, job.error) for job in jobs] == [(1, None), (2, None)]
    assert os.pread(jobs[0].file, 10 * MIB, 0)[: len(content)] == content
    places = [spill.file_place(job.file) for job in jobs]
    assert [place.size for place in places] == [16 * MIB, 4 * MIB]
    for job in jobs:
        os.close(job.file)


def test_what_cannot_be_written_says_why(tmp_path: Path) -> None:
    (job,) = run_jobs(str(tmp_path / "missing"), [a_job(1, b"x", MIB)])
    assert job.file == -1
    assert "No such file" in str(job.error)


def test_a_file_system_that_needs_a_name_loses_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile._TMPFILE_WORKS", False, raising=False)
    monkeypatch.setattr("tempfile._O_TMPFILE_WORKS", False, raising=False)
    before = os.umask(0)
    with contextlib.ExitStack() as stack:
        stack.callback(os.umask, before)
        fd = spill.create_file(str(tmp_path), MIB)
    assert list(tmp_path.iterdir()) == []
    assert os.fstat(fd).st_mode & 0o777 == 0o600
    os.close(fd)
