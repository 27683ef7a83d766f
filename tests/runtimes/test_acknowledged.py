"""Who is about to end waits until the others have what it has sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from mosaic_like.comms import messages as wire
from mosaic_like.comms.link import LinkState
from mosaic_like.comms.memory import MemoryTransport, Network
from mosaic_like.runtimes.peers import Peers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mosaic_like.runtimes.peer import Peer

LIMIT_S = 20.0


class Ends:
    """One that is about to end, as ``peers``, and one that it tells."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.network = Network()
        self.loop = loop
        self.received: list[Any] = []
        self.peers = self._end(b"ending--", "memory://ending", lambda *_: None)
        other = self._end(
            b"other---",
            "memory://other",
            lambda p, batch, b: self.received.extend(batch),
        )
        self.peer = self._meets(self.peers, 2, other.token, "memory://other")
        self._meets(other, 3, self.peers.token, "memory://ending")
        self.is_cut = False

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


async def broken(ends: Ends) -> asyncio.Future[bool]:
    """Waits for who is cut off, and may come again."""
    ends.is_cut = True
    ends.peer.send(wire.Stop("the last word"))
    waiting = asyncio.ensure_future(ends.peers.acknowledged([ends.peer], LIMIT_S))
    while ends.peer.link.state is not LinkState.BROKEN:  # noqa: ASYNC110 -- no event
        await asyncio.sleep(0)
    return waiting


def test_the_first_word_to_somebody_is_waited_for() -> None:
    async def main(ends: Ends) -> None:
        ends.peer.send(wire.Stop("the only word"))
        assert ends.peer.link.state is LinkState.CLOSED
        assert await ends.peers.acknowledged([ends.peer])
        assert [m.why for m in ends.received] == ["the only word"]

    run(main)


def test_a_broken_connection_is_made_again_before_it_is_over() -> None:
    async def main(ends: Ends) -> None:
        waiting = await broken(ends)
        assert not waiting.done()
        assert not ends.received
        ends.is_cut = False
        assert await waiting
        assert [m.why for m in ends.received] == ["the last word"]

    run(main)


def test_who_is_lost_is_not_waited_for() -> None:
    async def main(ends: Ends) -> None:
        waiting = await broken(ends)
        ends.peers.lose(ends.peer.incarnation)
        assert await waiting

    run(main)


def test_a_connection_that_stays_broken_is_waited_for_as_long_as_was_said() -> None:
    async def main(ends: Ends) -> None:
        waiting = await broken(ends)
        waiting.cancel()
        assert not await ends.peers.acknowledged([ends.peer], 0.05)
        assert not await ends.peers.acknowledged([ends.peer])

    run(main)


def test_two_may_wait_at_once() -> None:
    async def main(ends: Ends) -> None:
        waiting = [await broken(ends) for _ in range(2)]
        ends.is_cut = False
        assert await asyncio.gather(*waiting) == [True, True]

    run(main)
