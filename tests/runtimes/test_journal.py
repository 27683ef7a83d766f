"""What a worker notes is there when it is not, and costs it nothing when it cannot."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like.comms.messages import Options
from mosaic_like.core.task import Task
from mosaic_like.core.tessera import Tessera
from mosaic_like.core.verdicts import Mark, Remains
from mosaic_like.ids import NUMBER_BITS
from mosaic_like.runtimes import journal as files
from mosaic_like.runtimes.journal import Journal, collect, paths, read, remove

if TYPE_CHECKING:
    from pathlib import Path

ME = 3


def tessera(number: int = 1, **options: Any) -> Tessera:
    runner: Any = None
    uid = (ME << NUMBER_BITS) + number
    return Tessera(uid, ME, Options(f"Counter#{number}", **options), runner)


def task(of: Tessera, number: int, caller: int = ME) -> Task:
    return Task((caller << NUMBER_BITS) + number, caller, of, "add", b"")


def run(journal: Journal, call: Task) -> None:
    """As the executor does it."""
    of = call.tessera
    mark = of.mark if of.marked == call.caller else journal.mark(call)
    if call.uid > journal.view[mark]:
        journal.view[mark] = call.uid
    else:
        journal.behind(call, mark)
    journal.view[mark + 1] = call.uid


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal")


def remains(path: str) -> Remains:
    with open(path, "rb") as file:
        return read(file.read())


def marks(path: str) -> dict[tuple[int, int], Mark]:
    found = remains(path).marks
    return {(m.tessera, m.caller): m for m in found}


def test_what_was_started_and_finished_is_read_again(path: str) -> None:
    journal = Journal.create(path)
    first, second = tessera(1), tessera(2, is_async=True)
    run(journal, task(first, 10))
    journal.start(task(first, 11))
    run(journal, task(first, 7, caller=4))
    run(journal, task(first, 9, caller=5))
    run(journal, task(first, 8, caller=4))
    run(journal, task(second, 12))
    left = remains(path)
    assert left.complete
    found = marks(path)
    uid = ME << NUMBER_BITS
    assert found == {
        (uid + 1, ME): Mark(uid + 1, ME, uid + 11, uid + 10, False, "Counter#1"),
        (uid + 1, 4): Mark(
            uid + 1,
            4,
            (4 << NUMBER_BITS) + 8,
            (4 << NUMBER_BITS) + 8,
            False,
            "Counter#1",
        ),
        (uid + 1, 5): Mark(
            uid + 1,
            5,
            (5 << NUMBER_BITS) + 9,
            (5 << NUMBER_BITS) + 9,
            False,
            "Counter#1",
        ),
        (uid + 2, ME): Mark(uid + 2, ME, uid + 12, uid + 12, True, "Counter#2"),
    }
    assert os.stat(path).st_mode & 0o777 == 0o600
    journal.close()


def test_the_largest_uid_that_was_started_is_kept(path: str) -> None:
    journal = Journal.create(path)
    of = tessera()
    run(journal, task(of, 10))
    run(journal, task(of, 9))
    ((_, mark),) = marks(path).items()
    assert mark.started & 0xFF == 10
    assert mark.finished & 0xFF == 9
    journal.close()


def test_a_call_that_runs_behind_a_larger_uid_is_known_while_it_does(path: str) -> None:
    journal = Journal.create(path)
    of = tessera()
    run(journal, task(of, 10))
    journal.start(late := task(of, 9))
    assert [mark.running for mark in remains(path).marks] == [late.uid]
    journal.finish(late)
    assert [mark.running for mark in remains(path).marks] == [0]
    run(journal, task(of, 11))
    assert [mark.running for mark in remains(path).marks] == [0]
    journal.close()


def test_calls_that_run_beside_others_are_known_while_they_do(path: str) -> None:
    journal = Journal.create(path)
    of = tessera(is_async=True)
    calls = [task(of, number) for number in range(10, 2000)]
    places = [journal.enter(call) for call in calls]
    kept = sum(map(bool, places))
    assert kept == 1024
    assert remains(path).running == [call.uid for call in calls[:kept]]
    for place in places[3:]:
        journal.leave(place)
    assert remains(path).running == [call.uid for call in calls[:3]]
    assert journal.enter(calls[0])
    assert remains(path).lines == ""
    journal.close()
    assert not Journal().enter(calls[0])


def test_an_irregular_stream_is_marked_also_before_its_first_call(path: str) -> None:
    journal = Journal.create(path)
    first, second = tessera(1), tessera(2)
    journal.irregular(task(first, 5))
    run(journal, task(second, 6))
    journal.irregular(task(second, 7))
    journal.irregular(task(second, 7, caller=4))
    found = marks(path)
    assert all(mark.irregular for mark in found.values())
    assert [mark.started & 0xFF for mark in found.values()] == [0, 6, 0]
    run(journal, task(second, 8, caller=4))
    run(journal, task(second, 9))
    assert [m.started & 0xFF for m in marks(path).values()] == [0, 9, 8]
    journal.close()


def test_slots_are_used_again_and_what_is_gone_is_remembered(path: str) -> None:
    journal = Journal.create(path)
    for number in range(1, 5000):
        of = tessera(number)
        run(journal, task(of, number))
        run(journal, task(of, number, caller=4))
        journal.gone(of)
    left = remains(path)
    assert left.marks == []
    assert left.gone == [(ME, (ME << NUMBER_BITS) + 4999)]
    assert left.complete
    assert os.stat(path).st_size == 64 << 10
    journal.close()


def test_it_grows_and_says_when_it_can_no_more(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MOST_BYTES", 256 << 10)
    journal = Journal.create(path)
    room = ((256 << 10) - files._SLOTS) // 96 - 1
    old = journal.view
    all_ = [tessera(n) for n in range(1, room + 1)]
    for of in all_:
        run(journal, task(of, 1))
    assert remains(path).complete
    assert len(remains(path).marks) == room
    assert all_[0].mark
    old[all_[0].mark] = all_[0].uid + 77  # who has the old view reaches the same file
    assert marks(path)[all_[0].uid, ME].started == all_[0].uid + 77
    run(journal, task(tessera(room + 1), 1))
    assert not remains(path).complete
    assert len(remains(path).marks) == room
    journal.gone(all_[0])
    journal.close()


def test_the_close_that_nobody_called_leaves_no_mark(path: str) -> None:
    journal = Journal.create(path)
    of = tessera()
    run(journal, Task(0, 0, of, "__close__", b""))
    run(journal, task(of, 3))
    run(journal, Task(0, 0, of, "__close__", b""))
    assert [m.caller for m in remains(path).marks] == [ME]
    journal.gone(of)
    assert remains(path).marks == []
    assert read(b"") == Remains()
    journal.close()


def test_the_last_lines_are_kept(path: str) -> None:
    journal = Journal.create(path)
    assert remains(path).lines == ""
    journal.say("first\n")
    journal.say("größer\n")
    assert remains(path).lines == "first\ngrößer\n"
    for number in range(3000):
        journal.say(f"line {number}\n")
    kept = remains(path).lines.splitlines()
    assert kept[-1] == "line 2999"
    assert kept == [f"line {n}" for n in range(3000 - len(kept), 3000)]
    assert len(kept) > 500
    journal.say("x" * 100_000 + "\nend\n")
    assert remains(path).lines == "end\n"
    journal.close()


def test_without_a_file_nothing_is_noted_and_nothing_fails(tmp_path: Path) -> None:
    for journal in (Journal(), Journal.create(str(tmp_path / "no" / "such"))):
        of = tessera()
        for number in range(3):
            run(journal, task(of, number))
            run(journal, task(of, number, caller=4))
            journal.start(task(of, number))
            journal.finish(task(of, number))
            journal.irregular(task(of, number))
        journal.say("text")
        journal.gone(of)
        journal.close()


def test_a_full_disk_means_no_journal(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    journal = Journal.create(path)
    run(journal, task(tessera(), 1))
    assert remains(path) == Remains()
    journal.close()


def test_it_outlives_a_killed_process_and_a_fork_does_not_write(path: str) -> None:
    pid = os.fork()
    if pid == 0:
        journal = Journal.create(path)
        of = tessera()
        run(journal, task(of, 1))
        journal.start(task(of, 2))
        child = os.fork()
        if child == 0:
            journal.close()  # as the worker does it after a fork
            run(journal, task(of, 3))
            os._exit(0)
        os.waitpid(child, 0)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (mark,) = remains(path).marks
    assert (mark.started & 0xFF, mark.finished & 0xFF) == (2, 1)


def test_what_is_left_is_collected_once(tmp_path: Path) -> None:
    name, fault = paths(str(tmp_path), 7)
    journal = Journal.create(name)
    run(journal, task(tessera(), 1))
    with open(fault, "w") as file:
        file.write("Fatal")
    left = collect(str(tmp_path), 7)
    assert (len(left.marks), left.fault) == (1, "Fatal")
    assert os.listdir(tmp_path) == []
    assert collect(str(tmp_path), 7) == Remains()
    remove(str(tmp_path), 7)
    journal.close()


@given(data=st.binary(max_size=12_000), valid=st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_bytes_can_be_read(data: bytes, valid: bool) -> None:
    if valid:
        data = files._MAGIC.to_bytes(8, "little") + data
    assert isinstance(read(data), Remains)
