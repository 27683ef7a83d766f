"""The transport between processes: the only file that imports zmq.

One ROUTER for each process that only receives, one DEALER for each peer that only
sends. Where it can be reached over the network there is a second ROUTER for that, which
speaks CURVE; see ``security`` for who is let in, ``gate`` for how many, ``splitting``
for what its frames look like. A DEALER lives as long as its one connection: libzmq
never reconnects, because a reconnecting identity is ignored while its half-open pipe
lives, and old frames mix with resent ones (tried). The socket monitor tells that the
connection is gone, the link then opens another under another routing id. Numbers,
keeping and repeating are the link's.

Everything runs on the thread of the loop that the transport was made for, by
``add_reader``, so it costs nothing while nothing arrives.
"""

from __future__ import annotations

import errno
import itertools
import os
import struct
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import zmq
from zmq.utils import z85

from ..errors import AddressInUse, ProtocolError
from .gate import Gate
from .security import Keys, Refusals, answer, check_guarded, is_admitted
from .splitting import FRAME_BYTES, is_small, joined, split
from .transport import NotAdmitted

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .transport import OnBroken, OnPacket, Packet

ZERO_COPY_BYTES: Final = 64 * 1024  # below this a copy is cheaper than sharing
DRAIN_BUDGET: Final = 64  # packets received before other callbacks of the loop run
IPC_PATH_BYTES: Final = 107  # sockaddr_un, without its final zero
_ZAP: Final = "inproc://zeromq.zap.01"  # where libzmq asks who is let in
_STRANGER: Final = "a stranger"  # for people
# Connections of the network. libzmq's own thread asks a silent peer, so that there is
# always something for the other kernel to acknowledge; if it does not, the connection
# was cut, which would else be found out after a quarter of an hour. Not the answer is
# waited for, or not for long: on a slow way it comes behind all else.
_BEAT_MS: Final = 2_000
_ANSWER_MS: Final = 60_000
_UNACKNOWLEDGED_MS: Final = 6_000
_CONNECT_MS: Final = 3_000
_AROUND: Final = 256  # bytes of CURVE around a frame
_OLDEST_LIBZMQ: Final = (4, 3, 5)  # CVE-2019-13132 and CVE-2019-6250 are of older ones

_NOBLOCK: Final = int(zmq.NOBLOCK)
_POLLIN: Final = int(zmq.POLLIN)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)

_NETWORK_OPTIONS: Final = MappingProxyType(
    {
        zmq.HEARTBEAT_IVL: _BEAT_MS,
        zmq.HEARTBEAT_TIMEOUT: _ANSWER_MS,
        zmq.TCP_MAXRT: _UNACKNOWLEDGED_MS,
        zmq.CONNECT_TIMEOUT: _CONNECT_MS,
        zmq.IPV6: 1,
    }
)

# How a connection ends, or is never made, and what people are told.
_ENDED: Final = {
    zmq.EVENT_DISCONNECTED: "the connection ended",
    zmq.EVENT_CLOSED: "nothing accepts there",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake failed",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the handshake failed: another protocol",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the handshake failed: not admitted",
}
_ENDED_MASK: Final = sum(int(event) for event in _ENDED)
# What is watched of the ROUTER that the network reaches.
_CROWD_MASK: Final = _ENDED_MASK | int(zmq.EVENT_ACCEPTED)
_USED_UP: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # may come back
_MONITOR_EVENT: Final = struct.Struct("=HI")  # libzmq: zmq_socket_monitor(3)


def check_ipc_path(address: str) -> None:
    """Refuse an ipc address that the kernel would not take.

    Raises:
        ValueError: the path is longer than 107 bytes; choose a shorter directory.
    """
    scheme, _, path = address.partition("://")
    size = len(os.fsencode(path))
    if scheme == "ipc" and size > IPC_PATH_BYTES:
        raise ValueError(
            f"the socket path {path!r} has {size} bytes, at most {IPC_PATH_BYTES} are"
            " possible; choose a shorter directory"
        )


def check_libzmq() -> None:
    """Refuse to be reached over the network with a libzmq that cannot guard it.

    Raises:
        RuntimeError: it has no CURVE, or is too old; install the wheel of pyzmq, which
            brings one that has it.
    """
    version = zmq.zmq_version_info()
    if zmq.has("curve") and version >= _OLDEST_LIBZMQ:
        return
    found = ".".join(map(str, version))
    oldest = ".".join(map(str, _OLDEST_LIBZMQ))
    raise RuntimeError(
        f"libzmq {found}{'' if zmq.has('curve') else ' without CURVE'} cannot guard a "
        f"socket that the network reaches: {oldest} with CURVE is needed; install its "
        "wheel: pip install --force-reinstall --only-binary :all: pyzmq"
    )


def new_keys() -> Keys:
    """The keys of a new cluster."""
    server_public, server_secret = zmq.curve_keypair()
    client_public, client_secret = zmq.curve_keypair()
    return Keys(
        server_public.decode(),
        server_secret.decode(),
        client_public.decode(),
        client_secret.decode(),
    )


class ZmqTransport:
    """All sockets of one process.

    Args:
        loop: whose thread calls everything here; uvloop or asyncio's own.
        keys: of the cluster, for tcp; None lets tcp be used on this machine alone.
        max_message_bytes: a larger frame ends the connection that it came on.
        linger_s: how long ``close()`` may wait for what was sent to go out.
        handshake_s: a connection that is not made in this time is broken.
        heartbeat_s: how often libzmq's own thread asks a silent peer, which is broken
            after three times that; 0 is never on this machine, and on the network what
            finds a connection that was cut. It answers while Python stands still.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        keys: Keys | None = None,
        max_message_bytes: int = 2 << 30,
        linger_s: float = 0.2,
        handshake_s: float = 10.0,
        heartbeat_s: float = 0.0,
    ) -> None:
        self.on_packet: OnPacket | None = None
        self.loop = loop
        self._linger_ms = int(linger_s * 1000)
        self._options = {
            # Nothing is bounded here: a full pipe would block or drop in the middle of
            # a stream. Credits bound what a peer may have under way, and the link keeps
            # all of that anyway until it is acknowledged.
            zmq.SNDHWM: 0,
            zmq.RCVHWM: 0,
            zmq.MAXMSGSIZE: max_message_bytes,
            zmq.HANDSHAKE_IVL: int(handshake_s * 1000),
            zmq.HEARTBEAT_IVL: int(heartbeat_s * 1000),
            zmq.HEARTBEAT_TIMEOUT: int(3 * heartbeat_s * 1000),
            zmq.LINGER: 0,
        }
        self._channels: set[ZmqChannel] = set()
        beats = (zmq.HEARTBEAT_IVL, zmq.HEARTBEAT_TIMEOUT) if heartbeat_s else ()
        self._network_options = {
            **_NETWORK_OPTIONS,
            **{option: self._options[option] for option in beats},
            # Of a frame before its sender is known, too: see ``splitting``.
            zmq.MAXMSGSIZE: min(max_message_bytes, FRAME_BYTES + _AROUND),
        }
        self._monitors = itertools.count(1)
        self._is_closed = False
        self._context = zmq.Context(io_threads=1)
        self.keys = keys  # to be set before the first tcp address is used
        self.refusals = Refusals()
        # Told of each connection that is not let in: by whom, and what it was.
        self.on_refused: Callable[[str, str], object] = lambda sender, what: None
        self._network: _Network | None = None
        self._receivers = [_Receiver(self, self.socket(zmq.ROUTER))]

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        """A socket with the options that all of them share."""
        socket = self._context.socket(kind)
        for option, value in self._options.items():
            socket.setsockopt(option, value)
        return socket

    def bind(self, address: str) -> str:
        """Receive here too; ``tcp://127.0.0.1:*`` takes a free port.

        libzmq removes a socket file that is in the way, so an ipc path must be in a
        directory that is ours alone.

        Raises:
            AddressInUse: somebody else listens there.
            RuntimeError: ``on_packet`` is not set, so packets would be dropped; or keys
                are needed, and this libzmq cannot use them safely.
            ValueError: the ipc path is too long, or a tcp address is open to others
                and there are no keys.
        """
        check_ipc_path(address)
        check_guarded(address, self.keys)
        if self.on_packet is None:
            raise RuntimeError("set on_packet before bind()")
        if address.startswith("tcp://"):
            if self._network is None:
                if self.keys is not None:
                    check_libzmq()
                self._network = _Network(self, self._context, self.keys)
                self._receivers.append(self._network.receiver)
            return self._network.bind(address)
        router = self._receivers[0].router
        try:
            router.bind(address)
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE:
                raise AddressInUse(
                    error.errno, f"{address} is taken; choose another"
                ) from None
            raise
        endpoint = router.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(endpoint, bytes)
        return endpoint.decode().rstrip("\0")

    def network_socket(self, kind: int) -> zmq.Socket[bytes]:
        """One that is to talk to other hosts."""
        socket = self.socket(kind)
        for option, value in self._network_options.items():
            socket.setsockopt(option, value)
        return socket

    def introduce(self, socket: zmq.Socket[bytes]) -> None:
        """Give a socket that connects the keys that it needs there."""
        if self.keys is not None:
            keys = self.keys
            socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server_public.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.client_public.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, keys.client_secret.encode())

    def connect(
        self, address: str, routing_id: bytes, on_broken: OnBroken
    ) -> ZmqChannel:
        """A channel to what is bound there; what is sent at once waits until it is up.

        Raises:
            ValueError: the ipc path is too long, or a tcp address is another machine's
                and there are no keys.
            OSError: this process may open no more; try again later.
        """
        check_ipc_path(address)
        check_guarded(address, self.keys)
        kind = _NetworkChannel if address.startswith("tcp://") else ZmqChannel
        try:
            channel = kind(
                self, self._context, address, routing_id, self.monitor_name(), on_broken
            )
        except zmq.ZMQError as error:
            raise OSError(error.errno, f"{address}: {error}") from None
        self._channels.add(channel)
        return channel

    def close(self) -> None:
        """End everything; blocks until what was sent is out, at most ``linger_s``."""
        if self._is_closed:
            return
        self._is_closed = True
        for channel in list(self._channels):
            channel.close(self._linger_ms)
        if self._network is not None:
            self._network.close()
        for receiver in self._receivers:
            receiver.close()
        # Cannot hang: no socket lingers longer than linger_s, and one that a Ctrl-C has
        # kept from being known here is closed now.
        self._context.destroy(linger=0)

    def monitor_name(self) -> str:
        """Where a socket can tell what becomes of its connections."""
        return f"inproc://monitor-{next(self._monitors)}"

    def refused(self, sender: str, what: str) -> None:
        """Somebody was not let in."""
        self.refusals.count(what)
        self.on_refused(sender, what)

    def discard(self, channel: ZmqChannel) -> None:
        """A channel has closed."""
        self._channels.discard(channel)

    def poll(self) -> None:
        """Hand over now what has arrived, for who cannot let the loop come by."""
        for receiver in self._receivers:
            receiver.drain()


class _Receiver:
    """A ROUTER that only receives."""

    __slots__ = ("_events", "_fd", "_is_closed", "_recv", "_transport", "router")

    def __init__(
        self, transport: ZmqTransport | _Joining, router: zmq.Socket[bytes]
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
                routing_id = recv(_NOBLOCK)
                # The parts of a message arrive together, so no more waiting. A frame is
                # taken without copying first because only that tells cheaply whether
                # more parts follow: 1.0 µs for a message against 1.5 by RCVMORE and
                # 3.1 by recv_multipart.
                frame = recv(_NOBLOCK, False)
                packet: Packet = [_contents(frame)]
                while frame.more:
                    frame = recv(_NOBLOCK, False)
                    packet.append(_contents(frame))
                del frame
                on_packet(routing_id, packet)
                # A local name must not keep the last packet alive until the next one.
                del packet
                if self._is_closed or not int(events(zmq.EVENTS)) & _POLLIN:
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


class _Joining:
    """Puts the packets together that came over the network: see ``splitting``."""

    def __init__(self, transport: ZmqTransport) -> None:
        self.loop = transport.loop
        self._transport = transport

    def on_packet(self, routing_id: bytes, packet: Packet) -> None:
        transport = self._transport
        try:
            packet = joined(packet)
        except ProtocolError as error:
            # It is a member's fault, but which one's only the link knows.
            transport.refused(_STRANGER, f"a packet: {error}; it")
            return
        if transport.on_packet is not None:
            transport.on_packet(routing_id, packet)


class _Network:
    """The ROUTER that other hosts reach, and who watches over its connections.

    Args:
        transport: whose it is.
        context: of its sockets.
        keys: None where nobody but this machine can connect.
    """

    def __init__(
        self,
        transport: ZmqTransport,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: Keys | None,
    ) -> None:
        self._transport = transport
        self._zap: _Doorkeeper | None = None
        self._gates: list[Gate] = []
        router = self._router = transport.network_socket(zmq.ROUTER)
        if keys is not None:
            self._zap = _Doorkeeper(context, transport, keys)
            router.setsockopt(zmq.CURVE_SERVER, 1)
            router.setsockopt(zmq.CURVE_SECRETKEY, keys.server_secret.encode())
            router.setsockopt(zmq.ZAP_DOMAIN, b"mosaic")
        name = transport.monitor_name()
        router.monitor(name, _CROWD_MASK)
        self._monitor = context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.LINGER, 0)
        # A bound on what waits here would block libzmq's own thread when it is crowded.
        self._monitor.setsockopt(zmq.RCVHWM, 0)
        self._monitor.connect(name)
        self._monitor_fd = int(self._monitor.getsockopt(zmq.FD))
        transport.loop.add_reader(self._monitor_fd, self._watch)
        self.receiver = _Receiver(_Joining(transport), router)

    def bind(self, address: str) -> str:
        """Listen at a tcp address; the one that it has become."""
        gate = Gate(address)
        self._gates.append(gate)
        self._router.setsockopt(zmq.USE_FD, gate.duplicate())
        self._router.bind(gate.address)
        self._transport.loop.call_soon(self._watch)
        return gate.address

    def close(self) -> None:
        """To be called before its receiver is closed."""
        self._transport.loop.remove_reader(self._monitor_fd)
        self._router.disable_monitor()  # first: see ZmqChannel.close
        self._monitor.close()
        for gate in self._gates:
            gate.close()
        if self._zap is not None:
            self._zap.close()

    def _watch(self) -> None:
        while not self._monitor.closed:
            try:
                event, address = self._monitor.recv_multipart(_NOBLOCK)
            except zmq.Again:
                return  # nothing more: the FD wakes us again
            number, value = _MONITOR_EVENT.unpack(event)
            gate = next((g for g in self._gates if g.address == address.decode()), None)
            if number == zmq.EVENT_ACCEPTED and gate is not None:
                gate.entered(value)
                if gate.is_shut:
                    what = f"a connection, one of more than {gate.limit},"
                    self._transport.refused(_STRANGER, what)
            elif number == zmq.EVENT_DISCONNECTED and gate is not None:
                gate.left(value)
            elif number == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                self._transport.refused(_STRANGER, "a connection that spoke no ZMTP")
            elif number == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                # As a member does too that ends meanwhile: nobody is told of it.
                self._transport.refusals.count("a connection that said no hello")


class _Doorkeeper:
    """Answers libzmq, which asks for each handshake whether the key is let in."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        transport: ZmqTransport,
        keys: Keys,
    ) -> None:
        self._admitted = z85.decode(keys.client_public)
        self._transport = transport
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(_ZAP)
        self._fd = int(self._socket.getsockopt(zmq.FD))
        transport.loop.add_reader(self._fd, self._answer)

    def _answer(self) -> None:
        while not self._socket.closed:
            try:
                request = self._socket.recv_multipart(_NOBLOCK)
            except zmq.Again:
                return  # nothing more: the FD wakes us again
            reply = answer(request, self._admitted)
            if reply is None or not is_admitted(reply):
                sender = request[3].decode("ascii", "replace") if reply else _STRANGER
                self._transport.refused(sender, "a connection without our key")
            # REP must answer; libzmq takes what is no ZAP reply for a refusal.
            self._socket.send_multipart(reply if reply is not None else [b""])

    def close(self) -> None:
        self._transport.loop.remove_reader(self._fd)
        self._socket.close(0)


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
            dealer.monitor(monitor, _ENDED_MASK)
            self._monitor = context.socket(zmq.PAIR)
            self._monitor.setsockopt(zmq.LINGER, 0)
            self._monitor.connect(monitor)
        except BaseException:
            dealer.disable_monitor()
            dealer.close(0)
            raise
        self._monitor_fd = int(self._monitor.getsockopt(zmq.FD))
        transport.loop.add_reader(self._monitor_fd, self._watch)
        # That of the backend: pyzmq's own in front of it costs 1 µs, and adds routing
        # ids and groups, which a DEALER has not.
        self._send: Callable[..., object] = super(zmq.Socket, dealer).send
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
                send(packet[0], _NOBLOCK)
                return
            # The head is always copied: the link writes into it when it resends.
            send(packet[0], _MORE)
            last = len(packet) - 1
            for index in range(1, last + 1):
                buffer = packet[index]
                flags = _MORE if index < last else _NOBLOCK
                send(buffer, flags, memoryview(buffer).nbytes < ZERO_COPY_BYTES)
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
                event, _address = self._monitor.recv_multipart(_NOBLOCK)
            except zmq.Again:
                return  # nothing more: the FD wakes us again
            number, value = _MONITOR_EVENT.unpack(event)
            cause = _ENDED.get(number)
            if cause is not None:
                self.close()
                if number == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL and value:
                    cause = f"{cause}: {os.strerror(value)}"
                told = f"{self.address}: {cause}"
                if number == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                    told = NotAdmitted(told)
                self._on_broken(told)


class _NetworkChannel(ZmqChannel):
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


def _contents(frame: zmq.Frame) -> bytes | memoryview:
    """A copy of a small frame; a large one itself, read-only."""
    if len(frame) < ZERO_COPY_BYTES:
        return frame.bytes
    return frame.buffer.toreadonly()
