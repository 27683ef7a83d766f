"""All sockets of one process, and the options that they have."""

from __future__ import annotations

import _thread
import itertools
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import zmq

from ...errors import AddressInUse
from ..security import Keys, Refusals, check_guarded
from ..splitting import FRAME_BYTES
from .channel import NetworkChannel, ZmqChannel
from .network import Network, check_libzmq
from .receiver import Receiver

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..transport import OnBroken, OnPacket

IPC_PATH_BYTES: Final = 107  # sockaddr_un, without its final zero
# Connections of the network. The kernel asks that of a silent peer; if it does not
# answer, the connection was cut, which would else be found out after a quarter of an
# hour, or never by who only receives. Not by libzmq's heartbeats: when their timer runs
# out on a connection that has ended while its input was stopped, libzmq aborts the
# process ("!_io_error", zeromq/libzmq#4364, seen here in 1 of 10 runs of F12.flip).
_ASK_S: Final = 2
_ASKED: Final = 3  # times, where _UNACKNOWLEDGED_MS is not known
_UNACKNOWLEDGED_MS: Final = 6_000
_CONNECT_MS: Final = 3_000
_AROUND: Final = 256  # bytes of CURVE around a frame
_THREADS: Final = 2  # of a context: one for I/O, and one that closes sockets
_MEMBER: Final = b"member"  # the name that PLAIN wants; what counts is the password

_NETWORK_OPTIONS: Final = MappingProxyType(
    {
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_IDLE: _ASK_S,
        zmq.TCP_KEEPALIVE_INTVL: _ASK_S,
        zmq.TCP_KEEPALIVE_CNT: _ASKED,
        zmq.TCP_MAXRT: _UNACKNOWLEDGED_MS,
        zmq.CONNECT_TIMEOUT: _CONNECT_MS,
        zmq.IPV6: 1,
    }
)


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


def check_threads() -> None:
    """See that libzmq can start its threads: where it cannot it aborts the process.

    Raises:
        RuntimeError: it cannot; the text says what may limit them.
    """
    gate = _thread.allocate_lock()
    gate.acquire()
    ends: list[_thread.LockType] = []

    def wait(end: _thread.LockType) -> None:
        with gate:
            end.release()

    try:
        for _ in range(_THREADS):
            end = _thread.allocate_lock()
            end.acquire()
            # That of threading takes twice as long: 0.3 ms for both.
            _thread.start_new_thread(wait, (end,))
            ends.append(end)
    except RuntimeError as error:
        raise RuntimeError(
            f"libzmq needs {_THREADS} threads here, and gets none: {error}; see "
            "`ulimit -u`, and pids.max of the control group"
        ) from None
    finally:
        gate.release()
        for end in ends:
            end.acquire()


class ZmqTransport:
    """All sockets of one process.

    Args:
        loop: whose thread calls everything here; uvloop or asyncio's own.
        keys: of the cluster, for tcp; None lets tcp be used on this machine alone.
        max_message_bytes: a larger frame ends the connection that it came on.
        linger_s: how long ``close()`` may wait for what was sent to go out.
        handshake_s: a connection that is not made in this time is broken.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        keys: Keys | None = None,
        max_message_bytes: int = 2 << 30,
        linger_s: float = 0.2,
        handshake_s: float = 10.0,
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
            zmq.LINGER: 0,
        }
        self._channels: set[ZmqChannel] = set()
        self._network_options = {
            **_NETWORK_OPTIONS,
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
        self._network: Network | None = None
        self._receivers = [Receiver(self, self.socket(zmq.ROUTER))]

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
                self._network = Network(self, self._context, self.keys)
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
        keys = self.keys
        if keys is not None and not keys.encrypted:
            socket.setsockopt(zmq.PLAIN_USERNAME, _MEMBER)
            socket.setsockopt(zmq.PLAIN_PASSWORD, keys.client_secret.encode())
        elif keys is not None:
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
        kind = NetworkChannel if address.startswith("tcp://") else ZmqChannel
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
