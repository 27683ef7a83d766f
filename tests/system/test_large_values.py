"""Large values through shared memory, between real processes."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from large_values import (
    MIB,
    Holder,
    all_returned,
    fail_to_open,
    live_apart,
    memory_of,
    pair,
)

import mosaic_like as mosaic

if TYPE_CHECKING:
    from specimens import RunIn


def test_a_large_argument_and_its_echo_are_copied_once(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = pair(runtime)
        array = np.random.default_rng(1).random(MIB)
        before = memory_of(runtime)["copied"]
        there = await first.memory().result()
        echo = await first.echo(array).result()
        assert np.array_equal(echo, array)
        assert memory_of(runtime)["copied"] - before == array.nbytes
        after = await first.memory().result()
        assert after["copied"] == there["copied"]
        assert after["passed on"] - there["passed on"] == array.nbytes
        # And on to others, as an argument or a part of one.
        again = await second.echo({"a": [echo]}).result()
        assert np.array_equal(again["a"][0], array)
        assert memory_of(runtime)["copied"] - before == array.nbytes
        del echo, again
        await all_returned(runtime, first, second)

    cluster(main)


def test_a_value_goes_from_worker_to_worker_and_is_moved_once(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = pair(runtime)
        before = [await h.memory().result() for h in (first, second)]
        made = first.ones(8 * MIB)
        readers = [second.total(made) for _ in range(4)]
        assert [await r.result() for r in readers] == [8 * MIB] * 4
        assert await first.total(made).result() == 8 * MIB
        assert (await made.result()).sum() == 8 * MIB
        after = [await h.memory().result() for h in (first, second)]
        moved = sum(
            a["copied"] - b["copied"] for a, b in zip(after, before, strict=True)
        )
        assert moved == 8 * MIB
        del made, readers
        await all_returned(runtime, first, second)

    cluster(main)


def test_large_results_travel_with_the_news_of_them(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, _ = pair(runtime)
        task = first.ones(MIB)
        await task
        assert not runtime.is_away(task._call)
        # So does what is no buffer but large; what is less so stays where it is.
        words = first.echo([str(i) for i in range(50_000)])
        await words
        assert not runtime.is_away(words._call)
        assert len(await words.result()) == 50_000
        words = first.echo([str(i) for i in range(20_000)])
        await words
        assert runtime.is_away(words._call)
        assert len(await words.result()) == 20_000

    cluster(main)


def test_a_change_after_the_call_is_not_seen(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, _ = pair(runtime)
        array = np.zeros(MIB, "u1")
        taken = [first.echo(array)]
        for number in range(1, 4):
            array[:] = number
            taken.append(first.echo(array))
        array[:] = 9
        for number, task in enumerate(taken):
            assert ((await task.result()) == number).all()
        # The same of what a tessera keeps and gives away.
        await first.keep_own(MIB)
        given = first.give()
        await first.fill(5)
        assert not (await given.result()).any()
        assert ((await first.give().result()) == 5).all()

    cluster(main)


def test_a_received_array_cannot_be_written_to(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, _ = pair(runtime)
        with pytest.raises(ValueError, match="read-only"):
            await first.write_to(np.zeros(MIB, "u1"))
        array = await first.ones(MIB).result()
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2
        mine = array.copy()
        mine[0] = 2
        assert (await first.echo(array).result())[0] == 1

    cluster(main)


def random_value(rng: random.Random) -> Any:
    """Something large, in one of the ways that things are large."""
    size = rng.choice([1000, 70_000, 262_144, 300_001, 2_000_003])
    numbers: Any = np.random.default_rng(rng.randrange(1 << 30)).integers(
        0, 255, size, "u1"
    )
    kinds: list[Any] = [
        lambda: numbers,
        lambda: numbers[::2],
        lambda: numbers[: size // 4 * 4].view("f4").reshape(-1, 2).T,
        lambda: np.ma.array(numbers, mask=numbers > 100),
        lambda: numbers[: size // 8 * 8].view("M8[ns]"),
        lambda: numbers.tobytes(),
        lambda: bytearray(numbers),
        lambda: memoryview(numbers),
        lambda: memoryview(numbers)[::3],
        lambda: memoryview(numbers[: size // 8 * 8].view("f8")),
        lambda: {"a": numbers, "b": [numbers, numbers[5:]], "c": "text"},
        lambda: (numbers.tobytes(), bytearray(numbers), 3),
    ]
    return rng.choice(kinds)()


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, memoryview):
        same = one.format == other.format and one.shape == other.shape
        return same and other.readonly and one.tobytes() == other.tobytes()
    if isinstance(one, np.ma.MaskedArray):
        return bool(np.ma.allequal(one, other) and (one.mask == other.mask).all())
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return type(one) is type(other) and bool(one == other)


def test_random_values_through_random_paths_are_equal(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        holders = pair(runtime)
        rng = random.Random(7)
        for _ in range(10):
            values = [random_value(rng) for _ in range(10)]
            tasks = []
            for value in values:
                task = rng.choice(holders).echo(value)
                for _ in range(rng.randrange(3)):
                    if rng.random() < 0.3:
                        task = rng.choice(holders).echo(await task.result())
                    else:
                        task = rng.choice(holders).echo(task)
                tasks.append(task)
            for value, task in zip(values, tasks, strict=True):
                assert equal(value, await task.result()), type(value)
        del task, tasks
        await all_returned(runtime, *holders)

    cluster(main)


def test_thousands_of_transfers_leave_nothing(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = pair(runtime)
        array = np.ones(300_000, "u1")

        async def round_trips(count: int) -> None:
            for _ in range(count // 20):
                echoes = [first.echo(array) for _ in range(10)]
                copies = [second.total(echo) for echo in echoes]
                for task in copies:
                    assert await task.result() == array.sum()

        await round_trips(200)
        await all_returned(runtime, first, second)
        before = memory_of(runtime), await first.memory().result()
        await round_trips(900)
        await all_returned(runtime, first, second)
        after = memory_of(runtime), await first.memory().result()
        for was, now in zip(before, after, strict=True):
            assert now["made"] - was["made"] < 100
            assert now["descriptors"] - was["descriptors"] < 60
            assert now["mapped"] <= 64

    cluster(main)


def test_streams_bring_large_items(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, _ = pair(runtime)
        for method in (first.items, first.stream):
            got = [item async for item in method(6, MIB)]
            assert [int(item[-1]) for item in got] == list(range(6))
        del got
        await all_returned(runtime, first)

    cluster(main)


def test_a_tessera_of_the_head_takes_large_values(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        here = mosaic.tessera(Holder).local()
        first, _ = pair(runtime)
        array = np.arange(MIB, dtype="u1")
        assert np.array_equal(await here.echo(array).result(), array)
        made = here.ones(MIB)
        assert await first.total(made, await made.result()).result() == 2 * MIB
        assert await here.total(first.ones(MIB)).result() == MIB
        del made
        await all_returned(runtime, first)

    cluster(main)


def test_threads_send_and_take_large_values_side_by_side(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        holders = pair(runtime)

        def use(number: int) -> None:
            array = np.full(300_000 + number, number, "u1")
            for index in range(20):
                array[0] = index
                echo = holders[index % 2].echo(array).get(20)
                assert echo.nbytes == array.nbytes
                assert (echo[0], echo[-1]) == (index, number)

        await asyncio.gather(*(asyncio.to_thread(use, n) for n in range(4)))
        await all_returned(runtime, *holders)

    cluster(main)


def test_other_hosts_get_what_is_in_segments_as_messages(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = pair(runtime)
        here = await first.ones(MIB).result()
        for holder in (first, second):
            await holder.apart_from_all(True)
        live_apart(runtime, apart=True)
        array = np.random.default_rng(1).random(100_000)
        made = first.echo(array)
        await made
        assert runtime.is_away(made._call)  # too large to come by itself
        assert np.array_equal(await made.result(), array)
        assert made._call.result.shared is None
        assert await second.total(made, here, here[5:]).result() == pytest.approx(
            array.sum() + 2 * MIB - 5
        )
        both = await second.echo({"a": [first, array], "b": made}).result()
        assert np.array_equal(both["a"][1], array)
        assert np.array_equal(both["b"], array)
        items = [item.sum() async for item in first.items(3, MIB)]
        assert items == [0, MIB, 2 * MIB]
        for holder in (first, second):
            await holder.apart_from_all(False)
        live_apart(runtime, apart=False)
        del made, both, here
        await all_returned(runtime, first, second)

    cluster(main)


# -- what is not where the payload says ------------------------------------------------


def test_what_cannot_be_opened_is_asked_for_at_the_warehouse(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = pair(runtime)
        for times in (1, 2):  # then even there: its content comes in a message
            fail_to_open(runtime, times)
            task = first.ones(MIB)
            await task
            assert runtime.is_away(task._call)
            assert (await task.result()).sum() == MIB
            fail_to_open(runtime, times)
            both = await first.apart().result()
            assert [b.sum() for b in both] == [MIB, 0]
            await first.cannot_open(times)
            order = [first.total(np.ones(MIB, "u1")), first.total(np.ones(4))]
            assert [await t.result() for t in order] == [MIB, 4]
            await second.cannot_open(times)
            made = first.ones(MIB)
            assert await second.total(made).result() == MIB
        del task, both, order, made
        await all_returned(runtime, first, second)

    cluster(main)
