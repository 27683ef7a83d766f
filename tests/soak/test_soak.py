"""The rounds of ``make soak``: each does what it says, and what grows is seen."""

from __future__ import annotations

import asyncio
from typing import Any

import soaking
from rounds import ROUNDS, Member
from soaking import Look, grown

import mosaic_like as mosaic


def test_each_round_finds_what_it_should() -> None:
    async def main(runtime: Any) -> None:
        first, second = (
            mosaic.remote(Member, runtime=worker)() for worker in runtime.workers
        )
        for one in ROUNDS:
            async with asyncio.timeout(60):
                await one(first, second)

    mosaic.run(main, num_workers=2)


def test_what_grows_is_found() -> None:
    flat = [Look(50 << 20, 40, 5)] * 30
    assert grown(flat).startswith("ok")
    for step in (Look(1 << 18, 0, 0), Look(0, 1, 0), Look(0, 0, 1)):
        looks = [
            Look(*(a + b * i for a, b in zip(flat[0], step, strict=True)))
            for i in range(30)
        ]
        assert grown(looks).startswith("GREW")


def test_it_says_of_each_process_whether_it_grew(capsys: Any) -> None:
    async def main(runtime: Any) -> int:
        return await soaking.soak(runtime, 3.0, 1, kills=False)

    mosaic.run(main, num_workers=2)
    said = capsys.readouterr().out
    # Whether they did: memory settles only after longer than this.
    ends = [line.split()[0] for line in said.splitlines() if "descriptors" in line]
    # And perhaps of those of another cluster of this process.
    assert ends.count("head") == 1
    assert ends.count("worker") == 2
