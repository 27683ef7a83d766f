"""The run directory: where a cluster's sockets and its key file are.

``<temporary directory>/mosaic-<user id>/<id>``, both levels 0700. It alone guards the
ipc sockets, so owner and mode are checked on open descriptors and links are refused.
Whoever uses it holds a shared flock on it; one that nobody holds is stale, and the next
cluster of the same user removes it. The lock goes with its process, so nothing has to
be told apart by pids.

What stands in the key file, and who binds which socket, is not known here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConnectError

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET_PATH_BYTES = 107  # sun_path of Linux, less its final zero
KEY_NAME = "cluster.key"
KEY_BYTES = 64 * 1024
_NAME_BYTES = 32  # kept free for the names of sockets
_ID = re.compile(r"[0-9a-f]{12}")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 100  # each is lost only to a cleaner that works at the same moment
_MAKE_ROOM = "make room there, or set TMPDIR to another directory"
_REMEDIES = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EFBIG: "'ulimit -f' limits how large a file may be: raise that",
}


class RunDirectory:
    """A cluster's directory, held as long as this object and its process live."""

    def __init__(self, path: Path, fd: int, base_fd: int) -> None:
        self.path = path
        self._fd = fd  # the flock hangs on it
        self._base_fd = base_fd
        self._maker = os.getpid()

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    @classmethod
    def create(cls) -> RunDirectory:
        """Make a new one, and remove those that dead clusters of this user left.

        Raises:
            PermissionError: somebody else made the directory of this user, or it is
                open to others; the text says what to do.
            OSError: there is no room for it; the text says where.
        """
        base = _base()
        for _ in range(_ATTEMPTS):
            base_fd = _open_base(base)
            try:
                _clean(base_fd)
                name = os.urandom(6).hex()
                with _told(base / name):
                    fd = _make(base_fd, name)
            except BaseException:
                os.close(base_fd)
                raise
            if fd is not None:
                return cls(base / name, fd, base_fd)
            os.close(base_fd)
        raise OSError(
            errno.EAGAIN, f"no directory could be made and kept in {base}", str(base)
        )

    @classmethod
    def join(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """Hold one that another process made, so that it outlives that process.

        Raises:
            ConnectError: it is not there any more.
            PermissionError: it is not this user's alone.
        """
        path = Path(path)
        base_fd = _open_base(path.parent)
        try:
            fd = _open_checked(path.name, path, base_fd)
            if not _hold(fd, path.name, base_fd):
                os.close(fd)
                raise FileNotFoundError
        except FileNotFoundError:
            os.close(base_fd)
            raise ConnectError(f"{path} is gone: its cluster has ended") from None
        except BaseException:
            os.close(base_fd)
            raise
        return cls(path, fd, base_fd)

    def socket(self, name: str) -> str:
        """The ZeroMQ address of a socket of this name."""
        path = self.path / name
        if Path(name).name != name or name in ("", ".", ".."):
            raise ValueError(f"{name!r} cannot be the name of a socket")
        size = len(os.fsencode(path))
        if size > SOCKET_PATH_BYTES:
            raise ValueError(
                f"{path} has {size} bytes, a socket's path at most "
                f"{SOCKET_PATH_BYTES}; choose a shorter name"
            )
        return f"ipc://{path}"

    def write_key(self, content: dict[str, Any]) -> Path:
        """Write the key file, whole or not at all, and say where it is.

        Raises:
            OSError: there is no room for it; the text says where.
        """
        body = json.dumps(content).encode()
        if len(body) > KEY_BYTES:
            raise ValueError(f"a key file of {len(body)} bytes, at most {KEY_BYTES}")
        path = self.path / KEY_NAME
        with _told(path):
            self._replace_key(body)
        return path

    def _replace_key(self, body: bytes) -> None:
        draft = f"{KEY_NAME}.{os.urandom(4).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(draft, flags, 0o600, dir_fd=self._fd)
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, 0o600)  # whatever the umask has taken away
                file.write(body)
            os.rename(draft, KEY_NAME, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=self._fd)
            raise

    def remove(self) -> None:
        """Remove it with all that is in it; a second time does nothing.

        In a fork of the process that made this object only the lock is let go.
        """
        if self._fd < 0:
            return
        try:
            if os.getpid() == self._maker:
                _remove(self.path.name, self._fd, self._base_fd)
                with contextlib.suppress(OSError):  # there are others, or logs
                    os.rmdir(self.path.parent)
        finally:
            self.release()

    def release(self) -> None:
        """Hold it no longer; whoever else holds it keeps it."""
        if self._fd >= 0:
            os.close(self._fd)
            os.close(self._base_fd)
            self._fd = self._base_fd = -1


def read_key(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a key file.

    Raises:
        ConnectError: there is none, or it is none.
        PermissionError: it is a link, another user's, or open to others.
    """
    # Without O_NONBLOCK somebody's pipe of this name would hold us for ever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise ConnectError(
            f"{path}: no key file is there; has the cluster ended?"
        ) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PermissionError(
                f"{path} is a link; name the key file itself"
            ) from None
        if error.errno == errno.ENXIO:  # a socket
            raise ConnectError(f"{path} is not a key file") from None
        raise
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ConnectError(f"{path} is not a key file, not even a file")
        _check_private(found, path, "0600")
        body = os.read(fd, KEY_BYTES + 1)
    finally:
        os.close(fd)
    return parse_key(body, str(path))


def parse_key(body: bytes, path: str) -> dict[str, Any]:
    """What the bytes of a key say.

    Args:
        body: at most KEY_BYTES, or it is none.
        path: where they come from, for people.

    Raises:
        ConnectError: they are no key.
    """
    try:
        content = json.loads(body) if len(body) <= KEY_BYTES else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ConnectError(f"{path} is not a key file: it is not a JSON object")
    return content


def log_file(name: str) -> tuple[Path, int]:
    """A new file beside the run directories, which stays; its path and descriptor.

    Raises:
        PermissionError, OSError: as for ``RunDirectory.create``.
    """
    base = _base()
    base_fd = _open_base(base)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _told(base / name):
            return base / name, os.open(name, flags, 0o600, dir_fd=base_fd)
    finally:
        os.close(base_fd)


def run_directories() -> list[Path]:
    """The run directories of this user, also those that nobody holds any more."""
    base = _base()
    try:
        names = os.listdir(base)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [base / name for name in names if _ID.fullmatch(name)]


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Where there is no room for it, the error says so with its path and a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise OSError(
            error.errno,
            f"cannot write {path}: {error.strerror}; {_REMEDIES[error.errno]}",
        ) from None


def _base() -> Path:
    """Where this user's clusters have their directories."""
    name = f"mosaic-{os.geteuid()}"
    wanted = Path(_temporary_directory())
    longest = os.fsencode(wanted / name / ("0" * 12) / ("n" * _NAME_BYTES))
    if len(longest) > SOCKET_PATH_BYTES or not _nobody_can_rename_in(wanted):
        wanted = Path("/tmp")
        if not _nobody_can_rename_in(wanted):
            raise PermissionError(
                "/tmp has no sticky bit and is open to others: they could replace "
                "our directory; set TMPDIR to a short path of your own"
            )
    return wanted / name


def _temporary_directory() -> str:
    """That of ``tempfile``, which takes 4 ms to import and is seldom needed for it."""
    if "tempfile" not in sys.modules:  # or somebody may have chosen another there
        given = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
        found = next((name for name in given if name), "/tmp")
        if _takes_files(found):
            return os.path.abspath(found)
    import tempfile

    return tempfile.gettempdir()


def _takes_files(directory: str) -> bool:
    """Tried, as ``tempfile`` does: rights do not tell; False if it cannot be tried."""
    flags = getattr(os, "O_TMPFILE", 0)
    try:
        if flags:
            os.close(os.open(directory, flags | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError:
        return False
    return bool(flags)


def _nobody_can_rename_in(directory: Path) -> bool:
    mode = directory.stat().st_mode
    return not mode & 0o022 or bool(mode & stat.S_ISVTX)


def _check_private(
    found: os.stat_result, path: str | os.PathLike[str], wanted: str
) -> None:
    if found.st_uid != os.geteuid():
        raise PermissionError(
            f"{path} belongs to user {found.st_uid}, expected {os.geteuid()}: it may "
            "be a trap; have it removed, or set TMPDIR to a directory of your own"
        )
    if found.st_mode & 0o077:
        raise PermissionError(
            f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}, "
            f"expected {wanted}); look who made it so, then chmod {wanted} or remove it"
        )


def _open_checked(name: str, path: Path, base_fd: int | None) -> int:
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=base_fd)
    except OSError as error:
        # ENOTDIR: what O_DIRECTORY with O_NOFOLLOW says of a link.
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise PermissionError(
                f"{path} is a link or a file, expected a directory: it may be a trap; "
                "have it removed, or set TMPDIR to a directory of your own"
            ) from None
        raise
    try:
        _check_private(os.fstat(fd), path, "0700")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_base(base: Path) -> int:
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileExistsError), _told(base):
            os.mkdir(base, 0o700)
            # The umask may have taken bits away. Only we can have put something else
            # here meanwhile: the entry is ours.
            os.chmod(base, 0o700)
        with contextlib.suppress(FileNotFoundError):  # the last user of it left
            return _open_checked(str(base), base, None)
    raise OSError(errno.EAGAIN, f"{base} comes and goes", str(base))


def _make(base_fd: int, name: str) -> int | None:
    """A new directory, held; None if a cleaner, or the end of the base, took it."""
    try:
        os.mkdir(name, 0o700, dir_fd=base_fd)
        os.chmod(name, 0o700, dir_fd=base_fd)
        fd = os.open(name, _DIRECTORY, dir_fd=base_fd)
    except (FileNotFoundError, FileExistsError):
        return None
    if _hold(fd, name, base_fd):
        return fd
    os.close(fd)
    return None


def _hold(fd: int, name: str, base_fd: int) -> bool:
    """Take the shared lock; False if a cleaner was there before."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # It may have been removed between opening and locking.
        there = os.stat(name, dir_fd=base_fd, follow_symlinks=False)
    except (BlockingIOError, FileNotFoundError):
        return False
    return os.path.samestat(there, os.fstat(fd))


def _remove(name: str, fd: int, base_fd: int) -> None:
    import shutil  # 4 ms that a start need not wait for

    # Another process may bind or unlink sockets in it meanwhile.
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(OSError):
            shutil.rmtree(name, dir_fd=base_fd)
        if os.fstat(fd).st_nlink == 0 or name not in os.listdir(base_fd):
            return
    raise OSError(errno.ENOTEMPTY, "cannot be removed", name)


def _stale(base_fd: int) -> Iterator[tuple[str, int]]:
    """Directories of clusters that nobody holds, each locked while it is looked at."""
    for name in os.listdir(base_fd):
        if not _ID.fullmatch(name):
            continue  # logs, or not ours to judge
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=base_fd)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield name, fd
        except BlockingIOError:
            continue
        finally:
            os.close(fd)


def _clean(base_fd: int) -> None:
    for name, fd in _stale(base_fd):
        with contextlib.suppress(OSError):
            _remove(name, fd, base_fd)
