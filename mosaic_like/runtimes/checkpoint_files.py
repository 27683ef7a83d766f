"""The files that checkpoints are in: written, read, removed.

Of each tessera there are two files, which take turns, so that one that is broken off or
damaged leaves the one before. A file is written under another name, forced to the disk
and renamed:

    magic, number, bytes, checksum of all that follows and of the number, the state

The state is a pickle: who can write into the directory, which is closed to others, can
run code as the user, who can do that anyway. When checkpoints are taken, and of what,
is not for here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import stat
import struct
import zlib
from typing import Any, NamedTuple

from ..errors import MosaicError

_MAGIC = b"mosaicC1"
_HEADER = struct.Struct("<8sQQI")
_ENDS = (".0", ".1")  # of the names of the two
# What says nothing of a file that cannot be read: later it may be.
PASSING = frozenset(
    (
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.ESTALE,
        errno.ETIMEDOUT,
    )
)


class Found(NamedTuple):
    """What there is of one tessera."""

    number: int  # of the last one that is whole; 0: there is none
    data: bytes
    damaged: list[str]  # paths

    @property
    def unusable(self) -> bool:
        """There are some, and none of them is whole."""
        return bool(self.damaged) and not self.number


class CheckpointFiles:
    """Those of one cluster.

    Args:
        base: the directory that the user has named, or that of the run.
        cluster: what no other cluster has.
    """

    def __init__(self, base: str, cluster: bytes) -> None:
        self.directory = os.path.join(base, f"checkpoints-{cluster.hex()}")

    def path(self, uid: int) -> str:
        """Of both of a tessera, without their ends; what ``read_checkpoint`` takes."""
        return os.path.join(self.directory, str(uid))

    def kept(self, uid: int) -> str:
        """That path, if there is a file; else empty."""
        path = self.path(uid)
        return path if any(os.path.exists(path + end) for end in _ENDS) else ""

    def read(self, uid: int) -> Found:
        """The last one that is whole.

        Raises:
            PermissionError: somebody else could have put it there.
            OSError: it cannot be read now, and perhaps later: see ``PASSING``.
        """
        if os.path.lexists(self.directory):
            self._check()
        return _last([self.path(uid) + end for end in _ENDS])

    def write(self, uid: int, number: int, data: bytes) -> None:
        """Write one, in the place of the last but one.

        Raises:
            OSError: it could not be written; the one before is as it was.
        """
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        self._check()
        path = self.path(uid) + _ENDS[number % 2]
        temporary = f"{path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # of a worker that ended while it wrote
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                checksum = _checksum(number, data)
                file.write(_HEADER.pack(_MAGIC, number, len(data), checksum))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        directory = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # else the rename may be lost where the data are not
        finally:
            os.close(directory)

    def remove(self, uid: int) -> None:
        """Remove those of a tessera, and the directory if they were the last."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.directory):
                if name.partition(".")[0] == str(uid):
                    os.unlink(os.path.join(self.directory, name))
            os.rmdir(self.directory)

    def _check(self) -> None:
        """It is ours and closed to others: what is in it is unpickled."""
        found = os.lstat(self.directory)
        is_closed = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
        if not is_closed or found.st_uid != os.geteuid():
            raise PermissionError(
                errno.EPERM,
                "it is not a directory of ours with mode 0700",
                self.directory,
            )


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """The state in a checkpoint that was left: what ``__checkpoint__()`` had given.

    When a tessera is not built again, since it has no restarts left or what it needs
    has failed, its last checkpoint stays in the directory that the option
    ``checkpoint_directory`` names; the error, and the log, say where. It is yours from
    then on: make the tessera again from this state, and remove the files.

    Args:
        path: as the error has it; or one of the two files, which end in ``.0`` and
            ``.1``. They are pickles, which can run any code: read only what you have
            written.

    Raises:
        FileNotFoundError: there is none.
        PermissionError: it belongs to somebody else, or others can write to it: see who
            has put it there.
        MosaicError: it is damaged: see whether there is a copy.

    >>> import mosaic_like as mosaic
    >>> mosaic.read_checkpoint("/nowhere/17")
    Traceback (most recent call last):
        ...
    FileNotFoundError: [Errno 2] no checkpoint is there: '/nowhere/17'
    """
    name = os.fspath(path)
    names = [name] if name.endswith(_ENDS) else [name + end for end in _ENDS]
    names = [each for each in names if os.path.exists(each)]
    if not names:
        raise FileNotFoundError(errno.ENOENT, "no checkpoint is there", name)
    for each in names:
        about = os.stat(each)
        if about.st_uid != os.geteuid() or about.st_mode & 0o022:
            raise PermissionError(
                errno.EPERM, "it is not yours, or others can write to it", each
            )
    found = _last(names)
    if found.unusable:
        raise MosaicError(f"the checkpoint {' and '.join(found.damaged)} is damaged")
    return pickle.loads(found.data)


def _last(paths: list[str]) -> Found:
    whole, damaged = [(0, b"")], []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            one = _read(path)
            if one is None:
                damaged.append(path)
            else:
                whole.append(one)
    return Found(*max(whole), damaged)


def _checksum(number: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(number.to_bytes(8, "little")))


def _read(path: str) -> tuple[int, bytes] | None:
    """The number and the state of a file; None: it is damaged.

    Raises:
        FileNotFoundError: there is none.
        OSError: this process cannot read it now.
    """
    try:
        # Without O_NONBLOCK a pipe of this name would hold us for ever.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(path, flags), "rb") as file:
            content = file.read()
    except OSError as error:
        if error.errno == errno.ENOENT or error.errno in PASSING:
            raise
        return None
    if len(content) < _HEADER.size:
        return None
    magic, number, size, checksum = _HEADER.unpack_from(content)
    data = content[_HEADER.size :]
    if magic != _MAGIC or size != len(data) or checksum != _checksum(number, data):
        return None
    return number, data
