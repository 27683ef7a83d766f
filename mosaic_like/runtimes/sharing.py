"""Values in shared memory, as one runtime sends and receives them.

Writing: the large buffers of a payload are copied into a segment of this runtime's
stock, which the host's warehouse adopts. Reading: when a payload comes its segments are
opened where it says, at the maker's; if that is gone, the warehouse is asked where they
are. The right to a segment is a reference in the payload like any other, and is kept by
what is seen through its window. Where there is no warehouse yet, or no shared memory,
``store`` gives None and buffers travel as frames.

What is written is in ``stock.py``, what is mapped in ``mapping.py``, which is imported
with the first large value.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.messages import SEGMENT
from ..core.caller import Arrived
from .segments import aligned, create, place_of
from .stock import Stock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .actor import ActorRuntime
    from .mapping import Maps
    from .stock import Segment

logger = logging.getLogger(__name__)

# Of what another payload brought, a part that is smaller is copied rather than passed
# on: it would keep all the rest.
_PASSED_ON = 0.5
_TRIM_S = 5.0


class Held:
    """A segment that a payload mentions, or brought; the last to know it is a view."""

    __slots__ = ("_segment", "_sharing", "grant", "owner", "uid")
    kind = SEGMENT

    def __init__(self, sharing: Sharing, grant: Any, segment: Segment | None) -> None:
        self.uid: int = grant.uid
        self.owner: int = grant.owner
        self.grant = grant
        self._sharing = sharing
        self._segment = segment

    def __del__(self) -> None:
        if self._segment is not None:
            self._segment.held = False
        del self.grant
        self._sharing.dropped()


class Stored:
    """Buffers in segments, to be sent: see ``gathering.Stored``."""

    __slots__ = ("_bases", "_maps", "handles", "wire")

    def __init__(
        self,
        handles: tuple[Any, ...],
        shared: wire.SharedBuffers,
        maps: Maps,
        bases: list[Any],
    ) -> None:
        self.handles = handles
        self.wire = shared
        self._maps = maps
        self._bases = bases  # windows on those that came from others

    def views(self) -> tuple[memoryview, ...]:
        """For who reads them in this process, or cannot open segments."""
        from .mapping import views

        used = [0] * len(self.handles)
        for index, _, nbytes in self.wire.layout:
            used[index] += nbytes
        windows = [
            self._maps.window(place, handle, size) if base is None else base
            for base, place, handle, size in zip(
                self._bases, self.wire.places, self.handles, used, strict=True
            )
        ]
        return views(windows, self.wire.layout)


class Incoming:
    """The segments of a payload that came: windows, and places not opened yet."""

    __slots__ = ("handles", "missing", "used", "why", "windows", "wire")

    def __init__(self, handles: list[Held], shared: wire.SharedBuffers) -> None:
        self.handles = handles
        self.wire = shared
        self.used = [0] * len(handles)
        for index, _, nbytes in shared.layout:
            self.used[index] += nbytes
        self.windows: list[Any] = [None] * len(handles)
        self.missing = 0
        self.why = ""  # of what could not be found anywhere

    @property
    def nbytes(self) -> int:
        return sum(self.used)


class Sharing:
    """See the module; one for each runtime."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self.home = 0  # incarnation of the warehouse that adopts what is made here
        self._probe = -1
        self._stock = Stock()
        self._maps: Maps | None = None
        self._warned: set[str] = set()
        self._locating: dict[int, list[tuple[Arrived, int, Callable[[], None]]]] = {}
        self._prompted = False
        self._trimming = False
        self.bytes_passed_on = 0  # that would have been copied again
        runtime.handlers[wire.Located] = self._located
        runtime.handlers[wire.Returned] = self._returned

    # -- the warehouse -----------------------------------------------------------------

    def warehouse_changed(self) -> None:
        """The runtime has a warehouse, another one, or none."""
        warehouse = self._runtime.warehouse
        if warehouse is not None and warehouse.incarnation in self._known():
            return
        self.home = 0
        self._end_probe()
        if warehouse is None:
            return
        # Used only when it has said that it can open what this process has.
        outbox = self._runtime.outbox(warehouse.incarnation)
        if outbox is None:
            return
        try:
            self._probe = create(1)
            outbox.send(wire.Adopt(0, place_of(self._probe)))
        except OSError as error:
            self._end_probe()
            self._warn(str(error))

    def _known(self) -> tuple[int, ...]:
        """Of which nothing is to be asked; a warehouse keeps nothing of its own."""
        return self.home, self._runtime.incarnation

    def _end_probe(self) -> None:
        if self._probe >= 0:
            os.close(self._probe)
            self._probe = -1

    def member_lost(self, incarnation: int) -> None:
        """What only it could have said will not be said."""
        if self._stock.lost(incarnation, self._runtime.loop.time()):
            self._trim_soon()
        for uid, waiting in list(self._locating.items()):
            if any(arrived.shared.handles[i].owner == incarnation
                   for arrived, i, _ in waiting):  # fmt: skip
                cause = self._runtime.causes.get(incarnation)
                name = "the warehouse" if cause is None else cause[0].uid
                self._give_up(uid, f"{name}, which kept the value, is lost")

    def _warn(self, why: str) -> None:
        if why not in self._warned and not self._runtime.stopping:
            self._warned.add(why)
            logger.warning(
                "%s: large values are sent in messages, several times slower than by "
                "shared memory: %s",
                self._runtime.uid,
                why,
            )

    async def ready(self) -> None:
        """Wait until large values go through shared memory; on the loop's thread."""
        while not self.home:
            await self._runtime.membership()

    @property
    def bytes_copied(self) -> int:
        """Into segments, by this runtime."""
        return self._stock.bytes_copied

    # -- writing -----------------------------------------------------------------------

    def store(self, views: Sequence[memoryview], bases: Sequence[Any]) -> Stored | None:
        """Put buffers into shared memory; from any thread. See ``gathering.Segments``.

        Those that came in a segment, as a whole or nearly, are not copied again.
        """
        home = self.home
        if not home:
            return None
        from .mapping import Window, address_of

        maps = self._reading()
        handles: list[Any] = []
        windows: list[Any] = []
        places: list[wire.Place] = []
        layout: list[tuple[int, int, int]] = []
        parts: list[tuple[int, memoryview]] = []
        known: dict[int, int] = {}
        end = 0
        for view, base in zip(views, bases, strict=True):
            if isinstance(base, Window) and view.nbytes >= base.used * _PASSED_ON:
                index = known.get(base.handle.uid)
                if index is None:
                    index = known[base.handle.uid] = len(handles)
                    handles.append(base.handle)
                    places.append(base.place)
                    windows.append(base)
                offset = address_of(view) - base.mapping.address
                layout.append((index, offset, view.nbytes))
                self.bytes_passed_on += view.nbytes
            else:
                layout.append((-1, end, view.nbytes))
                parts.append((end, view))
                end += aligned(view.nbytes)
        if parts:
            made = self._make(home, parts, end)
            if made is None:
                return None
            layout = [(len(handles) if i < 0 else i, o, n) for i, o, n in layout]
            handles.append(made[0])
            places.append(made[1])
            windows.append(None)
        shared = wire.SharedBuffers(places, layout)
        return Stored(tuple(handles), shared, maps, windows)

    def _make(
        self, home: int, parts: list[tuple[int, memoryview]], nbytes: int
    ) -> tuple[Held, wire.Place] | None:
        runtime = self._runtime
        stock = self._stock
        uid = next(runtime.uids)
        try:
            segment = stock.take(uid, home, parts, nbytes)
        except OSError as error:
            self._warn(str(error))
            return None
        held = Held(self, runtime.grants.made(uid, home), segment)
        if runtime.on_loop:
            self._announce(uid, home, segment.place)
        else:
            runtime.post(self._announce, uid, home, segment.place)
        return held, segment.place

    def _announce(self, uid: int, home: int, place: wire.Place) -> None:
        outbox = self._runtime.outbox(home)
        if outbox is not None:
            outbox.send(wire.Adopt(uid, place))
        elif self._stock.lost(home, self._runtime.loop.time()):
            self._trim_soon()

    def _returned(self, message: wire.Returned, buffers: Any, sender: int) -> None:
        for uid in message.uids:
            self._stock.returned(uid, self._runtime.loop.time())
        self._trim_soon()

    # -- reading -----------------------------------------------------------------------

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
                handles.append(Held(self, grants[index], None))
                grants[index] = None
        incoming = Incoming(handles, extra.shared)
        arrived = Arrived(message.data, (), grants, 0)
        arrived.shared = incoming
        for index, place in enumerate(extra.shared.places):
            self._open(incoming, index, place)
        self._complete(arrived)
        self._trim_soon()
        return arrived

    def _open(self, incoming: Incoming, index: int, place: wire.Place) -> bool:
        now_s = self._runtime.loop.time()
        handle, used = incoming.handles[index], incoming.used[index]
        try:
            window = self._reading().window(place, handle, used, now_s)
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

    def _located(self, message: wire.Located, buffers: Any, sender: int) -> None:
        if not message.uid:
            self._greeted(message, sender)
            return
        waiting = self._locating.get(message.uid)
        if waiting is None:
            return
        if message.place is None:
            self._give_up(message.uid, message.why)
            return
        arrived, index, _ = waiting[0]
        handle = arrived.shared.handles[index]
        if not buffers and not self._open(arrived.shared, index, message.place):
            self._ask(handle, content=True)
            return
        del self._locating[message.uid]
        for arrived, index, then in waiting:
            incoming = arrived.shared
            if buffers:
                incoming.windows[index] = memoryview(buffers[0])
            elif incoming.windows[index] is None:
                self._open(incoming, index, message.place)
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

    def _greeted(self, message: wire.Located, sender: int) -> None:
        self._end_probe()
        warehouse = self._runtime.warehouse
        if message.why:
            self._warn(message.why)
        elif warehouse is not None and warehouse.incarnation == sender:
            self.home = sender
            self._runtime._membership_changed()

    # -- what is kept ------------------------------------------------------------------

    def _reading(self) -> Maps:
        if self._maps is None:
            from .mapping import Maps

            self._maps = Maps()
        return self._maps

    def dropped(self) -> None:
        """The last view on a segment has gone; on any thread, in a collection too.

        Told at once rather than with the next tick: it is memory that somebody is
        about to need again.
        """
        runtime = self._runtime
        if self._prompted or runtime.peers.closed:
            return
        self._prompted = True
        runtime.post(self._tell_dropped)

    def _tell_dropped(self) -> None:
        self._prompted = False
        self._runtime.on_tick()
        for peer in list(self._runtime.peers.by_incarnation.values()):
            if peer.releases:
                peer.flush()

    def _trim_soon(self) -> None:
        if not self._trimming and not self._runtime.peers.closed:
            self._trimming = True
            runtime = self._runtime
            runtime.loop.call_later(_TRIM_S, self._trim, context=runtime.context)

    def _trim(self) -> None:
        self._trimming = False
        before_s = self._runtime.loop.time() - _TRIM_S
        more = self._stock.trim(before_s)
        if self._maps is not None and self._maps.trim(before_s):
            more = True
        if more:
            self._trim_soon()

    def close(self) -> None:
        """The end of the runtime: what was mapped by others lives on there."""
        self._end_probe()
        self.home = 0
        self._stock.close()
        if self._maps is not None:
            self._maps.trim(float("inf"))
