"""What ``mosaic.run`` starts before it has imported what it needs."""

from __future__ import annotations

import select
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from processes import ended

from mosaic_like.config import Config
from mosaic_like.environment import CLUSTER, LOCAL
from mosaic_like.errors import ConnectError
from mosaic_like.launch.cluster import Cluster
from mosaic_like.launch.early import Early
from mosaic_like.launch.held import Held
from mosaic_like.launch.run import run
from mosaic_like.launch.running import run_program
from mosaic_like.runtimes.directory import RunDirectory

_LIGHT = """
import sys
import mosaic_like as mosaic

@mosaic.tessera
class Marked:
    pass

mosaic.run
heavy = {"asyncio", "msgspec", "zmq", "uvloop", "inspect"} & set(sys.modules)
assert not heavy, heavy
"""

_WRONG = """
import os, mosaic_like as mosaic
from mosaic_like.launch import early

start = early.Early.start.__func__

def told(cls):
    found = start(cls)
    print(found.booted.pid, found.directory.path, flush=True)
    return found

early.Early.start = classmethod(told)

async def main(): ...

mosaic.run(main, num_worker=2)
"""


_INTERRUPTED = """
import signal, threading, mosaic_like as mosaic
from mosaic_like.launch import early

start = early.Early.start.__func__

begun, came = threading.Event(), threading.Event()

def work():
    begun.wait()
    signal.raise_signal(signal.SIGINT)
    came.set()

threading.Thread(target=work).start()

def interrupted(cls):
    begun.set()
    came.wait()
    return start(cls)

early.Early.start = classmethod(interrupted)

async def main(): ...

mosaic.run(main, num_workers=1)
"""


async def _nothing() -> None: ...


def _run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )


def test_to_mark_a_class_and_to_name_run_imports_nothing_large() -> None:
    done = _run(_LIGHT)
    assert done.returncode == 0, done.stderr


def test_a_wrong_option_leaves_nothing_of_what_was_started_early() -> None:
    done = _run(_WRONG)
    assert "did you mean 'num_workers'?" in done.stderr
    pid, directory = done.stdout.split()
    assert ended(int(pid))
    assert not Path(directory).exists()


def test_nothing_is_started_early_where_no_cluster_will_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Early, "start", lambda: pytest.fail("it was started"))
    monkeypatch.setenv(LOCAL, "1")
    run(_nothing)
    monkeypatch.delenv(LOCAL)
    monkeypatch.setenv(CLUSTER, "/no/such/key")
    with pytest.raises(ConnectError):
        run(_nothing)


def test_what_nobody_has_taken_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mosaic_like.launch.early.HEAD", "no.such.module")
    early = Early.start()
    assert early is not None
    early.end()
    assert ended(early.booted.pid)
    assert not early.directory.path.exists()


def test_a_server_that_has_ended_keeps_the_cluster_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mosaic_like.launch.early.HEAD", "no.such.module")
    monkeypatch.setattr(sys, "executable", shutil.which("true"))  # no interpreter
    early = Early.start()
    assert early is not None
    assert select.select([early.booted.control], [], [], 30)[0]
    cluster = Cluster(Config.make(num_workers=1), early=early)
    with pytest.raises(ConnectError, match=r"did not start.*has ended.*/true' -c pass"):
        cluster.launch()
    cluster.kill()
    cluster.tidy_up(10.0)
    assert not early.directory.path.exists()


def test_where_a_handler_of_the_users_raises_none_of_ours_is_left() -> None:
    class Raises(Held):
        def let_go(self) -> None:
            raise ZeroDivisionError

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError):
        run_program(_nothing, {"num_workers": 1}, held=Raises())
    assert signal.getsignal(signal.SIGTERM) == before


def test_ctrl_c_while_it_imports_waits_also_where_there_are_other_threads() -> None:
    done = _run(_INTERRUPTED)
    assert done.stderr == "^C stopping (again to stop)\n"
    assert done.returncode == 130


def test_what_is_held_back_comes_afterwards_and_the_handlers_are_as_before() -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    held = Held()
    held.hold()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        held.let_go()
    held.let_go()
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]


def test_off_the_main_thread_nothing_is_held_back() -> None:
    def work() -> None:
        held = Held()
        held.hold()
        found.append(signal.getsignal(signal.SIGINT))
        held.let_go()

    found: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]


def test_where_nothing_can_be_started_early_it_is_tried_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mosaic_like.launch.early.HEAD", "no.such.module")
    made: list[RunDirectory] = []
    create = RunDirectory.create

    def noted() -> RunDirectory:
        made.append(create())
        return made[-1]

    def refuse(directory: str) -> None:
        raise OSError("no processes")

    monkeypatch.setattr(RunDirectory, "create", noted)
    monkeypatch.setattr("mosaic_like.launch.early.boot", refuse)
    assert Early.start() is None
    assert not made[0].path.exists()
