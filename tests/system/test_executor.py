"""``mosaic.Executor`` keeps the contract of concurrent.futures; row 29 of the API."""

from __future__ import annotations

import asyncio
import concurrent.futures
import operator
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import joblib
import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import RunScript
    from specimens import RunIn

WAIT_S = 20.0


@pytest.fixture
def executor(cluster: RunIn) -> Iterator[mosaic.Executor]:
    """One in the cluster that this file shares, whose loop is on another thread."""
    with mosaic.Executor() as executor:
        yield executor


def square(x: int) -> int:
    return x * x


def fail(text: str) -> None:
    raise ValueError(text)


def wait_for(path: str) -> int:
    open(f"{path}.{os.getpid()}", "w").close()
    while not os.path.exists(path):
        time.sleep(0.002)
    return os.getpid()


def sleep_or_wait(item: Any) -> Any:
    if isinstance(item, str):
        wait_for(item)
    else:
        time.sleep(item)
    return item


def refuse_seven(i: int) -> int:
    if i == 7:
        raise ValueError("seven")
    return i


def nested(depth: int) -> int:
    if not depth:
        return 1
    with mosaic.Executor() as inner:
        return sum(inner.map(nested, [depth - 1] * 3))


def nested_futures(depth: int) -> int:
    if not depth:
        return 1
    inner = mosaic.Executor()
    futures = [inner.submit(nested_futures, depth - 1) for _ in range(3)]
    return sum(future.result() for future in futures)


def nested_wait(depth: int) -> int:
    if not depth:
        return 1
    inner = mosaic.Executor()
    futures = [inner.submit(nested_wait, depth - 1) for _ in range(3)]
    done, pending = concurrent.futures.wait(futures)
    assert not pending
    return sum(future.result() for future in done)


def nested_as_completed(depth: int) -> int:
    if not depth:
        return 1
    inner = mosaic.Executor()
    futures = [inner.submit(nested_as_completed, depth - 1) for _ in range(3)]
    return sum(f.result() for f in concurrent.futures.as_completed(futures))


def nested_tasks(depth: int) -> int:
    if not depth:
        return 1
    inner = [nested_task.submit(depth - 1) for _ in range(3)]
    return sum(task.wait().get() for task in inner)


nested_task = mosaic.task(nested_tasks)


def nested_joblib(depth: int) -> int:
    if not depth:
        return 1
    calls = (joblib.delayed(nested_joblib)(depth - 1) for _ in range(3))
    return sum(joblib.Parallel(n_jobs=2)(calls))


def nested_by_name(n: int) -> int:
    with joblib.parallel_config("mosaic", n_jobs=2):
        return sum(joblib.Parallel()(joblib.delayed(abs)(i) for i in range(n)))


def note(path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


def test_submit_gives_a_real_future(executor: mosaic.Executor) -> None:
    future = executor.submit(pow, 2, 5)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(WAIT_S) == 32
    assert future.done()
    assert executor.submit(int, "10", base=2).result(WAIT_S) == 2
    assert executor.submit(lambda: threading.current_thread().name).result(WAIT_S)
    with pytest.raises(ValueError, match="no"):
        executor.submit(fail, "no").result(WAIT_S)


def test_the_functions_of_concurrent_futures_take_them(
    executor: mosaic.Executor,
) -> None:
    futures = [executor.submit(square, i) for i in range(20)]
    done, pending = concurrent.futures.wait(futures, WAIT_S)
    assert len(done) == 20
    assert not pending
    found = {f.result() for f in concurrent.futures.as_completed(futures, WAIT_S)}
    assert found == {i * i for i in range(20)}


def test_futures_stand_for_their_values_as_arguments(
    executor: mosaic.Executor,
) -> None:
    three = executor.submit(operator.add, 1, 2)
    nine = executor.submit(operator.mul, three, three)
    assert executor.submit(pow, 2, exp=nine).result(WAIT_S) == 512


def test_futures_stand_for_their_values_at_any_depth(
    executor: mosaic.Executor,
) -> None:
    three, four = executor.submit(square, 3), executor.submit(square, 4)
    task: Any = mosaic.task(square)
    assert executor.submit(sum, [three, four]).result(WAIT_S) == 25
    assert executor.submit(dict, found={"in": (three,)}).result(WAIT_S) == {
        "found": {"in": (9,)}
    }
    assert list(executor.map(pow, [three, four], [1, 1], timeout=WAIT_S)) == [9, 16]
    assert task.submit(three).get(WAIT_S) == 81
    assert executor.submit(sum, [task.submit(2).as_future(), 1]).result(WAIT_S) == 5


def test_the_error_of_a_wait_has_its_time_rounded(executor: mosaic.Executor) -> None:
    with pytest.raises(TimeoutError, match=r"after 0\.123 s 2 values are missing"):
        next(executor.map(time.sleep, [1, 1], timeout=0.1234567))


def test_callbacks_may_submit(executor: mosaic.Executor) -> None:
    chained: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def go_on(future: concurrent.futures.Future[int]) -> None:
        executor.submit(square, future.result()).add_done_callback(
            lambda last: chained.set_result(last.result())
        )

    executor.submit(square, 2).add_done_callback(go_on)
    assert chained.result(WAIT_S) == 16


def test_threads_submit_side_by_side(executor: mosaic.Executor) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        sums = threads.map(lambda n: sum(executor.map(square, range(n))), range(20))
        assert list(sums) == [sum(i * i for i in range(n)) for n in range(20)]


@pytest.mark.parametrize("chunksize", [1, 7, 100])
def test_map_gives_values_in_order(executor: mosaic.Executor, chunksize: int) -> None:
    found = executor.map(operator.add, range(30), range(40), chunksize=chunksize)
    assert list(found) == [2 * i for i in range(30)]
    assert list(executor.map(square, [], chunksize=chunksize)) == []


def test_map_gives_values_while_calls_behind_them_run(
    executor: mosaic.Executor, tmp_path: Path
) -> None:
    # The ends of calls wait for each other, but not for one that runs.
    path = tmp_path / "go"
    items = [0.0] * 200 + [str(path)] * 2
    values = executor.map(sleep_or_wait, items, timeout=WAIT_S)
    assert [next(values) for _ in range(200)] == [0.0] * 200
    path.touch()
    assert list(values) == [str(path)] * 2


def test_what_map_no_longer_gives_is_cancelled(executor: mosaic.Executor) -> None:
    values = executor.map(refuse_seven, range(500), timeout=WAIT_S)
    assert [next(values) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="seven"):
        next(values)
    assert list(values) == []


def test_map_checks_its_options_and_ends_in_time(
    executor: mosaic.Executor, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        executor.map(square, [1], chunksize=0)
    values = executor.map(wait_for, [str(tmp_path / "never")] * 3, timeout=0.1)
    with pytest.raises(TimeoutError):
        next(values)
    (tmp_path / "never").touch()
    failing = executor.map(fail, ["a", "b"])
    with pytest.raises(ValueError, match="a"):
        next(failing)


def test_a_future_that_waits_its_turn_can_be_cancelled(
    executor: mosaic.Executor, tmp_path: Path
) -> None:
    path = str(tmp_path / "go")
    long = [executor.submit(wait_for, path) for _ in range(2)]
    waiting = [executor.submit(square, i) for i in range(20)]
    assert waiting[-1].cancel()
    assert waiting[-1].cancelled()
    (tmp_path / "go").touch()
    concurrent.futures.wait(long, WAIT_S)
    with pytest.raises(concurrent.futures.CancelledError):
        waiting[-1].result(WAIT_S)
    assert [f.result(WAIT_S) for f in waiting[:-1]] == [i * i for i in range(19)]


def test_a_loop_uses_it_by_run_in_executor(executor: mosaic.Executor) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(executor, square, i) for i in range(10)]
        return await asyncio.gather(*calls)

    assert asyncio.run(main()) == [i * i for i in range(10)]


def test_a_map_may_be_waited_for_where_another_loop_runs(
    executor: mosaic.Executor,
) -> None:
    async def cell_of_a_notebook() -> list[int]:
        return list(executor.map(square, range(10)))

    assert asyncio.run(cell_of_a_notebook()) == [i * i for i in range(10)]


def test_after_shutdown_nothing_is_taken_and_the_next_executor_is_there_at_once(
    executor: mosaic.Executor,
) -> None:
    other = mosaic.Executor()
    last = other.submit(square, 3)
    other.shutdown()
    assert last.done()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shut"):
        other.submit(square, 3)
    with pytest.raises(RuntimeError, match="after shutdown"):
        other.map(square, [3])
    assert executor.submit(square, 3).result(WAIT_S) == 9


def test_shutdown_cancels_what_has_not_started(
    executor: mosaic.Executor, tmp_path: Path
) -> None:
    other = mosaic.Executor()
    path = str(tmp_path / "go")
    long = [other.submit(wait_for, path) for _ in range(2)]
    waiting = [other.submit(square, i) for i in range(50)]
    other.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting[10:])
    (tmp_path / "go").touch()
    concurrent.futures.wait(long + waiting, WAIT_S)


def test_options_are_checked() -> None:
    with pytest.raises(TypeError, match=r"Executor\(max_workers='3'\): expected int"):
        mosaic.Executor("3")  # type: ignore[arg-type]  # which is what is wrong
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        mosaic.Executor(0)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        mosaic.Executor(1, initializer=3)  # type: ignore[arg-type]


def test_the_initializer_is_called_once_in_each_worker(
    executor: mosaic.Executor, tmp_path: Path
) -> None:
    path = str(tmp_path / "notes")
    with mosaic.Executor(initializer=note, initargs=(path,)) as other:
        for chunksize in (1, 5):
            found = other.map(square, range(50), chunksize=chunksize)
            assert list(found) == [i * i for i in range(50)]
    pids = (tmp_path / "notes").read_text().split()
    assert len(pids) == len(set(pids)) <= 2


def test_a_failing_initializer_breaks_the_executor(executor: mosaic.Executor) -> None:
    other = mosaic.Executor(initializer=fail, initargs=("not today",))
    future = other.submit(square, 3)
    with pytest.raises(concurrent.futures.BrokenExecutor, match="not today"):
        future.result(WAIT_S)
    with pytest.raises(mosaic.MosaicError, match="not today"):
        other.submit(square, 3)


def test_executors_inside_others_three_deep_on_two_workers(
    executor: mosaic.Executor,
) -> None:
    assert executor.submit(nested, 3).result(WAIT_S) == 27
    assert executor.submit(nested_futures, 3).result(WAIT_S) == 27


@pytest.mark.parametrize("nest", [nested_wait, nested_as_completed, nested_tasks])
def test_nested_calls_end_by_whatever_way_they_are_waited_for(
    executor: mosaic.Executor, nest: Callable[[int], int]
) -> None:
    assert executor.submit(nest, 3).result(WAIT_S) == 27


def test_joblib_runs_on_it_three_deep_on_two_workers(executor: mosaic.Executor) -> None:
    mosaic.Executor.register_joblib()
    with joblib.parallel_config("mosaic", n_jobs=2):
        assert nested_joblib(3) == 27
        named = joblib.Parallel()(joblib.delayed(nested_by_name)(i) for i in range(4))
        assert named == [0, 0, 1, 3]
        calls = (joblib.delayed(square)(i) for i in range(40))
        assert joblib.Parallel(n_jobs=-1)(calls) == [i * i for i in range(40)]
        with pytest.raises(ValueError, match="no"):
            joblib.Parallel(n_jobs=2)([joblib.delayed(fail)("no")])


def test_joblib_gives_generators_in_both_orders(
    executor: mosaic.Executor, tmp_path: Path
) -> None:
    mosaic.Executor.register_joblib()
    with joblib.parallel_config("mosaic", n_jobs=2):
        calls = (joblib.delayed(square)(i) for i in range(20))
        values = joblib.Parallel(return_as="generator")(calls)
        assert list(values) == [i * i for i in range(20)]
        path = tmp_path / "go"
        items = [joblib.delayed(sleep_or_wait)(item) for item in (str(path), 0.0)]
        values = joblib.Parallel(return_as="generator_unordered")(items)
        assert next(values) == 0.0  # while the first one runs
        path.touch()
        assert list(values) == [str(path)]
        named = joblib.Parallel()(joblib.delayed(generated)(n) for n in (3, 4))
        assert named == [(3, 3), (6, 6)]


def generated(n: int) -> tuple[int, int]:
    """Sums of generators inside a call."""
    with joblib.parallel_config("mosaic", n_jobs=2):
        return tuple(
            sum(joblib.Parallel(return_as=order)(map(joblib.delayed(abs), range(n))))
            for order in ("generator", "generator_unordered")
        )


def fail_when(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.002)
    raise ValueError("no")


def say_and_run_on(path: str, stopped: str) -> None:
    open(path, "w").close()
    try:
        while True:
            time.sleep(0.002)
    finally:
        open(stopped, "w").close()


def test_a_batch_of_joblib_that_fails_stops_those_that_run(
    executor: mosaic.Executor, tmp_path: Path
) -> None:
    mosaic.Executor.register_joblib()
    runs, stopped = str(tmp_path / "runs"), tmp_path / "stopped"
    calls = [
        joblib.delayed(say_and_run_on)(runs, str(stopped)),
        joblib.delayed(fail_when)(runs),
    ]
    with (
        joblib.parallel_config("mosaic", n_jobs=2),
        pytest.raises(ValueError, match="no"),
    ):
        joblib.Parallel()(calls)
    until_s = time.monotonic() + WAIT_S
    while not stopped.exists():
        assert time.monotonic() < until_s, "it runs on"
        time.sleep(0.01)


_SEARCH = """
import joblib, mosaic_like as mosaic
from sklearn.datasets import make_regression
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

data = make_regression(60, 4, random_state=0)
search = GridSearchCV(Ridge(), {"alpha": [0.01, 0.1, 1.0]}, cv=3, n_jobs=2)
here = GridSearchCV(Ridge(), search.param_grid, cv=3).fit(*data)
mosaic.Executor.register_joblib()
with joblib.parallel_config("mosaic", n_jobs=2):
    there = search.fit(*data)
assert there.best_params_ == here.best_params_
assert abs(there.best_score_ - here.best_score_) < 1e-12
print(there.best_params_)
"""


@pytest.mark.timeout(120)
def test_scikit_learn_searches_on_it(run_script: RunScript, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    script = tmp_path / "search.py"
    script.write_text(_SEARCH)
    result = run_script(script, timeout=100)
    assert (result.code, result.stdout) == (0, "{'alpha': 0.01}\n"), result.stderr


def test_a_program_that_ends_without_shutdown_finishes_its_calls(
    run_script: RunScript, tmp_path: Path
) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import mosaic_like as mosaic, pathlib, time\n"
        "def work(i):\n"
        "    time.sleep(0.01)\n"
        f"    pathlib.Path({str(tmp_path)!r}, f'done{{i}}').touch()\n"
        "executor = mosaic.Executor(2)\n"
        "for i in range(10):\n"
        "    executor.submit(work, i)\n"
    )
    result = run_script(script)
    assert (result.code, result.stdout, result.stderr) == (0, "", "")
    assert len(list(tmp_path.glob("done*"))) == 10
