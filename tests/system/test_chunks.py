"""Large values in messages, as between hosts: in chunks, and what may end them."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from chunked import LIMIT_S, LONG, Built, all_over, holders, under_way
from large_values import MIB, until
from shared_cluster import shared_cluster

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from specimens import RunIn


async def warm_up(runtime: Any) -> None:
    """Make the links and threads that stay as long as the cluster."""
    warm = holders(runtime)
    for holder in warm:  # and the thread that pyzmq has for buffers
        await holder.echo(np.ones(2 * MIB, "u1")).result()
    await mosaic.gather(warm[0].total(warm[1].ones(2 * MIB)) for _ in range(2))
    await mosaic.put(np.ones(MIB, "u1"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunIn]:
    """Runs ``main(runtime)`` in a cluster without shared memory; bounded in time."""
    with shared_cluster(warm_up, LIMIT_S, segments=False) as run:
        yield run


# -- values ----------------------------------------------------------------------------


def test_values_of_any_size_are_equal_after_the_trip(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second, *_ = holders(runtime)
        rng = random.Random(1)
        sizes = [0, 1, 1023, 64 << 10, 256 << 10, MIB - 1, MIB, MIB + 1, 3 * MIB]
        sizes += [rng.randrange(4 * MIB) for _ in range(15)]
        for size in sizes:
            values: dict[str, Any] = {
                "bytes": rng.randbytes(size),
                "array": np.frombuffer(rng.randbytes(size), "u1"),
                "small": [size, str(size)],
                "half": np.arange(size // 16, dtype="f8"),
            }
            echo = await second.echo(first.echo(values)).result()
            assert echo["bytes"] == values["bytes"]
            assert np.array_equal(echo["array"], values["array"])
            assert np.array_equal(echo["half"], values["half"])
            assert echo["small"] == values["small"]
        assert runtime.sharing.home == 0
        await all_over(runtime, first, second)

    cluster(main)


def test_what_comes_cannot_be_written_to_and_goes_on_without_a_copy(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        first, second, *_ = holders(runtime)
        array = np.ones(2 * MIB, "u1")
        echo = await first.echo(array).result()
        with pytest.raises(ValueError, match="read-only"):
            echo[0] = 1
        payload = runtime.serializer.dumps(echo)
        assert np.shares_memory(np.frombuffer(payload.buffers[0], "u1"), echo)
        assert await second.total(echo, echo).result() == 4 * MIB

    cluster(main)


def test_what_is_changed_after_the_call_is_sent_as_it_was(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, *_ = holders(runtime)
        array = np.ones(8 * MIB, "u1")
        total = first.total(array)
        array[:] = 2
        assert await total.result() == 8 * MIB

    cluster(main)


def test_memory_is_used_again_and_never_while_somebody_sees_it(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        first, *_ = holders(runtime)
        kept = [await first.echo(np.full(MIB, n, "u1")).result() for n in range(4)]
        for n in range(4, 12):
            echo = await first.echo(np.full(MIB, n, "u1")).result()
            assert (echo == n).all()
        assert [k[0] for k in kept] == list(range(4))
        assert all((k == k[0]).all() for k in kept)
        del echo, kept
        gc.collect()
        pool = runtime.transfers._pool
        assert 4 * MIB <= pool.free_bytes <= 64 * MIB

    cluster(main)


def test_constructors_and_methods_of_results_take_large_values(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        array = np.arange(MIB, dtype="f8")
        cls = mosaic.tessera(Built)
        for worker in runtime.workers:
            built = cls.options(runtime=worker).remote(array)
            assert await built.value().result() == array.sum()
        first, *_ = holders(runtime)
        both = await first.echo(array).remote.sum().result()
        assert both == array.sum()

    cluster(main)


# -- order -----------------------------------------------------------------------------


def test_calls_of_one_tessera_keep_their_order(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, *_ = holders(runtime)
        for size in (5 * MIB, MIB, 10, 7 * MIB):
            first.keep(np.ones(size, "u1"))
            assert len(await first.give().result()) == size
        sizes = [3 * MIB, 10, MIB, 2 * MIB, 100]
        echoes = [first.echo(np.ones(size, "u1")) for size in sizes]
        assert [len(await echo.result()) for echo in echoes] == sizes

    cluster(main)


def test_the_items_of_a_stream_keep_their_order(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second, *_ = holders(runtime)
        mixed = [3 * MIB, 10, 2 * MIB, 100, 5 * MIB, 1]
        for stream in (first.items, first.stream):
            for size in (10, 2 * MIB):
                found = [(i[0], len(i)) async for i in stream(6, size)]
                assert found == [(n, size) for n in range(6)]
            found = [(i[0], len(i)) async for i in first.mixed(mixed)]
            assert found == list(enumerate(mixed))
        failing = aiter(first.mixed([2 * MIB, -1]))
        assert len(await anext(failing)) == 2 * MIB
        with pytest.raises(ValueError, match="on purpose"):
            await anext(failing)
        await all_over(runtime, first, second)

    cluster(main)


def test_a_consumer_that_leaves_ends_the_transfers_of_its_stream(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        first, second, *_ = holders(runtime)
        async for item in first.items(100, 4 * MIB):
            assert len(item) == 4 * MIB
            break
        stream = first.items(100, 8 * MIB)
        ahead = asyncio.ensure_future(anext(aiter(stream)))
        await until(lambda: under_way(runtime))
        ahead.cancel()
        del stream, item
        await asyncio.wait([ahead])
        del ahead
        gc.collect()
        assert await first.ping(1).result() == 1
        await all_over(runtime, first, second)

    cluster(main)


# -- others are not held up ------------------------------------------------------------


def test_small_calls_pass_a_large_value(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, _, other, _ = holders(runtime)
        total = first.total(np.ones(LONG, "u1"))
        await until(lambda: under_way(runtime))
        assert [await other.ping(n).result() for n in range(3)] == [0, 1, 2]
        assert under_way(runtime)
        assert await total.result() == LONG
        made = first.ones(LONG)
        await made
        value = asyncio.ensure_future(made.result())
        await until(lambda: under_way(runtime))
        assert [await other.ping(n).result() for n in range(3)] == [0, 1, 2]
        assert under_way(runtime)
        assert len(await value) == LONG
        await all_over(runtime, first)

    cluster(main)


def test_a_link_keeps_little_of_a_large_value(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, *_ = holders(runtime)
        await first.ping(1)
        total = first.total(np.ones(LONG, "u1"))
        most = 0
        while not total.done():
            peers = runtime.peers.by_incarnation.values()
            most = max(most, *(peer.link.unacknowledged_bytes for peer in peers))
            await asyncio.sleep(0)
        assert 0 < most <= 9 * MIB
        assert await total.result() == LONG

    cluster(main)


# -- the warehouse ---------------------------------------------------------------------


def test_values_that_are_put_go_to_the_warehouse_and_to_who_reads_them(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        first, second, *_ = holders(runtime)
        array = np.random.default_rng(1).random(MIB)
        value = await mosaic.put(array)
        assert await first.total(value).result() == pytest.approx(array.sum())
        assert await second.total(value, value).result() == pytest.approx(
            2 * array.sum()
        )
        assert np.array_equal(await mosaic.get(value), array)
        del value
        # In the order in which they were asked for, although the first takes long.
        named = mosaic.put(np.ones(8 * MIB, "u1"), key="frames", publish=True)
        small = mosaic.put(7)
        found = mosaic.get("frames")
        assert len(await found) == 8 * MIB
        assert await mosaic.get(await small) == 7
        await named
        await mosaic.exec("frames", lambda old: old[: 2 * MIB] * 2)
        assert (await mosaic.get("frames")).sum() == 4 * MIB
        await mosaic.drop("frames")
        await all_over(runtime, first, second)

    cluster(main)


# -- interrupted -----------------------------------------------------------------------


def test_a_call_that_is_cancelled_ends_its_transfer(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second, *_ = holders(runtime)
        await first.ping(1)
        total = first.total(np.ones(LONG, "u1"))
        await until(lambda: under_way(runtime))
        total.cancel("not needed")
        with pytest.raises(mosaic.TaskCancelledError):
            await total
        await until(lambda: not under_way(runtime))
        assert await first.total(np.ones(3 * MIB, "u1")).result() == 3 * MIB
        await all_over(runtime, first, second)

    cluster(main)


def test_a_put_that_is_cancelled_ends_its_transfer(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second, *_ = holders(runtime)
        put = asyncio.ensure_future(_put(np.ones(LONG, "u1")))
        await until(lambda: under_way(runtime))
        put.cancel()
        await asyncio.wait([put])
        assert await mosaic.get(await mosaic.put(5)) == 5
        await all_over(runtime, first, second)

    cluster(main)


async def _put(value: Any) -> Any:
    return await mosaic.put(value)


def test_a_value_that_nobody_holds_any_more_is_not_brought(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second, *_ = holders(runtime)
        made = first.ones(LONG)
        await made
        value = asyncio.ensure_future(made.result())
        await until(lambda: under_way(runtime))
        value.cancel()
        await asyncio.wait([value])
        del made, value
        gc.collect()
        await all_over(runtime, first, second)
        pool = runtime.transfers._pool
        assert pool is not None

    cluster(main)
