"""Two runtimes' ends of a link, over a network in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from memory_network import MemoryTransport, Network

from mosaic_like.comms import messages as wire
from mosaic_like.runtimes.peers import Peers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mosaic_like.runtimes.peer import Peer

LIMIT_S = 20.0


class Ends:
    """One, as ``peers``, and one that it tells."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.network = Network()
        self.loop = loop
        self.batches: list[list[Any]] = []  # that the other has got
        self.peers = self._end(b"telling-", "memory://telling", lambda *_: None)
        other = self._end(
            b"other---",
            "memory://other",
            lambda p, batch, b: self.batches.append(batch),
        )
        self.peer = self._meets(self.peers, 2, other.token, "memory://other")
        self._meets(other, 3, self.peers.token, "memory://telling")
        self.is_cut = False

    @property
    def received(self) -> list[Any]:
        return [message for batch in self.batches for message in batch]

    def _end(self, token: bytes, address: str, deliver: Any) -> Peers:
        transport = MemoryTransport(self.network)
        transport.bind(address)
        peers = Peers(self.loop, transport, token, deliver, lambda *_: None)
        transport.on_packet = peers._packet
        return peers

    @staticmethod
    def _meets(peers: Peers, incarnation: int, token: bytes, address: str) -> Peer:
        uid = f"worker:0:{incarnation}"
        return peers.announce(wire.Member(incarnation, uid, token, address, "here", 1))

    async def moving(self) -> None:
        """What is on its way arrives, for as long as nothing is cut."""
        while True:
            if self.is_cut:
                for channel in self.network.channels:
                    self.network.cut(channel)
            self.network.run()
            await asyncio.sleep(0)


def run(main: Callable[[Ends], Awaitable[None]]) -> None:
    async def bounded() -> None:
        ends = Ends(asyncio.get_running_loop())
        moving = asyncio.ensure_future(ends.moving())
        try:
            async with asyncio.timeout(LIMIT_S):
                await main(ends)
        finally:
            moving.cancel()

    asyncio.run(bounded())
