"""The ROUTER of a process, which only receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import zmq

from .sockets import KEPT_FRAME_BYTES, NOBLOCK, POLLIN

if TYPE_CHECKING:
    from ..transport import Packet
    from .network import Joining
    from .transport import ZmqTransport

DRAIN_BUDGET: Final = 64  # packets received before other callbacks of the loop run


class Receiver:
    """A ROUTER that only receives."""

    __slots__ = ("_events", "_fd", "_is_closed", "_recv", "_transport", "router")

    def __init__(
        self, transport: ZmqTransport | Joining, router: zmq.Socket[bytes]
    ) -> None:
        # No ROUTER_HANDOVER: each connection has a routing id of its own, so one that
        # is there already belongs to a stranger and is refused by libzmq.
        self.router = router
        self._transport = transport
        self._recv = router.recv
        self._events = router.getsockopt
        self._is_closed = False
        self._fd = int(router.getsockopt(zmq.FD))
        transport.loop.add_reader(self._fd, self.drain)

    def close(self) -> None:
        self._is_closed = True
        self._transport.loop.remove_reader(self._fd)
        self.router.close(0)

    def drain(self) -> None:
        """Hand over what has arrived.

        The FD is edge-triggered: it may be left only after EVENTS said that nothing
        more is there. (EVENTS after each packet costs 2 µs, the exception at the end of
        a drain 5.5 µs; a packet is a whole batch.)
        """
        recv = self._recv
        events = self._events
        on_packet = self._transport.on_packet
        try:
            for _ in range(DRAIN_BUDGET):
                if self._is_closed or on_packet is None:
                    return
                routing_id = recv(NOBLOCK)
                # The parts of a message arrive together, so no more waiting. A frame is
                # taken without copying first because only that tells cheaply whether
                # more parts follow: 1.0 µs for a message against 1.5 by RCVMORE and
                # 3.1 by recv_multipart.
                frame = recv(NOBLOCK, False)
                packet: Packet = [_contents(frame)]
                while frame.more:
                    frame = recv(NOBLOCK, False)
                    packet.append(_contents(frame))
                del frame
                on_packet(routing_id, packet)
                # A local name must not keep the last packet alive until the next one.
                del packet
                if self._is_closed or not int(events(zmq.EVENTS)) & POLLIN:
                    return
        except zmq.Again:
            return  # woken by a command of libzmq's, not by a packet
        except BaseException:
            # The callback failed, which must not leave the rest without a wake-up.
            self._drain_again()
            raise
        self._drain_again()

    def _drain_again(self) -> None:
        if not self._is_closed:
            self._transport.loop.call_soon(self.drain)


def _contents(frame: zmq.Frame) -> bytes | memoryview:
    """A copy of a small frame; a large one itself, read-only."""
    if len(frame) < KEPT_FRAME_BYTES:
        return frame.bytes
    return frame.buffer.toreadonly()
