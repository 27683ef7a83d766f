"""The warehouse's side of segments: keeps them open, says where they are, frees them.

What to do is decided in ``core/store.py``, who holds what in ``core/holders.py``. Here
are the descriptors and the messages.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.serialization import Payload
from ..core.store import Answer, Close, Forget, Missing, Return, Store
from .segments import open_place, place_of

if TYPE_CHECKING:
    from ..core.store import Effect
    from .actor import ActorRuntime

logger = logging.getLogger(__name__)


class Keeper:
    """Makes a runtime the owner of its host's segments.

    Args:
        runtime: that has joined; its handlers of these messages are set here.
    """

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        worker = runtime.worker
        self.store = Store(worker.kept)
        worker.kept_freed = self._freed
        self._fds: dict[int, int] = {}  # by uid
        self._on_lost = runtime.handlers[wire.Lost]
        runtime.handlers.update(
            {
                wire.Adopt: self._adopt,
                wire.Locate: self._locate,
                wire.Lost: self._lost,
            }
        )
        with contextlib.suppress(OSError, ValueError):
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def place(self, uid: int) -> wire.Place | None:
        """Where a segment that is kept here can be opened; None if it is not."""
        fd = self._fds.get(uid)
        return None if fd is None else place_of(fd)

    def close(self) -> None:
        """The end: what is mapped elsewhere lives on there."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    # -- what comes --------------------------------------------------------------------

    def _adopt(self, message: wire.Adopt, buffers: Any, sender: int) -> None:
        uid = message.uid
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
            self._send(sender, wire.Located(0, None, why))
            return
        if opened:
            self._fds[uid] = fd
        else:
            logger.debug("%s: segment %d: %s", self._runtime.uid, uid, why)
        self._do(self.store.adopt(uid, message.place.size, opened=opened))
        # Last: it may have been released already, and is freed by this.
        self._runtime.worker.holders.add(uid)

    def _locate(self, message: wire.Locate, buffers: Any, sender: int) -> None:
        self._do(self.store.locate(message.uid, sender, content=message.content))

    def _lost(self, message: wire.Lost, buffers: Any, sender: int) -> None:
        self._do(self.store.lost(message.incarnation))
        self._on_lost(message, buffers, sender)

    def _freed(self, uid: int) -> None:
        self._do(self.store.freed(uid))

    # -- what is to be done ------------------------------------------------------------

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Answer(to, uid, False):
                    self._send(to, wire.Located(uid, place_of(self._fds[uid])))
                case Answer(to, uid, True):
                    self._send_content(to, uid)
                case Missing(to, uid):
                    why = "the runtime that made it is gone, or cannot be reached"
                    self._send(to, wire.Located(uid, None, why))
                case Close(uid):
                    os.close(self._fds.pop(uid))
                case Return(to, uid):
                    self._send(to, wire.Returned([uid]))
                case Forget():
                    raise AssertionError("nothing is spilled yet")

    def _send_content(self, to: int, uid: int) -> None:
        """To somebody who can open nothing of this process."""
        from .mapping import Maps, views

        place = place_of(self._fds[uid])
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
        if outbox is not None:
            outbox.send(message, payload)
