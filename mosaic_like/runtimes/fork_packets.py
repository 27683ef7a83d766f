"""What goes over a control socket of the fork server: requests there, reports back.

One message a packet (SOCK_SEQPACKET), with descriptors beside it. Who sends requests is
in ``processes``, who serves them in ``forkserver``.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import msgspec

from .booting import PACKET_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

# Well below the default buffer of a socket (208 KiB): a packet is sent whole or not.
MAX_FDS = 64  # the kernel takes 253 in one packet

# Absent on macOS, where what is received is made non-inheritable after the fact.
_RECEIVE_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_SEND_FLAGS = getattr(socket, "MSG_NOSIGNAL", 0)


class _Packet(msgspec.Struct, array_like=True, gc=False):
    """Base of what goes over a control socket."""


class Spawn(_Packet, tag=1):
    """Fork a child. Its descriptors come with the packet: first those for standard
    output and standard error, where the flags say so, then those that it keeps."""

    number: int  # chosen by the asker, comes back in the answer
    entry: str  # module:function, called with (argument, fds, control)
    argument: bytes
    environment: dict[str, str | None]  # changes; None removes
    attach: bool  # gets a control socket of its own
    death_signal: bool  # SIGKILL when this server dies
    owner_pidfd: bool  # the owner's pidfd comes last in fds, -1 where there is none
    stdout: bool
    stderr: bool
    num_fds: int  # that were sent with it; who has no number left for one misses it


class Kill(_Packet, tag=2):
    """Send a signal to a child of this server, unless it has been reaped."""

    pid: int
    signal: int


class Ready(_Packet, tag=10):
    """The server has preloaded and serves."""

    pid: int


class Spawned(_Packet, tag=11):
    """The child runs; its pidfd comes with the packet where the kernel has them."""

    number: int
    pid: int


class NotSpawned(_Packet, tag=12):
    number: int
    why: str


class Exited(_Packet, tag=13):
    pid: int
    status: int  # as os.waitpid gives it
    max_rss_bytes: int


Request = Spawn | Kill
Report = Ready | Spawned | NotSpawned | Exited

_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)
_reports = msgspec.msgpack.Decoder(Report)


def send(sock: socket.socket, packet: Request | Report, fds: Sequence[int]) -> None:
    """Send one packet; raises BlockingIOError if the buffer is full.

    Raises:
        ValueError: the packet is too large; large arguments belong in a file.
    """
    body = _encoder.encode(packet)
    if len(body) > PACKET_BYTES or len(fds) > MAX_FDS:
        raise ValueError(
            f"{type(packet).__name__}: {len(body)} bytes and {len(fds)} descriptors, "
            f"at most {PACKET_BYTES} and {MAX_FDS} fit; pass a file descriptor instead"
        )
    socket.send_fds(sock, [body], list(fds), _SEND_FLAGS)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """One packet and its descriptors; no bytes at the end of the connection."""
    try:
        body, fds, _, _ = socket.recv_fds(sock, PACKET_BYTES, MAX_FDS, _RECEIVE_FLAGS)
    except BlockingIOError:
        raise
    except OSError:  # reset: the peer closed without reading what we had sent
        return b"", []
    if not _RECEIVE_FLAGS:
        for fd in fds:
            os.set_inheritable(fd, False)
    return body, list(fds)


def decode_request(body: bytes) -> Request:
    request: Request = _requests.decode(body)
    return request


def decode_report(body: bytes) -> Report:
    report: Report = _reports.decode(body)
    return report
