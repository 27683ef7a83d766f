"""Workers whose threads stand still for what is not ours: helpers take their place."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

import mosaic_like as mosaic
from mosaic_like.runtimes.directory import KEY_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from specimens import RunIn

WAIT_S = 20.0


@mosaic.task
def by_thread(depth: int) -> int:
    """Waits for an event that a thread of its own sets."""
    if not depth:
        return 1
    done = threading.Event()
    found: list[int] = []

    def work() -> None:
        inner = [by_thread.submit(depth - 1) for _ in range(3)]
        found.append(sum(task.get() for task in inner))
        done.set()

    threading.Thread(target=work).start()
    done.wait()
    return found[0]


@mosaic.task
def by_callback(depth: int) -> int:
    """Waits for a lock that callbacks release."""
    if not depth:
        return 1
    free = threading.Semaphore(0)
    inner = [by_callback.submit(depth - 1).as_future() for _ in range(2)]
    for future in inner:
        future.add_done_callback(lambda _: free.release())
    for _ in inner:
        free.acquire()
    return sum(future.result() for future in inner)


@mosaic.task
def wait_for(path: str) -> str:
    """Waits for a pipe that another task opens."""
    with open(path) as pipe:
        return pipe.read()


@mosaic.task
def write_to(paths: list[str]) -> Any:
    for path in paths:
        with open(path, "w") as pipe:
            pipe.write("here")
    return np.arange(100_000.0), os.getpid()


@mosaic.task
def ask(key: str) -> str:
    """Waits for a program that uses the cluster itself."""
    text = (
        "import math, mosaic_like as mosaic\n"
        f"with mosaic.connect({key!r}) as runtime:\n"
        "    print(mosaic.task(math.factorial).submit(5).get())\n"
    )
    command = [sys.executable, "-c", text]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def helpers_have_left(runtime: Any) -> None:
    while any(m.uid.startswith("helper") for m in runtime.members.values()):
        await runtime.membership()


def test_tasks_inside_others_three_deep_end_whatever_their_threads_wait_for(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        workers = runtime.workers
        deep = by_thread.submit(3)
        while not any(m.uid.startswith("helper") for m in runtime.members.values()):
            await runtime.membership()
        # Nobody counts it, or puts anything else there.
        assert runtime.workers == workers
        assert runtime.num_workers == 2
        assert await deep.result() == 27
        assert await by_callback.submit(3).result() == 8
        await runtime.barrier(WAIT_S)
        await helpers_have_left(runtime)
        assert runtime.workers == workers

    cluster(main)


def test_what_a_helper_has_made_outlives_it(cluster: RunIn, tmp_path: Path) -> None:
    paths = [str(tmp_path / f"pipe{i}") for i in range(2)]
    for path in paths:
        os.mkfifo(path)

    async def main(runtime: Any) -> None:
        waiting = wait_for.map(paths)
        made = write_to.submit(paths)
        assert await waiting.result() == ["here", "here"]
        await made
        await helpers_have_left(runtime)
        array, pid = await made.result()
        assert array.sum() == np.arange(100_000.0).sum()
        assert pid not in [worker.pid for worker in runtime.workers]

    cluster(main)


def test_a_program_that_a_task_has_started_uses_the_cluster(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        key = str(runtime.hold.cluster.directory.path / KEY_NAME)
        assert await ask.map([key, key]).result() == ["120\n", "120\n"]
        await helpers_have_left(runtime)

    cluster(main)
