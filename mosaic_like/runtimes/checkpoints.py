"""Checkpoints of tesserae: when they are taken, and the files that they are in.

Of each tessera there are two files, which take turns, so that one that is broken off or
damaged leaves the one before. A file is written under another name, forced to the disk
and renamed:

    magic, number, bytes, checksum of all that follows and of the number, the state

The state is a pickle: who can write into the directory, which is closed to others, can
run code as the user, who can do that anyway. What the methods of the user give and take
is their matter.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pickle
import stat
import struct
import zlib
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.task import READY, received
from ..core.tessera import TesseraState
from ..errors import MosaicError, SerializationError
from ..proxies.methods import NOTHING
from ..proxies.restarts import CHECKPOINT, RESTORE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from ..core.task import Task
    from ..core.tessera import Runner, Tessera
    from .actor import ActorRuntime

logger = logging.getLogger(__name__)

_MAGIC = b"mosaicC1"
_HEADER = struct.Struct("<8sQQI")


class Checkpoints:
    """Those of one worker's tesserae.

    Args:
        runtime: whose.
        run_directory: of the host, for where the options name no directory.
        cluster: what no other cluster has.
    """

    def __init__(
        self, runtime: ActorRuntime, run_directory: str, cluster: bytes
    ) -> None:
        self._runtime = runtime
        base = runtime.config.checkpoint_directory or run_directory
        self._directory = os.path.join(base, f"checkpoints-{cluster.hex()}")
        self._numbers: dict[int, int] = {}  # of the last one that was written, by uid
        self._autosaves: dict[int, Autosave] = {}

    # -- tesserae ----------------------------------------------------------------------

    def building(self, task: Task) -> None:
        """A constructor has returned, and no call has started."""
        tessera = task.tessera
        executor, supervised = self._runtime.executor, tessera.options.supervised
        assert supervised is not None, "asked for"
        if supervised.life:
            executor.journal.built_again(task)
        if supervised.checkpoint_calls or supervised.checkpoint_s:
            autosave = Autosave(executor, tessera, self._runtime.loop)
            self._autosaves[tessera.uid] = autosave

    def built(self, tessera: Tessera) -> None:
        """Its calls start, or have."""
        autosave = self._autosaves.get(tessera.uid)
        if autosave is not None:
            autosave.built()

    def gone(self, tessera: Tessera) -> None:
        """It was closed, or its constructor has raised."""
        autosave = self._autosaves.pop(tessera.uid, None)
        if autosave is not None:
            autosave.close()
        supervised = tessera.options.supervised
        departing = self._runtime.departing
        moves = departing is not None and departing.state.closing
        if supervised is not None and tessera.state is TesseraState.STOPPED:
            self._numbers.pop(supervised.uid, None)
            if not moves:
                self._remove(supervised.uid)

    def take_all(self, tesserae: Iterable[Tessera]) -> list[Tessera]:
        """All will be closed here and go on elsewhere; those whose state is taken."""
        taken = []
        for tessera in tesserae:
            if (
                tessera.options.supervised is not None
                and tessera.state is TesseraState.LISTENING
                and hasattr(tessera.instance, CHECKPOINT)
            ):
                put_first(tessera)
                taken.append(tessera)
        return taken

    def clear(self) -> None:
        """All has ended: nothing will be built again."""
        for tessera in self._runtime.worker.tesserae.values():
            if tessera.options.supervised is not None:
                self._remove(tessera.options.supervised.uid)

    # -- on the thread where methods run -----------------------------------------------

    def take(self, task: Task) -> None:
        """Run a call that asks for one.

        Raises:
            ValueError: it is no tessera that is built again.
            SerializationError: the state cannot be pickled.
            OSError: it cannot be written; the one before is as it was.
        """
        tessera = task.tessera
        supervised, label = tessera.options.supervised, tessera.options.name
        if supervised is None:
            raise ValueError(f"{label} is not built again: nobody would read it")
        if task.caller:
            self._save(supervised.uid, label, getattr(tessera.instance, CHECKPOINT)())
            return
        try:
            self._save(supervised.uid, label, getattr(tessera.instance, CHECKPOINT)())
        except Exception as error:  # nobody asked for it, so nobody gets the error
            logger.warning(
                "%s has no new checkpoint, the last one stands: %s: %s",
                label,
                type(error).__name__,
                error,
            )

    def restore(self, task: Task, instance: Any) -> None:
        """Give an object that was built again the state of the last one.

        Raises:
            MosaicError: what there is of it cannot be read.
        """
        restore = getattr(instance, RESTORE, None)
        supervised, label = task.tessera.options.supervised, task.tessera.options.name
        if restore is None or supervised is None:
            return
        found = self._load(supervised.uid, label)
        if found is None:
            logger.warning(
                "%s was built again without a checkpoint, as its constructor makes it: "
                "there is none in %s; where there are several hosts, give them one "
                "directory by the option checkpoint_directory",
                label,
                self._directory,
            )
        else:
            restore(found[0])

    # -- files -------------------------------------------------------------------------

    def _paths(self, uid: int) -> tuple[str, str]:
        base = os.path.join(self._directory, str(uid))
        return f"{base}.0", f"{base}.1"

    def _remove(self, uid: int) -> None:
        with contextlib.suppress(OSError):
            for name in os.listdir(self._directory):
                if name.partition(".")[0] == str(uid):
                    os.unlink(os.path.join(self._directory, name))
            os.rmdir(self._directory)  # if it was the last one

    def _save(self, uid: int, label: str, state: Any) -> None:
        from ..comms.by_value import dump_alone  # it is heavy, and few need it

        try:
            data = dump_alone(state)
        except Exception as error:
            raise SerializationError(
                f"what {label}.{CHECKPOINT} gave cannot be written down: "
                f"{type(error).__name__}: {error}; give plain values and arrays, no "
                "proxies"
            ) from error
        number = self._numbers.get(uid)
        if number is None:
            known = [found[0] for path in self._paths(uid) if (found := _read(path))]
            number = max(known, default=0)
        try:
            self._write(self._paths(uid)[(number + 1) % 2], number + 1, data)
        except OSError as error:
            code = errno.EIO if error.errno is None else error.errno
            raise OSError(
                code,
                f"no checkpoint of {label}: {len(data):,} bytes could not be written "
                f"to {self._directory} ({os.strerror(code)}); the one before is as it "
                "was: make room there, or set the option checkpoint_directory",
            ) from None
        self._numbers[uid] = number + 1

    def _write(self, path: str, number: int, data: bytes) -> None:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        self._check_directory()
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
        directory = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # else the rename may be lost where the data are not
        finally:
            os.close(directory)

    def _check_directory(self) -> None:
        """It is ours and closed to others: what is in it is unpickled."""
        found = os.lstat(self._directory)
        is_closed = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
        if not is_closed or found.st_uid != os.geteuid():
            raise PermissionError(
                errno.EPERM, "it is not a directory of ours with mode 0700"
            )

    def _load(self, uid: int, label: str) -> tuple[Any] | None:
        """The last state that can be read; None: there was none."""
        found = []
        damaged = []
        if os.path.lexists(self._directory):
            self._check_directory()
        for path in self._paths(uid):
            if not os.path.exists(path):
                continue
            one = _read(path)
            if one is None:
                damaged.append(path)
            else:
                found.append(one)
        if not found and damaged:
            raise MosaicError(
                f"{label} cannot be built again: its checkpoints are damaged "
                f"({', '.join(damaged)}); see whether the disk is full or broken, and "
                "make it again"
            )
        if damaged:
            logger.warning(
                "%s: the checkpoint %s is damaged; it goes on with number %d",
                label,
                damaged[0],
                found[0][0],
            )
        if not found:
            return None
        number, data = max(found)
        self._numbers[uid] = number
        return (pickle.loads(data),)


def _checksum(number: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(number.to_bytes(8, "little")))


def _read(path: str) -> tuple[int, bytes] | None:
    """The number and the state of a file; None: there is none that is whole."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        return None
    if len(content) < _HEADER.size:
        return None
    magic, number, size, checksum = _HEADER.unpack_from(content)
    data = content[_HEADER.size :]
    if magic != _MAGIC or size != len(data) or checksum != _checksum(number, data):
        return None
    return number, data


def put_first(tessera: Tessera) -> None:
    """Take a checkpoint that nobody has called for, before all that waits."""
    submit = wire.Submit(0, tessera.uid, 0, CHECKPOINT, NOTHING)
    task = received(submit, 0, tessera)
    task.released = True
    task.move(READY)
    tessera.put_first(task)


class _NoLanes(dict[str, int]):
    """Hides from who starts many calls at once which lane they have: see Autosave."""

    def get(self, *_: Any) -> Any:
        return None


class Autosave:
    """The Runner of one tessera, which counts: now and then a checkpoint goes between.

    Args:
        runner: that really runs its calls.
        tessera: whose.
        loop: on which calls are started.
    """

    def __init__(
        self, runner: Runner, tessera: Tessera, loop: asyncio.AbstractEventLoop
    ) -> None:
        supervised = tessera.options.supervised
        assert supervised is not None, "asked for"
        self._runner = runner
        self._tessera = tessera
        self._loop = loop
        self._calls = supervised.checkpoint_calls
        self._seconds = supervised.checkpoint_s
        self._started = 0  # since the last one
        self._timer: asyncio.TimerHandle | None = None
        self._lanes: dict[str, int] = {}
        tessera.runner = self

    def built(self) -> None:
        """From now on calls come: each of them by way of here."""
        self._tessera.lanes = _NoLanes()

    def lane(self, tessera: Tessera, method: str, /) -> int:
        lane = self._lanes.get(method)
        if lane is None:
            lane = self._lanes[method] = self._runner.lane(tessera, method)
        return lane

    def start(self, task: Task, /) -> None:
        self._runner.start(task)
        if task.method == CHECKPOINT:
            return
        self._started += 1
        if self._calls and self._started >= self._calls:
            self._take()
        elif self._seconds and self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._take)

    def start_run(self, run: list[Task], /) -> None:
        for task in run:
            self.start(task)

    def construct(self, task: Task, /) -> None:
        self._runner.construct(task)

    def _take(self) -> None:
        """Put a checkpoint before all that waits."""
        self.close()
        self._started = 0
        if self._tessera.state is TesseraState.LISTENING:
            put_first(self._tessera)

    def close(self) -> None:
        """No timer is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
