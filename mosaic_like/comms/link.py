"""A reliable, ordered link to one peer, both directions, without input or output.

Here live the numbers, the acknowledgements, what is kept until it is acknowledged, and
the life of the connection. No sockets, no clock (the time is an argument, in seconds of
any monotonic clock), no asyncio. The rules:

* A packet is ``[head, *buffers]``; its head begins with HEADER_BYTES bytes that the
  link fills: protocol, flags, connection number, batch number, newest number received.
  Batches count from 1; number 0 is a bare acknowledgement.
* What was sent is kept until it is acknowledged and is sent again only over a *new*
  connection, so that a transport which keeps its order never shows a gap.
* A receiver takes the next number alone: smaller ones are duplicates, larger ones a
  gap, and frames of a connection older than the newest seen are late; all are dropped.
* After ``lost()`` everything received is late, and nothing is kept.

How a runtime drives it::

    opened(now) -> connect the channel with that routing id; send resend()
    wrap(packet) -> send it if True          unwrap(packet, now) -> deliver it if True
    channel broken -> broken(now); open it again at retry_at
    by a timer: check(now) -> if True the link has become BROKEN: close the channel;
        send resend(); if owes(now): send [acknowledgement()]
"""

from __future__ import annotations

import enum
import itertools
import struct
from collections import deque
from typing import TYPE_CHECKING

from ..errors import InvalidTransitionError, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

Part = bytes | bytearray | memoryview
Packet = list[Part]

_HEADER = struct.Struct("<BBIQQ")
_pack_into = _HEADER.pack_into  # bound once: they are called for each batch
_unpack_from = _HEADER.unpack_from
_GAP = struct.Struct("<I")  # the connection on which the gap was seen
HEADER_BYTES = _HEADER.size
PROTOCOL = 1

_RESEND = 1  # flag of a bare acknowledgement: I miss something, open a new connection

ACKNOWLEDGE_EVERY = 64  # batches received, without waiting for the timer
ACKNOWLEDGE_AFTER_S = 0.02
RETRY_MIN_S = 0.005
RETRY_MAX_S = 1.0
STALL_DOUBLINGS = 6

_NEVER = 1 << 32  # no connection number reaches it: it has 32 bits in the header


class LinkState(enum.Enum):
    """The connection on which we send."""

    CLOSED = "closed"  # never opened
    OPENING = (
        "opening"  # after a stall: the oldest batch was sent, to see if it arrives
    )
    UP = "up"
    BROKEN = "broken"  # open it again at ``retry_at``
    LOST = "lost"  # the peer is declared lost and will never be heard again


TRANSITIONS: dict[tuple[LinkState, str], LinkState] = {
    (LinkState.CLOSED, "opened"): LinkState.UP,
    (LinkState.BROKEN, "opened"): LinkState.UP,
    (LinkState.BROKEN, "probed"): LinkState.OPENING,
    (LinkState.OPENING, "answered"): LinkState.UP,
    (LinkState.OPENING, "broken"): LinkState.BROKEN,
    (LinkState.UP, "broken"): LinkState.BROKEN,
    (LinkState.CLOSED, "lost"): LinkState.LOST,
    (LinkState.OPENING, "lost"): LinkState.LOST,
    (LinkState.UP, "lost"): LinkState.LOST,
    (LinkState.BROKEN, "lost"): LinkState.LOST,
}


class Link:
    """One peer: what we send to it and what it sends to us.

    Args:
        token: 8 random bytes that name this runtime to the peer.
        stall_s: a batch that is not acknowledged for so long is taken for lost on its
            way. Doubles while it does not help, so that a slow transfer comes through.
    """

    __slots__ = (
        "_acknowledged",
        "_asked",
        "_cautious",
        "_flowing",
        "_gap",
        "_heard",
        "_number",
        "_owed",
        "_owed_at",
        "_received",
        "_retry_s",
        "_sent",
        "_stalls",
        "_told",
        "_troubled",
        "_unacknowledged",
        "_watched",
        "_watched_at",
        "connection",
        "duplicates",
        "late",
        "resent",
        "retry_at",
        "stall_s",
        "state",
        "token",
    )

    def __init__(self, token: bytes, stall_s: float = 5.0) -> None:
        self.token = token
        self.stall_s = stall_s
        self.state = LinkState.CLOSED
        self.connection = 0  # ours; the peer numbers its own
        self.retry_at = 0.0  # when to open next, while CLOSED or BROKEN
        self.resent = self.duplicates = self.late = 0

        # Sending: batches (_acknowledged, _number] are kept, those up to _sent are on
        # the present connection.
        self._unacknowledged: deque[Sequence[Part]] = deque()
        self._number = 0
        self._acknowledged = 0
        self._sent = 0
        self._flowing = False  # state is UP: what is wrapped goes out at once
        self._told = 0  # connection on which the peer told us that it misses something
        self._retry_s = RETRY_MIN_S

        # Stalling: the oldest unacknowledged batch and since when it has been that.
        self._watched = 0
        self._watched_at = 0.0
        self._stalls = 0
        self._cautious = False  # the last connection ended by a stall
        # What the next acknowledgement sets right again: something of the above, or not
        # all is sent.
        self._troubled = True

        # Receiving.
        self._heard = 0  # newest connection of the peer
        self._received = 0
        self._owed = 0  # batches received and not acknowledged
        self._owed_at = 0.0
        self._gap = 0  # connection with a gap that the peer is still to be told of
        self._asked = 0  # the last one that it was told of

    def __repr__(self) -> str:
        return (
            f"<Link {self.token.hex()} {self.state.value} connection {self.connection},"
            f" {len(self._unacknowledged)} unacknowledged>"
        )

    @property
    def unacknowledged(self) -> int:
        """Batches that are kept."""
        return len(self._unacknowledged)

    @property
    def unacknowledged_bytes(self) -> int:
        """What those take: counted when it is asked, which is seldom."""
        return sum(map(_size, self._unacknowledged))

    @property
    def number(self) -> int:
        """Of the last batch that was to be sent."""
        return self._number

    @property
    def acknowledged(self) -> int:
        """The last batch that the peer has acknowledged, and with it those before."""
        return self._acknowledged

    def move(self, event: str) -> None:
        """The only place where the state changes."""
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            raise InvalidTransitionError(self.state.value, event)
        self.state = state
        self._flowing = state is LinkState.UP

    # -- the life of the connection ----------------------------------------------------

    def opened(self, now: float) -> bytes:
        """A new connection is made now: its routing id. Send ``resend()`` first on it.

        Raises:
            InvalidTransitionError: the link is open or lost.
        """
        self.move("probed" if self._cautious and self._unacknowledged else "opened")
        self._cautious = False
        self._troubled = True
        self.connection += 1
        self._sent = self._acknowledged
        self._watched_at = now
        if self._received:  # our last acknowledgement may have gone with the old one
            self._owe_at_once(now)
        return self.token + self.connection.to_bytes(4, "big")

    def broken(self, now: float) -> None:
        """The connection has ended; open it again at ``retry_at``.

        Raises:
            InvalidTransitionError: it was not open.
        """
        self.move("broken")
        self._troubled = True
        self.retry_at = now + self._retry_s
        self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)

    def lost(self) -> None:
        """The peer's incarnation is declared lost: fence it."""
        self.move("lost")
        self._unacknowledged.clear()
        self._acknowledged = self._sent = self._number
        self._owed = 0
        # No frame is as new as this, so the hot path needs no question more.
        self._heard = _NEVER

    def check(self, now: float) -> bool:
        """Whether the connection must be given up; the link is then BROKEN.

        To be called by a timer. True when the peer misses something, or when the oldest
        batch was not acknowledged for ``stall_s``. A peer whose Python stands still
        looks the same, so after a stall only that one batch is sent again: what a
        sleeping peer must keep does not grow by all that is unacknowledged.
        """
        if self.state is not LinkState.UP and self.state is not LinkState.OPENING:
            return False
        if self._told == self.connection:
            self.broken(now)
            return True
        if not self._unacknowledged or self._watched != self._acknowledged + 1:
            self._watched = self._acknowledged + 1
            self._watched_at = now
            return False
        if now - self._watched_at < self.stall_s * (1 << self._stalls):
            return False
        self._stalls = min(self._stalls + 1, STALL_DOUBLINGS)
        self._cautious = True
        self.broken(now)
        return True

    def resend(self) -> list[Packet]:
        """What must still go out on this connection, in order; it then counts as sent.

        All that is unacknowledged after ``opened()``, or after a stall its oldest batch
        and the rest when that has arrived; as a rule nothing.
        """
        first = self._sent + 1
        if self.state is LinkState.UP:
            last = self._number
        elif self.state is LinkState.OPENING:
            last = self._acknowledged + 1
        else:
            return []
        if first > last:
            return []
        start = first - self._acknowledged - 1
        stop = last - self._acknowledged
        packets = [
            list(packet)
            for packet in itertools.islice(self._unacknowledged, start, stop)
        ]
        for number, packet in enumerate(packets, first):
            _pack_into(
                packet[0], 0, PROTOCOL, 0, self.connection, number, self._received
            )
        self._sent = last
        self._owed = 0
        self.resent += len(packets)
        return packets

    # -- the hot path ------------------------------------------------------------------

    def wrap(self, packet: Packet) -> bool:
        """Number a packet and keep it; True if it is to be sent now, else it waits."""
        if not self._flowing and self.state is LinkState.LOST:
            return False
        head = packet[0]
        self._number = number = self._number + 1
        _pack_into(head, 0, PROTOCOL, 0, self.connection, number, self._received)
        self._unacknowledged.append(packet)
        if self._flowing:
            self._owed = 0
            self._sent = number
            return True
        return False

    def unwrap(self, packet: Sequence[Part], now: float) -> bool:
        """Take a received packet; True if its body is to be delivered now, in order.

        Raises:
            ProtocolError: it is no packet of this protocol; it changed nothing.
        """
        head = packet[0]
        try:
            protocol, flags, connection, number, acknowledged = _unpack_from(head)
        except struct.error:
            raise ProtocolError(
                f"a packet of {len(head)} bytes has no header of {HEADER_BYTES}"
            ) from None
        if protocol != PROTOCOL or acknowledged > self._number:
            raise ProtocolError(
                f"a packet of protocol {protocol} that acknowledges {acknowledged};"
                f" expected protocol {PROTOCOL} and at most {self._number}"
            )
        if connection != self._heard:
            if connection < self._heard:
                self.late += 1
                return False
            self._heard = connection
        if acknowledged > self._acknowledged:
            self._forget(acknowledged)
        if number == self._received + 1:
            self._received = number
            self._owed = owed = self._owed + 1
            if owed == 1:
                self._owed_at = now
            return True
        self._out_of_order(head, flags, number, now)
        return False

    # -- acknowledgements --------------------------------------------------------------

    @property
    def acknowledge_at(self) -> float | None:
        """When ``owes()`` becomes true, for a timer; None: nothing is owed."""
        if not self._owed or not self._may_answer():
            return None
        if self._owed >= ACKNOWLEDGE_EVERY:
            return self._owed_at
        return self._owed_at + ACKNOWLEDGE_AFTER_S

    def owes(self, now: float) -> bool:
        """Whether an acknowledgement should go alone, as nothing else has taken it."""
        owed = self._owed
        return (
            owed > 0
            and self._may_answer()
            and (
                owed >= ACKNOWLEDGE_EVERY or now - self._owed_at >= ACKNOWLEDGE_AFTER_S
            )
        )

    def acknowledgement(self) -> bytearray | None:
        """The head of a bare acknowledgement, to be sent now; None if none is owed."""
        if not self._owed or not self._may_answer():
            return None
        self._owed = 0
        head = bytearray(HEADER_BYTES)
        flags = 0
        if self._gap:
            flags = _RESEND
            head += _GAP.pack(self._gap)
            self._gap = 0
        _pack_into(head, 0, PROTOCOL, flags, self.connection, 0, self._received)
        return head

    def _may_answer(self) -> bool:
        # In OPENING too: two peers that both probe would else wait for each other. And
        # in CLOSED, which is opened for it: who only listens has to say that it heard.
        return self._flowing or self.state in (LinkState.OPENING, LinkState.CLOSED)

    def _owe_at_once(self, now: float) -> None:
        self._owed = ACKNOWLEDGE_EVERY
        self._owed_at = now

    # -- what is rare ------------------------------------------------------------------

    def _forget(self, acknowledged: int) -> None:
        """The peer has everything up to here."""
        kept = self._unacknowledged
        for _ in range(acknowledged - self._acknowledged):
            kept.popleft()
        self._acknowledged = acknowledged
        if self._troubled:
            self._sent = max(self._sent, acknowledged)
            self._retry_s = RETRY_MIN_S
            self._stalls = 0
            self._cautious = False
            if self.state is LinkState.OPENING:
                self.move("answered")
            self._troubled = self._sent < self._number

    def _out_of_order(self, head: Part, flags: int, number: int, now: float) -> None:
        if number == 0:
            if flags & _RESEND and len(head) >= HEADER_BYTES + _GAP.size:
                (self._told,) = _GAP.unpack_from(head, HEADER_BYTES)
        elif number <= self._received:
            # Sent again because our acknowledgement did not arrive.
            self.duplicates += 1
            self._owe_at_once(now)
        elif self._asked != self._heard:  # once for each connection; then it stalls
            self._asked = self._gap = self._heard
            self._owe_at_once(now)


def _size(packet: Sequence[Part]) -> int:
    return sum(
        part.nbytes if isinstance(part, memoryview) else len(part) for part in packet
    )
