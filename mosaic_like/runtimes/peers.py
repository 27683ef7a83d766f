"""All peers of a runtime: who they are, what comes of them, and their timer.

A peer is known by the random token of its incarnation; what comes from a token that the
monitor has not announced yet waits until it has. What goes to one of them, and how, is
in ``peer``.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ..comms import messages as wire
from ..comms.link import HEADER_BYTES, LinkState
from ..errors import MosaicError, ProtocolError
from ..sizes import size_text
from .peer import Peer

if TYPE_CHECKING:
    import asyncio

    from ..comms.transport import Packet, Transport

logger = logging.getLogger(__name__)

TICK_S = 0.02
# What is kept for those who have not been announced. Past it packets are not taken: one
# who is announced after all sends them again.
_STRANGERS = 1024
_STRANGER_S = 60.0  # after which one that is still no member may make room
_STASHED_PACKETS = 10_000
_STASHED_BYTES = 256 << 20  # of all strangers
_EXPECTED = 100_000  # messages to those who have not been announced
_FENCED = 100_000  # tokens of the lost
_STRANGER = "a stranger"  # for people


def _size(packet: Packet) -> int:
    return sum(memoryview(part).nbytes for part in packet)


Deliver = Callable[[Peer, list[Any], list[Any]], None]


class Peers:
    """All links of one runtime.

    Args:
        loop: the runtime's.
        transport: bound already.
        token: 8 random bytes, the identity of this incarnation on the links.
        deliver: called with each batch, in order, and its out-of-band buffers.
        stranger: called with a batch from a token that nobody has announced; whether
            the token is known from now on.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        token: bytes,
        deliver: Deliver,
        stranger: Callable[[bytes, list[Any]], None],
    ) -> None:
        self.loop = loop
        self.transport = transport
        self.token = token
        self.deliver = deliver
        self._stranger = stranger
        self.by_token: dict[bytes, Peer] = {}
        self.by_incarnation: dict[int, Peer] = {}
        self._expected: dict[int, list[tuple[Any, Any]]] = {}
        self.newest = 0  # incarnation that was announced; older ones never will be
        self._strangers: dict[bytes, float] = {}  # since when, the oldest first
        self._stashed_bytes = 0
        self._fenced: dict[bytes, None] = {}
        # Calls are made inside user code, whose context must not live on in readers
        # and timers: it would keep alive whatever that code was called with.
        self.context = contextvars.Context()
        # Of who waits until others have what was sent to them.
        self._waiting: list[asyncio.Future[None]] = []
        self.closed = False
        self.told_of_gone = False  # that the socket of one is not there any more
        self.control_limit = 1 << 20  # bytes: see comms.control
        self.ticking = False
        # While a packet is delivered, or completions are taken in, what is sent is
        # gathered and goes out at the end of that, without another turn of the loop.
        self.gathering = 0
        self.gathering_peers: list[Peer] = []
        self.dropped: Any = ()  # a deque of calls whose proxies are gone
        self.on_dropped: Callable[[], None] = lambda: None
        self.before: Callable[[Peer, Any, Any], None]
        self.before = lambda peer, message, payload: None
        self.on_tick: Callable[[], bool] = lambda: False
        # Sends what has so large buffers that they would hold up all that comes after.
        self.send_apart: Callable[[Peer, Any, Any], None] | None = None
        self.on_broken: Callable[[Peer, str], None] = lambda peer, cause: None
        # Which of its addresses: see core.reach.
        self.reach: Callable[[wire.Member], str] = lambda member: member.address
        # Tells, not too often, what was dropped and from whom.
        self.complain: Callable[[str, str], None] = lambda sender, text: None
        transport.on_packet = self._packet

    def announce(self, member: wire.Member) -> Peer:
        """The monitor says who it is: what waited from it is delivered."""
        peer = self.by_incarnation.get(member.incarnation)
        if peer is not None:
            return peer
        peer = self._peer(member.token)
        self._strangers.pop(member.token, None)
        peer.incarnation = member.incarnation
        peer.uid = member.uid
        peer.address = self.reach(member)
        self.by_incarnation[member.incarnation] = peer
        if member.incarnation > self.newest:
            self.newest = member.incarnation
            # The monitor announces them in order: the others will not come any more.
            for other in [i for i in self._expected if i < self.newest]:
                del self._expected[other]
        for message, payload in self._expected.pop(member.incarnation, ()):
            peer.send(message, payload)
        stash, peer.stash = peer.stash, []
        for packet in stash:
            self._stashed_bytes -= _size(packet)
            self._decode(peer, packet)
        if peer.link.acknowledge_at is not None and not self.ticking:
            self.tick_soon()
        return peer

    def address(self, token: bytes, address: str) -> Peer:
        """Where to answer a token that has no incarnation yet."""
        self._strangers.setdefault(token, self.loop.time())
        peer = self._peer(token)
        peer.address = address
        return peer

    def expect(self, incarnation: int, message: Any, payload: Any = None) -> None:
        """Keep a message for somebody who will be announced.

        A payload may come before the news of the runtime whose objects it mentions.
        """
        waiting = self._expected.setdefault(incarnation, [])
        if len(waiting) >= _EXPECTED or len(self._expected) > _EXPECTED:
            name = f"a runtime {incarnation} that nobody has announced"
            self.complain(name, f"{type(message).__name__} for it")
            return
        waiting.append((message, payload))

    def lose(self, incarnation: int) -> None:
        """Fence an incarnation: nothing of it is heard from now on."""
        self._expected.pop(incarnation, None)
        peer = self.by_incarnation.pop(incarnation, None)
        if peer is not None:
            self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        """What still comes of it is dropped."""
        self._stashed_bytes -= sum(map(_size, peer.stash))
        peer.lose()
        if peer.token != self.token:
            self.by_token.pop(peer.token, None)
            self._strangers.pop(peer.token, None)
            self._fenced[peer.token] = None
            if len(self._fenced) > _FENCED:
                del self._fenced[next(iter(self._fenced))]

    def _meet(self, token: bytes, packet: Packet) -> Peer | None:
        """A packet of a token that is not announced; None: it is not taken."""
        if token in self._fenced or len(token) != len(self.token):
            return None
        peer = self.by_token.get(token)
        full = self._stashed_bytes + _size(packet) > _STASHED_BYTES
        if full or (peer is not None and len(peer.stash) >= _STASHED_PACKETS):
            self.complain(_STRANGER, "a packet, for which there is no room,")
            return None
        if peer is None:
            now = self.loop.time()
            if len(self._strangers) >= _STRANGERS:
                oldest, since = next(iter(self._strangers.items()))
                if now - since < _STRANGER_S:
                    self.complain(_STRANGER, "a packet, one too many,")
                    return None
                self._forget(self.by_token[oldest])
            self._strangers[token] = now
            peer = self._peer(token)
        return peer

    def _peer(self, token: bytes) -> Peer:
        peer = self.by_token.get(token)
        if peer is None:
            peer = self.by_token[token] = Peer(self, token)
        return peer

    def gathered(self) -> None:
        """The end of what began with ``gathering += 1``."""
        self.gathering -= 1
        if not self.gathering:
            peers = self.gathering_peers
            while peers:
                peer = peers.pop()
                if not peer.waits():
                    peer.flush()

    # -- receiving ---------------------------------------------------------------------

    def _packet(self, routing_id: bytes, packet: Packet) -> None:
        token = routing_id[:8]
        peer = self.by_token.get(token)
        if peer is None or not peer.incarnation:
            peer = self._meet(token, packet)
            if peer is None:
                return
        try:
            is_new = peer.link.unwrap(packet, self.loop.time())
            if self._waiting:
                self._wake()
            if not is_new:
                if not self.ticking and peer.link.acknowledge_at is not None:
                    self.tick_soon()
                return
        except ProtocolError as error:
            self.complain(peer.uid or _STRANGER, f"a packet: {error}; it")
            return
        if not self.ticking:
            self.tick_soon()
        if peer.incarnation:
            peer.heard()
            self.gathering += 1
            self._decode(peer, packet)
            self.gathered()
        else:
            try:
                batch = wire.decode(memoryview(packet[0])[HEADER_BYTES:])
            except msgspec.MsgspecError as error:
                self.complain(_STRANGER, f"a batch: {error}; it")
                return
            peer.stash.append(packet)
            self._stashed_bytes += _size(packet)
            self._stranger(token, batch)

    def _decode(self, peer: Peer, packet: Packet) -> None:
        try:
            batch = wire.decode(memoryview(packet[0])[HEADER_BYTES:])
        except msgspec.MsgspecError as error:
            self.complain(peer.uid, f"a batch: {error}; it")
            return
        if len(packet[0]) > self.control_limit:
            batch = self._bounded(peer, batch)
        self.deliver(peer, batch, packet[1:])

    def _bounded(self, peer: Peer, batch: list[Any]) -> list[Any]:
        """What is left of a large batch without control messages that are too large."""
        from ..comms.control import oversized

        limit = self.control_limit
        dropped = dict(oversized(batch, limit))
        for index, nbytes in dropped.items():
            name = type(batch[index]).__name__
            self.complain(
                peer.uid,
                f"{name} of {size_text(nbytes)}, where messages without a value have "
                f"at most {size_text(limit)} (control_limit=)",
            )
        return [one for index, one in enumerate(batch) if index not in dropped]

    # -- the timer ---------------------------------------------------------------------

    def tick_soon(self) -> None:
        """Start the timer, on the loop's thread; it stops when nothing is due."""
        if not self.ticking and not self.closed:
            self.ticking = True
            self.loop.call_later(TICK_S, self._tick, context=self.context)

    def _tick(self) -> None:
        self.ticking = False
        if self.closed:
            return
        more = self.on_tick()
        now = self.loop.time()
        for peer in list(self.by_token.values()):
            if peer.releases:
                peer.flush()
            if peer.tick(now):
                more = True
        if self._waiting:  # something may have broken, or be lost
            self._wake()
        if more:
            self.tick_soon()

    # -- the end -----------------------------------------------------------------------

    def flush_all(self) -> None:
        """Send what is gathered and what is owed: somebody may wait for either."""
        for peer in list(self.by_token.values()):
            peer.flush()
            peer.acknowledge()

    async def acknowledged(self, peers: list[Peer], broken_s: float = 0.0) -> bool:
        """Send what is left, and wait until these have it; not what comes after it.

        Args:
            peers: whose word counts; one that is lost hears nothing, and has it all.
            broken_s: seconds that those may take whose connection is broken, and will
                perhaps be made again. The others are waited for without a bound.

        Returns:
            Whether all of them have it.
        """
        self.flush_all()
        due = [(peer.link, peer.link.number) for peer in peers]
        give_up_at = self.loop.time() + broken_s
        while missing := [link for link, number in due if link.acknowledged < number]:
            # One that is closed is opened soon: something was just sent to it.
            if self.loop.time() >= give_up_at and not any(
                link.state in (LinkState.UP, LinkState.CLOSED) for link in missing
            ):
                return False
            looks_again: asyncio.Future[None] = self.loop.create_future()
            self._waiting.append(looks_again)
            await looks_again
        return True

    def _wake(self) -> None:
        """Those who wait for acknowledgements look again."""
        waiting, self._waiting = self._waiting, []
        for looks_again in waiting:
            if not looks_again.done():
                looks_again.set_result(None)

    def close(self) -> None:
        """Send what is left and end all connections."""
        if self.closed:
            return
        try:
            self.flush_all()
        except MosaicError:
            logger.exception("while closing")
        self.closed = True
        self.transport.close()
