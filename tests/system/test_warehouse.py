"""Values in the warehouse: put, read anywhere, replaced under keys, dropped, lost."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tables import settled

import mosaic_like as mosaic
import mosaic_like as package
from mosaic_like.comms.messages import Value
from mosaic_like.core.call import RELEASED, Call
from mosaic_like.core.payloads import Arrived
from mosaic_like.core.task import DONE
from mosaic_like.errors import (
    SerializationError,
    UpstreamError,
)

if TYPE_CHECKING:
    from specimens import RunIn

LIMIT_S = 20.0
LARGE = 1 << 20


class Reader:
    """Reads, keeps and puts values."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def echo(self, value: Any) -> Any:
        return value

    def kind(self, value: Any) -> str:
        return type(value).__name__

    def keep(self, held: dict[str, Any]) -> None:
        self.kept.append(held["ref"])

    def keep_inside(self, ref_of_list: list[Any]) -> str:
        self.kept += ref_of_list
        return type(ref_of_list[0]).__name__

    def forget(self) -> None:
        self.kept.clear()

    def put(self, size: int) -> Any:
        return mosaic.put(bytes(size))

    def put_and_read(self, key: str) -> tuple[int, int]:
        ref = mosaic.put([1, 2, 3])
        mosaic.put([4], key=key).wait()
        found = len(ref.get(LIMIT_S)), len(mosaic.get(key).get(LIMIT_S))
        mosaic.drop(key).wait()
        return found

    def count(self, key: str, times: int) -> list[int]:
        return [mosaic.exec(key, one_more).get(LIMIT_S) for _ in range(times)]

    async def count_at_once(self, key: str, times: int) -> list[int]:
        return await mosaic.gather(mosaic.exec(key, one_more) for _ in range(times))


def one_more(n: Any, by: int = 1) -> int:
    found: int = by if n is None else n + by
    return found


def put_and_get(n: int) -> list[int]:
    return mosaic.put([n + 1]).get(LIMIT_S)


def exec_inside(n: int | None) -> int:
    return mosaic.exec("n", one_more).get(LIMIT_S)


async def one_more_later(n: int | None) -> int:
    await asyncio.sleep(0)
    return one_more(n)


def where(value: Any) -> int:
    return os.getpid()


def readers(runtime: Any) -> list[Any]:
    return [mosaic.remote(Reader, runtime=w)() for w in runtime.workers]


def warehouse_of(runtime: Any) -> Any:
    (member,) = runtime.of_kind("warehouse")
    return member


async def warehouse_is_here(runtime: Any, but: int = 0) -> Any:
    """Wait for one that is not the process ``but``."""
    while not [m for m in runtime.of_kind("warehouse") if m.pid != but]:
        await runtime.membership()
    return warehouse_of(runtime)


async def is_kept(runtime: Any, uid: int) -> bool:
    """Whether the warehouse still has the value of this task; holds nothing itself."""
    gc.collect()  # a reference that hangs in a cycle keeps it
    stream = runtime.placing.foreign(warehouse_of(runtime).incarnation)
    call = Call(uid, stream, "put", None, 0, 0.0, DONE, Arrived(b"", size=1))
    call.hold = RELEASED
    come: asyncio.Future[None] = runtime.loop.create_future()
    runtime.fetch(call, lambda: come.set_result(None))
    await come
    return bool(call.state == DONE)


# -- values ----------------------------------------------------------------------------


def test_a_value_is_put_once_and_read_everywhere(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = readers(runtime)
        value = {"model": [1, 2, 3], "n": 7}
        ref = mosaic.put(value)
        value["n"] = 8  # not seen: it was put as it was
        kept = {"model": [1, 2, 3], "n": 7}
        assert await first.echo(ref).result() == kept
        nested = await second.echo([{"a": (ref, ref)}, 1]).result()
        assert nested == [{"a": (kept, kept)}, 1]
        assert await ref is ref
        assert await mosaic.get(ref) == await ref.result() == await ref.value() == kept
        assert await first.echo(ref.outputs["n"]).result() == 7
        assert await mosaic.get(first.echo(1)) == 1  # any task

    cluster(main)


@pytest.mark.parametrize("value", [None, True, 3, "x", b"y" * LARGE, (1, [2]), {}])
def test_any_value_comes_back_as_it_was(cluster: RunIn, value: Any) -> None:
    async def main(runtime: Any) -> None:
        first, second = readers(runtime)
        ref = mosaic.put(value)
        assert await first.echo(ref).result() == value
        assert await mosaic.get(ref) == value
        assert await second.echo([ref]).result() == [value]

    cluster(main)


def test_arrays_are_as_they_were_put_and_read_only(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = readers(runtime)
        array = np.arange(LARGE, dtype=np.float64)
        ref = mosaic.put(array)
        await mosaic.get(ref)
        array[:] = -1
        for reader in (first, second):
            assert (await reader.echo(ref).result())[-1] == LARGE - 1
        found = await mosaic.get(ref)
        assert found.sum() == LARGE * (LARGE - 1) / 2
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 1
        assert await ref.size() >= array.nbytes

    cluster(main)


def test_gather_asks_for_all_values_before_it_waits_for_one(
    cluster: RunIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(runtime: Any) -> None:
        asking = runtime.caller.asking
        steps: list[str] = []
        ask, take = asking.fetch, runtime.handlers[Value]

        def asked(call: Any) -> None:
            steps.append("ask")
            ask(call)

        def taken(*sent: Any) -> None:
            steps.append("take")
            take(*sent)

        monkeypatch.setattr(asking, "fetch", asked)
        monkeypatch.setitem(runtime.handlers, Value, taken)
        for exceptions in (False, True):
            refs = [mosaic.put(n) for n in range(50)]
            await refs[-1]
            steps.clear()
            found = await mosaic.gather(refs, return_exceptions=exceptions)
            assert found == list(range(50))
            assert steps == ["ask"] * 50 + ["take"] * 50

    cluster(main)


def test_a_class_of_the_program_goes_through_the_warehouse(cluster: RunIn) -> None:
    class Local:
        def __init__(self, n: int) -> None:
            self.n = n

    async def main(runtime: Any) -> None:
        first, _ = readers(runtime)
        ref = mosaic.put([Local(1), Local(2)])
        assert [type(x) for x in await mosaic.get(ref)] == [Local, Local]
        assert await first.kind(ref.apply(lambda both: both[0])).result() == "Local"
        made: Any = mosaic.exec("local", lambda old: Local(3))
        assert (await mosaic.get(made)).n == 3
        assert (await first.echo(made).result()).n == 3
        await mosaic.drop("local")

    cluster(main)


def test_a_reference_in_a_result_or_a_value_stays_a_reference(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = readers(runtime)
        ref = await first.put(LARGE).result()
        assert isinstance(ref, mosaic.WarehouseObject)
        assert await mosaic.get(ref) == bytes(LARGE)
        assert await second.echo(ref).result() == bytes(LARGE)
        both = mosaic.put([ref, mosaic.put(1)])
        assert await second.keep_inside(both).result() == "WarehouseObject"
        again, one = await mosaic.get(both)
        assert again == ref
        assert await mosaic.get(one) == 1

    cluster(main)


def test_what_nobody_holds_is_forgotten(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = readers(runtime)
        ref = mosaic.put(bytes(1000))
        inner = mosaic.put(bytes(LARGE))
        outer = mosaic.put([inner])
        await mosaic.gather(
            first.echo(ref), second.echo(ref), second.keep_inside(outer)
        )
        uids = [r._call.uid for r in (ref, inner, outer)]

        async def look() -> list[bool]:
            return [await is_kept(runtime, uid) for uid in uids]

        assert await look() == [True] * 3
        del ref, inner, outer
        await settled(look, [False, True, False])  # the second reader has it
        await second.forget()
        await settled(look, [False, False, False])

    cluster(main)


def test_it_can_be_used_in_plain_methods_and_from_threads(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, _ = readers(runtime)
        assert await first.put_and_read("plain").result() == (3, 1)
        found = []

        def work() -> None:
            ref = mosaic.put("from a thread")
            found.append(ref.get(LIMIT_S))

            async def elsewhere() -> None:
                found.append(await mosaic.get(ref))
                counted: Any = mosaic.exec("thread", one_more)
                found.append(await mosaic.get(counted))
                await mosaic.drop("thread")

            asyncio.run(elsewhere())

        thread = threading.Thread(target=work)
        thread.start()
        await asyncio.to_thread(thread.join, LIMIT_S)
        assert found == ["from a thread", "from a thread", 1]

    cluster(main)


def test_a_function_is_applied_to_it_in_a_worker(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        ref = mosaic.put(41)
        nine: Any = mosaic.put(9)  # stands for its value
        assert await ref.apply(one_more).result() == 42
        assert await ref.apply(one_more, by=nine).result() == 50
        assert await ref.apply(one_more_later).result() == 42
        assert await ref.apply(put_and_get).result() == [42]  # waits inside
        both: Any = ref.apply(lambda n, m: (n, m), ref)
        assert await both.result() == (41, 41)
        pids = {w.pid for w in runtime.workers}
        assert await ref.apply(where).result() in pids
        with pytest.raises(TypeError, match="can only concatenate"):
            await mosaic.put("x").apply(one_more)

    cluster(main)


# -- keys ------------------------------------------------------------------------------


def test_a_key_is_written_once_and_found_by_all(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, _ = readers(runtime)
        ref = mosaic.put([1, 2], key="model")
        assert await mosaic.get("model") == [1, 2]
        uid = ref._call.uid
        del ref
        assert await first.put_and_read("other").result() == (3, 1)
        # The key keeps the value, not the task that put it.
        await settled(lambda: is_kept(runtime, uid), False)
        assert await runtime.get("model") == [1, 2]
        with pytest.raises(ValueError, match=r"'model' already.*drop it first"):
            await mosaic.put([3], key="model")
        await mosaic.drop("model")
        with pytest.raises(LookupError, match="'model'"):
            await mosaic.get("model")
        with pytest.raises(LookupError, match="'model'"):
            await mosaic.drop("model")

    cluster(main)


def test_a_missing_key_is_told_at_once_with_the_nearest(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        await mosaic.put(1, key="velocity")
        with pytest.raises(LookupError, match="'velocty'; there is 'velocity'"):
            await mosaic.get("velocty")
        await mosaic.drop("velocity")

    cluster(main)


def test_a_dropped_value_is_gone_for_all(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = readers(runtime)
        ref = mosaic.put(bytes(LARGE))
        await first.keep_inside(mosaic.put([ref]))
        await mosaic.drop(ref)
        with pytest.raises(LookupError, match="dropped"):
            await mosaic.get(ref)
        with pytest.raises(UpstreamError, match="dropped"):
            await second.echo(ref)
        again = mosaic.put(5)
        assert await mosaic.get(again) == 5
        await again.drop()
        with pytest.raises(LookupError, match="dropped"):
            await mosaic.get(again)

    cluster(main)


def test_execs_from_everywhere_count_once_each(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = readers(runtime)
        counted = await mosaic.gather(
            first.count("n", 5),
            second.count_at_once("n", 20),
            mosaic.remote(Reader)().count_at_once("n", 20),
        )
        here = await mosaic.gather(mosaic.exec("n", one_more) for _ in range(20))
        assert sorted(sum(counted, here)) == list(range(1, 66))
        last = mosaic.exec("n", one_more, by=35)
        assert await last is last
        assert await mosaic.get("n") == await mosaic.get(last) == 100
        await mosaic.drop("n")

    cluster(main)


def test_an_exec_that_fails_changes_nothing(
    cluster: RunIn, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(runtime: Any) -> None:
        await mosaic.put(1, key="m")
        failed = mosaic.exec("m", lambda n: n / 0)
        with pytest.raises(ZeroDivisionError):
            await failed
        with pytest.raises(SerializationError, match="lock"):
            mosaic.exec("m", one_more, threading.Lock())
        assert await mosaic.get(mosaic.exec("m", one_more_later)) == 2
        forgotten = mosaic.exec("m", lambda n: n / 0)
        del forgotten
        await mosaic.exec("m", one_more)
        assert await mosaic.get("m") == 3
        await mosaic.drop("m")
        await runtime.barrier(20)  # what is told late is told

    cluster(main)
    lines = [r for r in caplog.records if "nobody asked" in r.getMessage()]
    assert [r.getMessage().split(",")[0] for r in lines] == ["warehouse.m"]


def test_an_exec_inside_an_exec_of_the_same_key_is_an_error(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        with pytest.raises(mosaic.CycleError, match="'n' is being replaced"):
            await mosaic.exec("n", exec_inside)
        assert await mosaic.get(mosaic.exec("n", one_more)) == 1
        await mosaic.drop("n")

    cluster(main)


# -- mistakes --------------------------------------------------------------------------


def test_mistakes_are_told_where_they_are_made(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        mosaic: Any = package  # what type checkers would find, too
        first, _ = readers(runtime)
        task = first.echo(1)
        with pytest.raises(TypeError, match="pass the task itself on"):
            mosaic.put(task)
        with pytest.raises(SerializationError, match="lock"):
            mosaic.put({"a": threading.Lock()})
        with pytest.raises(TypeError, match="a key"):
            mosaic.put(1, key=2)
        with pytest.raises(ValueError, match="empty"):
            mosaic.put(1, key="")
        # As a file's name has it that is no UTF-8: messages could not carry it.
        for function in (mosaic.get, mosaic.drop, lambda key: mosaic.put(1, key=key)):
            with pytest.raises(ValueError, match=r"'a\\udce4'.*UTF-8"):
                function("a\udce4")
        for function in (mosaic.get, mosaic.drop):
            with pytest.raises(TypeError, match="takes a key"):
                function(5)
        with pytest.raises(TypeError, match="takes a key"):
            mosaic.drop(task)
        with pytest.raises(TypeError, match="a function"):
            mosaic.exec("x", 5)
        ref = mosaic.put(1)
        with pytest.raises(TypeError, match=r"ref\.apply"):
            mosaic.exec(ref, len)
        with pytest.raises(TypeError, match="a function"):
            ref.apply(5)
        with pytest.raises(TypeError, match=r"await mosaic\.get\(ref\)"):
            ref + 1
        with pytest.raises(TypeError, match=r"await mosaic\.get"):
            bool(mosaic.get(ref))
        await ref
        assert repr(ref).startswith("<WarehouseObject warehouse.put · done")

    cluster(main)


# -- the process -----------------------------------------------------------------------


def test_the_warehouse_is_no_worker(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        member = await warehouse_is_here(runtime)
        assert member.uid == "warehouse:0"
        assert runtime.num_workers == len(runtime.workers) == 2
        with pytest.raises(LookupError, match="no worker 'warehouse:0'"):
            mosaic.remote(Reader, runtime="warehouse:0")()
        made = mosaic.ArrayProxy
        many = mosaic.remote(Reader, len=4)()
        assert isinstance(many, made)
        places = [mosaic.info(m).runtime_id for m in await many]
        assert sorted(places) == [
            "worker:0:0",
            "worker:0:0",
            "worker:0:1",
            "worker:0:1",
        ]
        ref = mosaic.put(bytes(LARGE))
        ran: list[str] = []

        async def last() -> None:
            await mosaic.get(ref)
            ran.append("last")

        runtime.register_barrier_task(last)
        await runtime.barrier(LIMIT_S)
        assert ref.done()
        assert ran == ["last"]

    cluster(main)
