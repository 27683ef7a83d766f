"""A transport in memory: the test decides what arrives, and when.

A ``Network`` holds what is on its way; nothing moves by itself. It may deliver in any
order, lose, double and hold back packets, and cut channels. No sockets, no clock.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from mosaic_like.errors import AddressInUse

if TYPE_CHECKING:
    from mosaic_like.comms.transport import OnBroken, OnPacket, Packet


class Network:
    """All that is on its way between the transports made with it."""

    def __init__(self) -> None:
        self.bound: dict[str, MemoryTransport] = {}
        self.channels: list[MemoryChannel] = []
        self._refused: deque[MemoryChannel] = deque()

    def in_flight(self) -> list[MemoryChannel]:
        """The channels, open or cut, on which something is still on its way."""
        return [channel for channel in self.channels if channel.queue]

    def deliver(self, channel: MemoryChannel, index: int = 0) -> None:
        """Let a packet arrive; any index but 0 changes the order."""
        packet = channel.queue[index]
        del channel.queue[index]
        self._hand_over(channel, packet)

    def duplicate(self, channel: MemoryChannel, index: int = 0) -> None:
        """Let a packet arrive and keep it on its way too."""
        self._hand_over(channel, channel.queue[index])

    def lose(self, channel: MemoryChannel, index: int = 0) -> None:
        """Drop a packet without a sign to anybody."""
        del channel.queue[index]

    def cut(self, channel: MemoryChannel, *, late: bool = False) -> None:
        """Break a channel; what was on its way is lost, or may still arrive late."""
        if not late:
            channel.queue.clear()
        channel.break_("cut")

    def run(self) -> None:
        """Refuse what was connected to nothing and deliver until nothing moves."""
        while True:
            while self._refused:
                channel = self._refused.popleft()
                channel.queue.clear()
                channel.break_(f"nothing is bound at {channel.address}")
            moving = self.in_flight()
            if not moving:
                return
            self.deliver(moving[0])

    def add(self, channel: MemoryChannel) -> None:
        """A channel was made."""
        self.channels.append(channel)
        if channel.address not in self.bound:
            self._refused.append(channel)

    def _hand_over(self, channel: MemoryChannel, packet: Packet) -> None:
        receiver = self.bound.get(channel.address)
        if receiver is not None and receiver.on_packet is not None:
            receiver.on_packet(channel.routing_id, list(packet))


class MemoryChannel:
    """The sending end of a connection in a Network."""

    def __init__(
        self, network: Network, address: str, routing_id: bytes, on_broken: OnBroken
    ) -> None:
        self.address = address
        self.routing_id = routing_id
        self.queue: deque[Packet] = deque()
        self.is_open = True
        self._on_broken = on_broken
        network.add(self)

    def send(self, packet: Packet) -> None:
        if self.is_open:
            # The head is copied, as the link writes into it again when it resends.
            self.queue.append([bytes(packet[0]), *packet[1:]])

    def close(self) -> None:
        """End it; the test still decides about what is on its way."""
        self.is_open = False

    def break_(self, cause: str) -> None:
        """End it from outside."""
        if self.is_open:
            self.is_open = False
            self._on_broken(cause)


class MemoryTransport:
    """One process in a Network."""

    def __init__(self, network: Network) -> None:
        self.on_packet: OnPacket | None = None
        self._network = network
        self._addresses: list[str] = []
        self._channels: list[MemoryChannel] = []

    def bind(self, address: str) -> str:
        if address in self._network.bound:
            raise AddressInUse(f"{address} is bound already; choose another")
        self._network.bound[address] = self
        self._addresses.append(address)
        return address

    def connect(
        self, address: str, routing_id: bytes, on_broken: OnBroken
    ) -> MemoryChannel:
        channel = MemoryChannel(self._network, address, routing_id, on_broken)
        self._channels.append(channel)
        return channel

    def close(self) -> None:
        """End everything; who is connected to us is told that it is broken."""
        for channel in self._channels:
            channel.close()
        for address in self._addresses:
            del self._network.bound[address]
            for channel in self._network.channels:
                if channel.address == address:
                    self._network.cut(channel)
        self._addresses.clear()
