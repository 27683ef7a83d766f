"""What the options of a task do: retries, caching, limits, hooks, names, prints."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from policy_specimens import (
    LONG_S,
    Refused,
    busy,
    charge,
    echo,
    fails,
    flaky,
    flaky_coroutine,
    lines,
    plus_one,
    prints,
    square,
    until,
)

import mosaic_like as mosaic
from mosaic_like import (
    Concurrency,
    ConcurrencyError,
    SerializationError,
    TaskCancelledError,
    TaskState,
    exponential_backoff,
    input_hash,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from specimens import RunIn

    from mosaic_like import TaskProxy

SOON_S = 10.0  # of a slow machine


async def ended(*tasks: TaskProxy[Any]) -> list[BaseException | None]:
    """How they end; bounded."""
    async with asyncio.timeout(SOON_S):
        return [await task.exception() for task in tasks]


async def true(condition: Callable[[], Any]) -> None:
    """Wait until it is so; bounded."""
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110 -- what it looks at are files
            await asyncio.sleep(0.005)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "log")


class Gate:
    """What ``hold`` waits for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def open(self) -> None:
        self._path.touch()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def slots_are_free(runtime: Any) -> bool:
    return not runtime.slots._asked and not runtime.functions.guards.same


# -- row 26, 32, 44, 57: what a task is ------------------------------------------------


def test_task_takes_a_name_in_both_forms_and_both_travel(cluster: RunIn) -> None:
    def double(x: int) -> int:
        return 2 * x

    named = mosaic.task(double, name="twice")
    assert (named.name, mosaic.task(name="twice")(double).name) == ("twice", "twice")
    assert pickle.loads(pickle.dumps(echo)) is echo

    async def main(runtime: Any) -> Any:
        return await mosaic.gather(named.submit(2), echo.submit(3))

    assert cluster(main) == [4, 3]
    with pytest.raises(TypeError, match="marks a function"):
        mosaic.task(3)  # type: ignore[call-overload]  # the mistake


def test_option_validation_names_all_bad_names_in_one_error() -> None:
    with pytest.raises(TypeError, match=r"'max_retry'.*'max_retries'.*'timout'"):
        mosaic.task(max_retry=1, timout=2)  # type: ignore[call-overload]  # the mistake that is tested


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"max_retries": -1}, ValueError, "max_retries"),
        ({"retry_on": 3}, TypeError, "retry_on"),
        ({"retry_on": KeyboardInterrupt}, ValueError, "retry_on"),
        ({"retry_delay": []}, ValueError, "retry_delay"),
        ({"retry_jitter": 2}, ValueError, "retry_jitter"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"tags": "db"}, TypeError, "tags"),
        ({"run_name": "{y}"}, ValueError, "run_name"),
        ({"cache_key": "input"}, ValueError, "cache_key"),
        ({"cache_key": input_hash(ignore=("y",))}, ValueError, "no parameter 'y'"),
        ({"cache_expiration": 0}, ValueError, "cache_expiration"),
        ({"persist": True}, ValueError, "needs store="),
        ({"store_key": "a"}, ValueError, "needs store="),
        ({"store": 3}, TypeError, "store"),
        ({"serializer": "yaml"}, ValueError, "serializer"),
        ({"concurrency": 3}, TypeError, "concurrency"),
        ({"concurrency": Concurrency(key=("y",))}, ValueError, "no parameter 'y'"),
        ({"on_done": 3}, TypeError, "on_done"),
        ({"on_failed": [3]}, TypeError, "on_failed"),
        ({"cancel_if": 3}, TypeError, "cancel_if"),
        ({"log_prints": 1}, TypeError, "log_prints"),
    ],
)
def test_option_validation_refuses_at_decoration(
    options: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):

        @mosaic.task(**options)
        def f(x: int) -> int:
            return x


def test_name_description_tags_version_and_run_name(cluster: RunIn) -> None:
    @mosaic.task(name="load", version="2", tags={"io"}, run_name="load {x:03d}")
    def f(x: int) -> int:
        """Gives it back.

        And more.
        """
        return x

    assert (f.name, f.version, sorted(f.tags)) == ("load", "2", ["io"])
    assert f.description == "Gives it back."

    async def main(runtime: Any) -> Any:
        with mosaic.tags("night"):
            task = f.submit(7)
        plain = echo.submit()
        await mosaic.gather(task, plain)
        by_function = echo.options(run_name=lambda p: f"is {p['value']}").submit(1)
        bad = echo.options(run_name=lambda p: p["nothing"]).submit(1)
        errors = await ended(by_function, bad)
        return task, by_function.name, type(errors[1]), task.info.tags, plain.info.tags

    task, name, error, tags, no_tags = cluster(main)
    assert (task.name, name, error) == ("load 007", "is 1", KeyError)
    assert (tags, no_tags) == (["io", "night"], [])


def test_name_given_by_options_is_that_of_the_call(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        named = echo.options(name="step 1")
        plain, prepared = named.submit(1), named.task(2)
        unset = named.options(name=None).submit(3)
        policy = named.options(max_retries=1, tags={"io"}).submit(4)
        tasks = [plain, prepared, unset, policy]
        assert await mosaic.gather(tasks) == [1, 2, 3, 4]
        assert [t.name for t in tasks] == ["step 1", "step 1", "echo", "step 1"]
        assert plain.info.name == "step 1"

    cluster(main)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"run_name": "{nothing}"}, "mentions 'nothing'"),
        ({"concurrency": mosaic.Concurrency(key=("nothing",))}, "parameter 'nothing'"),
        ({"cache_key": mosaic.input_hash(ignore=("nothing",))}, "parameter 'nothing'"),
        ({"persist": True}, "needs store="),
    ],
)
def test_options_are_checked_against_the_signature_too(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        mosaic.task(echo.fn, **options)
    with pytest.raises(ValueError, match=words):
        echo.options(**options)


def test_options_with_none_unset_and_unset_keep() -> None:
    once = echo.options(timeout=3, cache_key="inputs", on_done=print, tags={"a"})
    kept = once.options(timeout=mosaic.UNSET)._options
    assert (kept.timeout, kept.cache_key, [*kept.tags]) == (3, "inputs", ["a"])
    unset = once.options(timeout=None, cache_key=None, on_done=None, tags=None)
    assert unset._options == echo._options


# -- rows 33, 47, 48: retries ----------------------------------------------------------


def test_retry_on_and_max_retries(cluster: RunIn, path: str) -> None:
    async def main(runtime: Any) -> Any:
        task = flaky.options(max_retries=2, retry_on=(OSError, Refused))
        few = flaky.options(max_retries=1, retry_on=Refused)
        other = flaky.options(max_retries=9, retry_on=OSError)
        tasks = [task.submit(f"{path}1", 2), few.submit(f"{path}2", 9)]
        tasks.append(other.submit(f"{path}3", 1))
        errors = await ended(*tasks)
        counts = [len(lines(f"{path}{i}")) for i in (1, 2, 3)]
        return [type(e) for e in errors], counts, await tasks[0].result()

    kinds, counts, attempt = cluster(main)
    assert kinds == [type(None), Refused, Refused]
    assert (counts, attempt) == ([3, 2, 1], 3)


@pytest.mark.parametrize("task", [flaky, flaky_coroutine])
def test_retries_with_delay_condition_and_jitter(
    cluster: RunIn, path: str, task: Any
) -> None:
    async def main(runtime: Any) -> Any:
        seen: list[Any] = []
        made = task.options(
            max_retries=3,
            retry_delay=[0.05, 0.1],
            retry_jitter=0.5,
            retry_if=lambda error, failed: failed.attempt < 3,
            on_state=lambda info, move: seen.append((move.state, move.reason)),
        )
        good, bad = made.submit(f"{path}1", 2), made.submit(f"{path}2", 9)
        errors = await ended(good, bad)
        return [type(e) for e in errors], await good.result(), bad.attempt, seen

    kinds, attempt, attempts, seen = cluster(main)
    assert kinds == [type(None), Refused]
    assert (attempt, attempts) == (3, 3)
    assert seen.count((TaskState.PENDING, "retry")) == 4


def test_retries_beyond_fifty_are_allowed(cluster: RunIn, path: str) -> None:
    async def main(runtime: Any) -> Any:
        return await flaky.options(max_retries=60).submit(path, 55).result()

    assert cluster(main) == 56


def test_a_retry_that_waits_holds_no_worker(cluster: RunIn, path: str) -> None:
    async def main(runtime: Any) -> Any:
        waits = flaky.options(max_retries=1, retry_delay=exponential_backoff(LONG_S))
        tasks = [waits.submit(f"{path}{i}", 9) for i in range(8)]
        await true(lambda: all(task.reason == "retry" for task in tasks))
        found = await echo.submit(1).result()  # more wait than all windows have room
        assert all(task.cancel("enough") for task in tasks)
        errors = await ended(*tasks)
        return found, [type(e) for e in errors], {task.reason for task in tasks}

    assert cluster(main) == (1, [TaskCancelledError] * 8, {"enough"})


# -- rows 38, 46, 49: caching ----------------------------------------------------------


def test_cache_by_inputs_runs_equal_calls_once(
    cluster: RunIn, path: str, gate: Gate
) -> None:
    async def main(runtime: Any) -> Any:
        square.cache_clear()
        first = square.submit(path, 3, wait=str(gate))
        same = square.submit(path, x=3, wait=str(gate))
        other = square.submit(path, 4)
        await true(lambda: same.reason == "reused")
        gate.open()
        values = await mosaic.gather(first, same, other)
        again = square.submit(path, 3, str(gate))
        values.append(await again.result())
        states = [(t.state, t.reason) for t in (first, same, again)]
        return values, states, square.cache_info(), again.history[-1][1:]

    values, states, info, last = cluster(main)
    assert values == [9, 9, 16, 9]
    done = TaskState.DONE
    assert states == [(done, None), (done, "reused"), (done, "cached")]
    assert sorted(lines(path)) == ["3", "4"]
    assert info == (1, 1, 2, 2)
    assert last == (done, "cached")


def test_cache_follows_tasks_among_the_arguments(cluster: RunIn, path: str) -> None:
    async def main(runtime: Any) -> Any:
        square.cache_clear()
        plus_one.cache_clear()
        one = plus_one.submit(path, square.submit(path, 5))
        await one
        two = plus_one.submit(path, square.submit(path, 5))
        three = plus_one.submit(path, square.submit(path, 6))
        return await mosaic.gather(one, two, three), two.reason

    assert cluster(main) == ([26, 26, 37], "cached")
    assert lines(path).count("plus_one") == 2


def test_cache_expiration_refresh_cache_and_failures(cluster: RunIn, path: str) -> None:
    async def main(runtime: Any) -> Any:
        square.cache_clear()
        short = square.options(cache_expiration=0.05)
        await short.submit(path, 1)
        await asyncio.sleep(0.06)
        await short.submit(path, 1)
        await square.options(refresh_cache=True).submit(path, 1)
        cached = square.submit(path, 1)
        await cached
        failing = fails.options(cache_key="inputs")
        errors = await ended(failing.submit("no"), failing.submit("no"))
        again = failing.submit("no")
        await ended(again)
        return cached.reason, [str(e) for e in errors], again.reason

    assert cluster(main) == ("cached", ["no", "no"], "error")
    assert lines(path) == ["1", "1", "1"]


def test_cache_key_of_a_function_and_its_errors(cluster: RunIn, path: str) -> None:
    async def main(runtime: Any) -> Any:
        square.cache_clear()
        parity = square.options(cache_key=lambda c, p: f"{c.task.name}{p['x'] % 2}")
        values = [await parity.submit(path, x).result() for x in (1, 3, 2)]
        uncached = square.options(cache_key=lambda c, p: None)
        values += [await uncached.submit(path, 3).result()]
        wrong = square.options(cache_key=lambda c, p: 3)  # type: ignore[arg-type, return-value]  # the mistake that is tested
        raises = square.options(cache_key=lambda c, p: p["nothing"])
        errors = await ended(wrong.submit(path, 1), raises.submit(path, 1))
        return values, [type(e) for e in errors]

    assert cluster(main) == ([1, 1, 4, 9], [TypeError, KeyError])


def test_input_hash_ignores_parameters_and_warns_of_what_has_no_content(
    cluster: RunIn, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(runtime: Any) -> Any:
        square.cache_clear()
        ignoring = square.options(cache_key=input_hash(ignore=("path",)))
        values = [await ignoring.submit(f"{path}{i}", 2).result() for i in (1, 2)]
        hidden = echo.options(cache_key="inputs")
        for _ in range(2):
            await hidden.submit(iter([1])).result()
        with pytest.raises(SerializationError):
            hidden.submit(threading.Lock())
        return values

    assert cluster(main) == [4, 4]
    assert lines(f"{path}1") == ["2"]
    assert lines(f"{path}2") == []


def test_what_follows_a_cancelled_task_runs_itself(cluster: RunIn, path: str) -> None:
    async def main(runtime: Any) -> Any:
        square.cache_clear()
        # One that runs would not do: a worker that is slow to stop it is ended.
        mosaic.limits["held"] = 0
        first = square.options(tags={"held"}).submit(path, 3)
        second, third = square.submit(path, 3), square.submit(path, 3)
        await true(lambda: [second.reason, third.reason] == ["reused"] * 2)
        assert third.cancel("not me")
        assert first.cancel("away")
        errors = await ended(first, third)
        async with asyncio.timeout(SOON_S):
            value = await second.result()
        mosaic.limits["held"] = None
        return value, second.reason, [type(e) for e in errors]

    assert cluster(main) == (9, None, [TaskCancelledError] * 2)
    assert lines(path) == ["3"]


# -- row 50: persist -------------------------------------------------------------------


def test_persist_to_a_directory_is_read_by_another_task(
    cluster: RunIn, path: str, tmp_path: Path
) -> None:
    store = tmp_path / "values"

    async def main(runtime: Any) -> Any:
        square.cache_clear()
        kept = square.options(store=store, store_key="{info.name}/{parameters[x]}")
        value = await kept.submit(path, 7).result()
        square.cache_clear()  # as a program that starts anew
        again = kept.submit(path, 7)
        value += await again.result()
        file = store / "square" / "7"
        mode = file.stat().st_mode & 0o777
        file.write_bytes(b"spoiled")
        square.cache_clear()
        spoiled = kept.submit(path, 7)
        value += await spoiled.result()
        return value, again.reason, spoiled.reason, mode

    assert cluster(main) == (147, "cached", None, 0o600)
    assert lines(path) == ["7", "7"]


def test_persist_without_a_cache_and_with_json(cluster: RunIn, tmp_path: Path) -> None:
    store = tmp_path / "values"

    async def main(runtime: Any) -> Any:
        kept = echo.options(store=store, persist=True, serializer="json")
        task = kept.submit([1, "ü"])
        named = kept.options(store_key="n.json").submit({"a": 1})
        await mosaic.gather(task, named)
        with pytest.raises(ValueError, match="store_key"):
            kept.options(store_key="../{parameters[value]}")
        outside = kept.options(store_key="{parameters[value]}").submit("../x")
        unsaid = kept.submit({1})
        errors = await ended(outside, unsaid)
        return task.uid, [type(e) for e in errors], unsaid.reason

    uid, kinds, reason = cluster(main)
    assert (store / uid).read_text() == '[1, "ü"]'
    assert (store / "n.json").read_text() == '{"a": 1}'
    assert kinds == [ValueError, SerializationError]
    assert reason == "serialize"
    assert not (tmp_path / "x").exists()


# -- rows 36, 37, 45: concurrency ------------------------------------------------------


def test_tag_limits_hold_in_all_workers_and_act_at_once(
    cluster: RunIn, path: str, gate: Gate
) -> None:
    async def main(runtime: Any) -> Any:
        mosaic.limits["db"] = 1
        found = await busy.map([path] * 6).result()
        mosaic.limits["db"] = 0
        held = [busy.submit(f"{path}0", str(gate)) for _ in range(2)]
        await true(lambda: [t.reason for t in held] == ["limit"] * 2)
        free = await echo.submit(1).result()
        assert held[0].cancel()
        mosaic.limits["db"] = None
        gate.open()
        errors = await ended(*held)
        return found, free, [type(e) for e in errors], slots_are_free(runtime)

    assert cluster(main) == ([1] * 6, 1, [TaskCancelledError, type(None)], True)


def test_tag_limits_that_are_none_are_refused(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        with pytest.raises(ValueError, match="0 or more"):
            mosaic.limits["db"] = -1
        with pytest.raises(TypeError, match="expected int"):
            mosaic.limits["db"] = 1.5  # type: ignore[assignment]  # the mistake
        with pytest.raises(KeyError):
            del mosaic.limits["unknown"]

    cluster(main)


def test_a_slot_is_free_while_a_retry_waits(cluster: RunIn, path: str) -> None:
    async def main(runtime: Any) -> Any:
        one = Concurrency(key=lambda p: "all")
        waits = flaky.options(max_retries=1, retry_delay=LONG_S, concurrency=one)
        waiting = waits.submit(f"{path}1", 9)
        await true(lambda: waiting.reason == "retry")
        found = await waits.submit(f"{path}2", 0).result()
        waiting.cancel()
        await ended(waiting)
        return found, slots_are_free(runtime)

    assert cluster(main) == (1, True)


def test_concurrency_by_keys_lets_others_run(
    cluster: RunIn, path: str, gate: Gate
) -> None:
    async def main(runtime: Any) -> Any:
        tasks = [charge.submit(path, i % 2, str(gate)) for i in range(6)]
        await true(lambda: lines(f"{path}-0") and lines(f"{path}-1"))
        gate.open()
        return await mosaic.gather(tasks)

    assert cluster(main) == [1] * 6


def test_concurrency_takes_no_slot_while_it_waits_for_arguments(
    cluster: RunIn, path: str, gate: Gate
) -> None:
    async def main(runtime: Any) -> Any:
        one = until.options(concurrency=Concurrency())
        slow = until.submit(f"{path}0", str(gate), "slow")
        # The first waits for what takes the only slot after it.
        second = one.submit(f"{path}2", "", slow)
        third = one.submit(f"{path}3", "", "third")
        async with asyncio.timeout(SOON_S):
            found = [await third.result()]
        gate.open()
        return [*found, await second.result()]

    assert cluster(main) == ["third", "slow"]


@pytest.mark.parametrize("scope", ["running", "submitted"])
def test_concurrency_on_conflict_drop_and_error(
    cluster: RunIn, path: str, gate: Gate, scope: str
) -> None:
    async def main(runtime: Any) -> Any:
        drop = Concurrency(on_conflict="drop", scope=scope)
        error = Concurrency(on_conflict="error", scope=scope, key=lambda p: "e")
        tasks = []
        for rule in (drop, error):
            task = until.options(concurrency=rule)
            tasks += [task.submit(path, str(gate), i) for i in range(2)]
        errors = await ended(tasks[1], tasks[3])
        gate.open()
        values = await mosaic.gather(tasks[0], tasks[2])
        states = [(tasks[i].state, tasks[i].reason) for i in (1, 3)]
        return [type(e) for e in errors], values, states, slots_are_free(runtime)

    kinds, values, states, is_free = cluster(main)
    assert kinds == [TaskCancelledError, ConcurrencyError]
    assert states == [(TaskState.CANCELLED, "dropped"), (TaskState.FAILED, "conflict")]
    assert (values, is_free) == ([0, 0], True)


def test_concurrency_reuse_and_strict(cluster: RunIn, path: str, gate: Gate) -> None:
    async def main(runtime: Any) -> Any:
        loose = until.options(concurrency=Concurrency(on_conflict="reuse"))
        strict = until.options(
            concurrency=Concurrency(key=("path",), on_conflict="reuse", strict=True)
        )
        tasks = [loose.submit(path, str(gate), i) for i in range(2)]
        tasks += [strict.submit(f"{path}2", str(gate), i) for i in (5, 5, 6)]
        (error,) = await ended(tasks[4])
        gate.open()
        values = await mosaic.gather(tasks[:4])
        return values, [task.reason for task in tasks], error, slots_are_free(runtime)

    values, reasons, error, is_free = cluster(main)
    assert values == [0, 0, 5, 5]
    assert reasons == [None, "reused", None, "reused", "conflict"]
    assert isinstance(error, ConcurrencyError)
    assert "value=6 and 5" in str(error)
    assert is_free


# -- rows 52, 53, 56, 61, 62, 67 -------------------------------------------------------


def test_log_prints_logs_shows_or_hides(
    cluster: RunIn, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main(runtime: Any) -> None:
        await prints.options(log_prints=True).submit("logged")
        await prints.options(log_prints=False).submit("hidden")
        await prints.submit("shown")

    with caplog.at_level(logging.INFO, "mosaic_like"):
        cluster(main)
    told = [r.getMessage() for r in caplog.records if "logged" in r.getMessage()]
    assert told == ["prints: logged", "prints: logged, not ended"]
    out = capfd.readouterr().out
    assert "prints | shown\n" in out
    assert "prints | shown, not ended\n" in out
    assert "logged" not in out
    assert "hidden" not in out


def test_hooks_on_done_and_on_failed_see_the_end_alone(
    cluster: RunIn, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(runtime: Any) -> Any:
        seen: list[Any] = []
        late = asyncio.Event()

        async def coroutine(info: Any, value: Any) -> None:
            await asyncio.sleep(0)
            late.set()

        def broken(info: Any, value: Any) -> None:
            raise Refused("of a hook")

        task = flaky.options(
            max_retries=1,
            retry_delay=0.01,
            on_done=[
                broken,
                lambda info, value: seen.append((info.name, info.state, value)),
                coroutine,
            ],
            on_failed=lambda info, error: seen.append((info.reason, error)),
        )
        await task.submit(f"{path}1", 1)
        before_await_returned = len(seen)
        await ended(task.submit(f"{path}2", 9))
        cached = square.options(on_done=lambda i, v: seen.append((i.reason, v)))
        square.cache_clear()
        await cached.submit(path, 2)
        await cached.submit(path, 2)
        big = echo.options(on_done=lambda i, v: seen.append(len(v)))
        await big.submit(bytes(300_000)).result()
        async with asyncio.timeout(SOON_S):
            await late.wait()
        await true(lambda: len(seen) == 5)
        return seen, before_await_returned

    seen, before = cluster(main)
    assert before == 1
    assert seen[0] == ("flaky", TaskState.DONE, 2)
    assert seen[1][0] == "error"
    assert isinstance(seen[1][1], Refused)
    assert seen[2:] == [(None, 4), ("cached", 4), 300_000]
    assert "the hook" in caplog.text
    assert "of a hook" in caplog.text


def test_cancel_if_cancels_and_keeps_the_value(cluster: RunIn) -> None:
    async def main(runtime: Any) -> Any:
        picky = echo.options(cancel_if=lambda value: value > 3, max_retries=2)
        broken = echo.options(cancel_if=lambda value: value["nothing"])
        tasks = [picky.submit(3), picky.submit(4), broken.submit({})]
        errors = await ended(*tasks)
        return [type(e) for e in errors], tasks[1]

    kinds, task = cluster(main)
    assert kinds == [type(None), TaskCancelledError, KeyError]
    assert (task.state, task.reason, task.info.value) == ("cancelled", "cancel_if", 4)
    assert task.attempt == 1


def test_states_have_names_and_reasons_and_a_history(
    cluster: RunIn, path: str, gate: Gate
) -> None:
    async def main(runtime: Any) -> Any:
        seen: list[Any] = []
        task = until.options(
            delay=0.01, on_state=lambda info, move: seen.append(move)
        ).submit(path, str(gate))
        task.on_state(lambda info, move: seen.append(info.state))
        await true(lambda: task.state == "running")
        gate.open()
        await task
        return task, seen

    task, seen = cluster(main)
    moves: list[Any] = [item for item in seen if isinstance(item, tuple)]
    assert task.history == tuple(moves)
    pending, done = TaskState.PENDING, TaskState.DONE
    assert [move[1:] for move in moves] == [
        (pending, None),
        (pending, "delay"),
        (pending, None),
        (TaskState.RUNNING, None),
        (done, None),
    ]
    assert all(a.time_s <= b.time_s for a, b in pairwise(moves))
    assert seen.count(done) == 1
    assert (task.state, task.reason, str(task.state)) == (done, None, "done")
