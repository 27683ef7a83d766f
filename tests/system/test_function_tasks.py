"""Function tasks in a cluster: rows 24 to 26, 34, 35, 41, 54, 55, 57, 58 of the API."""

from __future__ import annotations

import asyncio
import functools
import operator
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic
from mosaic_like.core.window import MOST_WINDOW

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunScript
    from specimens import RunIn

WAIT_S = 20.0


@mosaic.task
def square(x: int) -> int:
    return x * x


@mosaic.task
async def slow_square(x: int) -> int:
    await asyncio.sleep(0.01)
    return x * x


@mosaic.task
def add(x: int, y: int = 1) -> int:
    return x + y


@mosaic.task
def fail(text: str = "no") -> int:
    raise ValueError(text)


@mosaic.task
def where() -> int:
    return os.getpid()


@mosaic.task
def nap(i: int) -> int:
    time.sleep(0.02)
    return os.getpid()


@mosaic.task
def describe(*values: Any) -> str:
    return repr(values)


@mosaic.task
def total(n: int) -> int:
    """Waits for tasks that wait for tasks."""
    if not n:
        return 1
    return sum(task.get() for task in [total.submit(n - 1) for _ in range(3)])


@mosaic.task
def until(path: str) -> int:
    """Runs until there is a file; says by another that it runs."""
    with open(f"{path}.runs", "w") as file:
        file.write(str(os.getpid()))
    while not os.path.exists(path):
        time.sleep(0.002)
    return os.getpid()


@mosaic.tessera
class Adder:
    def add(self, x: int, y: int = 1) -> int:
        return x + y

    def fail(self) -> None:
        raise KeyError("gone")

    def squares(self, n: int) -> int:
        return sum(task.get() for task in square.map(range(n)))

    async def awaited_squares(self, n: int) -> int:
        return sum(await square.map(range(n)).result())


def content(path: str) -> str:
    if not os.path.exists(path):
        return ""
    with open(path) as file:
        return file.read()


async def appears(path: str) -> int:
    async with asyncio.timeout(WAIT_S):
        while not content(path):  # noqa: ASYNC110 -- a file has no event
            await asyncio.sleep(0.005)
    return int(content(path))


# -- row 24: plain call; row 26: both forms --------------------------------------------


async def is_there(path: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while not os.path.lexists(path):  # noqa: ASYNC110, ASYNC240 -- no event
            await asyncio.sleep(0.005)


def test_a_plain_call_is_the_function_itself_and_needs_no_runtime() -> None:
    assert square(3) == 9
    assert asyncio.run(slow_square(3)) == 9
    assert square.name == "square"
    assert square.__doc__ is None
    assert total.description == "Waits for tasks that wait for tasks."
    assert square.key == f"{__name__}:square"


def test_submit_without_a_runtime_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"mosaic\.run\(main\)"):
        square.submit(3)


def test_what_is_no_function_is_refused_at_decoration() -> None:
    with pytest.raises(TypeError, match="marks a function, not 3"):
        mosaic.task(3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="@tessera makes remote objects"):
        mosaic.task(Adder)

    def items() -> Any:
        yield 1

    with pytest.raises(TypeError, match="is a generator"):
        mosaic.task(items)


def test_a_task_in_a_class_says_what_to_do() -> None:
    class Holder:
        method = mosaic.task(lambda self: 1)

    with pytest.raises(TypeError, match="mark the class with @tessera"):
        Holder().method  # noqa: B018 -- it raises


# -- row 25: submit, tasks as arguments ------------------------------------------------


def test_submit_runs_plain_and_coroutine_functions(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        assert await square.submit(3).result() == 9
        assert await slow_square.submit(3).result() == 9
        many = [slow_square.submit(i) for i in range(100)]
        assert await mosaic.gather(many) == [i * i for i in range(100)]
        task = await square.submit(3)
        assert (task.state, task.name) == ("done", "square")
        assert repr(task).startswith("<Task square · done")

    cluster(main)


def test_submit_takes_tasks_as_arguments_at_any_depth(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        adder = Adder.remote()
        one = add.submit(0)
        nested = {"a": [one, (adder.add(1), slow_square.submit(2))]}
        assert await describe.submit(nested).result() == "({'a': [1, (2, 4)]},)"
        assert await adder.add(add.submit(add.submit(1)), y=square.submit(2)).result()
        chain = add.submit(0)
        for _ in range(200):
            chain = add.submit(chain)
        assert await chain.result() == 201

    cluster(main)


def test_a_wrong_signature_is_a_type_error_at_submit(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        with pytest.raises(TypeError, match=r"square\(x: .*: missing a req"):
            square.submit()  # type: ignore[call-overload]
        with pytest.raises(TypeError, match=r"square.*unexpected keyword argument 'z'"):
            square.submit(1, z=2)  # type: ignore[call-overload]
        with pytest.raises(mosaic.SerializationError, match="lock"):
            describe.submit(threading.Lock())

    cluster(main)


def test_the_failure_of_an_argument_is_that_of_the_task(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        task = add.submit(fail.submit("at fault"))
        with pytest.raises(mosaic.UpstreamError, match="at fault") as caught:
            await task
        assert isinstance(caught.value.__cause__, ValueError)
        assert (task.state, task.reason) == ("failed", "upstream")
        last = add.submit(task)
        with pytest.raises(mosaic.UpstreamError):
            await last
        with pytest.raises(mosaic.UpstreamError):
            await Adder.remote().add(fail.submit())

    cluster(main)


def test_a_token_of_what_failed_on_the_same_thread_fails_too(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        adder = Adder.remote()
        await adder
        for _ in range(20):
            failed = adder.fail()
            with pytest.raises(mosaic.UpstreamError, match="gone"):
                await adder.add(1, failed.done)

    cluster(main)


def test_the_current_task_of_a_function_says_what_runs_and_where(
    cluster: RunIn,
) -> None:
    def say() -> list[str]:
        me = mosaic.current_task()
        return [me.uid, me.name, me.runtime_id]

    async def main(runtime: Any) -> None:
        worker = runtime.workers[1]
        for _ in range(2):  # a function of this name was sent before
            task = mosaic.task(lambda: say(), name="say").options(runtime=worker)
            ran = task.submit()
            assert await ran.result() == [ran.uid, "task.say", worker.uid]

    cluster(main)


@mosaic.task(version="3", log_prints=True)
def context(x: int, *rest: Any, flag: bool = True) -> Any:
    me = mosaic.current_task()
    assert me.task is not None
    return me.info, me.parameters, me.task.version


def parameters_here(x: int, y: Any = None) -> Any:
    return mosaic.current_task().parameters


@mosaic.tessera
class Context:
    def context(self, x: int, y: int = 2) -> Any:
        me = mosaic.current_task()
        return me.info, me.parameters, me.task


def test_the_current_task_knows_its_function_and_parameters(cluster: RunIn) -> None:
    def nameless(x: Any, y: int = 5) -> Any:
        me = mosaic.current_task()
        assert me.task is not None
        return me.task(0) if x else (me.info["name"], me.parameters)

    async def main(runtime: Any) -> None:
        one = square.submit(3)
        found = await context.submit(one, {"a": [1]}).result()
        info = {"name": "context", "key": context.key, "version": "3"}
        assert found == (info, {"x": 9, "rest": ({"a": [1]},), "flag": True}, "3")
        parameters = {"x": 0, "y": 5}
        task = mosaic.task(nameless)
        assert await task.submit(0).result() == ("nameless", parameters)
        assert await task.submit(1).result() == ("nameless", {"x": 1, "y": 5})
        after = task.options(after=[one]).submit(0, y=5)
        assert await after.result() == ("nameless", parameters)
        bound = mosaic.task(functools.partial(nameless, 0), name="bound")
        assert (await bound.submit(y=1).result())[1] == {"y": 1}
        with mosaic.Executor() as executor:
            told = executor.submit(parameters_here, 1)._task  # type: ignore[attr-defined]  # a CallFuture
            assert await told.result() == {"x": 1, "y": None}
        info, parameters, none = await Context.remote().context(1).result()
        assert info["key"].endswith(":Context.context")
        assert (parameters, none) == ({"x": 1, "y": 2}, None)

    cluster(main)


def test_an_error_keeps_its_type_and_says_where_it_was(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        with pytest.raises(ValueError, match="no") as caught:
            await fail.submit()
        assert any("in task.fail on w0:" in note for note in caught.value.__notes__)

    cluster(main)


def test_both_forms_and_functions_of_other_modules_run(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        assert await mosaic.task(operator.add).submit(3, 4).result() == 7
        named: mosaic.Task[..., int] = mosaic.task(pow, name="power")
        assert (named.name, await named.submit(2, 5).result()) == ("power", 32)
        partial: mosaic.Task[..., int] = mosaic.task(functools.partial(pow, 2))
        assert await partial.submit(3).result() == 8

    cluster(main)


# -- row 41: by value ------------------------------------------------------------------


def test_lambdas_closures_and_what_mentions_tesserae_run(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        adder, k = Adder.remote(), 5
        assert await mosaic.task(lambda x: x + k).submit(1).result() == 6
        assert (
            await mosaic.task(lambda x: adder.add(x, k).get()).submit(1).result() == 6
        )

        @mosaic.task
        async def awaits(x: int) -> int:
            return int(await adder.add(x, k).result())

        assert await awaits.submit(2).result() == 7

        @mosaic.task
        def countdown(n: int) -> int:
            return n and countdown.submit(n - 1).get()

        assert await countdown.submit(3).result() == 0

    cluster(main)


def test_a_function_is_sent_once_to_each_worker(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        large = bytes(500_000)
        size = mosaic.task(lambda i: len(large))
        await size.map(range(500)).result()
        windows = runtime.functions.queues[0].windows.values()
        assert any(size._code.method in window.knows for window in windows)

    cluster(main)


def test_what_cannot_be_read_there_is_the_error_of_each_call(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        task = mosaic.task(functools.partial(print, Unreadable()))
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await task.submit()

    cluster(main)


class Unreadable:
    def __reduce__(self) -> Any:
        return operator.truediv, (1, 0)


# -- rows 34, 35, 54: many at once -----------------------------------------------------


def test_map_takes_items_of_what_is_iterable(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        assert await add.map([1, 2, 3], 10).result() == [11, 12, 13]
        assert await add.map(iter([1, 2]), y=(3, 4)).result() == [4, 6]
        chained = add.map(square.map(range(50)), y=range(50))
        assert await chained.result() == [i * i + i for i in range(50)]
        values = mosaic.unmapped([1, 2])
        assert await describe.map(["ab", "c"], values).result() == [
            "('ab', [1, 2])",
            "('c', [1, 2])",
        ]
        assert await add.map(square.submit(2), [1, 2]).result() == [5, 6]
        assert len(add.map([])) == 0

    cluster(main)


def test_map_refuses_lengths_that_differ_and_what_is_not_iterable(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        with pytest.raises(ValueError, match=r"x has 2, y has 3.*unmapped"):
            add.map([1, 2], [1, 2, 3])
        with pytest.raises(TypeError, match=r"no argument is iterable"):
            add.map(1, 2)
        with pytest.raises(TypeError, match="unmapped"):
            add.submit(mosaic.unmapped([1]))

    cluster(main)


def test_starmap_takes_tuples_and_dicts(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        assert await add.starmap([(1, 2), {"x": 3}]).result() == [3, 4]
        common = await add.starmap([{"x": 1}, {"x": 2}], common={"y": 5}).result()
        assert common == [6, 7]
        with pytest.raises(TypeError, match="item 1 is 3"):
            add.starmap([(1,), 3])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="item 0 is a tuple"):
            add.starmap([(1,)], common={"y": 1})
        with pytest.raises(TypeError, match="starmap: found 3, expected an iterable"):
            add.starmap(3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="starmap: common=3, expected a dict"):
            add.starmap([{"x": 1}], common=3)  # type: ignore[arg-type]

    cluster(main)


def test_batch_size_lets_calls_go_together(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        batched = square.options(batch_size=64)
        assert await batched.map(range(200)).result() == [i * i for i in range(200)]
        with pytest.raises(ValueError, match="at least 1"):
            square.options(batch_size=0)

    cluster(main)


# -- rows 55, 57, 58 -------------------------------------------------------------------


def test_after_waits_without_data_and_fails_as_they_do(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first = slow_square.submit(2)
        assert await add.options(after=[first]).submit(1).result() == 2
        assert first.done()
        with pytest.raises(mosaic.UpstreamError, match="no"):
            await add.options(after=[fail.submit()]).submit(1)
        with pytest.raises(TypeError, match="option 'after': found 3"):
            add.options(after=[3])  # type: ignore[list-item]  # the mistake that is tested

    cluster(main)


def test_options_give_a_new_task_and_none_unsets(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        patient = add.options(timeout=20, max_retries=2)
        assert await patient.submit(1).result() == 2
        assert patient.options(timeout=None)._options.timeout is None
        assert patient.options(timeout=mosaic.UNSET)._options.timeout == 20
        assert add._options.timeout is None
        with pytest.raises(TypeError, match=r"'tmeout' .did you mean 'timeout'"):
            add.options(tmeout=3)  # type: ignore[call-arg]  # the mistake that is tested

    cluster(main)


def test_allow_failure_gives_the_exception_as_the_value(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        adder = Adder.remote()
        allow = mosaic.allow_failure
        found = describe.submit(
            allow(fail.submit()), [allow(square.submit(2))], allow(adder.fail())
        )
        assert await found.result() == "(ValueError('no'), [4], KeyError('gone'))"
        upstream = describe.submit(allow(add.submit(fail.submit())))
        assert "UpstreamError" in await upstream.result()

    cluster(main)


def test_quote_passes_the_task_itself(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        taking = mosaic.task(lambda tasks: [type(t).__name__ for t in tasks["a"]])
        quoted = {"a": [mosaic.quote(square.submit(2)), mosaic.quote(fail.submit())]}
        assert await taking.submit(quoted).result() == ["TaskProxy", "TaskProxy"]
        with pytest.raises(TypeError, match="takes a task, not 3"):
            mosaic.quote(3)  # type: ignore[arg-type]

    cluster(main)


# -- placement -------------------------------------------------------------------------


def test_tasks_use_all_workers_and_runtime_names_one(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        pids = await nap.map(range(8)).result()
        assert set(pids) == {worker.pid for worker in runtime.workers}
        for worker in runtime.workers:
            there = where.options(runtime=worker)
            found = await mosaic.gather(there.submit() for _ in range(20))
            assert set(found) == {worker.pid}

    cluster(main)


def test_a_task_goes_where_its_large_arguments_are(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        # Each so small that it is not in shared memory, and both not small.
        make = mosaic.task(lambda: (os.getpid(), bytes(200_000)))
        here = mosaic.task(lambda one, other: (one[0], other[0], os.getpid()))
        for worker in (*runtime.workers, *runtime.workers):
            there = make.options(runtime=worker)
            made = await there.submit(), await there.submit()
            assert set(await here.submit(*made).result()) == {worker.pid}

    cluster(main)


def test_what_is_queued_behind_a_long_task_moves(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        path = str(tmp_path / "go")
        long = until.submit(path)
        pid = await appears(f"{path}.runs")
        # More than the other worker's window takes at first.
        pids = await asyncio.wait_for(
            mosaic.gather(where.submit() for _ in range(30)), WAIT_S
        )
        assert set(pids) == {w.pid for w in runtime.workers} - {pid}
        assert not long.done()
        (tmp_path / "go").touch()
        assert await long.result() == pid

    cluster(main)


def test_a_task_that_waits_its_turn_is_cancelled_at_once(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        paths = [str(tmp_path / name) for name in "ab"]
        long = [until.submit(path) for path in paths]
        for path in paths:
            await appears(f"{path}.runs")
        waiting = [square.submit(i) for i in range(3 * MOST_WINDOW)]
        last = waiting.pop()  # far behind what workers are given
        behind = add.submit(last)
        assert last.cancel("not needed")
        assert last.state == "cancelled"
        with pytest.raises(mosaic.TaskCancelledError, match="not needed"):
            await last
        for path in paths:
            (tmp_path / path).touch()
        await mosaic.gather(*long, *waiting)
        with pytest.raises(mosaic.TaskCancelledError):
            await behind

    cluster(main)


# -- inside others ---------------------------------------------------------------------


def run_on(path: str) -> None:
    """Runs until it is stopped, and says so."""
    open(path, "w").close()
    try:
        while True:
            time.sleep(0.002)
    finally:
        os.rename(path, f"{path}.stopped")


@mosaic.task
def plainly_inside(path: str) -> None:
    mosaic.task(run_on)(path)


@mosaic.task
def run_inside(path: str) -> None:
    mosaic.task(run_on, max_retries=1).run(path)


def test_a_call_is_stopped_whatever_is_done_around_it(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        logged = mosaic.task(run_on, log_prints=True)
        kept = mosaic.task(run_on, persist=True, store=str(tmp_path), store_key="k")
        executor = mosaic.Executor()
        for i, submit in enumerate(
            (
                logged.submit,
                kept.submit,
                plainly_inside.submit,
                run_inside.submit,
                lambda path: executor.submit(run_on, path)._task,  # type: ignore[attr-defined]  # a CallFuture
            )
        ):
            path = str(tmp_path / str(i))
            task = submit(path)
            await is_there(path)
            task.cancel()
            await is_there(f"{path}.stopped")
            with pytest.raises(mosaic.TaskCancelledError):
                await task.result()

    cluster(main)


def test_tasks_wait_for_tasks_three_deep_on_two_workers(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        found = [total.submit(3) for _ in range(3)]
        assert await mosaic.gather(found) == [27] * 3

    cluster(main)


def test_methods_of_tesserae_submit_tasks(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        adders = [Adder.options(runtime=w).remote() for w in runtime.workers]
        for adder in adders:
            assert await adder.squares(20).result() == 2470
            assert await adder.awaited_squares(20).result() == 2470
        both = [a.squares(20) for a in adders]
        assert await mosaic.gather(both) == [2470, 2470]

    cluster(main)


def test_a_task_that_is_returned_stays_a_task(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        maker = mosaic.task(lambda: [square.submit(i) for i in range(20)])
        tasks = await maker.submit().result()
        assert await mosaic.gather(tasks) == [i * i for i in range(20)]

    cluster(main)


_SCRIPT = """
import mosaic_like as mosaic

OFFSET = 3

@mosaic.task
def shifted(x):
    return x + OFFSET

@mosaic.task
async def later(x, by=lambda x: 2 * x):
    return by(x)

async def main():
    return await later.submit(shifted.submit(1)).result()

print(mosaic.run(main, num_workers=1))
"""


def test_functions_of_main_and_lambdas_of_it_run(
    run_script: RunScript, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"  # without a guard
    script.write_text(_SCRIPT)
    result = run_script(script, timeout=50)
    assert (result.code, result.stdout) == (0, "8\n"), result.stderr
