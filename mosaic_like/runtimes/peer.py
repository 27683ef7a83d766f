"""One peer of a runtime: its outbox, its link and its connection.

What goes to it in one tick of the loop goes in one packet. Who the peers are, and what
comes of them, is in ``peers``.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import msgspec

from ..comms import messages as wire
from ..comms.link import HEADER_BYTES, Link, LinkState
from ..comms.transfers import APART_BYTES
from ..text import printable

if TYPE_CHECKING:
    import asyncio

    from ..comms.transport import Channel, Packet
    from .peers import Peers

logger = logging.getLogger(__name__)

# At this many messages a batch goes out without waiting for the end of the tick: the
# peer can begin, and the next batch is filled while it works.
BATCH_MESSAGES = 256
_LARGE_BYTES = 32 << 10
# Who makes thousands of calls and waits for the last gains nothing by being woken for
# each: after so many batches of ends to which it has not said a thing, sent so close to
# each other, the next ends wait for so long that some more may join them.
_UNANSWERED = 3
_CLOSE_S = 0.002
PATIENCE_S = 0.002
# One that ends takes its socket with it, and is lost soon after: who is still a member
# after so long has not ended.
GONE_S = 5.0
_IPC = "ipc://"


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
        self.known_bytes = 0  # of values that go with the calls of the next batch
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
        self._gone_s: float | None = None  # since when its socket is not there

    def __repr__(self) -> str:
        return f"<Peer {self.uid or self.token.hex()} {self.link.state.value}>"

    @property
    def is_unused(self) -> bool:
        """Nothing was ever sent to it, nor is about to be."""
        link = self.link
        return (
            link.state is LinkState.CLOSED
            and not link.number
            and not self._messages
            and not self.releases
        )

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
            self._peers.before(self, message, payload)
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
            if (
                self._lone
                and type(self._messages[0]) is not wire.Cancel
                and not self.waits()
            ):
                # Out before the loop comes by: what the caller does meanwhile, such as
                # to await, is done while the message is on its way. But of calls that
                # are cancelled together none may start when the one before it stops.
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
        self.known_bytes = 0
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
            self._look_for_socket(now)
            self._peers.loop.call_at(link.retry_at, self.open)

    def _look_for_socket(self, now: float) -> None:
        """Tell people, once, if nobody can connect any more to one that is here.

        Nothing brings a removed socket back, but what is connected goes on: it is for
        them to decide what that is worth.
        """
        path = self.address.removeprefix(_IPC)
        if not self.shares_memory or path == self.address or os.path.exists(path):
            self._gone_s = None
        elif self._gone_s is None:
            self._gone_s = now
        elif now - self._gone_s >= GONE_S and not self._peers.told_of_gone:
            self._peers.told_of_gone = True
            logger.warning(
                "%s cannot be reached: its socket %s is gone: somebody has removed the "
                "run directory, or files in it; what needs a new connection waits for "
                "ever: end the program and start it again",
                self.uid,
                printable(path),
            )

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
