"""Tesserae on real processes: making them, where they are, and their proxies."""

from __future__ import annotations

import ctypes
import gc
import inspect
import os
import pydoc
from typing import Any

import pytest
import specimens as s
from specimens import RunIn

import mosaic_like as mosaic
from mosaic_like.proxies.attributes import get_attr, set_attr
from mosaic_like.proxies.task import TaskProxy


def test_one_is_made_at_once_and_awaited(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote(10)
        assert "Counter#" in repr(counter)
        assert await counter is counter
        assert await counter.add(5).result() == 15
        assert await counter.add(1, times=3).result() == 18
        assert await s.Counter.options(len=None).remote(start=3).value().result() == 3

    cluster(main)


def test_the_class_stays_an_ordinary_class() -> None:
    assert s.Counter(3).add(1) == 4
    assert s.Counter.__doc__ == "Counts."
    with pytest.raises(AttributeError, match="belongs to the class"):
        s.Counter(1).remote()


def test_classes_of_functions_and_of_executed_text_travel(cluster: RunIn) -> None:
    factor = 7

    @mosaic.tessera
    class Local:
        def times(self, x: int) -> int:
            return factor * x

    class Deeper(Local):
        def times(self, x: int) -> int:
            return 10 + super().times(x)

    space: dict[str, Any] = {"__name__": "__main__", "mosaic": mosaic}
    exec(
        "offset = 3\n"
        "@mosaic.tessera\n"
        "class Cell:\n"
        "    def move(self, x): return x + offset\n",
        space,
    )

    async def main(runtime: Any) -> None:
        assert await Local.remote().times(2).result() == 14
        assert await Deeper.remote().times(2).result() == 24
        assert await space["Cell"].remote().move(1).result() == 4

    cluster(main)


def test_classes_of_main_travel_and_need_a_runtime(run_script: Any) -> None:
    result = run_script(
        "import mosaic_like as mosaic\n"
        "@mosaic.tessera\n"
        "class A:\n"
        "    def me(self): return __name__, type(self).__qualname__\n"
        "    def same(self, other): return isinstance(other, A)\n"
        "class B(A): pass\n"
        "try: A.remote()\n"
        "except RuntimeError as error: print('mosaic.run' in str(error))\n"
        "async def main():\n"
        "    print(await A.remote().me().result())\n"
        "    print(await B.remote().me().result())\n"
        "    print(await A.remote().same(B()).result())\n"
        "mosaic.run(main, num_workers=1)\n"
    )
    assert result.stdout.splitlines() == [
        "True",
        "('__main__', 'A')",
        "('__main__', 'B')",
        "True",
    ], result.stderr
    assert result.code == 0
    assert result.stderr == ""


def test_undecorated_classes_and_subclasses(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        assert await mosaic.remote(s.Plain)("ah").shout().result() == "AH"
        assert await mosaic.remote(s.Plain, inline=True)("b").shout().result() == "B"
        big = s.BigCounter.remote(1)
        assert await big.add_many(2, 3).result() == 6
        assert await big.named("x").result() == "BigCounter of x"

    cluster(main)


def test_names_of_the_user_win(cluster: RunIn) -> None:
    for mark in (mosaic.tessera, mosaic.tessera(inline=False)):
        with pytest.warns(UserWarning, match=r"mosaic\.remote\(Greedy\)") as warned:
            mark(s.Greedy)
        assert warned[0].filename == __file__

    async def main(runtime: Any) -> None:
        greedy = mosaic.remote(s.Greedy)(runtime=1, len=2, timeout=3)
        assert await greedy.what().result() == (1, 2, 3)
        assert await greedy.remote(1).result() == 2
        assert await greedy.options(a=1).result() == {"a": 1}
        assert await greedy.local().result() == "local"
        assert await greedy.get_attr("x").result() == "mine x"
        assert await greedy.set_attr("x", 1).result() == "mine x 1"
        assert await greedy.result().result() == "result"
        assert await greedy.done().result() == "done"
        assert await greedy.keywords(runtime=1, len=2, timeout=3).result() == (1, 2, 3)
        given = {"runtime": 1, "len": 2, "max_retries": 3, "eager": 4}
        assert await greedy.anything(**given).result() == given

    cluster(main)


def test_options_of_the_original_work_or_are_refused(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        make: Any = s.Counter.remote  # type checkers do not know such keywords
        counter = make(1, eager=True)
        assert await counter.add(1, eager=True).result() == 2
        with pytest.raises(TypeError, match="sent at once"):
            counter.add(1, eager=False)
        with pytest.raises(TypeError, match="sent at once"):
            make(1, eager=False)
        for name in ("timeout", "silence", "runtime"):
            with pytest.raises(TypeError, match=name):
                counter.add(1, **{name: 1})
        assert await counter.value().result() == 2

    cluster(main)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"runtme": 1}, TypeError, "did you mean 'runtime'"),
        ({"len": 0}, ValueError, "at least 1"),
        ({"len": "2"}, TypeError, "expected int"),
        ({"max_concurrency": 0}, ValueError, "at least 1"),
        ({"is_async": 1}, TypeError, "expected bool"),
        ({"max_retries": -1}, ValueError, "at least 0"),
        ({"thread": True, "inline": True}, ValueError, "exclude"),
    ],
)
def test_wrong_options_are_refused_at_once(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        s.Counter.options(**options)
    with pytest.raises(error, match=text):
        mosaic.tessera(**options)
    with pytest.raises(error, match=text):
        mosaic.remote(s.Plain, **options)


def test_an_array_is_dealt_over_the_workers(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        array = s.Counter.options(len=4).remote(1)
        assert await array is array
        assert len(array) == 4
        pids = await array.pid().result()
        assert len(set(pids)) == 2
        assert pids[0] == pids[2]
        assert await array.add(1).result() == [2, 2, 2, 2]
        tasks = array.value()
        assert await tasks is tasks
        assert len(tasks) == 4
        assert [value async for value in tasks] == [2, 2, 2, 2]
        assert await tasks[1].result() == 2
        assert await array.n == [2, 2, 2, 2]
        worker = runtime.workers[1]
        one = array.add(5, runtime=worker)
        assert isinstance(one, TaskProxy)
        assert await one.result() == 7
        assert one.runtime_id == worker.uid
        assert sorted(await array.value().result()) == [2, 2, 2, 7]
        assert await array[0].add(1).result() == 3
        assert await s.Counter.remote(len=2).value().result() == [0, 0]  # type: ignore[call-arg]
        with pytest.raises(LookupError, match="worker:0:9"):
            array.add(1, runtime="worker:0:9")
        with pytest.raises(TypeError, match="add"):
            array.add()
        with pytest.raises(AttributeError, match="did you mean 'value'"):
            array.valu()
        box = s.Counter.remote()
        back = await box.identity([array]).result()
        assert back == [array]
        assert hash(back[0]) == hash(array)
        assert set(dir(array)) >= {"add", "value"}
        assert inspect.signature(array.add) == inspect.signature(array[0].add)

    cluster(main)


def test_a_local_tessera_can_be_called_back(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        here = s.Counter.local(5)
        assert await here.add(1).result() == 6
        assert await here.pid().result() == os.getpid()
        there = s.Caller.remote(here)
        assert await there.ask("add", 10).result() == 16
        assert await there.get_there("add", 10).result() == 26
        assert await s.Counter.options(inline=True).local(1).value().result() == 1

    cluster(main)


def test_a_place_may_be_asked_for(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        by_worker = s.Counter.options(runtime=second).remote()
        by_uid = s.Counter.options(runtime="worker:0:1").remote()
        by_proxy = s.Counter.options(runtime=by_worker).remote()
        in_call = s.Counter.remote(runtime=second)  # type: ignore[call-arg]
        pids = [await c.pid().result() for c in (by_worker, by_uid, by_proxy, in_call)]
        assert pids == [second.pid] * 4
        # at once, while nobody knows yet where the first one is
        new = s.Counter.remote()
        beside = s.Counter.options(runtime=new).remote()
        assert await new.pid().result() == await beside.pid().result()
        for strategy in ("round-robin", "least-loaded"):
            placed = s.Counter.options(runtime=strategy).remote()
            assert await placed.pid().result() in (first.pid, second.pid)
        chosen = await s.Counter.select_worker()
        assert chosen in (first.uid, second.uid)
        assert await s.Counter.select_worker(second) == second.uid
        for wrong in ("worker:0:7", "nonsense"):
            with pytest.raises(LookupError, match="worker:0:0"):
                s.Counter.options(runtime=wrong).remote()
        with pytest.raises(TypeError, match="expected a worker"):
            s.Counter.options(runtime=3).remote()

    cluster(main)


def test_attributes_are_read_and_set_in_order_with_calls(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote(1)
        counter.add(1)
        assert await counter.n == 2
        assert await counter.double == 4
        assert await counter.unit == "pieces"
        assert await counter.set_attr("n", 40) is not None
        counter.set_attr("n", 50)
        counter.add(1)
        assert await counter.get_attr("n").result() == 51
        assert await get_attr(counter, "n").result() == 51
        await set_attr(counter, "fresh", [1])
        assert await counter.fresh == [1]
        with pytest.raises(AttributeError, match="missing"):
            await counter.missing
        with pytest.raises(AttributeError):
            await set_attr(counter, "double", 1)
        with pytest.raises(AttributeError, match=r"mosaic\.set_attr"):
            counter.n = 3
        for private in ("_secret", "__dict__", "__class_getitem__"):
            with pytest.raises(AttributeError, match="private"):
                get_attr(counter, private)
        for function in (getattr, get_attr):
            with pytest.raises(AttributeError, match="'' is no name"):
                function(counter, "")
        with pytest.raises(TypeError, match="is a str, not 3"):
            get_attr(counter, 3)  # type: ignore[arg-type]  # the point
        # No message could carry such a name, nor what comes after it.
        for member in (
            counter,
            counter.value().remote,
            mosaic.remote(s.Counter, len=2)(),
        ):
            with pytest.raises(AttributeError, match="UTF-8"):
                getattr(member, "h\udce4")
        with pytest.raises(AttributeError, match="UTF-8"):
            get_attr(counter, "h\udce4")
        with pytest.raises(AttributeError, match="never remote"):
            counter._secret()
        assert await counter.value().result() == 51

    cluster(main)


def forget(counter: Any) -> None:
    assert repr(counter.add)
    _ = counter.n
    del _
    gc.collect()


def test_a_remote_attribute_that_is_not_awaited_gives_one_warning(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        with pytest.warns(RuntimeWarning, match=r"await proxy\.n") as warned:
            forget(counter)
        assert len(warned) == 1
        for mistake in (
            lambda: counter.n + 1,  # type: ignore[operator]
            lambda: bool(counter.n),
            lambda: counter.n < 3,  # type: ignore[operator]
            lambda: counter.n[0],  # type: ignore[index]
            lambda: f"{counter.n:3d}",
            lambda: counter.n.real,  # type: ignore[attr-defined]
        ):
            with pytest.raises(TypeError, match=r"await proxy\.n"):
                mistake()
        with pytest.raises(AttributeError, match="no method 'ad'; did you mean 'add'"):
            counter.ad(1)

    cluster(main)


def test_the_object_protocol_is_forwarded(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        box = s.Container.remote()
        assert await box(4).result() == 40
        assert await box(4, plus=2).result() == 42
        with pytest.raises(TypeError, match="missing"):
            box()
        box["a"] = [1, 2]
        assert await box["a"].result() == [1, 2]
        box["b"] = 3
        del box["a"]
        assert await box.size().result() == 1
        with pytest.raises(KeyError):
            await box["a"].result()
        with pytest.raises(TypeError, match="cannot wait"):
            _ = "b" in box
        assert await box.__adjoint__().result() == "adjoint"
        assert await box._half().result() == 0.5
        with pytest.raises(AttributeError, match="private"):
            box._hidden()
        with pytest.raises(TypeError, match="Counter has no __call__"):
            s.Counter.remote()(1)

    cluster(main)


def test_static_and_class_methods_and_unknown_names(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        assert await counter.twice(4).result() == 8
        assert await counter.named("eggs").result() == "Counter of eggs"
        assert await s.Open.remote().whatever(1, 2).result() == ("whatever", (1, 2))

    cluster(main)


def test_private_names_are_refused_at_the_worker_too(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote(3)
        handle = counter._mosaic_handle
        for name in ("_secret", "__reduce__", "__init__", "__close__"):
            payload = runtime.serializer.dumps_call((), {})
            forged: TaskProxy[None] = TaskProxy(
                runtime, runtime.submit(handle, name, payload)
            )
            with pytest.raises(AttributeError, match="private"):
                await forged
        assert await counter.value().result() == 3

    cluster(main)


def test_completion_help_and_signatures_ask_nobody(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        before = runtime.caller.calls.copy()
        assert {"add", "value", "twice", "named", "double", "unit"} <= set(dir(counter))
        assert not [name for name in dir(counter) if name.startswith("_")]
        assert inspect.signature(counter.add) == inspect.signature(s.Counter().add)
        assert inspect.signature(counter.twice) == inspect.signature(s.Counter.twice)
        assert inspect.signature(counter.named) == inspect.signature(s.Counter.named)
        assert counter.add.__doc__ == "Add k so many times."
        assert counter.add.__name__ == "add"
        assert "Add k so many times." in pydoc.plain(pydoc.render_doc(counter.add))
        assert repr(counter.add).startswith("<method add of Counter#")
        assert not hasattr(counter, "_ipython_canary_method_should_not_exist_")
        assert not hasattr(counter, "__wrapped__")
        assert runtime.caller.calls.keys() <= before.keys()

    cluster(main)


def test_a_proxy_is_no_value(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter: Any = s.Counter.remote()
        for mistake in (
            lambda: bool(counter),
            lambda: len(counter),
            lambda: iter(counter),
            lambda: int(counter),
            lambda: counter + 1,
            lambda: 1 + counter,
            lambda: counter @ counter,
            lambda: counter < 3,
            lambda: -counter,
            lambda: counter & 1,
        ):
            with pytest.raises(TypeError, match="await"):
                mistake()

    cluster(main)


def test_proxies_of_one_object_are_equal(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter, other = s.Counter.remote(), s.Counter.remote()
        back = await other.identity({"x": counter}).result()
        assert back["x"] == counter
        assert hash(back["x"]) == hash(counter)
        assert counter != other
        assert {counter, back["x"], other} == {counter, other}
        assert await back["x"].add(2).result() == 2
        assert await back["x"] is back["x"]

    cluster(main)


def test_a_proxy_travels_inside_an_object(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote(1)
        plain = s.Plain("x")
        plain.word = counter  # type: ignore[assignment]
        keeper = s.Caller.remote(plain)
        assert await (await keeper.other).word.add(1).result() == 2
        # one task that stays a task inside the tessera
        assert await keeper.keep([counter]).result() == "TesseraProxy"
        assert await keeper.use_kept(5).result() == 7

    cluster(main)


def test_coroutines_of_an_asynchronous_tessera_overlap(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        both = mosaic.remote(s.Overlap, is_async=True)()
        a, b = both.meet(1, 2), both.meet(2, 1)
        assert await mosaic.gather(a, b) == [2, 2]
        thread, on_loop = await both.where().result()
        assert on_loop
        assert thread == await both.awhere().result()
        two = mosaic.remote(s.Overlap, is_async=True, max_concurrency=2)()
        assert max(await mosaic.gather(two.turn() for _ in range(20))) == 2
        one = mosaic.remote(s.Overlap)()
        assert max(await mosaic.gather(one.turn() for _ in range(20))) == 1

    cluster(main)


def test_where_plain_methods_run(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        plain = mosaic.remote(s.Overlap)()
        assert await plain.where().result() == ("MainThread", False)
        loop_thread = await plain.awhere().result()
        inline = mosaic.remote(s.Overlap, inline=True)()
        assert await inline.where().result() == (loop_thread, True)
        own = mosaic.remote(s.Overlap, thread=True)()
        name, on_loop = await own.where().result()
        assert name not in ("MainThread", loop_thread)
        assert not on_loop
        assert (await own.where().result())[0] == name

    cluster(main)


def test_a_thread_of_its_own_does_not_wait_for_the_main_thread(
    cluster: RunIn, tmp_path: Any
) -> None:
    async def main(runtime: Any) -> None:
        worker = runtime.workers[0]
        busy = s.Slow.options(runtime=worker).remote()
        own = s.Slow.options(runtime=worker, thread=True).remote()
        await own
        await busy
        held = busy.hold(str(tmp_path / "go"))
        assert await own.mark("x").result() == ["x"]
        assert not held.done()
        (tmp_path / "go").touch()
        assert await held.result() == "held"

    cluster(main)


_LOST = """
import asyncio, os
import mosaic_like as mosaic

@mosaic.tessera
class Echo:
    def identity(self, x): return x

async def main(runtime):
    worker = runtime.workers[1]
    there = Echo.options(runtime=worker).remote()
    await there
    os.kill(worker.pid, 9)
    for place in (worker, there):
        try:
            await there.identity(1)
        except mosaic.RuntimeDisconnectedError:
            print("lost")
        try:
            Echo.options(runtime=place).remote()
        except mosaic.RuntimeDisconnectedError as error:
            print(error.runtime_id)

async def bounded(runtime):
    async with asyncio.timeout(20):
        await main(runtime)

mosaic.run(bounded, num_workers=2)
"""


def test_a_lost_worker_is_no_place(run_script: Any) -> None:
    result = run_script(_LOST)
    assert result.code == 0, result.stderr
    assert result.stdout.split() == ["lost", "worker:0:1", "lost", "worker:0:1"]


class Napper:
    """Sleeps in C code that keeps the interpreter to itself."""

    def nap(self, seconds: float) -> None:
        ctypes.PyDLL(None).usleep(int(1e6 * seconds))


def test_the_end_of_a_long_call_is_told_before_the_next_begins(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        napper = mosaic.remote(Napper)()
        calls = [napper.nap(0.15) for _ in range(8)]
        await calls[0]
        assert calls[-1].state != "done"
        await calls[-1]

    cluster(main)
