"""What the review of values has found: programs that went wrong once."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from large_values import MIB
from test_large_values_deaths import alone

import mosaic_like as mosaic
from mosaic_like.errors import RuntimeDisconnectedError

def test_what_outlived_its_worker_is_an_argument_too() -> None:
    async def main(runtime: Any, first: Any, second: Any) -> None:
        small, large, read = first.ones(100), first.ones(MIB), first.ones(2 * MIB)
        pair = first.apart()
        await mosaic.gather(small, large, pair)
        await read.result()
        os.kill(await first.pid().result(), signal.SIGKILL)
        with pytest.raises(RuntimeDisconnectedError):
            await first.ones(1)
        assert await second.total(small).result() == 100
        assert await second.total(large, read).result() == 3 * MIB
        assert await second.total(pair.outputs[0]).result() == MIB
        # At any depth, and again.
        kept = await second.echo({"x": [large, small]}).result()
        assert kept["x"][0].sum() == MIB
        assert kept["x"][1].sum() == 100
        assert await second.total(small, small).result() == 200

    alone(main)
