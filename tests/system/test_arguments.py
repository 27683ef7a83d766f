"""Arguments and results that are tasks, parts of tasks, tokens and proxies."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import specimens as s
from specimens import RunIn

import mosaic_like as mosaic
from mosaic_like.proxies.task import TaskProxy


def test_arguments_are_taken_at_the_call(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        for size in (4, 100_000):
            array, items, text = np.zeros(size), [1], bytearray(b"a" * size)
            task = counter.identity((array, items, text))
            array[:] = 7
            items.append(2)
            text[:] = b"b" * size
            arrived, numbers, letters = await task.result()
            assert arrived.sum() == 0
            assert numbers == [1]
            assert letters == b"a" * size

    cluster(main)


def test_tasks_are_arguments_at_any_depth(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = (s.Counter.options(runtime=w).remote() for w in runtime.workers)
        one = first.add(1)
        assert await second.add(one).result() == 1
        nested = second.identity({"a": [one, (one, 2)], "b": {"c": one}})
        assert await nested.result() == {"a": [1, (1, 2)], "b": {"c": 1}}
        pair = first.identity((10, [20]))
        table = first.identity({"k": 5, "done": 6, 0: 7})
        assert await second.add(pair.outputs[0]).result() == 11
        assert await second.identity(pair.outputs[1]).result() == [20]
        assert await second.identity(table.outputs["k"]).result() == 5
        assert await second.identity(table.outputs.k).result() == 5
        assert await second.identity([table.outputs["done"]]).result() == [6]
        assert await second.identity(table.outputs[0]).result() == 7
        assert await second.identity(one.outputs[0]).result() == 1
        assert await pair.outputs[-1].result() == [20]
        single = first.identity((3,))
        assert await single.result() == (3,)
        assert await single.outputs[0].result() == 3
        big = first.identity(np.arange(100_000))
        assert (await second.identity([big]).result())[0].sum() == 4999950000
        keyword = second.add(k=one, times=first.identity(3))
        assert await keyword.result() == 14
        with pytest.raises(IndexError):
            await pair.outputs[5].result()
        with pytest.raises(KeyError):
            await table.outputs["none"].result()
        with pytest.raises(IndexError):
            await second.identity(pair.outputs[5])

    cluster(main)


def test_a_token_only_orders(cluster: RunIn, tmp_path: Any) -> None:
    async def main(runtime: Any) -> None:
        first, second = (s.Slow.options(runtime=w).remote() for w in runtime.workers)
        held = first.hold(str(tmp_path / "go"))
        after = second.mark("after", held.outputs.done)
        other = s.Counter.options(runtime=runtime.workers[1]).remote()
        nested = other.identity([1, {"x": held.done}])
        beside = s.Counter.options(runtime=runtime.workers[1]).remote()
        await beside.value()
        assert not after.done()
        (tmp_path / "go").touch()
        assert await after.result() == ["after"]
        assert await nested.result() == [1, {"x": None}]
        await held.done
        assert held.done()

    cluster(main)


def test_a_task_in_a_result_stays_a_task(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote(4)
        caller = s.Caller.remote(counter)
        inner = await caller.pass_on("add", 1).result()
        assert isinstance(inner, TaskProxy)
        assert await inner.result() == 5
        assert await counter.add(inner).result() == 10
        del inner
        gc.collect()
        assert await counter.value().result() == 10

    cluster(main)


def test_a_method_of_a_result_runs_where_the_result_is(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = (s.Counter.options(runtime=w).remote() for w in runtime.workers)
        words = first.identity(["b", "a"])
        assert await words.remote.index("a").result() == 1
        assert await words.remote.count(x := "b").result() == 1
        assert x == "b"
        number = second.identity("a")
        assert await words.remote.index(number).result() == 1
        built = first.identity(s.Counter(3))
        assert await built.remote.add(4).result() == 7
        with pytest.raises(AttributeError, match="nothing"):
            await built.remote.nothing()
        with pytest.raises(AttributeError, match="private"):
            built.remote._secret()
        with pytest.raises(ValueError, match="not in list"):
            await words.remote.index("z")
        with pytest.raises(mosaic.UpstreamError):
            await first.fail().remote.real()

    cluster(main)
