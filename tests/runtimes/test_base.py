"""What every runtime does with the news of who is here."""

from __future__ import annotations

import asyncio
from typing import Any

from mosaic_like.comms import messages as wire
from mosaic_like.config import Config
from mosaic_like.runtimes.base import Base


class Watching(Base):
    """Notes whom it knows whenever it is told of somebody."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.known: list[list[int]] = []

    def member_joined(self, member: wire.Member) -> None:
        self.known.append(sorted(self.members))


async def test_all_are_known_before_what_one_of_them_has_sent_is_delivered() -> None:
    # It may mention others, and who is not known and older would be taken for lost.
    runtime = Watching(asyncio.get_running_loop(), Config(num_workers=1))
    runtime._welcome = welcome = asyncio.get_running_loop().create_future()
    me, *others = (
        wire.Member(i, f"worker:0:{i}", bytes([i]) * 8, "", "host", 0)
        for i in (9, 2, 3, 4)
    )
    runtime.on_welcome(wire.Welcome(me, others, b""), (), 0)
    assert runtime.known == [[2, 3, 4]] * 3
    assert welcome.done()
    runtime.close()
