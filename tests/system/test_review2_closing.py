"""``__close__`` as a coroutine: it runs for whatever reason the tessera ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import RunScript

PROGRAM = """
import asyncio, sys, time
import mosaic_like as mosaic

class Closing:
    async def __close__(self):
        await asyncio.sleep(0)
        print("closed", flush=True)

async def main(runtime):
    for options in ({}, {"is_async": True}, {"inline": True}, {"thread": True}):
        closing = mosaic.remote(Closing, **options)()
        await closing
        if "keep" in sys.argv:
            kept.append(closing)
        elif "close" in sys.argv:
            await mosaic.close(closing)
    del closing
    await mosaic.barrier()
    start_s[:] = [time.monotonic()]

kept, start_s = [], []
mosaic.run(main, num_workers=1)
print("took", time.monotonic() - start_s[0])
"""


@pytest.mark.parametrize("how", ["drop", "keep", "close"])
def test_a_coroutine_that_closes_a_tessera_runs(
    run_script: RunScript, how: str
) -> None:
    found = run_script(PROGRAM, how)
    assert found.code == 0, found.stderr
    assert found.stdout.count("closed") == 4
    assert "did not end" not in found.stderr
    assert float(found.stdout.split("took")[1]) < 10
