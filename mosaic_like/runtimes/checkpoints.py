"""Checkpoints of tesserae: when they are taken, and when they are forgotten.

How they are written and read is in ``checkpoint_files``. They are removed when their
tessera is closed in order. They stay as long as it is built again; and where the user
has named a directory also when it has ended otherwise, since that is what is left of
its work. What the methods of the user give and take is their matter.
"""

from __future__ import annotations

import errno
import logging
import os
import pickle
import time
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.task import READY, received
from ..core.tessera import LOOP, MAIN, THREAD, TesseraState
from ..errors import MosaicError, SerializationError
from ..proxies.methods import NOTHING
from ..proxies.restarts import CHECKPOINT, RESTORE
from .checkpoint_files import PASSING, CheckpointFiles, Found

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from ..core.task import Task
    from ..core.tessera import Runner, Tessera
    from .actor import ActorRuntime

logger = logging.getLogger(__name__)

_READ_S = 5.0  # that it is tried to read one, where the process can open no file
_READ_AGAIN_S = 0.05
_ALIVE = (TesseraState.LISTENING, TesseraState.CLOSING)


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
        named = runtime.config.checkpoint_directory
        self._files = CheckpointFiles(named or run_directory, cluster)
        self._is_named = named is not None
        self._keeps = False
        # Tesserae, by the uid of their life here: nobody had asked for the last one.
        self.failed: set[int] = set()
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
        if supervised is None or tessera.state is not TesseraState.STOPPED:
            return
        self._numbers.pop(supervised.uid, None)
        self.failed.discard(tessera.uid)
        departing = self._runtime.departing
        moves = departing is not None and departing.state.closing
        again = self._runtime.restarts.retired.get(tessera.uid)
        is_left = again is False and self._is_named  # its users did not end it
        if not (moves or again or is_left or self._keeps):
            self._files.remove(supervised.uid)

    def take_all(self, tesserae: Iterable[Tessera]) -> list[Task]:
        """Of all that are to go on elsewhere; the calls that do it."""
        return [put_first(each) for each in tesserae if self.is_taken_of(each)]

    @staticmethod
    def is_taken_of(tessera: Tessera) -> bool:
        """Whether there can be one of it at this moment."""
        return (
            tessera.options.supervised is not None
            and tessera.state is TesseraState.LISTENING
            and hasattr(tessera.instance, CHECKPOINT)
        )

    def keep(self) -> None:
        """The cluster is to end before its work has: nothing is removed any more."""
        self._keeps = self._is_named

    def kept(self, tessera: Tessera) -> str:
        """What ``read_checkpoint`` takes of one that is built again; empty: none."""
        supervised = tessera.options.supervised
        return "" if supervised is None else self._files.kept(supervised.uid)

    def clear(self) -> None:
        """All that lives here ends with the cluster, also what could not be closed."""
        for tessera in self._runtime.worker.tesserae.values():
            supervised = tessera.options.supervised
            is_alive = tessera.state in _ALIVE and not self._keeps
            if supervised is not None and is_alive:
                self._files.remove(supervised.uid)

    # -- on the thread where methods run -----------------------------------------------

    def take(self, task: Task) -> None:
        """Run a call that asks for one.

        Raises:
            ValueError: it is no tessera that is built again.
            SerializationError: the state cannot be pickled.
            OSError: it cannot be written; the one before is as it was.
        """
        if task.caller:
            self._take(task.tessera)
            return
        try:
            self._take(task.tessera)
            self.failed.discard(task.tessera.uid)
        except (Exception, SystemExit) as error:  # nobody asked for it, or gets this
            self.failed.add(task.tessera.uid)
            logger.warning(
                "%s has no new checkpoint, the last one stands: %s: %s",
                task.tessera.options.name,
                type(error).__name__,
                error,
            )

    def _take(self, tessera: Tessera) -> None:
        supervised, label = tessera.options.supervised, tessera.options.name
        if supervised is None:
            raise ValueError(f"{label} is not built again: nobody would read it")
        state = getattr(tessera.instance, CHECKPOINT)()
        # Its home does not wait for ever: the next life may write there already.
        if tessera.uid not in self._runtime.restarts.retired:
            self._save(supervised.uid, label, state)

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
                self._files.directory,
            )
        else:
            restore(found[0])

    # -- files -------------------------------------------------------------------------

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
        try:
            number = self._numbers.get(uid)
            if number is None:
                number = self._files.read(uid).number
            self._files.write(uid, number + 1, data)
        except OSError as error:
            code = errno.EIO if error.errno is None else error.errno
            why = error.strerror or os.strerror(code)
            raise OSError(
                code,
                f"no checkpoint of {label}: {len(data):,} bytes could not be written "
                f"to {self._files.directory} ({why}); the one before is "
                "as it was: make room there, or set the option checkpoint_directory",
            ) from None
        self._numbers[uid] = number + 1

    def _find(self, uid: int, label: str) -> Found:
        """What is there; in the constructor, which may wait for it."""
        deadline_s = time.monotonic() + _READ_S
        while True:
            try:
                return self._files.read(uid)
            except OSError as error:
                if error.errno not in PASSING:
                    raise
                if time.monotonic() > deadline_s:
                    raise OSError(
                        error.errno,
                        f"{label} cannot be built again: its checkpoints, "
                        f"{self._files.path(uid)}.*, could not be read in "
                        f"{_READ_S:g} s ({error.strerror}); see to that, and make it "
                        "again",
                    ) from None
            time.sleep(_READ_AGAIN_S)

    def _load(self, uid: int, label: str) -> tuple[Any] | None:
        """The last state that can be read; None: there was none."""
        found = self._find(uid, label)
        if found.unusable:
            raise MosaicError(
                f"{label} cannot be built again: its checkpoints are damaged "
                f"({', '.join(found.damaged)}); see whether the disk is full or "
                "broken, and make it again"
            )
        if not found.number:
            return None
        if found.damaged:
            logger.warning(
                "%s: the checkpoint %s is damaged; it goes on with number %d",
                label,
                found.damaged[0],
                found.number,
            )
        self._numbers[uid] = found.number
        return (pickle.loads(found.data),)


def put_first(tessera: Tessera) -> Task:
    """Take a checkpoint that nobody has called for, before all that waits."""
    submit = wire.Submit(0, tessera.uid, 0, CHECKPOINT, NOTHING)
    task = received(submit, 0, tessera)
    task.released = True
    task.move(READY)
    tessera.put_first(task)
    return task


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
        tessera = self._tessera
        if self._seconds and task.lane in (MAIN, THREAD) and tessera.limit == 1:
            tessera.lane = LOOP  # or more would go ahead into the queue of that thread
        if task.method == CHECKPOINT:
            return
        self._started += 1
        if self._calls and self._started >= self._calls:
            self._take()
        elif self._seconds and self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._take)
        elif self._timer is not None and self._timer.when() <= self._loop.time():
            self._take()  # calls that run on the loop have held it

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
