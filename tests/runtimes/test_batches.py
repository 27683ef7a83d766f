"""What goes to a peer in one packet."""

from __future__ import annotations

import asyncio

import pytest
from two_ends import Ends, run

from mosaic_like.comms import messages as wire


@pytest.mark.parametrize(
    ("kind", "packets"),
    [
        # Who makes one call a turn waits for it, so the first goes at once.
        (wire.Stop, [1, 2]),
        # The call behind must not start between the first and the second.
        (wire.Cancel, [3]),
    ],
)
def test_the_first_of_a_turn_goes_ahead_but_no_cancel_does(
    kind: type[wire.Stop | wire.Cancel], packets: list[int]
) -> None:
    async def main(ends: Ends) -> None:
        ends.peer.send(wire.Stop("so that they are connected"))
        while not ends.batches:  # noqa: ASYNC110 -- no event
            await asyncio.sleep(0)
        ends.batches.clear()
        for _ in range(3):
            ends.peer.send(kind(1, "why") if kind is wire.Cancel else wire.Stop("why"))
        while len(ends.received) < 3:  # noqa: ASYNC110 -- no event
            await asyncio.sleep(0)
        assert [len(batch) for batch in ends.batches] == packets

    run(main)
