"""What is known of tasks: info, times, records and moves, for calls of all kinds."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from policy_specimens import LONG_S, Refused, echo, fails, flaky, flaky_coroutine

import mosaic_like as mosaic
from mosaic_like import ExceptionInfo, TaskInfo, TaskState

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunScript
    from specimens import RunIn

IN_ORDER = (
    "execution_start_time",
    "input_transform_start_time",
    "input_transform_end_time",
    "task_start_time",
    "task_end_time",
    "result_transform_start_time",
    "result_transform_end_time",
    "execution_end_time",
)
TAPS = (
    *("task_id", "name", "parent_task_ids", "submit_time", "received_time"),
    *("success", "exception", "execution"),
)


@mosaic.tessera
class Adder:
    def add(self, x: int) -> int:
        return x + 1

    async def add_later(self, x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    async def refuse(self) -> None:
        raise Refused("refused")


def in_order(record: dict[str, Any]) -> bool:
    """The nine times of an attempt and those of the submitter never go back."""
    execution = record["execution"]
    times = [execution[name] for name in IN_ORDER]
    return times == sorted(times) and record["submit_time"] <= record["received_time"]


def test_record_writes_a_line_for_each_task_that_has_ended(
    cluster: RunIn, tmp_path: Path
) -> None:
    file = tmp_path / "tasks.jsonl"

    async def main(runtime: Any) -> Any:
        plain = type(runtime).submit
        with mosaic.record(file):
            one = echo.options(run_name="first", tags={"t"}).submit(1)
            two = echo.submit([one, {"a": one}])
            bad = fails.submit("no")
            after = echo.options(after=[two]).submit(one)
            dependent = echo.submit(bad)
            for task in (one, two, bad, after, dependent):
                await task.exception()
            flushed = len(file.read_text().splitlines())
            open_one = echo.options(delay=LONG_S).submit()
        open_one.cancel()
        await echo.submit("not recorded")
        assert runtime.submit.__func__ is plain
        return flushed, [t.uid for t in (one, two, bad, after, dependent, open_one)]

    flushed, uids = cluster(main)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    by_uid = {line["task_id"]: line for line in lines}
    assert (flushed, len(lines), set(by_uid)) == (5, 6, set(uids))
    one, two, bad, after, dependent, open_one = (by_uid[uid] for uid in uids)
    assert set(TAPS) < set(one)
    assert (one["name"], one["tags"], one["state"]) == ("first", ["t"], "done")
    assert all(map(in_order, (one, two, bad, after)))
    assert one["runtime_id"].startswith("worker:0:")
    assert two["parent_task_ids"] == [uids[0]]
    assert after["parent_task_ids"] == [uids[0], uids[1]]
    assert (one["success"], bad["success"], open_one["success"]) == (True, False, None)
    assert bad["exception"]["type"] == "policy_specimens.Refused"
    assert bad["exception"]["message"] == "no"
    assert "policy_specimens.py" in bad["exception"]["traceback"]
    assert (dependent["state"], dependent["reason"]) == ("failed", "upstream")
    assert (open_one["state"], open_one["reason"]) == ("pending", "delay")


def test_record_calls_a_function_also_for_calls_on_tesserae(cluster: RunIn) -> None:
    async def main(runtime: Any) -> Any:
        found: list[dict[str, Any]] = []
        adder = await Adder.remote()
        local = await Adder.local()
        with mosaic.record(found.append):
            first = adder.add(1)
            tasks = [first, adder.add_later(first), adder.refuse(), local.add(3)]
            for task in tasks:
                await task.exception()
        return found

    found = cluster(main)
    names = sorted(record["name"].partition(".")[2] for record in found)
    assert names == ["add", "add", "add_later", "refuse"]
    assert all(map(in_order, found))
    later = next(r for r in found if r["name"].endswith("add_later"))
    first = next(r for r in found if r["task_id"] in later["parent_task_ids"])
    assert first["name"].endswith(".add")
    assert {r["success"] for r in found} == {True, False}


@pytest.mark.parametrize("task", [flaky, flaky_coroutine])
def test_info_has_an_execution_also_for_failed_attempts(
    cluster: RunIn, tmp_path: Path, task: Any
) -> None:
    async def main(runtime: Any) -> Any:
        made = task.options(max_retries=1, retry_delay=0.01)
        at_once = task.options(max_retries=1)
        with mosaic.record(lambda record: None):
            tasks = [
                made.submit(str(tmp_path / "1"), 1),
                made.submit(str(tmp_path / "2"), 9),
                at_once.submit(str(tmp_path / "3"), 1),
            ]
            for one in tasks:
                await one.exception()
        return [one.info for one in tasks]

    infos = cluster(main)
    for info in infos:
        assert isinstance(info, TaskInfo)
        assert [e.attempt for e in info.attempts] == [1, 2]
        assert info.execution == info.attempts[1]
        assert info.attempts[0].execution_end_time <= (
            info.attempts[1].execution_start_time
        )
        for attempt in info.attempts:
            times = [getattr(attempt, name) for name in IN_ORDER]
            assert times == sorted(times)
    assert [info.success for info in infos] == [True, False, True]
    error = infos[1].exception
    assert isinstance(error, ExceptionInfo)
    assert (error.message, error.type) == ("try 2", "policy_specimens.Refused")
    json.dumps(infos[1].asdict())


def test_info_is_there_without_a_record(cluster: RunIn) -> None:
    async def main(runtime: Any) -> Any:
        task = await echo.submit(1)
        call = await Adder.remote().add(1)
        waiting = echo.options(delay=LONG_S).submit()
        info = waiting.info
        waiting.cancel("away")
        await waiting.exception()
        return task.info, call.info, info, waiting.info

    info, call, waiting, cancelled = cluster(main)
    assert (info.success, info.state, info.execution) == (True, TaskState.DONE, None)
    assert info.received_time >= info.submit_time
    assert call.name.endswith(".add")
    assert (waiting.success, waiting.received_time) == (None, None)
    assert (cancelled.state, cancelled.reason) == (TaskState.CANCELLED, "away")
    assert cancelled.exception.type == "mosaic_like.errors.TaskCancelledError"


def test_on_state_hears_the_moves_of_calls_on_tesserae(cluster: RunIn) -> None:
    async def main(runtime: Any) -> Any:
        seen: list[Any] = []
        task = (await Adder.remote()).refuse()
        task.on_state(lambda info, move: seen.append((info.state, move.reason)))
        task.on_state(lambda info, move: 1 / 0)
        await task.exception()
        task.on_state(lambda info, move: seen.append("never"))
        return seen

    assert cluster(main) == [(TaskState.FAILED, "error")]


def test_record_refuses_what_it_cannot_write(cluster: RunIn, tmp_path: Path) -> None:
    async def main(runtime: Any) -> Any:
        with pytest.raises(OSError, match="No such file"):
            mosaic.record(tmp_path / "no" / "file").__enter__()
        with pytest.raises(TypeError, match="expected a path"):
            mosaic.record(3).__enter__()  # type: ignore[arg-type]  # the mistake

        def broken(record: Any) -> None:
            raise Refused("of a recorder")

        with mosaic.record(broken):
            return await echo.map([1, 2]).result()

    assert cluster(main) == [1, 2]


_PROGRAM = """
import mosaic_like as mosaic

@mosaic.task
def half(x):
    return x / 2

@mosaic.task
def quarter(x):
    return half.submit(half.submit(x)).get()

async def main():
    await half.map([2, 4])
    await quarter.submit(8)

mosaic.run(main)
"""


def test_mrun_records_a_whole_program(run_script: RunScript, tmp_path: Path) -> None:
    program, file = tmp_path / "program.py", tmp_path / "tasks.jsonl"
    program.write_text(_PROGRAM)
    launcher = (
        "import sys; from mosaic_like.launch.mrun import main\n"
        f"sys.argv = ['mrun', '--record', {str(file)!r}, '-nw', '1', "
        f"{sys.executable!r}, {str(program)!r}]\n"
        "sys.exit(main())"
    )
    result = run_script(launcher, timeout=50)
    assert result.code == 0, result.stderr
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    names = [(line["name"], line["state"]) for line in lines]
    # Also what was submitted inside of one, before the end of that.
    assert names == [("half", "done")] * 4 + [("quarter", "done")]
    assert lines[3]["parent_task_ids"] == [lines[2]["task_id"]]
    assert lines[3]["execution"]["task_start_time"] >= lines[3]["submit_time"]
    refused = run_script(launcher.replace(str(file), "/nowhere/file"))
    assert refused.code == 2
    assert "/nowhere/file" in refused.stderr
