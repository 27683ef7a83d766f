"""Values in shared memory that a runtime sends, and its dealings with its warehouse.

The large buffers of a payload are copied into a segment of this runtime's stock, which
the host's warehouse adopts. The right to it is a reference in the payload like any
other. Where there is no warehouse yet, or no shared memory, ``store`` gives None and
buffers travel as frames. What comes is in ``incoming.py``, what is written in
``stock.py``, what is mapped in ``mapping.py``, imported with the first large value.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from .. import ids
from ..comms import messages as wire
from ..comms.checks import check_extra
from ..comms.gathering import Payload
from ..sizes import size_text
from ..text import printable
from .incoming import Held, Reader
from .ledger import open_ledger
from .segments import aligned, create, place_of
from .stock import Stock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.budget import Account
    from ..core.payloads import Arrived
    from .actor import ActorRuntime
    from .mapping import Maps

logger = logging.getLogger(__name__)

# Of what another payload brought, a part that is smaller is copied rather than passed
# on: it would keep all the rest.
_PASSED_ON = 0.5
_WARNINGS = 20  # different ones
_TRIM_S = 5.0


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
            self._maps.window(handle.place or place, handle, size)
            if base is None
            else base
            for base, place, handle, size in zip(
                self._bases, self.wire.places, self.handles, used, strict=True
            )
        ]
        return views(windows, self.wire.layout)


class Sharing:
    """See the module; one for each runtime."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self.home = 0  # incarnation of the warehouse that adopts what is made here
        self._probe = -1
        self._asked = 0  # incarnation of the one that is to open it
        self._stock = Stock(no_room=self._warn_of_room)
        self._reader = Reader(runtime, self.dropped)
        self.locate = self._reader.locate
        self._warned: set[str] = set()
        self._prompted = False
        self._trimming = False
        self.bytes_passed_on = 0  # that would have been copied again
        runtime.handlers[wire.Located] = self._located
        runtime.handlers[wire.Returned] = self._returned
        runtime.handlers[wire.Ledger] = self._on_ledger
        runtime.handlers[wire.Spilled] = self._spilled

    # -- the warehouse -----------------------------------------------------------------

    def warehouse_changed(self) -> None:
        """The runtime has a warehouse, another one, or none."""
        if not self._runtime.config.segments or self.home == self._runtime.incarnation:
            return
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
            self._asked = warehouse.incarnation
            outbox.send(wire.Adopt(0, place_of(self._probe)))
        except OSError as error:
            self._end_probe()
            self._warn(str(error))

    def keep_own(self, directory: str) -> None:
        """This runtime is the warehouse: what it makes itself is adopted here.

        Args:
            directory: to spill to; empty: there is none.
        """
        if self._runtime.config.segments:
            self._stock.directory = directory
            self.home = self._runtime.incarnation

    def _known(self) -> tuple[int, ...]:
        """Of which nothing is to be asked; a warehouse keeps nothing of its own."""
        return self.home, self._asked or self.home, self._runtime.incarnation

    def _end_probe(self) -> None:
        self._asked = 0
        if self._probe >= 0:
            os.close(self._probe)
            self._probe = -1

    def member_lost(self, incarnation: int) -> None:
        """What only it could have said will not be said."""
        if self._stock.lost(incarnation, self._runtime.loop.time()):
            self._trim_soon()
        self._reader.member_lost(incarnation)

    def _warn(self, why: str) -> None:
        # The warehouse keeps what comes as it came then; who sends it says why.
        if len(self._warned) >= _WARNINGS or self.home == self._runtime.incarnation:
            return
        if why not in self._warned and not self._runtime.stopping:
            self._warned.add(why)
            logger.warning(
                "%s: large values are sent in messages, several times slower than by "
                "shared memory: %s",
                self._runtime.uid,
                printable(why),
            )

    def _warn_of_room(self, why: str) -> None:
        if "room" not in self._warned and not self._runtime.stopping:
            self._warned.add("room")
            memory = self._stock.account.limits[0]
            logger.warning(
                "%s: large values take all the memory that they may on this host, %s "
                "(option memory=), and cannot go to disk: %s; from now on they take "
                "more",
                self._runtime.uid,
                size_text(memory),
                why,
            )

    @property
    def account(self) -> Account:
        """Of what this runtime has in memory and in files."""
        return self._stock.account

    def _on_ledger(self, message: wire.Ledger, buffers: Any, sender: int) -> None:
        place = message.place
        self._stock.directory = message.directory
        self.account.attach(message.row, lambda: open_ledger(place))

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

        maps = self._reader.maps()
        handles: list[Any] = []
        windows: list[Any] = []
        places: list[wire.Place] = []
        layout: list[tuple[int, int, int]] = []
        parts: list[tuple[int, memoryview]] = []
        known: dict[int, int] = {}
        end = 0
        for view, base in zip(views, bases, strict=True):
            if (
                isinstance(base, Window)
                and view.nbytes >= base.used * _PASSED_ON
                and self.is_kept(base.handle)
            ):
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

    def in_segments(self, payload: Payload) -> Payload | None:
        """The same with its buffers in shared memory; None: there is none now."""
        if not payload.buffers:
            return None
        views = [memoryview(buffer) for buffer in payload.buffers]
        try:
            stored = self.store(views, [None] * len(views))
        # It is larger than all that there may be, and is here; or what copies it
        # cannot be loaded.
        except (MemoryError, OSError):
            return None
        if stored is None:
            return None
        handles = (*payload.handles, *stored.handles)
        return Payload(payload.data, handles, payload.definitions, (), stored)

    def is_kept(self, handle: Any) -> bool:
        """By a warehouse that is there, so that others can be given a right to it.

        A view may have outlived its warehouse, and even its cluster, whose uids are
        used again by the next. Where its maker has died the warehouse may have come too
        late to open it.
        """
        runtime = self._runtime
        return (
            handle.owner in runtime.members
            and ids.maker(handle.uid) not in runtime.causes
            and handle.grant.is_of(runtime.grants)
        )

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
        held = Held(self.dropped, runtime.grants.made(uid, home), segment)
        place = segment.place
        adopt = wire.Adopt(uid, place, segment.touched, segment.in_file)
        if runtime.on_loop:
            self._announce(home, adopt)
        else:
            runtime.post(self._announce, home, adopt)
        return held, place

    def _announce(self, home: int, adopt: wire.Adopt) -> None:
        runtime = self._runtime
        outbox = runtime.outbox(home)
        if home == runtime.incarnation:
            runtime.handlers[wire.Adopt](adopt, (), home)
        elif outbox is not None:
            outbox.send(adopt)
        elif self._stock.lost(home, runtime.loop.time()):
            self._trim_soon()

    def _returned(self, message: wire.Returned, buffers: Any, sender: int) -> None:
        for uid in message.uids:
            self._stock.returned(uid, self._runtime.loop.time())
        self._trim_soon()

    def _spilled(self, message: wire.Spilled, buffers: Any, sender: int) -> None:
        self._stock.spilled(message.uid, message.place)
        self._reader.spilled(message)

    # -- reading -----------------------------------------------------------------------

    def arrived(self, message: Any, grants: Any) -> Arrived:
        """What stands for a payload in segments; see ``Reader.arrived``."""
        arrived = self._reader.arrived(message, grants)
        self._trim_soon()
        return arrived

    def _located(self, message: wire.Located, buffers: Any, sender: int) -> None:
        if message.extra is not None:
            check_extra(message.extra, len(buffers))
        if message.extra is not None and message.extra.parts is not None:
            # A segment that cannot be opened: its content, in chunks.
            content = self._runtime.transfers.arrived(message, (), sender)
            self._runtime.locate(content, lambda: self._landed(message, content))
        elif message.uid:
            self._reader.located(message, buffers)
        else:
            self._greeted(message, sender)

    def _landed(self, message: wire.Located, content: Arrived) -> None:
        if content.size:
            message = wire.Located(message.uid, None, content.shared.why)
        self._reader.located(message, content.buffers)

    def _greeted(self, message: wire.Located, sender: int) -> None:
        if sender != self._asked:
            return  # it is not that of this runtime any more
        self._end_probe()
        warehouse = self._runtime.warehouse
        if message.why:
            self._warn(message.why)
        elif warehouse is not None and warehouse.incarnation == sender:
            self.home = sender
            self._runtime._membership_changed()

    # -- what is kept ------------------------------------------------------------------

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
        if self._reader.trim(before_s) or more:
            self._trim_soon()

    def close(self) -> None:
        """The end of the runtime: what was mapped by others lives on there."""
        self._end_probe()
        self.home = 0
        self._stock.close()
        self._reader.trim(float("inf"))
