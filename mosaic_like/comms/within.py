"""A transport inside one process, whose runtimes are all on one loop.

Nothing is lost and nothing is bounded: a packet arrives at the loop's next turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .transport import OnBroken, OnPacket, Packet


class Within:
    """Of one runtime.

    Args:
        loop: of all of them.
        bound: who receives at which address; shared by all of them.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, bound: dict[str, Within]
    ) -> None:
        self.on_packet: OnPacket | None = None
        self.on_refused: Callable[[str, str], object] = lambda sender, what: None
        self._loop = loop
        self._bound = bound

    def bind(self, address: str) -> str:
        self._bound[address] = self
        return address

    def connect(
        self, address: str, routing_id: bytes, on_broken: OnBroken
    ) -> WithinChannel:
        return WithinChannel(self._loop, self._bound, address, routing_id)

    def poll(self) -> None:
        """What has come arrives by itself."""

    def close(self) -> None:
        for address in [a for a, who in self._bound.items() if who is self]:
            del self._bound[address]


class WithinChannel:
    """To one address."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bound: dict[str, Within],
        address: str,
        routing_id: bytes,
    ) -> None:
        self._loop = loop
        self._bound = bound
        self._address = address
        self._routing_id = routing_id
        self._is_open = True

    def send(self, packet: Packet) -> None:
        if self._is_open and not self._loop.is_closed():
            # The head is copied, as the link writes into it again when it resends.
            self._loop.call_soon(self._arrive, [bytes(packet[0]), *packet[1:]])

    def _arrive(self, packet: Packet) -> None:
        receiver = self._bound.get(self._address)
        if receiver is not None and receiver.on_packet is not None:
            receiver.on_packet(self._routing_id, packet)

    def close(self) -> None:
        self._is_open = False
