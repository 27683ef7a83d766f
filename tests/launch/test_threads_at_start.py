"""A program that can start no more threads: who can do without does, others say so."""

from __future__ import annotations

import _thread
import asyncio
from typing import TYPE_CHECKING, NoReturn

import pytest

import mosaic_like as mosaic
from mosaic_like import session
from mosaic_like.comms.zeromq.transport import check_threads

if TYPE_CHECKING:
    from conftest import RunScript

REMEDY = r"can't start new thread; see `ulimit -u`, and pids.max of the control group"
# Of the program; libzmq asks the kernel itself.
NO_THREADS = """
import threading

def start(thread):
    raise RuntimeError("can't start new thread")

threading.Thread.start = start
"""
PROGRAM = """
import mosaic_like as mosaic

@mosaic.tessera
class Echo:
    def ping(self, x):
        return x

async def main(runtime):
    print(await Echo.remote().ping(5).result())

mosaic.run(main, num_workers=1)
"""
NONE_FOR_LIBZMQ = """
import _thread

def start(*_):
    raise RuntimeError("can't start new thread")

_thread.start_new_thread = start
"""


def no_thread(*_: object) -> NoReturn:
    raise RuntimeError("can't start new thread")


def test_a_program_that_can_start_no_thread_imports_without_one(
    run_script: RunScript,
) -> None:
    result = run_script(NO_THREADS + PROGRAM)
    assert (result.code, result.stdout, result.stderr) == (0, "5\n", "")


def test_a_program_in_which_libzmq_could_start_no_thread_says_so(
    run_script: RunScript,
) -> None:
    result = run_script(NONE_FOR_LIBZMQ + PROGRAM)
    assert result.code == 1
    last = result.stderr.splitlines()[-1]
    assert last == f"RuntimeError: libzmq needs 2 threads here, and gets none: {REMEDY}"


@pytest.mark.parametrize("found", [0, 1])
def test_threads_are_looked_for_as_many_as_are_needed_at_once(
    monkeypatch: pytest.MonkeyPatch, found: int
) -> None:
    check_threads()
    left, start = found, _thread.start_new_thread

    def start_some(*arguments: object) -> int:
        nonlocal left
        if not left:
            no_thread()
        left -= 1
        return start(*arguments)  # type: ignore[call-overload]  # as given

    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", start_some)
        with pytest.raises(RuntimeError, match=f"libzmq needs 2 threads.*{REMEDY}"):
            check_threads()
    assert left == 0


def test_a_runtime_that_is_to_have_a_thread_of_its_own_and_gets_none_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", no_thread)
        wanted = (
            f"a runtime that stays needs a thread of its own, and gets none: {REMEDY}"
        )
        with pytest.raises(RuntimeError, match=wanted):
            mosaic.init(num_workers=1)
        with pytest.raises(RuntimeError, match=wanted):
            asyncio.run(mosaic.interactive("on", num_workers=1))
    assert session.peek() is None
