"""The peers of a runtime: outboxes, links and connections.

What goes to one peer in one tick of the loop goes in one packet. A peer is known by
the random token of its incarnation; what comes from a token that the monitor has not
announced yet waits until it has.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ..comms import messages as wire
from ..comms.link import HEADER_BYTES, Link, LinkState
from ..comms.transfers import APART_BYTES
from ..errors import MosaicError, ProtocolError
from ..text import printable

if TYPE_CHECKING:
    import asyncio

    from ..comms.transport import Channel, Packet, Transport

logger = logging.getLogger(__name__)

# At this many messages a batch goes out without waiting for the end of the tick: the
# peer can begin, and the next batch is filled while it works.
BATCH_MESSAGES = 256
_LARGE_BYTES = 32 << 10
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
# Who makes thousands of calls and waits for the last gains nothing by being woken for
# each: after so many batches of ends to which it has not said a thing, sent so close to
# each other, the next ends wait for so long that some more may join them.
_UNANSWERED = 3
_CLOSE_S = 0.002
PATIENCE_S = 0.002


class Peer:
    """One other runtime, or this one itself."""

    def __init__(self, peers: Peers, token: bytes) -> None:
        self.token = token
        self.incarnation = 0
        self.uid = ""
        self.address = ""
        self.bytes_out = 0
        self.shares_memory = False  # it is on this host
        self.releases: list[int] = []
        self.defined: set[bytes] = set()  # digests that it was sent
        self.link = Link(peers.token)
        self.stash: list[Packet] = []  # that came before it was announced
        self._peers = peers
        self._channel: Channel | None = None
        self._messages: list[Any] = []
        self._buffers: list[Any] = []
        self._loopback = token == peers.token
        self._turning = False  # `_turn` will come by
        self._lone = not self._loopback  # the last turn had one message
        self._went_alone = False
        self._patient = False  # all that is gathered are ends of calls
        self._unanswered = 0  # batches sent since it was heard
        self._sent_s = 0.0
        self._waiting: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Peer {self.uid or self.token.hex()} {self.link.state.value}>"

    def send(self, message: Any, payload: Any = None) -> None:
        """Put a message, with its payload, into the next batch."""
        if payload is not None:
            if payload.shared is not None and not self.shares_memory:
                message, payload = framed_message(message, payload)
            if (
                payload.buffers
                and payload.nbytes >= APART_BYTES
                and not self._loopback
                and self._peers.send_apart is not None
            ):
                self._peers.send_apart(self, message, payload)
                return
            self._peers.before(self, payload)
            self._buffers += payload.buffers
        self._patient = False
        messages = self._messages
        messages.append(message)
        count = len(messages)
        if count == 1:
            self._first()
        elif self._waiting is not None:
            self._first()  # what waited goes with it
        elif count >= BATCH_MESSAGES and not self._loopback:
            self.flush()
        if payload is not None and payload.nbytes > _LARGE_BYTES:
            self.flush()

    def send_ends(self, messages: list[Any]) -> None:
        """Put the ends of calls that it made into the next batch.

        They have no payloads, and where it seems not to wait for them they may take a
        little longer.
        """
        before = len(self._messages)
        if not before:
            self._patient = True
        self._messages += messages
        if before + len(messages) >= BATCH_MESSAGES and not self._loopback:
            self.flush()
        elif not before:
            self._first()

    def _first(self) -> None:
        """The first message of a batch is there: have the batch sent."""
        peers = self._peers
        if peers.gathering:
            peers.gathering_peers.append(self)
        elif not self._turning:
            self._turning = True
            if self._lone and not self.waits():
                # Out before the loop comes by: what the caller does meanwhile, such as
                # to await, is done while the message is on its way.
                self._went_alone = True
                self._send_batch()
            peers.loop.call_soon(self._turn, context=peers.context)

    def waits(self) -> bool:
        """What is gathered may wait for more, and a timer is set for it."""
        if self._waiting is not None:
            return self._patient
        if not self._patient or self._unanswered < _UNANSWERED or self._loopback:
            return False
        loop = self._peers.loop
        if loop.time() - self._sent_s > _CLOSE_S:
            return False
        self._waiting = loop.call_later(
            PATIENCE_S, self.flush, context=self._peers.context
        )
        return True

    def heard(self) -> None:
        """It has sent something: it may want to know what has ended."""
        self._unanswered = 0
        if self._waiting is not None:
            self.flush()

    def _turn(self) -> None:
        """The end of a turn of the loop in which something was sent.

        Who sends one message in a turn probably waits for the answer, so the next goes
        at once; who sends several gains by waiting for all of them.
        """
        self._turning = False
        count = len(self._messages)
        self._lone = count <= 1 - self._went_alone and not self._loopback
        self._went_alone = False
        if self._peers.dropped:
            self._drop()
        if count and not self.waits():
            self._send_batch()

    def flush(self) -> None:
        """Send what has been gathered, and tell what was dropped."""
        if self._peers.dropped:
            self._drop()
        self._send_batch()

    def _drop(self) -> None:
        self._peers.on_dropped()
        if not self._peers.ticking:
            self._peers.tick_soon()  # some of it goes to others

    def _send_batch(self) -> None:
        peers = self._peers
        messages = self._messages
        if self.releases:
            messages.append(wire.Release(self.releases))
            self.releases = []
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if not messages:
            return
        if self._loopback:
            self._deliver_here()
            return
        self._unanswered += 1
        self._sent_s = peers.loop.time()
        packet: Packet = [wire.encode(messages, HEADER_BYTES), *self._buffers]
        messages.clear()
        if self._buffers:
            self._buffers = []
        if self.link.wrap(packet):
            channel = self._channel
            if channel is not None:
                channel.send(packet)
        elif self.link.state is LinkState.CLOSED:
            peers.loop.call_soon(self.open, context=peers.context)
        if not peers.ticking:
            peers.tick_soon()

    def _deliver_here(self) -> None:
        messages, self._messages = self._messages, []
        buffers, self._buffers = self._buffers, []
        self._peers.deliver(self, messages, buffers)

    def open(self) -> None:
        """Connect, and send again what was not acknowledged."""
        link = self.link
        if self._loopback or not self.address or self._peers.closed:
            return
        if link.state not in (LinkState.CLOSED, LinkState.BROKEN):
            return
        peers = self._peers
        routing_id = link.opened(peers.loop.time())
        try:
            self._channel = peers.transport.connect(
                self.address, routing_id, self._broken
            )
        except ValueError as error:
            self.address = ""  # it is tried no more
            link.broken(peers.loop.time())
            logger.warning("nothing can be sent to %s: %s", self, printable(str(error)))
            return
        except OSError as error:  # no descriptors, for example: they may come back
            self._broken(str(error))
            return
        self._resend()

    def _resend(self) -> None:
        if self._channel is not None:
            for packet in self.link.resend():
                self._channel.send(packet)

    def _broken(self, cause: str) -> None:
        self._channel = None
        link = self.link
        if link.state not in (LinkState.UP, LinkState.OPENING):
            return
        now = self._peers.loop.time()
        link.broken(now)
        logger.debug("%s: %s", self, cause)
        self._peers.on_broken(self, cause)
        if not self._peers.closed:
            self._peers.loop.call_at(link.retry_at, self.open)

    def tick(self, now: float) -> bool:
        """Acknowledge and check; whether there is more to do later."""
        link = self.link
        if link.check(now):
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            self._peers.loop.call_at(link.retry_at, self.open)
        elif self._channel is not None:
            self._resend()
        if link.owes(now):
            self.acknowledge()
        return bool(link.unacknowledged or link.acknowledge_at is not None)

    def acknowledge(self) -> None:
        """Send a bare acknowledgement now, if one is owed."""
        if self.link.state is LinkState.CLOSED:
            self.open()
        if self._channel is not None:
            head = self.link.acknowledgement()
            if head is not None:
                self._channel.send([head])

    def lose(self) -> None:
        """It will never be heard again."""
        if self.link.state is not LinkState.LOST:
            self.link.lost()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._messages.clear()
        self._buffers.clear()
        self.stash.clear()


def _size(packet: Packet) -> int:
    return sum(memoryview(part).nbytes for part in packet)


def framed_message(message: Any, payload: Any) -> tuple[Any, Any]:
    """The same for who cannot open segments: what is in them goes as frames."""
    framed = payload.framed()
    extra = msgspec.structs.replace(
        message.extra,
        references=message.extra.references[: len(framed.handles)],
        buffers=len(framed.buffers),
        shared=None,
    )
    return msgspec.structs.replace(message, extra=extra), framed


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
        self._heard: asyncio.Future[None] | None = None  # of who waits for any packet
        self.closed = False
        self.ticking = False
        # While a packet is delivered, or completions are taken in, what is sent is
        # gathered and goes out at the end of that, without another turn of the loop.
        self.gathering = 0
        self.gathering_peers: list[Peer] = []
        self.dropped: Any = ()  # a deque of calls whose proxies are gone
        self.on_dropped: Callable[[], None] = lambda: None
        self.before: Callable[[Peer, Any], None] = lambda peer, payload: None
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
            if self._heard is not None:
                if not self._heard.done():
                    self._heard.set_result(None)
                self._heard = None
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
        self.deliver(peer, batch, packet[1:])

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
        if more:
            self.tick_soon()

    # -- the end -----------------------------------------------------------------------

    def flush_all(self) -> None:
        """Send what is gathered and what is owed: somebody may wait for either."""
        for peer in list(self.by_token.values()):
            peer.flush()
            peer.acknowledge()

    async def acknowledged(self, peers: list[Peer]) -> None:
        """Send what is left, and wait until these have it; not what comes after it."""
        self.flush_all()
        due = [(peer.link, peer.link.number) for peer in peers]
        while any(
            link.acknowledged < number and link.state is LinkState.UP
            for link, number in due
        ):
            self._heard = self.loop.create_future()
            await self._heard

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
