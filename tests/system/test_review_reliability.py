"""User code that forks, or blocks where threads wait, harms nothing else."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic
from mosaic_like.errors import SerializationError, TaskCancelledError

if TYPE_CHECKING:
    from pathlib import Path

    from specimens import RunIn


class Exits:
    """Ends the program that unpickles it."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class Rude:
    """Does what a method should not."""

    def pid(self) -> int:
        return os.getpid()

    def fork(self, how: str) -> int:
        pid = os.fork()
        if pid == 0:
            if how == "exit":
                sys.exit(7)
            if how == "raise":
                raise ValueError("in the child")
            return -1
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def make_exits(self) -> Exits:
        return Exits()

    async def fork_in_a_coroutine(self) -> int:
        return self.fork("exit")

    def stand(self, where: str, begun: Path) -> None:
        begun.touch()
        if where == "event":
            threading.Event().wait()
        elif where == "queue":
            queue.Queue[None]().get()
        elif where == "semaphore":
            threading.Semaphore(0).acquire()
        elif where == "join":
            thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)
            thread.start()
            thread.join()
        elif where == "barrier":
            threading.Barrier(2).wait()
        else:
            concurrent.futures.Future[None]().result()


@pytest.mark.parametrize(("how", "status"), [("exit", 7), ("raise", 1), ("return", 0)])
def test_a_forked_child_ends_with_the_method_that_forked_it(
    cluster: RunIn, how: str, status: int
) -> None:
    async def main(runtime: Any) -> None:
        rude = mosaic.remote(Rude)()
        pid = await rude.pid().result()
        assert await rude.fork(how).result() == status
        assert await rude.pid().result() == pid

    cluster(main)


def test_a_result_that_exits_when_it_is_unpickled_is_an_error(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        with pytest.raises(SerializationError, match=r"Rude#\d+.make_exits cannot be"):
            await mosaic.remote(Rude)().make_exits().result()

    cluster(main)


def test_a_child_forked_by_a_coroutine_method_ends_with_it(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        rude = mosaic.remote(Rude)()
        assert await rude.fork_in_a_coroutine().result() == 7
        assert await rude.fork("exit").result() == 7

    cluster(main)


@pytest.mark.parametrize(
    "where", ["event", "queue", "semaphore", "join", "barrier", "future"]
)
def test_a_method_that_waits_for_a_thread_can_be_cancelled(
    cluster: RunIn, where: str, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"

    async def main(runtime: Any) -> None:
        rude = mosaic.remote(Rude)()
        task = rude.stand(where, begun)
        while not begun.exists():  # noqa: ASYNC110 -- made by another process
            await asyncio.sleep(0.005)
        task.cancel()
        start_s = time.monotonic()
        with pytest.raises(TaskCancelledError):
            await task.result()
        await rude.pid()
        assert time.monotonic() - start_s < 10

    cluster(main)


FORKING = """
import asyncio, os, sys
import mosaic_like as mosaic

class Counter:
    async def one(self):
        return 1
    async def long(self):
        await asyncio.sleep(60)

if sys.argv[1] == "init":
    mosaic.init(num_workers=1)
    counter = mosaic.remote(Counter)()
    done, open_ = counter.one(), mosaic.remote(Counter)().long()
    assert done.get(10) == 1
    pid = os.fork()
    if pid == 0:
        for call in (counter.one, open_.get, mosaic.runtime, open_.as_future):
            try:
                call()
            except RuntimeError as error:
                print(type(error).__name__, flush=True)
        assert done.get() == 1
        mosaic.stop()
        sys.exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert counter.one().get(10) == 1
    mosaic.stop()
    assert done.as_future().result(1) == 1
    assert open_.as_future().exception(1) is not None
else:
    async def main(runtime):
        counter = mosaic.remote(Counter)()
        assert await counter.one().result() == 1
        pid = os.fork()
        if pid == 0:
            try:
                counter.one()
            except RuntimeError as error:
                print(type(error).__name__, flush=True)
                os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        assert await counter.one().result() == 1
    mosaic.run(main, num_workers=1)
"""


@pytest.mark.parametrize(("how", "errors"), [("init", 4), ("run", 1)])
def test_a_fork_of_the_program_has_no_runtime_and_harms_none(
    run_script: Any, how: str, errors: int
) -> None:
    ended = run_script(FORKING, how)
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout.split() == ["RuntimeError"] * errors
