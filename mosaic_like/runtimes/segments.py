"""Memory that processes of one host share: making, opening and writing it.

A segment is a memfd: it has no name, so nothing is left of it when the last process
that has it open or mapped ends, however it ends. Another process of the same user opens
it through ``/proc``. Nothing here knows of runtimes, uids, or who holds what; what it
raises where the system refuses is OSError. How it is mapped stands in ``mapping.py``.
"""

from __future__ import annotations

import errno
import os

from ..comms.gathering import SEGMENT_BYTES
from ..comms.messages import Place

ALIGNMENT = 64  # bytes, of each buffer in its segment
TOKEN_BYTES = 7  # so that it is a number that goes over the wire


def size_class(nbytes: int) -> int:
    """The size of the segment for so many bytes: a power of two.

    What is never written takes no memory, so nothing is lost by rounding up.
    """
    return max(SEGMENT_BYTES, 1 << (nbytes - 1).bit_length())


def aligned(nbytes: int) -> int:
    """Up to where the next buffer begins."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


# -- descriptors -----------------------------------------------------------------------


def create(size: int) -> int:
    """A new segment; its descriptor.

    Args:
        size: bytes.
    """
    if not hasattr(os, "memfd_create"):
        raise OSError(errno.ENOSYS, "this system has no memfd_create")
    fd = os.memfd_create("mosaic", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
    except OSError:
        os.close(fd)
        raise
    return fd


def place_of(fd: int) -> Place:
    """Where others can open it, as long as this process keeps it open."""
    found = os.fstat(fd)
    return Place(os.getpid(), fd, found.st_dev, found.st_ino, found.st_size)


def open_place(place: Place, *, writable: bool = False) -> int:
    """A descriptor of a segment that another process has open."""
    path = f"/proc/{place.pid}/fd/{place.fd}"
    access = os.O_RDWR if writable else os.O_RDONLY
    fd = os.open(path, access | os.O_CLOEXEC | os.O_NONBLOCK)
    found = os.fstat(fd)
    if (
        (found.st_dev, found.st_ino) != (place.device, place.inode)
        or found.st_size < place.size
        or (place.token and token_of(fd, place.size) != place.token)
    ):
        # The number was used again, for what may be anything.
        os.close(fd)
        raise OSError(errno.ESTALE, "another file is there now", path)
    return fd


def token_of(fd: int, size: int) -> int:
    """What tells a file from others that had or will have its inode.

    File systems give the inode of a file that is gone to the next one; those of memory
    are not used again.

    Args:
        fd: of the file.
        size: bytes, after which the token stands.
    """
    return int.from_bytes(os.pread(fd, TOKEN_BYTES, size), "little")


def write(fd: int, view: memoryview, offset: int) -> None:
    """Copy contiguous bytes into a segment that is new: no page faults, 3x faster."""
    view = view.cast("B") if view.format != "B" or view.ndim != 1 else view
    done = 0
    while done < view.nbytes:  # the kernel takes 2 GiB at once
        done += os.pwrite(fd, view[done:], offset + done)
