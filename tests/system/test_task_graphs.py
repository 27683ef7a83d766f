"""Graphs of tasks in a cluster: prepared, sent, repaired, drawn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from pathlib import Path

    from specimens import RunIn


@mosaic.task
def double(x: Any) -> int:
    return 2 * int(x)


@mosaic.task
def add(*terms: Any) -> int:
    return int(sum(terms))


@mosaic.task
def read(path: str) -> str:
    with open(path) as file:
        return file.read()


@mosaic.task
def strip(text: Any) -> str:
    return str(text).strip()


@mosaic.task
def write(path: str, text: str) -> str:
    with open(path, "a") as file:
        file.write(text)
    return path


@mosaic.task
async def forever() -> None:
    await asyncio.Event().wait()


@mosaic.task
def told(found: Any) -> str:
    return type(found).__name__


@mosaic.task
def missing() -> None:
    raise FileNotFoundError("raw.csv")


@mosaic.task
def broken(value: Any) -> None:
    raise ValueError(value)


def standing(*tasks: mosaic.TaskProxy[Any]) -> list[tuple[str, str | None]]:
    return [(str(task.state), task.reason) for task in tasks]


async def raises(task: mosaic.TaskProxy[Any]) -> BaseException:
    error = await task.exception()
    assert error is not None
    return error


def test_require_then_block_and_blockers_put_a_graph_together(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first = double.task(1)
        second = first.then(double)
        apart = double.task(10)
        last = add.task(second, first).require(apart)
        assert standing(first, second, last) == [("prepare", None)] * 3
        assert last.required == {first, second, apart}
        assert first.blocking == {second, last}
        assert apart.blocking == {last}
        assert set(last.blockers()) == {first, second, apart}
        late = double.task(5)
        assert first.then(late) is late
        assert first in late.required
        first.block(late)  # once more is the same
        assert await last.result() == 6
        assert last.blockers() == []
        assert standing(first, second, apart, last) == [("done", None)] * 4
        assert late.state == "prepare"

    cluster(main)


def test_require_after_it_was_sent_is_an_invalid_transition(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        other = double.task(1)
        sent = forever.task().submit()
        with pytest.raises(mosaic.InvalidTransitionError, match="'require'"):
            sent.require(other)
        sent.cancel()
        with pytest.raises(mosaic.InvalidTransitionError):
            double.submit(1).require(other)
        with pytest.raises(TypeError, match="takes tasks"):
            other.require(3)  # type: ignore[arg-type]  # the mistake
        await sent.exception()

    cluster(main)


def test_require_that_closes_a_circle_is_a_cycle_error(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first = double.task(1)
        last = first.then(double).then(add)
        with pytest.raises(mosaic.CycleError, match="add -> double -> double"):
            first.require(last)
        with pytest.raises(mosaic.CycleError, match="wait for itself"):
            first.require(first)
        assert await last.result() == 4

    cluster(main)


def test_wait_for_by_after_orders_without_data(cluster: RunIn, tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        path = str(tmp_path / "log")
        first = write.task(path, "a")
        last = write.options(after=[first]).task(path, "b")
        assert last.required == {first}
        await last
        assert (tmp_path / "log").read_text() == "ab"
        with pytest.raises(TypeError, match="'after'"):
            write.options(after=[3])  # type: ignore[list-item]  # the mistake that is tested

    cluster(main)


def test_dispatch_of_a_blocked_task_is_a_blocked_error(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first = double.task(1)
        last = first.then(double)
        with pytest.raises(mosaic.BlockedError, match=r"waits for double \(prepare\)"):
            last.submit(wait=False)
        assert last.state == "prepare"
        await first.submit(wait=False)
        assert await last.submit(wait=False).result() == 4
        with pytest.raises(mosaic.InvalidTransitionError, match="'submit'"):
            last.submit()

    cluster(main)


def test_a_prepared_task_that_is_wanted_is_sent(cluster: RunIn) -> None:
    """By awaiting it in any way, and by a call that takes it."""

    async def main(runtime: Any) -> None:
        assert await double.task(1).result() == 2
        assert await mosaic.gather(double.task(1), double.task(2)) == [2, 4]
        assert await double.submit(double.task(1)).result() == 4
        (done, _) = await mosaic.wait([double.task(1)])
        assert len(done) == 1
        assert [t.name async for t in mosaic.as_completed([double.task(1)])]
        calls = remote_adder()
        assert await calls.add(double.task(1), 1).result() == 3
        assert await asyncio.wrap_future(double.task(4).as_future()) == 8
        assert await asyncio.to_thread(double.task(1).get) == 2

    cluster(main)


class Adder:
    def add(self, a: int, b: int) -> int:
        return a + b

    def fail(self) -> None:
        raise ValueError("no")


def remote_adder() -> Any:
    return mosaic.remote(Adder)()


def test_repair_and_retry_takes_dependents_along(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        path = tmp_path / "raw"
        load = read.task(str(path))
        clean = load.then(strip)
        last = clean.then(told)
        error = await raises(last)
        assert isinstance(error, mosaic.UpstreamError)
        assert isinstance(error.__cause__, FileNotFoundError)
        assert "strip, which it waits for, failed (FileNotFoundError" in str(error)
        assert standing(load, clean, last) == [
            ("failed", "error"),
            ("failed", "upstream"),
            ("failed", "upstream"),
        ]
        path.write_text(" a ")
        uid, number = load.uid, hash(load)
        load.retry()
        assert [t.state for t in (load, clean, last)] == ["pending"] * 3
        assert (await last.result(), await clean.result()) == ("str", "a")
        assert (load.uid, hash(load), load.attempt) == (uid, number, 2)
        with pytest.raises(mosaic.InvalidTransitionError, match=r"'retry'.*'done'"):
            load.retry()
        with pytest.raises(mosaic.InvalidTransitionError, match=r"'abort'.*'done'"):
            load.abort()

    cluster(main)


def test_retry_of_tasks_that_were_submitted_takes_dependents_along(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        path = tmp_path / "raw"
        load = read.submit(str(path))
        clean = strip.submit(load)
        last = told.submit([clean])
        await raises(last)
        assert (await raises(load)).__class__ is FileNotFoundError
        path.write_text("a")
        load.retry()
        assert await mosaic.gather(load, clean, last) == ["a", "a", "list"]

    cluster(main)


@mosaic.task
def revealed() -> None:
    task = mosaic.current_task()
    raise ValueError(task.uid, task.attempt)


def test_a_retried_task_has_its_uid_inside_and_its_attempts_count_on(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        plain = revealed.submit()
        twice = revealed.options(max_retries=1).task()
        for count in (1, 2, 3):
            for task, attempt in ((plain, count), (twice, 2 * count)):
                error = await raises(task)
                assert error.args == (task.uid, attempt)
                assert f"task {task.uid} · attempt {attempt}" in error.__notes__[0]
                assert task.attempt == task.info.attempt == attempt
                assert task.info.task_id == task.uid
                ends = [t.state for t in task.history if t.state == "failed"]
                assert len(ends) == count
                assert [t.reason for t in task.history].count("retry") >= count - 1
                task.retry()
        await raises(plain)
        await raises(twice)

    cluster(main)


def test_a_cancelled_task_can_be_retried(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first = double.task(1)
        last = first.then(double)
        first.cancel("not yet")
        assert standing(first, last) == [("cancelled", "not yet"), ("prepare", None)]
        assert isinstance(await raises(last), mosaic.TaskCancelledError)
        assert standing(last) == [("cancelled", "upstream")]
        first.retry()
        assert await last.result() == 4

    cluster(main)


@mosaic.task
def opened(path: str) -> str:
    """The text of a file, as soon as it is there."""
    while not os.path.exists(path):
        time.sleep(0.01)
    return read(path)


def test_what_was_submitted_follows_a_cancelled_task_that_is_retried(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        path = tmp_path / "there"
        load = opened.submit(str(path))
        clean = strip.submit(load)
        last = told.submit([clean])
        ordered = double.options(after=[load]).submit(4)
        cached = size.submit(load)
        load.cancel("not yet")
        await raises(load)
        late = strip.submit(load)
        followers = clean, last, ordered, cached, late
        for one in followers:
            assert isinstance(await raises(one), mosaic.TaskCancelledError)
            assert standing(one) == [("cancelled", "upstream")]
        assert standing(load) == [("cancelled", "not yet")]
        path.write_text(str(path))
        load.retry()
        found = await mosaic.gather(*followers)
        assert found == [str(path), "list", 8, len(str(path)), str(path)]

    cluster(main)


def test_what_has_not_heard_of_the_end_of_what_it_takes_waits_for_the_next(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        path = tmp_path / "there"
        load = opened.submit(str(path))
        clean = strip.submit(load)
        last = told.options(timeout=60).submit([clean])
        awaited = asyncio.ensure_future(last.result())
        load.cancel("not yet")
        await raises(load)
        path.write_text("a")
        load.retry()  # the news of how these end may be on its way
        with contextlib.suppress(mosaic.TaskCancelledError):
            assert await awaited == "list"
        assert await mosaic.gather(clean, last) == [str(path.read_text()), "list"]
        delayed = double.options(delay=60).submit(1)
        after = double.submit(delayed)
        for text in ("first", "second"):
            delayed.cancel(text)
            if text == "first":
                delayed.retry()
        await raises(after)
        assert standing(delayed, after) == [
            ("cancelled", "second"),
            ("cancelled", "upstream"),
        ]

    cluster(main)


def test_who_waits_for_a_task_that_is_retried_at_once_waits_on(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        path = tmp_path / "raw"
        load = read.submit(str(path))

        async def repair() -> None:
            await raises(load)
            path.write_text("a")
            load.retry()

        async def value() -> str:
            await load
            return await load.result()

        ways = value, load.result, load.exception
        _, *found = await asyncio.gather(repair(), *(way() for way in ways))
        assert found == ["a", "a", None]

    cluster(main)


def test_what_was_submitted_is_given_up_with_an_aborted_task(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        load = opened.submit(str(tmp_path / "never"))
        clean = strip.submit(load)
        last = told.submit([clean])
        load.cancel("first")
        for one in (load, clean, last):
            await raises(one)
        load.abort()
        late = strip.submit(load)
        stopped = forever.submit()
        of_it = told.submit(stopped)
        stopped.abort()
        for one in (late, of_it):
            assert isinstance(await raises(one), mosaic.TaskAbortedError)
        upstream = ("aborted", "upstream")
        assert standing(load, clean, last, late) == [("aborted", None), *3 * [upstream]]
        assert standing(stopped, of_it) == [("aborted", None), upstream]

    cluster(main)


@mosaic.task(cache_key="inputs", run_name="bytes of {path}")
def size(path: str) -> int:
    with open(path) as file:
        return len(file.read())


@mosaic.task
def fails_once(path: str) -> int:
    """Fails, and the second time says where it runs."""
    if not os.path.exists(path):
        open(path, "w").close()
        raise ValueError("not yet")
    return os.getpid()


def test_what_is_retried_runs_where_it_was_to_run(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        one = runtime.workers[1]
        there = fails_once.options(runtime=one)
        tasks = [there.submit(str(tmp_path / str(i))) for i in range(6)]
        for task in tasks:
            with pytest.raises(ValueError, match="not yet"):
                await task.result()
        for task in tasks:
            task.retry()
        assert {await task.result() for task in tasks} == {one.pid}

    cluster(main)


def test_retry_asks_the_policy_of_a_task_again(cluster: RunIn, tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        path = str(tmp_path / "raw")
        first = size.task(path)
        assert first.name == f"bytes of {path}"
        last = first.then(double)
        alone = size.submit(path)
        assert isinstance(await raises(last), mosaic.UpstreamError)
        assert isinstance(await raises(alone), FileNotFoundError)
        (tmp_path / "raw").write_text("abc")
        first.retry()
        assert await last.result() == 6
        alone.retry()
        assert await alone.result() == 3
        assert (alone.reason, alone.attempt) == ("cached", 2)

    cluster(main)


def test_a_failure_of_a_graph_that_nobody_holds_is_logged(
    cluster: RunIn, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(runtime: Any) -> None:
        double.task(1).then(broken).then(told).submit()
        await runtime.barrier(20)
        missing.task().then(told).submit()
        await runtime.barrier(20)

    cluster(main)
    told_of = [m for m in caplog.messages if "nobody asked" in m]
    assert len(told_of) == 2
    assert all(f"called at {__file__}" in message for message in told_of)


def test_record_and_on_state_tell_of_tasks_of_a_graph(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        path = tmp_path / "raw"
        records: list[dict[str, Any]] = []
        moves: list[tuple[str, str | None]] = []
        with mosaic.record(records.append):
            load = read.task(str(path))
            last = load.then(strip)
            last.on_state(lambda info, move: moves.append((move.state, move.reason)))
            await raises(last)
            path.write_text("a")
            load.retry()
            await last
        assert [
            (r["name"], r["state"], r["reason"], r["attempt"]) for r in records
        ] == [
            ("read", "failed", "error", 1),
            ("strip", "failed", "upstream", 1),
            ("read", "done", None, 2),
            ("strip", "done", None, 2),
        ]
        assert records[3]["parent_task_ids"] == [load.uid]
        assert [move for move in moves if move[0] != "running"] == [
            ("prepare", None),
            ("pending", "arguments"),
            ("failed", "upstream"),
            ("pending", "retry"),
            ("pending", "arguments"),
            ("pending", None),
            ("done", None),
        ]

    cluster(main)


def test_what_a_pending_task_waits_for_is_its_reason(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        waits = forever.submit()
        first = double.task(waits).submit()
        last = double.task(1).require(waits).submit()
        assert standing(first, last) == [("pending", "arguments"), ("pending", "after")]
        waits.cancel()
        assert isinstance(await raises(first), mosaic.TaskCancelledError)
        assert isinstance(await raises(last), mosaic.TaskCancelledError)

    cluster(main)


def test_retry_of_a_call_on_a_tessera_says_why_not(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        failed = remote_adder().fail()
        await raises(failed)
        with pytest.raises(TypeError, match="call the method again"):
            failed.retry()
        after = double.task(1).require(failed)
        assert isinstance(await raises(after), mosaic.UpstreamError)

    cluster(main)


def test_abort_gives_up_all_that_waits(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first = double.task(1)
        last = first.then(double)
        first.abort()
        assert standing(first, last) == [("aborted", None), ("aborted", "upstream")]
        error = await raises(last)
        assert isinstance(error, mosaic.TaskAbortedError)
        assert "double, which it waits for, was aborted" in str(error)
        with pytest.raises(mosaic.InvalidTransitionError, match=r"'retry'.*'aborted'"):
            last.retry()
        sent = forever.submit()
        sent.abort()
        assert isinstance(await raises(sent), mosaic.TaskAbortedError)
        assert sent.state == "aborted"
        failed = missing.submit()
        after = told.submit(failed)
        await raises(after)
        failed.abort()
        assert standing(failed, after) == [("aborted", None), ("aborted", "upstream")]

    cluster(main)


def test_allow_failure_lets_a_prepared_task_run(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        failed = missing.task()
        last = told.task(mosaic.allow_failure(failed))
        assert await last.result() == "FileNotFoundError"
        assert (failed.state, last.state) == ("failed", "done")

    cluster(main)


def test_make_yields_all_that_is_needed_in_the_order_of_their_ends(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        load = read.task(str(tmp_path / "raw"))
        clean = load.then(strip)
        last = clean.then(told)
        seen = [(t.name, str(t.state), t.reason) async for t in mosaic.make(last)]
        assert seen == [
            ("read", "failed", "error"),
            ("strip", "failed", "upstream"),
            ("told", "failed", "upstream"),
        ]
        (tmp_path / "raw").write_text("a")
        load.retry()
        assert [t.name for t in await mosaic.make(last)] == ["read", "strip", "told"]
        assert await mosaic.make(last) == [last]
        assert await mosaic.make() == []
        with pytest.raises(TypeError, match="takes tasks"):
            mosaic.make(3)  # type: ignore[arg-type]  # the mistake

    cluster(main)


def test_make_that_is_to_fail_fast_cancels_what_it_has_sent(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        failed, waits = missing.task(), forever.task()
        own = forever.submit()
        made = await mosaic.make(waits, failed, own, fail_fast=True)
        assert made == [failed]
        assert isinstance(await raises(waits), mosaic.TaskCancelledError)
        assert own.state in ("pending", "running")
        own.cancel()
        await raises(own)

    cluster(main)


def test_a_task_queue_runs_its_tasks_and_says_which_are_stuck(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first = double.task(1)
        middle = first.then(double)
        last = middle.then(double)
        alone = double.task(5)
        queue = mosaic.TaskQueue(last, middle, alone)
        assert [t async for t in queue] == [alone]
        assert queue.stuck() == [last, middle]
        assert first.state == "prepare"
        assert queue.as_dot().count("->") == 1
        queue.add(first)
        queue.add(first)
        assert [t async for t in queue] == [first, middle, last]
        assert queue.stuck() == []
        assert await queue.get() is None
        with pytest.raises(TypeError):
            queue.add(1)  # type: ignore[arg-type]  # the mistake

    cluster(main)


def test_a_task_queue_waits_for_what_runs_outside_it(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first = double.task(1)
        last = first.then(double)
        queue = mosaic.TaskQueue(last)
        first.submit()
        assert [await t.result() async for t in queue] == [4]

    cluster(main)


def test_a_task_queue_may_run_dependents(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first = double.task(1)
        last = [first.then(double), first.then(add)]
        queue = mosaic.TaskQueue(first, run_dependents=True)
        seen = [t async for t in queue]
        assert seen[0] == first
        assert set(seen[1:]) == set(last)

    cluster(main)


def test_a_task_queue_gives_what_fails_too(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        failed = missing.task()
        queue = mosaic.TaskQueue(failed.then(told), failed)
        assert [t.reason async for t in queue] == ["error", "upstream"]

    cluster(main)


def test_a_task_group_cancels_the_others_when_one_fails(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        async with mosaic.TaskGroup() as group:
            a = group.submit(double, 1)
            b = group.submit(remote_adder().add, 1, 2)
            c = group.submit(max, 4, 5)
        assert await mosaic.gather(a, b, c) == [2, 3, 5]
        waits = forever.task()
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 -- the body is meant
            async with mosaic.TaskGroup() as group:
                group.add(waits)
                group.submit(missing)
                await asyncio.Event().wait()  # the body is cancelled too
        assert [type(e) for e in caught.value.exceptions] == [FileNotFoundError]
        assert waits.cancelled()
        with pytest.raises(RuntimeError):
            group.submit(double, 1)
        with pytest.raises(TypeError):
            group.add(3)  # type: ignore[arg-type]  # the mistake

    cluster(main)


def test_a_task_group_that_is_left_by_an_error_cancels_its_tasks(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 -- the body is meant
            async with mosaic.TaskGroup() as group:
                waits = group.submit(forever)
                raise ZeroDivisionError
        assert [type(e) for e in caught.value.exceptions] == [ZeroDivisionError]
        assert waits.cancelled()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05), mosaic.TaskGroup() as group:
                waits = group.submit(forever)
        assert waits.cancelled()

    cluster(main)


def test_tasks_as_dot_and_svg_are_those_of_the_graph(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first = double.task(1)
        second = first.then(double)
        last = add.task(second, 3).require(first)
        apart = double.task(7)
        assert len(mosaic.Graph.of(last).nodes) == 1
        graph = mosaic.Graph.of(last, follow=True)
        labels = {node.key: node.label for node in graph.nodes}
        assert len(labels) == 3
        assert [
            (labels[e.source], labels[e.target], e.orders_only) for e in graph.edges
        ] == [
            ("double", "double", False),
            ("double", "add", True),
            ("double", "add", False),
        ]
        before = graph.dot()
        assert before.count("fillcolor=white") == 3
        await last
        after = mosaic.Graph.of(last, follow=True)
        assert after.dot() == before.replace("=white", "=green").replace(
            "prepare", "done"
        )
        assert "done 3" in after.svg()
        # What was submitted by itself is known by its arguments.
        a = double.submit(1)
        b = add.submit(a, apart)
        arrays = double.map([1, 2])
        graph = mosaic.Graph.of(a, b, arrays)
        assert len(graph.nodes) == 4
        assert len(graph.edges) == 1
        with pytest.raises(TypeError, match="takes tasks"):
            mosaic.Graph.of(3)  # type: ignore[arg-type]  # the mistake
        await mosaic.gather(b, *arrays)

    cluster(main)


async def test_graphs_are_put_together_in_threads_and_inside_tasks() -> None:
    """In a cluster of its own: where tasks block, helpers may be started."""

    def build() -> int:
        first = double.task(1)
        last = first.then(double).require(double.task(3))
        with contextlib.suppress(mosaic.CycleError):
            first.require(last)
        return last.get(20)

    async with mosaic.init(num_workers=2):
        assert await asyncio.to_thread(build) == 4
        assert await mosaic.task(build).submit().result() == 4


def test_a_barrier_waits_for_what_is_blocked(cluster: RunIn, tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        path = str(tmp_path / "log")
        first = write.task(path, "a")
        first.then(write, "b").submit()  # nobody holds it
        await runtime.barrier(20)
        assert (tmp_path / "log").read_text() == "ab"

    cluster(main)


def test_nothing_is_kept_of_a_graph_that_nobody_holds(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        connections = runtime.connections
        tables = (
            *(connections.calls, connections.state.members, connections._kept),
            *(connections._queues, connections._required),
        )
        before = [set(table) for table in tables]  # of what is cached
        first = double.task(1)
        tasks = [
            first,
            first.then(double),
            missing.task(),
            double.submit(missing.submit()),
        ]
        await mosaic.make(*tasks)
        assert len(connections.calls) >= 4
        tasks[2].abort()
        never = first.then(double).then(double)
        del first, tasks, never
        gc.collect()
        async with asyncio.timeout(25):
            while any(map(set.__sub__, map(set, tables), before)):  # noqa: ASYNC110 -- no event tells it
                await asyncio.sleep(0.01)

    cluster(main)


def test_visualize_draws_what_is_not_run() -> None:
    drawn = mosaic.task(missing.fn, name="load")

    @mosaic.task(viz_value=0)
    def count(part: Any) -> int:
        raise AssertionError("it is not run")

    async def pipeline(parts: int) -> Any:
        loaded = drawn.submit()
        counts = [count.submit(loaded.outputs[i]) for i in range(parts)]
        if counts[0]:  # its viz_value, which is false
            raise AssertionError
        mapped = double.map(loaded)
        last = add.options(after=[loaded]).submit(mapped, mosaic.allow_failure(loaded))
        await mosaic.gather(last, loaded)
        return await last.then(double).result()

    graph = mosaic.visualize(pipeline, 2)
    names = {node.key: node.label for node in graph.nodes}
    assert sorted(names.values()) == [
        "add",
        "count",
        "count",
        "double",
        "double.map",
        "load",
    ]
    assert sorted((names[e.source], names[e.target]) for e in graph.edges) == [
        ("add", "double"),
        ("double.map", "add"),
        ("load", "add"),
        ("load", "count"),
        ("load", "count"),
        ("load", "double.map"),
    ]
    assert re.search("<svg", graph.svg())


def test_visualize_says_what_a_stand_in_cannot_tell() -> None:
    def asks() -> None:
        if double.submit(1):
            raise AssertionError

    async def sleeps() -> None:
        await asyncio.sleep(0)

    with pytest.raises(TypeError, match="viz_value"):
        mosaic.visualize(asks)
    with pytest.raises(RuntimeError, match="awaits something that is no task"):
        mosaic.visualize(sleeps)
    with pytest.raises(TypeError, match=r"^double\("):
        mosaic.visualize(lambda: double.submit())  # type: ignore[call-overload]  # the mistake
