"""The DEALER of one connection to one peer, which only sends.

It lives as long as its one connection: libzmq never reconnects, because a reconnecting
identity is ignored while its half-open pipe lives, and old frames mix with resent ones
(tried). The socket monitor tells that the connection is gone, the link then opens
another under another routing id.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

import zmq

from ..splitting import is_small, split
from ..transport import NotAdmitted, WasThere
from .sockets import BEGUN_MASK, ENDED, ENDED_MASK, MONITOR_EVENT, MORE, NOBLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..transport import OnBroken, Packet
    from .transport import ZmqTransport

# In which libzmq's thread must have begun the connection. Where it can open no socket
# for it (EMFILE), it tells nothing, and as it never reconnects it tries no more. A peer
# of which nothing moves is no matter here: its kernel takes the connection.
BEGUN_AFTER_S: Final = 2.0
_USED_UP: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # may come back
_MASK: Final = ENDED_MASK | BEGUN_MASK


class ZmqChannel:
    """The DEALER of one connection, and the monitor that tells when it is gone."""

    def __init__(
        self,
        transport: ZmqTransport,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        routing_id: bytes,
        monitor: str,
        on_broken: OnBroken,
    ) -> None:
        self.address = address
        self._transport = transport
        self._on_broken = on_broken
        self._is_open = True
        dealer = self._dealer = self._socket()
        try:
            dealer.setsockopt(zmq.ROUTING_ID, routing_id)
            dealer.setsockopt(zmq.RECONNECT_IVL, -1)
            # IMMEDIATE stays off: what is sent before the handshake waits in the pipe,
            # so a send never fails while the connection lives, and no FD need be
            # watched for writing.
            dealer.monitor(monitor, _MASK)
            self._monitor = context.socket(zmq.PAIR)
            self._monitor.setsockopt(zmq.LINGER, 0)
            self._monitor.connect(monitor)
        except BaseException:
            dealer.disable_monitor()
            dealer.close(0)
            raise
        self._monitor_fd = int(self._monitor.getsockopt(zmq.FD))
        transport.loop.add_reader(self._monitor_fd, self._watch)
        self._has_begun = False
        self._unbegun = transport.loop.call_later(BEGUN_AFTER_S, self._never_begun)
        # That of the backend: pyzmq's own in front of it costs 1 µs, and adds routing
        # ids and groups, which a DEALER has not.
        self._send: Callable[..., object]
        self._send = super(zmq.Socket, dealer).send  # type: ignore[misc]  # it has no stub
        try:
            dealer.connect(address)
        except zmq.ZMQError as error:
            self.close()  # or the context could not end
            if error.errno in _USED_UP:
                raise
            raise ValueError(f"{address!r} is no address: {error}") from None
        except BaseException:  # Ctrl-C, which zmq looks for in each of its calls
            self.close()
            raise
        # The FD may have been signaled and cleared before it was watched.
        transport.loop.call_soon(self._watch)

    def _socket(self) -> zmq.Socket[bytes]:
        return self._transport.socket(zmq.DEALER)

    def send(self, packet: Packet) -> None:
        send = self._send
        try:
            if len(packet) == 1:
                send(packet[0], NOBLOCK)
                return
            # Each is copied. Without that pyzmq needs a thread and a context of its own
            # from the first large frame on; where none can be started any more, libzmq
            # ends the process. Up to 256 KiB a copy is faster (1.0 to 1.1 times), and
            # of 512 KiB and 1 MiB it costs a tenth to a fifth of the throughput.
            for part in packet[:-1]:
                send(part, MORE)
            send(packet[-1], NOBLOCK)
        except zmq.Again:
            # There is no bound, so this is no full pipe: the connection is gone and the
            # monitor is about to say so. The link keeps the packet.
            self._send = _drop
        except BaseException as error:
            # Some parts of it may be in the pipe, and what came next would be taken for
            # the rest of it: nothing more can go this way. The link sends it again.
            self._break_off(f"{self.address}: {error}")
            if not isinstance(error, Exception):
                raise  # Ctrl-C

    def _break_off(self, cause: str) -> None:
        if self._is_open:
            self.close()
            self._transport.loop.call_soon(self._on_broken, cause)

    def close(self, linger_ms: int = 0) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._send = _drop
        self._unbegun.cancel()
        self._transport.loop.remove_reader(self._monitor_fd)
        # In this order: libzmq's own thread blocks for ever, and all connections of the
        # process with it, when it has an event to tell and the other end is closed.
        self._dealer.disable_monitor()
        self._monitor.close()
        self._dealer.close(linger_ms)
        self._transport.discard(self)

    def _watch(self) -> None:
        while self._is_open:
            try:
                event, _address = self._monitor.recv_multipart(NOBLOCK)
            except zmq.Again:
                return  # nothing more: the FD wakes us again
            number, value = MONITOR_EVENT.unpack(event)
            cause = ENDED.get(number)
            if cause is None:
                self._has_begun = True
                self._unbegun.cancel()
            else:
                self.close()
                if number == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL and value:
                    cause = f"{cause}: {os.strerror(value)}"
                told = f"{self.address}: {cause}"
                if number == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                    told = NotAdmitted(told)
                elif number == zmq.EVENT_DISCONNECTED:
                    told = WasThere(told)
                self._on_broken(told)

    def _never_begun(self) -> None:
        self._watch()  # it may have begun while the loop stood still
        if self._is_open and not self._has_begun:
            self.close()
            self._on_broken(
                f"{self.address}: no connection was begun in {BEGUN_AFTER_S:g} s: "
                "perhaps this process may open no more files"
            )


class NetworkChannel(ZmqChannel):
    """The same to another host: with keys, and no frame is large."""

    def _socket(self) -> zmq.Socket[bytes]:
        dealer = self._transport.network_socket(zmq.DEALER)
        self._transport.introduce(dealer)
        return dealer

    def send(self, packet: Packet) -> None:
        if not is_small(packet):
            # The head as it is now: the link writes into it when it resends.
            packet = split([bytes(packet[0]), *packet[1:]])
        super().send(packet)


def _drop(*_: object) -> None:
    """Send on a connection that has ended."""
