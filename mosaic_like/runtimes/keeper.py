"""The warehouse's side of segments: keeps them open, says where they are, frees them.

What to do is decided in ``core/store.py``, who holds what in ``core/holders.py``. Here
are the descriptors and the messages, and the ledger of the host is kept here. What is
spilled goes under the number that its memory had: who opens that finds the file.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from .. import ids
from ..comms import messages as wire
from ..comms.serialization import Payload
from ..core.budget import Rows
from ..core.store import Answer, Close, Forget, Missing, Return, Store
from ..errors import ProtocolError
from ..sizes import size_text
from . import spill
from .ledger import OwnLedger
from .resources import memory
from .saying import say
from .segments import open_place, place_of

if TYPE_CHECKING:
    from ..core.store import Effect
    from .actor import ActorRuntime

logger = logging.getLogger(__name__)

MEMORY_PART = 0.6  # of what this host allows, if the budget was not given
_AGAIN_S = 5.0  # after which it is tried to spill again where that has failed


class Keeper:
    """Makes a runtime the owner of its host's segments.

    Args:
        runtime: that has joined; its handlers of these messages are set here.
        directory: the run directory.

    Attributes:
        directory: to spill to; empty: there is none.
    """

    def __init__(self, runtime: ActorRuntime, directory: str = "") -> None:
        self._runtime = runtime
        config = runtime.config
        if config.spill_directory is None:
            self.directory = spill.default_directory(directory)
        else:
            self.directory = config.spill_directory
        self.ledger: OwnLedger | None
        self._rows: Rows | None
        self.ledger, self._rows = self._own_ledger()
        self._writer = spill.Writer(self.directory, runtime.post, self._written)
        self._jobs: dict[int, spill.Job] = {}  # by uid of what is being written
        self._warned = False
        self._not_before_s = 0.0
        self._is_closed = False  # what others sent before may still arrive
        worker = runtime.worker
        self.store = Store(worker.kept)
        worker.kept_freed = self._freed
        self._fds: dict[int, int] = {}  # by uid
        self._files: set[int] = set()  # of these, those that are files
        self._on_lost = runtime.handlers[wire.Lost]
        runtime.handlers.update(
            {
                wire.Adopt: self._adopt,
                wire.Locate: self._locate,
                wire.Lost: self._lost,
            }
        )

    def _own_ledger(self) -> tuple[OwnLedger, Rows] | tuple[None, None]:
        """Without it nothing is limited, and all else works."""
        try:
            ledger = OwnLedger()
        except OSError:
            return None, None
        try:
            ledger.limits = self._limits()
        except (ImportError, OSError):  # of what asks how much memory there is
            ledger.close()
            return None, None
        rows = Rows(ledger)
        row = rows.give(self._runtime.incarnation)
        self._runtime.sharing.account.attach(row, lambda: ledger)
        return ledger, rows

    def place(self, uid: int) -> wire.Place | None:
        """Where a segment that is kept here can be opened; None if it is not."""
        return self._place(uid) if uid in self._fds else None

    def _place(self, uid: int) -> wire.Place:
        fd = self._fds[uid]
        return spill.file_place(fd) if uid in self._files else place_of(fd)

    def _limits(self) -> tuple[int, int]:
        config = self._runtime.config
        limit, files = config.memory, config.spill_limit
        if limit is None:
            limit = int(memory().limit_bytes * MEMORY_PART)
        if not self.directory:
            files = 0
        elif files is None:
            files = spill.default_limit(self.directory)
        return limit, files

    def close(self) -> None:
        """The end: what is mapped elsewhere lives on there."""
        self._is_closed = True
        self._writer.close()
        if self.ledger is not None:
            self.ledger.close()
        while self._fds:
            os.close(self._fds.popitem()[1])

    # -- what comes --------------------------------------------------------------------

    def _adopt(self, message: wire.Adopt, buffers: Any, sender: int) -> None:
        uid = message.uid
        if uid and (ids.maker(uid) != sender or uid in self._runtime.worker.kept):
            raise ProtocolError("it is no new segment of its own")
        opened = True
        why = ""
        try:
            fd = open_place(message.place)
        except OSError as error:
            opened = False
            why = f"{self._runtime.uid} cannot open it: {error}"
        if not uid:
            # A runtime asks whether this works, before it relies on it.
            if opened:
                os.close(fd)
                self._give_row(sender)
            self._send(sender, wire.Located(0, None, why))
            return
        if opened:
            self._fds[uid] = fd
            if message.in_file:
                self._files.add(uid)
        else:
            logger.debug("%s: segment %d: %s", self._runtime.uid, uid, why)
        size = message.used or message.place.size
        self._do(self.store.adopt(uid, size, opened=opened, in_file=message.in_file))
        # Last but one: it may have been released already, and is freed by this.
        self._runtime.worker.holders.add(uid)
        self._spill()

    def _give_row(self, to: int) -> None:
        if self.ledger is None or self._rows is None or self._is_closed:
            return
        row = self._rows.give(to)
        if row:
            place = place_of(self.ledger.fd)
            self._send(to, wire.Ledger(place, row, self.directory))

    def _locate(self, message: wire.Locate, buffers: Any, sender: int) -> None:
        self._do(self.store.locate(message.uid, sender, content=message.content))

    def _lost(self, message: wire.Lost, buffers: Any, sender: int) -> None:
        self._do(self.store.lost(message.incarnation))
        if self._rows is not None:
            self._rows.take_back(message.incarnation)
        self._on_lost(message, buffers, sender)

    def _freed(self, uid: int) -> None:
        self._do(self.store.freed(uid))

    # -- memory ------------------------------------------------------------------------

    def _spill(self) -> None:
        """Begin to make room, if it is time and nothing is being written."""
        ledger = self.ledger
        runtime = self._runtime
        if ledger is None or self._jobs or not self.directory or runtime.stopping:
            return
        chosen = self.store.excess(ledger.limits[0])
        if not chosen or runtime.loop.time() < self._not_before_s:
            return
        store = self.store
        room = ledger.limits[1] - ledger.files
        jobs = []
        for uid in chosen:
            used = store.segments[uid].size
            room -= used
            if room < 0:
                self._cannot_spill(
                    f"all files may take {size_text(ledger.limits[1])} (spill_limit=)"
                )
                break
            fd = self._fds[uid]
            try:
                copy = os.dup(fd)
            except OSError as error:
                self._cannot_spill(str(error))
                break
            jobs.append(spill.Job(uid, copy, used, os.fstat(fd).st_size))
        store.spill(job.uid for job in jobs)
        self._jobs = {job.uid: job for job in jobs}
        self._count()
        if jobs:
            self._writer.start(jobs)

    def _written(self, job: spill.Job) -> None:
        """A file is there, or could not be made."""
        del self._jobs[job.uid]
        refused = job.file < 0
        if job.uid not in self._fds:  # closed meanwhile
            if not refused:
                os.close(job.file)
            return
        if refused:
            self._cannot_spill(str(job.error))
        else:
            fd = self._fds[job.uid]
            before = place_of(fd)
            os.dup2(job.file, fd, inheritable=False)
            os.close(job.file)
            self._files.add(job.uid)
            # Who has it mapped is to map the file instead, or the memory stays.
            told = wire.Spilled(
                job.uid, self._place(job.uid), before.device, before.inode
            )
            for holder in self._runtime.worker.holders.holders(job.uid):
                self._send(holder, told)
        self._do(self.store.written(job.uid, refused=refused))
        self._spill()

    def _cannot_spill(self, why: str) -> None:
        self._not_before_s = self._runtime.loop.time() + _AGAIN_S
        if not self._warned and not self._runtime.stopping:
            self._warned = True
            say(
                f"{self._runtime.uid} cannot spill values to {self.directory}: {why}; "
                "they stay in memory"
            )

    def _count(self) -> None:
        """What the warehouse has of the ledger: what no other counts."""
        if self.ledger is not None:
            files = self.store.spilled + sum(j.used for j in self._jobs.values())
            self.ledger.write(0, self.store.orphaned, files)

    # -- what is to be done ------------------------------------------------------------

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Answer(to, uid, False):
                    self._send(to, wire.Located(uid, self._place(uid)))
                case Answer(to, uid, True):
                    self._send_content(to, uid)
                case Missing(to, uid):
                    why = "the runtime that made it is gone, or cannot be reached"
                    self._send(to, wire.Located(uid, None, why))
                case Close(uid):
                    self._files.discard(uid)
                    os.close(self._fds.pop(uid))
                case Return(to, uid):
                    self._send(to, wire.Returned([uid]))
                case Forget(to, uid):
                    self._send(to, wire.Spilled(uid, self._place(uid)))
        self._count()

    def _send_content(self, to: int, uid: int) -> None:
        """To somebody who can open nothing of this process."""
        from .mapping import Maps, views

        place = self._place(uid)
        try:
            window = Maps().window(place, None, place.size)
        except OSError as error:
            self._send(to, wire.Located(uid, None, str(error)))
            return
        content = views([window], [(0, 0, place.size)])
        extra = wire.Extra(buffers=1)
        self._send(
            to, wire.Located(uid, place, "", extra), Payload(b"", buffers=content)
        )

    def _send(self, to: int, message: Any, payload: Any = None) -> None:
        outbox = self._runtime.outbox(to)
        if to == self._runtime.incarnation:  # which makes some itself
            self._runtime.handlers[type(message)](message, (), to)
        elif outbox is not None:
            outbox.send(message, payload)
