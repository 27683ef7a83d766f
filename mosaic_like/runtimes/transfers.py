"""Large buffers that go in chunks, where memory is not shared: sending and receiving.

What has to be remembered stands in ``comms/transfers.py``. A payload whose chunks have
not all come counts as away, as one does whose segments are still to be found: calls
that take it lack an argument, and who wants the value waits. Nothing is held up by it
but what has to come after it anyway.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from ..comms import messages as wire
from ..comms.gathering import Payload
from ..comms.transfers import Arrivals, Arriving, Departures
from ..core.payloads import Arrived
from ..errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from .actor import ActorRuntime
    from .landing import Pool
    from .peer import Peer

    # Is given the views on all buffers, and what takes what is to stand for them.
    Finish: TypeAlias = Callable[[tuple[memoryview, ...], Callable[[Any], None]], None]

logger = logging.getLogger(__name__)

_TRIM_S = 5.0
# Of the memory that values may take on the host, what one runtime keeps for the next.
_KEPT_PART = 16


class Landing:
    """A payload whose chunks are coming, as ``Arrived.shared``."""

    __slots__ = ("finish", "number", "sender", "waiting", "why")
    nbytes_copied = 0  # all that came is a copy, and was asked for as such

    def __init__(self, sender: int, number: int, finish: Finish) -> None:
        self.sender = sender  # incarnation
        self.number = number
        self.finish = finish  # called with its buffers when all are here
        self.waiting: list[Callable[[], None]] = []
        self.why = ""  # it will never be complete


class Transfers:
    """See the module; one for each runtime, on the loop's thread."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._departures: dict[int, Departures] = {}  # by incarnation of the peer
        self._arrivals: dict[int, Arrivals] = {}
        self._landing: dict[tuple[int, int], Arrived] = {}  # by sender and number
        self._finishing = 0  # that have come, and are not what they are to be yet
        self._pool: Pool | None = None
        self._trimming = False
        runtime.peers.send_apart = self.send
        runtime.handlers.update(
            {
                wire.Chunk: self._chunk,
                wire.Taken: self._taken,
                wire.Unwanted: self._unwanted,
            }
        )

    @property
    def under_way(self) -> int:
        """Transfers, in both directions, that are not complete."""
        coming = len(self._landing) + self._finishing
        return coming + sum(map(len, self._departures.values()))

    # -- sending -----------------------------------------------------------------------

    def send(self, peer: Peer, message: Any, payload: Payload) -> None:
        """Send a message whose buffers follow in chunks."""
        departures = self._departures.setdefault(peer.incarnation, Departures())
        parts = departures.add(payload.buffers)
        extra = msgspec.structs.replace(message.extra, buffers=0, parts=parts)
        rest = Payload(payload.data, payload.handles, payload.definitions)
        peer.send(msgspec.structs.replace(message, extra=extra), rest)
        self._go_on(peer, departures)

    def _go_on(self, peer: Peer, departures: Departures) -> None:
        now_s = self._runtime.loop.time
        while (piece := departures.next(now_s())) is not None:
            chunk = wire.Chunk(piece.transfer, piece.buffer, piece.offset)
            peer.send(chunk, Payload(b"", buffers=(piece.view,)))

    def _taken(self, message: wire.Taken, buffers: Any, sender: int) -> None:
        departures = self._departures.get(sender)
        peer = self._runtime.outbox(sender)
        if departures is not None and peer is not None:
            departures.taken(message.nbytes, self._runtime.loop.time())
            self._go_on(peer, departures)

    def _unwanted(self, message: wire.Unwanted, buffers: Any, sender: int) -> None:
        departures = self._departures.get(sender)
        if departures is not None:
            departures.drop(message.transfer)

    # -- receiving ---------------------------------------------------------------------

    def arrived(
        self,
        message: Any,
        grants: Sequence[Any],
        sender: int,
        finish: Finish = lambda views, done: done(views),
    ) -> Arrived:
        """What stands for a payload whose buffers come in chunks.

        Args:
            message: that told of it.
            grants: of its references, by index.
            sender: incarnation.
            finish: called with the views on its buffers, and with what takes, then or
                later on the loop, what will be its ``buffers``.
        """
        parts = message.extra.parts
        data = getattr(message, "data", b"")  # a Located has none
        arrived = Arrived(data, (), grants, max(1, sum(parts.lengths)))
        arrived.shared = landing = Landing(sender, parts.number, finish)
        try:
            arriving = self._arrivals_of(sender).expect(parts)
        except (OSError, ProtocolError) as error:
            landing.why = str(error)
            self._send(sender, wire.Unwanted(parts.number))
            return arrived
        if arriving.left:
            self._landing[sender, parts.number] = arrived
        else:
            self._complete(arrived, arriving)
        return arrived

    def _arrivals_of(self, sender: int) -> Arrivals:
        arrivals = self._arrivals.get(sender)
        if arrivals is None:
            if self._pool is None:
                from .landing import FREE_BYTES, Pool

                memory = self._runtime.sharing.account.limits[0] or FREE_BYTES
                self._pool = Pool(min(FREE_BYTES, memory // _KEPT_PART))
            arrivals = self._arrivals[sender] = Arrivals(self._pool.take)
        return arrivals

    def _trim_soon(self) -> None:
        if not self._trimming and not self._runtime.peers.closed:
            self._trimming = True
            runtime = self._runtime
            runtime.loop.call_later(_TRIM_S, self._trim, context=runtime.context)

    def _trim(self) -> None:
        self._trimming = False
        if self._pool is not None and (self._pool.trim() or self._landing):
            self._trim_soon()

    def _chunk(self, message: wire.Chunk, buffers: Any, sender: int) -> None:
        if not buffers:
            raise ProtocolError("it came without its bytes")
        view = memoryview(buffers[0]).cast("B")
        self._send(sender, wire.Taken(view.nbytes))
        arrivals = self._arrivals.get(sender)
        number = message.transfer
        try:
            arriving = arrivals and arrivals.take(
                number, message.buffer, message.offset, view
            )
        except ProtocolError as error:
            arrived = self._landing.get((sender, number))
            if arrived is not None:
                self._give_up(arrived, str(error), tell=True)
            raise
        if arriving:
            self._complete(self._landing.pop((sender, number)), arriving)

    def _complete(self, arrived: Arrived, arriving: Arriving) -> None:
        self._trim_soon()
        self._finishing += 1
        arrived.shared.finish(
            arriving.views(), lambda buffers: self._finished(arrived, buffers)
        )

    def _finished(self, arrived: Arrived, buffers: Any) -> None:
        self._finishing -= 1
        arrived.buffers = buffers
        arrived.size = 0
        self._go_on_with(arrived.shared)

    def locate(self, arrived: Arrived, then: Callable[[], None]) -> None:
        """Wait for the rest of a payload.

        Args:
            arrived: that has come with ``size``.
            then: called when its buffers are here, or when ``shared.why`` says why they
                never will be.
        """
        landing = arrived.shared
        if landing.why:
            # Not now: who asks is not ready for the answer.
            self._runtime.loop.call_soon(then, context=self._runtime.context)
        else:
            landing.waiting.append(then)

    def unwanted(self, arrived: Arrived) -> None:
        """Nobody needs a payload any more that has come with ``size``."""
        self._give_up(arrived, "nobody wants it any more", tell=True)

    def _give_up(self, arrived: Arrived, why: str, *, tell: bool) -> None:
        landing = arrived.shared
        if self._landing.pop((landing.sender, landing.number), None) is None:
            return
        landing.why = why
        self._arrivals[landing.sender].drop(landing.number)
        if tell:
            self._send(landing.sender, wire.Unwanted(landing.number))
        self._runtime.loop.call_soon(
            self._go_on_with, landing, context=self._runtime.context
        )

    def _go_on_with(self, landing: Landing) -> None:
        waiting, landing.waiting = landing.waiting, []
        for then in waiting:
            try:
                then()
            except Exception:
                logger.exception("%s: what waited for a value", self._runtime.uid)

    def _send(self, to: int, message: Any) -> None:
        peer = self._runtime.outbox(to)
        if peer is not None:
            peer.send(message)

    # -- the end -----------------------------------------------------------------------

    def member_lost(self, incarnation: int, uid: str) -> None:
        """Nothing more comes from it, and nothing is needed there."""
        self._departures.pop(incarnation, None)
        for arrived in list(self._landing.values()):
            if arrived.shared.sender == incarnation:
                self._give_up(
                    arrived, f"{uid}, which was sending it, is lost", tell=False
                )
        self._arrivals.pop(incarnation, None)
