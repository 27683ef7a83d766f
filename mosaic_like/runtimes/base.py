"""What every runtime has: links, membership, joining, and the order to end.

A runtime joins by saying Hello to the monitor, which answers Welcome with everybody who
is here, and from then on announces who joins and who is lost, to all in one order.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.transport import NotAdmitted, WasThere
from ..comms.zeromq import ZmqTransport
from ..core.reach import endpoint, is_near
from ..core.silence import LOST_S
from ..errors import ConnectError, MonitorLost, ProtocolError
from ..ids import MONITOR_INCARNATION
from ..text import printable
from .beats import Beats
from .machine import machine_id
from .membership import Members
from .peers import Peers
from .receiving import Complaints, Handlers

if TYPE_CHECKING:
    from ..config import Config
    from ..core.silence import Presence
    from .peer import Peer
    from .spec import Network

logger = logging.getLogger(__name__)

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
JOIN_TIMEOUT_S = 30.0

Handler = Callable[[Any, Any, int], None]


class Base:
    """One runtime on one loop; its handlers run on the loop's thread.

    Args:
        loop: the loop; everything but what says so is called on its thread.
        config: what all runtimes of the cluster share.
    """

    silence_s = LOST_S  # after which one that it follows is lost
    excuses_itself = True  # see core.silence

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config) -> None:
        self.loop = loop
        self.config = config
        self.uid = ""
        self.me = wire.Member(0, "", b"", "", "", 0)
        self.incarnation = 0
        self.members = Members()
        self.stopping = False
        self.transport = self.new_transport(loop)
        self.token = secrets.token_bytes(8)
        self.peers = Peers(
            loop, self.transport, self.token, self._deliver, self._stranger
        )
        self.context = self.peers.context  # for what is called later
        self.complaints = Complaints(loop.time)
        self.peers.complain = self.complaints.tell
        self.peers.control_limit = config.control_limit
        self.peers.reach = lambda member: endpoint(self.me, member)
        self.peers.on_broken = self._connection_broken
        self.transport.on_refused = self.complaints.tell
        self.presence = Beats(self)  # of those on other hosts that it follows
        self.handlers: dict[type, Handler] = Handlers(self)
        self.handlers.update(
            {
                wire.Welcome: self.on_welcome,
                wire.Refused: self.on_refused,
                wire.Joined: self.on_joined,
                wire.Lost: self.on_lost,
                wire.Stop: self.on_stop,
                wire.Beat: self.presence.on_beat,
            }
        )
        self._welcome: asyncio.Future[None] | None = None
        self._monitor_token = b""  # which alone may welcome
        self._membership: list[asyncio.Future[None]] = []

    def new_transport(self, loop: asyncio.AbstractEventLoop) -> Any:
        """What carries its packets."""
        return ZmqTransport(loop)

    def bind(self, address: str, network: Network | None = None) -> str:
        """Receive at this address, and where other hosts reach it.

        Args:
            address: an ipc one; this host's runtimes use it.
            network: for other hosts; None: there are none.
        """
        bound: str = self.transport.bind(address)
        tcp = ""
        if network is not None:
            self.transport.keys = network.keys
            tcp = self.transport.bind(network.listen)
        self.me = wire.Member(
            0,
            "",
            self.token,
            bound,
            socket.gethostname(),
            os.getpid(),
            tcp,
            machine_id(),
        )
        return bound

    # -- joining -----------------------------------------------------------------------

    async def join(
        self,
        kind: str,
        monitor_address: str,
        monitor_token: bytes,
        uid: str = "",
        timeout_s: float = JOIN_TIMEOUT_S,
    ) -> None:
        """Become a member.

        Raises:
            ConnectError: there is no monitor, it does not answer, or it refuses.
        """
        welcome = self._welcome = self.loop.create_future()
        self._monitor_token = monitor_token
        monitor = self.peers.address(monitor_token, monitor_address)
        monitor.send(
            wire.Hello(
                protocol=wire.PROTOCOL,
                python=PYTHON,
                kind=kind,
                uid=uid,
                token=self.token,
                address=self.me.address,
                host=self.me.host,
                pid=self.me.pid,
                tcp=self.me.tcp,
                machine=self.me.machine,
            )
        )
        try:
            async with asyncio.timeout(timeout_s):
                await welcome
        except TimeoutError:
            raise ConnectError(
                f"the monitor at {monitor_address} did not answer in {timeout_s:g} s: "
                "it has ended, or the key file is stale"
            ) from None
        finally:
            self._welcome = None

    @property
    def run_id(self) -> str:
        """Of this run of the cluster: the same in all its members, never again."""
        return hashlib.blake2b(self._monitor_token, digest_size=16).hexdigest()

    def _connection_broken(self, peer: Peer, cause: str) -> None:
        """It is made again, unless nobody will ever take it."""
        welcome = self._welcome
        if welcome is None:
            self.presence.broken(peer, was_there=isinstance(cause, WasThere))
        elif isinstance(cause, NotAdmitted) and not welcome.done():
            welcome.set_exception(
                ConnectError(
                    f"the monitor at {peer.address} did not let this key in: it is of "
                    "another cluster, or of one that ran there before; take the key "
                    "file of the one that runs"
                )
            )

    def _stranger(self, token: bytes, batch: list[Any]) -> None:
        """Something came from a token that is not announced: here, a Welcome."""
        if token != self._monitor_token:
            return
        for message in batch:
            if self._welcome and isinstance(message, wire.Welcome):
                self.on_welcome(message, (), 0)
                return
            if self._welcome and isinstance(message, wire.Refused):
                self.on_refused(message, (), 0)
                return

    def on_welcome(self, message: wire.Welcome, buffers: Any, sender: int) -> None:
        # Taken first: announcing the monitor delivers again what was stashed of it.
        welcome, self._welcome = self._welcome, None
        if welcome is None or welcome.done():
            return
        self.me = message.me
        self.uid = message.me.uid
        self.incarnation = message.me.incarnation
        self.peers.announce(message.me).shares_memory = True
        self.joined_cluster(message.settings)
        # All are known first: to add one delivers what it has sent already, which may
        # mention others, and whoever is unknown and older than this one was lost.
        for member in message.members:
            self.members[member.incarnation] = member
        for member in message.members:
            self._add(member)
        welcome.set_result(None)

    def joined_cluster(self, settings: bytes) -> None:
        """This runtime has its incarnation; others are announced right after."""

    def on_refused(self, message: wire.Refused, buffers: Any, sender: int) -> None:
        if self._welcome is not None and not self._welcome.done():
            self._welcome.set_exception(ConnectError(printable(message.why)))

    def on_joined(self, message: wire.Joined, buffers: Any, sender: int) -> None:
        if message.member.incarnation not in self.members:
            self._add(message.member)

    def _add(self, member: wire.Member) -> None:
        self.members[member.incarnation] = member
        peer = self.peers.announce(member)
        peer.shares_memory = is_near(self.me, member)
        self.member_joined(member)
        self._membership_changed()

    def member_joined(self, member: wire.Member) -> None:
        """Somebody is here."""

    def on_lost(self, message: wire.Lost, buffers: Any, sender: int) -> None:
        self.before_lost(message)
        member = self.members.pop(message.incarnation, None)
        if member is None:
            return
        logger.debug("%s: %s is lost: %s", self.uid, member.uid, message.cause)
        self.presence.forget(message.incarnation)
        self.peers.lose(message.incarnation)
        if message.remains:
            self.remains(member, message.remains)
        self.member_lost(member, printable(message.cause))
        self._membership_changed()

    def before_lost(self, message: wire.Lost) -> None:
        """What is to be done while it can still be sent to."""

    def remains(self, member: wire.Member, data: bytes) -> None:
        """What somebody left who is lost: told right before ``member_lost``."""

    def member_lost(self, member: wire.Member, cause: str) -> None:
        """Somebody is gone for good; nothing of it is heard any more."""

    def presence_changed(self, member: wire.Member, presence: Presence) -> None:
        """What is to be thought of somebody on another host that it follows."""

    def _membership_changed(self) -> None:
        waiting, self._membership = self._membership, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def membership(self) -> None:
        """Wait until somebody joins or is lost."""
        future: asyncio.Future[None] = self.loop.create_future()
        self._membership.append(future)
        await future

    def of_kind(self, kind: str) -> list[wire.Member]:
        """All members whose uid begins so, this one too, in order of their indices."""
        return self.members.of_kind(kind, self.me)

    # -- sending and receiving ---------------------------------------------------------

    def outbox(self, incarnation: int) -> Peer | None:
        """To send to a runtime; None if it is lost or was never here."""
        return self.peers.by_incarnation.get(incarnation)

    @property
    def monitor(self) -> Peer:
        """To send to the monitor."""
        peer = self.peers.by_incarnation.get(MONITOR_INCARNATION)
        if peer is None:
            raise MonitorLost("the monitor is gone: the cluster is at its end")
        return peer

    def _deliver(self, peer: Peer, batch: list[Any], buffers: list[Any]) -> None:
        """Hand each message to its handler."""
        handlers = self.handlers
        sender = peer.incarnation
        frames: Any = ()
        used = 0
        for message in batch:
            if buffers:
                extra = getattr(message, "extra", None)
                count = 0 if extra is None else extra.buffers
                if type(message) is wire.Chunk:
                    count = 1
                frames = tuple(buffers[used : used + max(0, count)])
                used += len(frames)
            try:
                handlers[type(message)](message, frames, sender)
            except Exception as error:
                self._bad(peer, message, error)
        self.delivered()

    def _bad(self, peer: Peer, message: Any, error: Exception) -> None:
        """A message was not taken: one must never end the runtime's receiving."""
        name = type(message).__name__
        if isinstance(error, ProtocolError):  # the peer's fault
            self.complaints.tell(peer.uid, f"{self.uid}: {name}: {error}")
        else:
            logger.error("%s: %s from %s", self.uid, name, peer.uid, exc_info=error)

    def delivered(self) -> None:
        """The end of a batch."""

    # -- the end -----------------------------------------------------------------------

    def on_stop(self, message: wire.Stop, buffers: Any, sender: int) -> None:
        """The order to end."""

    async def flushed(
        self, timeout_s: float, *kinds: str, broken_s: float = 0.0
    ) -> bool:
        """Wait until what was sent has been acknowledged, but not for long.

        Args:
            timeout_s: seconds.
            kinds: by whom, such as ``monitor``; others may be gone already.
            broken_s: seconds, of these, for those whose connection is broken.

        Returns:
            Whether it has, by all that are not lost.
        """
        waited = [
            peer
            for peer in self.peers.by_incarnation.values()
            if peer.uid.split(":")[0] in kinds
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                return await self.peers.acknowledged(waited, broken_s)
        return False

    def close(self) -> None:
        """End all connections."""
        self.presence.close()
        self.peers.close()
