"""What a link needs of the world: the ports that ``zeromq`` and ``within`` fill.

Only Protocols live here. A transport carries packets in order over a connection, or
says that the connection is broken; it numbers, keeps and repeats nothing. Everything is
called, and calls back, on the thread of the loop that the transport was made for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class WasThere(str):
    """Why a connection has ended that was there: told as the cause to ``OnBroken``.

    All other causes are of those that were never made: something on the way may refuse
    them that knows nothing of the peer.
    """

    __slots__ = ()


class NotAdmitted(str):
    """Why a connection was not made, for people: trying again will not help."""

    __slots__ = ()


Packet = list[Any]  # [head, *buffers], each of them a bytes-like object

OnPacket = Callable[[bytes, Packet], None]
"""Called with the routing id of the sender's connection and what was received."""

OnBroken = Callable[[str], None]
"""Called once, with the cause for people, when a connection ended or was never made.

Never called inside ``connect`` or ``send``, and never after ``close``. The channel is
closed already."""


class Channel(Protocol):
    """The sending end of one connection."""

    def send(self, packet: Packet) -> None:
        """Hand over a packet; never blocks.

        The head may be overwritten afterwards, the buffers may not. What is sent on a
        connection that has ended is dropped.
        """

    def close(self) -> None:
        """End the connection; what is still on its way may be dropped."""


class Transport(Protocol):
    """All connections of one process."""

    on_packet: OnPacket | None  # to be set before ``bind``

    def bind(self, address: str) -> str:
        """Receive at this address; gives the address that peers connect to.

        Raises:
            AddressInUse: somebody else does.
            ValueError: it is no address.
        """

    def connect(self, address: str, routing_id: bytes, on_broken: OnBroken) -> Channel:
        """A channel to what has been announced as bound there; may be used at once.

        Raises:
            ValueError: there can be nothing at such an address.
            OSError: this process may open no more; try again later.
        """

    def close(self) -> None:
        """End everything, after what was sent has gone out or a short while."""
