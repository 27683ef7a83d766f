"""Values in shared memory that come to a runtime: opened where they are, or sought.

When a payload comes its segments are opened where it says, at the maker's. If that is
gone, whoever needs the value has the warehouse asked where they are; until then the
value counts as away. What is seen through a window keeps the right to its segment.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.gathering import is_apart
from ..comms.messages import SEGMENT
from ..core.payloads import Arrived

if TYPE_CHECKING:
    from collections.abc import Callable

    from .actor import ActorRuntime
    from .mapping import Maps
    from .stock import Segment

logger = logging.getLogger(__name__)

# Of the memory of the host, what one runtime keeps mapped that it does not use.
_KEPT_PART = 16


class Held:
    """A segment that a payload mentions, or brought; the last to know it is a view."""

    __slots__ = ("_dropped", "_segment", "grant", "owner", "uid")
    kind = SEGMENT

    def __init__(
        self, dropped: Callable[[], None], grant: Any, segment: Segment | None = None
    ) -> None:
        self.uid: int = grant.uid
        self.owner: int = grant.owner
        self.grant = grant
        self._dropped = dropped
        self._segment = segment

    @property
    def place(self) -> wire.Place | None:
        """Where it is by now, if it was made here."""
        return None if self._segment is None else self._segment.place

    def __del__(self) -> None:
        if self._segment is not None:
            self._segment.held = False
        del self.grant
        self._dropped()


class Incoming:
    """The segments of a payload that came: windows, and places not opened yet.

    Args:
        handles: of the segments.
        shared: where they are, and what is in them.
        data: the payload's bytes.
    """

    __slots__ = (
        "handles",
        "missing",
        "nbytes_copied",
        "used",
        "why",
        "windows",
        "wire",
    )

    def __init__(
        self, handles: list[Held], shared: wire.SharedBuffers, data: bytes
    ) -> None:
        self.handles = handles
        self.wire = shared
        # By who reads it: what is built of a pickle is no view.
        self.nbytes_copied = 0
        if is_apart(data) and shared.layout:
            self.nbytes_copied = shared.layout[0][2]
        self.used = [0] * len(handles)
        for index, _, nbytes in shared.layout:
            self.used[index] += nbytes
        self.windows: list[Any] = [None] * len(handles)
        self.missing = 0
        self.why = ""  # of what could not be found anywhere

    @property
    def nbytes(self) -> int:
        return sum(self.used)


class Reader:
    """Takes the payloads of one runtime that are in segments; on the loop's thread.

    Args:
        runtime: whose.
        dropped: called when the last view on a segment has gone; on any thread.
    """

    def __init__(self, runtime: ActorRuntime, dropped: Callable[[], None]) -> None:
        self._runtime = runtime
        self._dropped = dropped
        self._maps: Maps | None = None
        self._lock = threading.Lock()  # for making it
        self._locating: dict[int, list[tuple[Arrived, int, Callable[[], None]]]] = {}

    def maps(self) -> Maps:
        """What is mapped; from any thread."""
        if self._maps is None:
            from .mapping import Maps

            with self._lock:
                if self._maps is None:
                    limit = self._runtime.sharing.account.limits[0]
                    self._maps = Maps(min(Maps.KEPT_BYTES, limit // _KEPT_PART))
        return self._maps

    def spilled(self, message: wire.Spilled) -> None:
        """What is seen of a segment here is to be the file that it is in now."""
        if self._maps is None or not message.inode:
            return
        try:
            self._maps.move(message.device, message.inode, message.place)
        except OSError as error:
            logger.debug("%s: segment %d: %s", self._runtime.uid, message.uid, error)

    def trim(self, before_s: float) -> bool:
        """Let go of what was not opened since; whether something is kept still."""
        return self._maps is not None and self._maps.trim(before_s)

    def member_lost(self, incarnation: int) -> None:
        """What only it could have said will not be said."""
        for uid, waiting in list(self._locating.items()):
            arrived, index, _ = waiting[0]
            if arrived.shared.handles[index].owner == incarnation:
                cause = self._runtime.causes.get(incarnation)
                name = "the warehouse" if cause is None else cause[0].uid
                self._give_up(uid, f"{name}, which kept the value, is lost")

    def arrived(self, message: Any, grants: Any) -> Arrived:
        """What stands for a payload whose buffers are in segments.

        Args:
            message: that brought it.
            grants: of its references, by index; those of segments are taken out, since
                the views keep them.
        """
        extra = message.extra
        handles = []
        grants = list(grants)
        for index, reference in enumerate(extra.references):
            if reference.kind == SEGMENT:
                handles.append(Held(self._dropped, grants[index]))
                grants[index] = None
        incoming = Incoming(handles, extra.shared, message.data)
        arrived = Arrived(message.data, (), grants, 0)
        arrived.shared = incoming
        for index, place in enumerate(extra.shared.places):
            self.open(incoming, index, place)
        self._complete(arrived)
        return arrived

    def open(self, incoming: Incoming, index: int, place: wire.Place) -> bool:
        """Open one of its segments there, if that can be."""
        now_s = self._runtime.loop.time()
        handle, used = incoming.handles[index], incoming.used[index]
        try:
            window = self.maps().window(place, handle, used, now_s)
        except OSError as error:
            logger.debug("%s: segment %d: %s", self._runtime.uid, handle.uid, error)
            return False
        incoming.windows[index] = window
        return True

    def _complete(self, arrived: Arrived) -> None:
        """Its buffers, if all of its segments are open; else it counts as away."""
        incoming = arrived.shared
        if any(window is None for window in incoming.windows):
            arrived.size = incoming.nbytes
            return
        from .mapping import views

        arrived.buffers = views(incoming.windows, incoming.wire.layout)
        arrived.size = 0

    def locate(self, arrived: Arrived, then: Callable[[], None]) -> None:
        """Ask the warehouse for what could not be opened; on the loop's thread.

        Args:
            arrived: that has come with ``size``.
            then: called when its buffers are here, or when ``shared.why`` says why they
                never will be.
        """
        incoming = arrived.shared
        for index, window in enumerate(incoming.windows):
            if window is None:
                incoming.missing += 1
                handle = incoming.handles[index]
                waiting = self._locating.setdefault(handle.uid, [])
                waiting.append((arrived, index, then))
        for handle in {h.uid: h for h in incoming.handles}.values():
            if handle.uid in self._locating:
                self._ask(handle, content=False)

    def _ask(self, handle: Held, *, content: bool) -> None:
        outbox = self._runtime.outbox(handle.owner)
        if outbox is not None:
            outbox.send(wire.Locate(handle.uid, content))
        elif self._runtime.is_lost(handle.owner):
            why = "the warehouse that kept the value is lost"
            # Not now: who asks is not ready for the answer.
            self._runtime.loop.call_soon(
                self._give_up, handle.uid, why, context=self._runtime.context
            )
        else:
            self._runtime.peers.expect(handle.owner, wire.Locate(handle.uid, content))

    def located(self, message: wire.Located, buffers: Any) -> None:
        """The warehouse has answered."""
        waiting = self._locating.get(message.uid)
        if waiting is None:
            return
        if message.place is None:
            self._give_up(message.uid, message.why)
            return
        arrived, index, _ = waiting[0]
        handle = arrived.shared.handles[index]
        if not buffers and not self.open(arrived.shared, index, message.place):
            self._ask(handle, content=True)
            return
        del self._locating[message.uid]
        for arrived, index, then in waiting:
            incoming = arrived.shared
            if buffers:
                incoming.windows[index] = memoryview(buffers[0])
            elif incoming.windows[index] is None:
                self.open(incoming, index, message.place)
            self._found(arrived, then)

    def _give_up(self, uid: int, why: str) -> None:
        for arrived, _, then in self._locating.pop(uid, ()):
            arrived.shared.why = why
            self._found(arrived, then)

    def _found(self, arrived: Arrived, then: Callable[[], None]) -> None:
        incoming = arrived.shared
        incoming.missing -= 1
        if not incoming.missing:
            if not incoming.why:
                self._complete(arrived)
            then()
