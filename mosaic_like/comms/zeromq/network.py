"""The ROUTER that other hosts reach: who is let in there, and who watches over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import zmq
from zmq.utils import z85

from ...errors import ProtocolError
from ..gate import Gate
from ..security import Keys, answer, is_admitted
from ..splitting import joined
from .receiver import Receiver
from .sockets import ENDED_MASK, MONITOR_EVENT, NOBLOCK, STRANGER

if TYPE_CHECKING:
    from ..transport import Packet
    from .transport import ZmqTransport

_ZAP: Final = "inproc://zeromq.zap.01"  # where libzmq asks who is let in
_OLDEST_LIBZMQ: Final = (4, 3, 5)  # CVE-2019-13132 and CVE-2019-6250 are of older ones
# What is watched of the ROUTER that the network reaches.
_CROWD_MASK: Final = ENDED_MASK | int(zmq.EVENT_ACCEPTED)


def libzmq_version() -> str:
    """Of the library in use, which is not that of pyzmq."""
    return zmq.zmq_version()


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


def new_keys(*, encrypted: bool = True) -> Keys:
    """The keys of a new cluster."""
    server_public, server_secret = zmq.curve_keypair()
    client_public, client_secret = zmq.curve_keypair()
    return Keys(
        server_public.decode(),
        server_secret.decode(),
        client_public.decode(),
        client_secret.decode(),
        encrypted,
    )


class Joining:
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
            transport.refused(STRANGER, f"a packet: {error}; it")
            return
        if transport.on_packet is not None:
            transport.on_packet(routing_id, packet)


class Network:
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
            if keys.encrypted:
                router.setsockopt(zmq.CURVE_SERVER, 1)
                router.setsockopt(zmq.CURVE_SECRETKEY, keys.server_secret.encode())
            else:
                router.setsockopt(zmq.PLAIN_SERVER, 1)
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
        self.receiver = Receiver(Joining(transport), router)

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
                event, address = self._monitor.recv_multipart(NOBLOCK)
            except zmq.Again:
                return  # nothing more: the FD wakes us again
            number, value = MONITOR_EVENT.unpack(event)
            gate = next((g for g in self._gates if g.address == address.decode()), None)
            if number == zmq.EVENT_ACCEPTED and gate is not None:
                gate.entered(value)
                if gate.is_shut:
                    what = f"a connection beyond the {gate.limit} there may be"
                    self._transport.refused(STRANGER, what)
            elif number == zmq.EVENT_DISCONNECTED and gate is not None:
                gate.left(value)
            elif number == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                self._transport.refused(STRANGER, "a connection that spoke no ZMTP")
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
        self._encrypted = keys.encrypted
        self._admitted = keys.client_secret.encode()
        if keys.encrypted:
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
                request = self._socket.recv_multipart(NOBLOCK)
            except zmq.Again:
                return  # nothing more: the FD wakes us again
            reply = answer(request, self._admitted, encrypted=self._encrypted)
            if reply is None or not is_admitted(reply):
                sender = request[3].decode("ascii", "replace") if reply else STRANGER
                self._transport.refused(sender, "a connection without our key")
            # REP must answer; libzmq takes what is no ZAP reply for a refusal.
            self._socket.send_multipart(reply if reply is not None else [b""])

    def close(self) -> None:
        self._transport.loop.remove_reader(self._fd)
        self._socket.close(0)
