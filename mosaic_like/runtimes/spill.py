"""Values in files: making them, and copying segments into them off the loop.

A file is open and has no name, as a segment: where the file system cannot make such
ones it has one for a moment, in which it can be read by its user alone. Nothing is left
of it when the last process that has it open or mapped ends, however it ends. What goes
into a file, and when, is decided in ``core/store.py``.
"""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
import threading
from typing import TYPE_CHECKING

import msgspec

from ..cgroups import PROC, read_text
from .segments import TOKEN_BYTES, place_of, token_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..comms.messages import Place

# Where there is more room than in memory, if the run directory is in memory itself.
_ON_DISK = "/var/tmp"
# In which sites name the job's own disk on each host; most set TMPDIR, where the run
# directory is.
_OF_JOBS = ("SLURM_TMPDIR", "PBS_JOBFS", "LOCAL_SCRATCH")
_QUOTA = 0.5  # of what is free when the cluster starts
_CHUNK = 8 << 20  # bytes, after which it is looked whether it is still wanted
_IN_MEMORY = ("tmpfs", "ramfs")


def create_file(directory: str, size: int) -> int:
    """A new file without a name; its descriptor.

    Args:
        directory: where.
        size: bytes; what is not written takes no room. A token stands after them.
    """
    # Mode 0600; where there are no files without a name it is unlinked at once.
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        token = secrets.token_bytes(TOKEN_BYTES - 1) + b"\x01"  # never zero
        os.pwrite(file.fileno(), token, size)
        return os.dup(file.fileno())


def file_place(fd: int) -> Place:
    """``segments.place_of`` for such a file."""
    place = place_of(fd)
    size = place.size - TOKEN_BYTES
    return msgspec.structs.replace(place, size=size, token=token_of(fd, size))


def default_directory(
    run_directory: str, environ: Mapping[str, str] = os.environ
) -> str:
    """Where to spill, if nobody has said it; empty: nowhere."""
    of_job = [environ.get(name, "") for name in _OF_JOBS]
    for directory in (*of_job, run_directory, _ON_DISK):
        if directory and os.access(directory, os.W_OK) and not _in_memory(directory):
            return directory
    return ""


def default_limit(directory: str) -> int:
    """Bytes that all files together may take, if nobody has said it."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return 0
    return int(found.f_bavail * found.f_frsize * _QUOTA)


def _in_memory(directory: str) -> bool:
    """Files there are memory: nothing is gained by them."""
    device = os.stat(directory).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    # proc(5): id parent device root place options ... - type source super-options
    for line in (read_text(PROC / "self" / "mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        if left.split(" ")[2:3] == [number]:
            return right.split(" ")[0] in _IN_MEMORY
    return False


class Job:
    """One segment to be copied."""

    __slots__ = ("error", "fd", "file", "size", "uid", "used")

    def __init__(self, uid: int, fd: int, used: int, size: int) -> None:
        self.uid = uid
        self.fd = fd  # of the segment; ours
        self.used = used  # bytes to copy
        self.size = size  # of the file
        self.file = -1  # when it is done; -1: refused
        self.error: OSError | None = None


class Writer:
    """Copies segments, one after the other, on a thread that lives as long as that.

    Args:
        directory: where the files are made.
        post: has a function called on the loop's thread.
        done: called there with each job; the file is then the caller's.
    """

    def __init__(
        self,
        directory: str,
        post: Callable[..., None],
        done: Callable[[Job], None],
    ) -> None:
        self._directory = directory
        self._post = post
        self._done = done
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self, jobs: Sequence[Job]) -> None:
        """Copy these; from the loop's thread, when no others are under way."""
        thread = threading.Thread(
            target=self._run, args=(jobs,), name="mosaic-spill", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no more threads are to be had
            for job in jobs:
                os.close(job.fd)
                job.error = OSError(errno.EAGAIN, str(error))
                self._post(self._done, job)
        else:
            self._thread = thread

    def _run(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            try:
                job.file = self._copy(job)
            except OSError as error:
                job.error = error
            finally:
                os.close(job.fd)
            self._post(self._done, job)

    def _copy(self, job: Job) -> int:
        file = create_file(self._directory, job.size)
        try:
            done = 0
            while done < job.used:
                if self._closed:
                    raise OSError(errno.ECANCELED, "the warehouse stops")
                count = min(_CHUNK, job.used - done)
                copied = os.sendfile(file, job.fd, done, count)
                if not copied:
                    raise OSError(errno.EIO, "the segment is shorter than it was")
                done += copied
        except BaseException:
            os.close(file)
            raise
        return file

    def close(self) -> None:
        """Stop at the next chunk, and wait for that."""
        self._closed = True
        if self._thread is not None:
            self._thread.join(5.0)
