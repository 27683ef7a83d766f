"""What several kinds of sockets share: flags, and what their monitors tell."""

from __future__ import annotations

import struct
from typing import Final

import zmq

KEPT_FRAME_BYTES: Final = 64 * 1024  # below this a frame that came is copied out of it
STRANGER: Final = "a stranger"  # for people

NOBLOCK: Final = int(zmq.NOBLOCK)
POLLIN: Final = int(zmq.POLLIN)
MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)

# How a connection ends, or is never made, and what people are told.
ENDED: Final = {
    zmq.EVENT_DISCONNECTED: "the connection ended",
    zmq.EVENT_CLOSED: "nothing accepts there",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake failed",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the handshake failed: another protocol",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the handshake failed: not admitted",
}
ENDED_MASK: Final = sum(int(event) for event in ENDED)
# What is told of one that libzmq has begun to make: its own timers bound what follows.
BEGUN_MASK: Final = int(zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_DELAYED)
MONITOR_EVENT: Final = struct.Struct("=HI")  # libzmq: zmq_socket_monitor(3)
