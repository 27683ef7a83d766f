"""The count that a process has of a tessera, which all proxies there share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms.messages import TESSERA
from ..ids import maker

if TYPE_CHECKING:
    from ..core.call import Call, Stream
    from .runtime import Runtime


class TesseraHandle:
    """The count that a process has of a tessera: its end is what the owner is told."""

    __slots__ = ("call", "grant", "runtime", "stream", "uid")
    kind = TESSERA

    def __init__(
        self,
        runtime: Runtime,
        uid: int,
        stream: Stream,
        call: Call | None,
        grant: Any,
    ) -> None:
        self.runtime = runtime
        self.uid = uid
        self.stream = stream
        self.call = call  # the construction, if it was made here
        self.grant = grant  # None: made here

    @property
    def owner(self) -> int:
        return self.stream.owner

    def __del__(self) -> None:
        if self.grant is None:
            runtime = self.runtime
            runtime.dropped.append(self)
            if not runtime.peers.ticking:
                runtime._wake_tick()


class SupervisedHandle(TesseraHandle):
    """Of a tessera that is built again: its maker counts it, wherever it is.

    Args:
        followed: what this runtime knows of it; it has the stream, which changes.
        construction: if it was made here.
        grant: the right to it; None while it is asked who has its name.
    """

    __slots__ = ("__weakref__", "followed")

    def __init__(
        self, runtime: Runtime, followed: Any, construction: Call | None, grant: Any
    ) -> None:
        super().__init__(runtime, followed.uid, followed.stream, construction, grant)
        self.followed = followed

    @property
    def owner(self) -> int:
        return self.stream.owner if self.grant is None else maker(self.uid)

    @property
    def restarting(self) -> bool:
        """A life was lost, and the next one has no place that is known here."""
        stream = self.stream
        return stream.outbox is None and self.followed.follower.life >= 0
