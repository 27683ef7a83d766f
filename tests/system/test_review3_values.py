"""What the review of values has found: programs that went wrong once."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest
from large_values import MIB, until
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


def test_views_of_an_ended_cluster_are_arguments_in_the_next() -> None:
    found: list[Any] = []

    async def first(runtime: Any, one: Any, other: Any) -> None:
        found.append(await one.ones(MIB).result())
        found.append(await mosaic.get(mosaic.put(np.full(2 * MIB, 3, "u1"))))

    async def second(runtime: Any, one: Any, other: Any) -> None:
        # The same uids and incarnations stand for something else here.
        others = [await one.ones(MIB).result() for _ in range(3)]
        assert await other.total(*found).result() == 7 * MIB
        assert await one.total(*found, *others).result() == 10 * MIB
        assert (await mosaic.get(mosaic.put(found[1])) == 3).all()

    alone(first)
    alone(second)
    assert (found[1] == 3).all()


def test_views_that_outlive_their_warehouse_are_arguments_still() -> None:
    async def main(runtime: Any, first: Any, second: Any) -> None:
        value = await first.ones(MIB).result()
        before = runtime.sharing.home
        os.kill(runtime.warehouse.pid, signal.SIGKILL)

        async def replaced() -> bool:
            home = runtime.sharing.home
            return bool(home and home != before and await second.ready().result())

        await until(replaced)
        # Who has made it has forgotten it: only the view is left.
        os.kill(await first.pid().result(), signal.SIGKILL)
        with pytest.raises(RuntimeDisconnectedError):
            await first.ones(1)
        assert await second.total(value).result() == MIB

    alone(main)


def test_what_belongs_to_an_ended_cluster_is_refused_in_the_next() -> None:
    old: dict[str, Any] = {}

    async def first(runtime: Any, one: Any, other: Any) -> None:
        old["task"], old["reference"] = one.ones(9), mosaic.put(np.ones(MIB))
        old["large"] = one.ones(100_000)
        old["proxy"] = other
        await old["task"].result()
        await old["large"]
        await old["reference"]

    async def second(runtime: Any, one: Any, other: Any) -> None:
        for thing in old.values():
            with pytest.raises(Exception, match="cluster that has ended"):
                other.keep(thing)
            with pytest.raises(Exception, match="cluster that has ended"):
                other.keep([thing])
        with pytest.raises(RuntimeError, match="cluster that has ended"):
            await mosaic.get(old["reference"])
        with pytest.raises(RuntimeError, match="cluster that has ended"):
            await old["large"].result()
        assert (await old["task"].result()).sum() == 9

    alone(first)
    alone(second)
