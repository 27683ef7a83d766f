"""Who is about to end waits until the others have what it has sent."""

from __future__ import annotations

import asyncio

from two_ends import LIMIT_S, Ends, run

from mosaic_like.comms import messages as wire
from mosaic_like.comms.link import LinkState


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
