"""Opens and replaces files: what is in them is none of its business."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = str | os.PathLike[str]


@contextlib.contextmanager
def opened(h5py: Any, path: Path, mode: str, place: Path = "") -> Iterator[Any]:
    """The file at a place, which for people is at the path."""
    try:
        # Without a cache of chunks: what does not fit on the disk is then told where it
        # is written, and not when the cache is emptied, of which HDF5 can crash.
        file = h5py.File(place or path, mode, track_order=True, rdcc_nbytes=0)
    except OSError as error:
        raise OSError(
            f"{os.fspath(path)}: is no HDF5 file, or is damaged or being written: "
            f"{error}"
        ) from error
    try:
        yield file
        file.flush()
    except BaseException:
        with contextlib.suppress(RuntimeError):  # of the disk that is full
            file.close()
        raise
    try:
        file.close()
    except RuntimeError as error:
        raise OSError(f"{os.fspath(path)}: could not be closed: {error}") from error


def place_of(path: Path) -> str:
    """Where the file itself is: a link goes on leading to it."""
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise IsADirectoryError(f"{target}: is a directory, not a file")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{target}: there is no directory {folder}; make it")
    return target


@contextlib.contextmanager
def replacing(path: Path, of_copy: bool = False) -> Iterator[str]:
    """A new file that takes the place of another at the end of the block.

    After an error it is removed, and nothing has changed.
    """
    target = place_of(path)
    folder, name = os.path.split(target)
    new = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp")
    # With the user's umask, which a temporary file of the library would not have.
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "r+b") as file:
            with contextlib.suppress(FileNotFoundError):
                os.chmod(new, stat.S_IMODE(os.stat(target).st_mode))
            if of_copy:
                with open(target, "rb") as old:
                    shutil.copyfileobj(old, file, 1 << 20)
        yield new
        with open(new, "rb") as file:
            os.fsync(file.fileno())  # or a crash could leave an empty file of that name
        os.replace(new, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.truncate(new, 0)  # HDF5 may not let go of it where the disk is full
            os.unlink(new)
        raise


@contextlib.contextmanager
def alone_in(folder: str) -> Iterator[None]:
    """Nobody else appends in this folder meanwhile, as far as its disk knows of locks.

    The folder is locked and not the file, of which a lock would keep readers out.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # no locks there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and so unlocked
