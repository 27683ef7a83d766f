"""A lost call says whether it has run, and how its worker died."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic
from mosaic_like.errors import (
    TaskCancelledError,
    Verdict,
    WorkerDied,
    WorkerOutOfMemory,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

NOT, MAYBE, RAN = Verdict.NOT_STARTED, Verdict.MAYBE_RAN, Verdict.RAN_RESULT_LOST
_GROUPS = Path("/sys/fs/cgroup/memory")


def run(main: Callable[[Any], Coroutine[Any, Any, None]], workers: int = 2) -> None:
    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(40):
            await main(runtime)

    mosaic.run(bounded, num_workers=workers)


async def lost(task: Any) -> WorkerDied:
    with pytest.raises(WorkerDied) as caught:
        await task.result()
    return caught.value


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


class Mortal:
    """Ends its worker in several ways."""

    def pid(self) -> int:
        return os.getpid()

    def kill(self, path: str) -> None:
        print("the last line")
        Path(path).touch()
        time.sleep(30)

    def read_nothing(self) -> None:
        print("about to read")
        ctypes.string_at(0)

    def exit(self, status: int) -> None:
        os._exit(status)

    def ping(self) -> None: ...

    async def sleeps(self, path: str) -> None:
        open(path, "w").close()  # noqa: ASYNC230
        await asyncio.Event().wait()

    def fork(self, path: str) -> None:
        """The child goes on as if it were the worker, for a moment."""
        if os.fork():
            os.wait()
            Path(path).touch()
            time.sleep(30)


async def there(path: Path) -> None:
    async with asyncio.timeout(20):
        while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.005)


def test_each_call_of_a_killed_worker_says_whether_it_ran(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        worker = runtime.workers[0]
        mortal = mosaic.remote(Mortal, runtime=worker)()
        other = mosaic.remote(Mortal, runtime=worker)()
        await mosaic.gather(mortal.ping(), other.ping())
        path = tmp_path / "runs"
        running = mortal.kill(str(path))
        behind = [mortal.ping() for _ in range(20)]
        beside = other.ping()
        unbuilt = mosaic.remote(Mortal, runtime=worker)()
        await there(path)
        os.kill(worker.pid, signal.SIGKILL)
        error = await lost(running)
        assert error.verdict is MAYBE
        assert "killed by SIGKILL while it ran Mortal#1.kill" in str(error)
        assert "Mortal#1.kill may have run" in str(error)
        assert "the last line" in notes(error)
        for task in (*behind, beside, unbuilt.ping()):
            error = await lost(task)
            assert error.verdict is NOT
        assert "while it ran Mortal#1.kill" in str(error)
        with pytest.raises(WorkerDied) as caught:
            await unbuilt
        assert caught.value.verdict is NOT

        # After one was cancelled in the queue, it is told no less.
        worker = runtime.workers[-1]
        mortal = mosaic.remote(Mortal, runtime=worker)()
        first = mortal.kill(str(tmp_path / "first"))
        second = mortal.ping()
        await there(tmp_path / "first")
        second.cancel()
        with pytest.raises(TaskCancelledError):
            await second
        first.cancel()
        error = await lost(mortal.exit(3))
        assert "exit status 3 while it ran Mortal#4.exit;" in str(error)
        await runtime.wait_for_workers(2, 10)

        # A crash: the stack of the thread at fault, too.
        worker = runtime.workers[-1]
        mortal = mosaic.remote(Mortal, runtime=worker)()
        await mortal
        error = await lost(mortal.read_nothing())
        assert error.verdict is MAYBE
        assert "killed by SIGSEGV while it ran Mortal#5.read_nothing" in str(error)
        assert "Segmentation fault" in notes(error)
        assert "in read_nothing" in notes(error)
        assert "watchdog" not in notes(error)
        assert "about to read" in notes(error)

        await runtime.wait_for_workers(2, 10)
        mortal = mosaic.remote(Mortal, runtime=runtime.workers[0])()
        error = await lost(mortal.exit(3))
        assert "exit status 3 while it ran Mortal#6.exit" in str(error)

        # A coroutine, and a call that another runtime has made.
        await runtime.wait_for_workers(2, 10)
        first, second = runtime.workers
        mortal = mosaic.remote(Mortal, runtime=first)()
        path = tmp_path / "sleeps"
        asked = mosaic.remote(Asker, runtime=second)().ask(mortal, str(path))
        await there(path)
        mine = mortal.ping()
        os.kill(first.pid, signal.SIGKILL)
        error = await lost(mine)
        assert error.verdict is NOT
        assert "while it ran a method of Mortal#7" in str(error)
        error = await lost(asked)
        assert error.verdict is MAYBE
        assert "while it ran Mortal#7.sleeps" in str(error)

    run(main)


class Asker:
    async def ask(self, mortal: Any, path: str) -> None:
        await mortal.sleeps(path).result()


def test_a_child_that_a_method_forks_notes_nothing(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        worker = runtime.workers[0]
        mortal = mosaic.remote(Mortal, runtime=worker)()
        path = tmp_path / "forked"
        running = mortal.fork(str(path))
        await there(path)
        os.kill(worker.pid, signal.SIGKILL)
        assert (await lost(running)).verdict is MAYBE  # not: has run

    run(main, workers=1)


def test_nothing_is_left_of_workers_that_ended() -> None:
    async def main(runtime: Any) -> None:
        directory = runtime.hold.cluster.directory.path
        first = runtime.workers[0]
        mortal = mosaic.remote(Mortal, runtime=first)()
        await mortal
        os.kill(first.pid, signal.SIGKILL)
        await lost(mortal.ping())
        await runtime.wait_for_workers(2, 10)
        living = [str(worker.pid) for worker in runtime.workers]
        for kind in "jf":
            found = [p.name[1:] for p in directory.iterdir() if p.name[0] == kind]
            assert sorted(found) == sorted(living)

    run(main)


# -- history ---------------------------------------------------------------------------


class History:
    """Writes what it starts and finishes into a file that outlives it."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def _note(self, what: str, number: int) -> None:
        os.write(self._fd, f"{what} {number}\n".encode())

    def plain(self, number: int, wait_s: float = 0.0) -> int:
        self._note("start", number)
        if wait_s:
            time.sleep(wait_s)
        self._note("end", number)
        return number

    def large(self, number: int) -> bytes:
        self._note("start", number)
        self._note("end", number)
        return bytes(200_000)

    def fails(self, number: int) -> None:
        self._note("start", number)
        self._note("end", number)
        raise KeyError(number)

    def keywords(self, *, number: int) -> Any:
        self._note("start", number)
        self._note("end", number)
        return {"number": [number]}

    async def coroutine(self, number: int, wait_s: float = 0.0) -> int:
        self._note("start", number)
        await asyncio.sleep(wait_s)
        self._note("end", number)
        return number

    def handed(self, number: int, wait_s: float = 0.0) -> Any:
        return self.coroutine(number, wait_s)

    async def items(self, number: int) -> AsyncIterator[int]:
        self._note("start", number)
        for item in range(3):
            await asyncio.sleep(0.001)
            yield item
        self._note("end", number)

    def steps(self, number: int) -> Iterator[int]:
        self._note("start", number)
        yield from range(3)
        self._note("end", number)

    def after(self, number: int, other: Any) -> int:
        return self.plain(number)


WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"is_async": True},
    {"inline": True},
    {"thread": True},
    {},
)


def call(rng: random.Random, history: Any, number: int, others: list[Any]) -> Any:
    """Some call, which notes this number."""
    wait_s = rng.choice((0.0, 0.0, 0.0005, 0.01))
    chance = rng.randrange(24)
    if chance == 0:
        return history.large(number)
    if chance == 1:
        return history.fails(number)
    if chance == 2:
        return history.keywords(number=number)
    if chance in (3, 4, 5):
        return history.coroutine(number, wait_s)
    if chance == 6:
        return history.handed(number, wait_s)
    if chance == 7 and others:
        other = rng.choice(others)
        return history.after.options(ordered=rng.random() < 0.5)(number, other)
    task = history.plain(number, wait_s)
    if chance == 8:
        task.cancel()
    return task


SEEDS = int(os.environ.get("VERDICT_SEEDS", "2"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_call_that_ran_is_said_not_to_have_started(
    seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)

    async def main(runtime: Any) -> None:
        for turn in range(2):
            await runtime.wait_for_workers(2, 15)
            worker = runtime.workers[turn % 2]
            path = tmp_path / f"history {turn}"
            made = [
                mosaic.remote(History, runtime=worker, **way)(str(path)) for way in WAYS
            ]
            await mosaic.gather(h.plain(-1) for h in made)
            tasks: dict[int, Any] = {}
            for number in range(1500):
                history = rng.choice(made)
                others = list(tasks.values())[-20:]
                tasks[number] = call(rng, history, number, others)
                if number % 100 == 0:
                    await asyncio.sleep(0)
            streams = {n: made[0].items(n) for n in range(2000, 2010)}
            streams |= {n: made[4].steps(n) for n in range(2010, 2020)}
            await asyncio.wait_for(
                asyncio.shield(tasks[rng.randrange(700)].exception()), 15
            )
            os.kill(worker.pid, signal.SIGKILL)
            outcomes = {n: await task.exception() for n, task in tasks.items()}
            for number, stream in streams.items():
                try:
                    async for _ in stream:
                        pass
                except WorkerDied as error:
                    outcomes[number] = error
            check(path, outcomes)

    run(main)


def check(path: Path, outcomes: dict[int, Any]) -> None:
    lines = [line.split() for line in path.read_text().splitlines()]
    starts = {int(number) for what, number in lines if what == "start"}
    ends = {int(number) for what, number in lines if what == "end"}
    verdicts = {
        number: error.verdict
        for number, error in outcomes.items()
        if isinstance(error, WorkerDied)
    }
    assert not [n for n, v in verdicts.items() if v is NOT and n in starts]
    assert not [n for n, v in verdicts.items() if v is RAN and n not in ends]
    kinds = set(verdicts.values())
    assert NOT in kinds, "it was killed too late"


# -- memory ----------------------------------------------------------------------------

HUNGRY = """
import asyncio, sys
import mosaic_like as mosaic

class Hungry:
    def eat(self):
        eaten = []
        while True:
            eaten.append(bytearray(8 << 20))
    def ping(self): return 1

async def main(runtime):
    async with asyncio.timeout(30):
        hungry = mosaic.remote(Hungry, runtime=runtime.workers[0])()
        other = mosaic.remote(Hungry, runtime=runtime.workers[1])()
        task, behind = hungry.eat(), hungry.ping()
        try:
            await task.result()
        except mosaic.WorkerOutOfMemory as error:
            print(type(error).__name__, error.verdict, error)
        print((await behind.exception()).verdict, await other.ping().result())

with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write("0")
mosaic.run(main, num_workers=2)
"""


@pytest.mark.skipif(
    os.getuid() != 0 or not (_GROUPS / "memory.limit_in_bytes").exists(),
    reason="needs root and the memory groups of control group version 1",
)
def test_a_worker_that_ran_out_of_memory_says_so(run_script: Any) -> None:
    group = _GROUPS / f"mosaic-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(500 << 20))
        result = run_script(HUNGRY, str(group), timeout=50)
    finally:
        deadline_s = time.monotonic() + 20
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        group.rmdir()
    first, second = result.stdout.splitlines()
    assert first.startswith(f"{WorkerOutOfMemory.__name__} maybe_ran w0:0 ")
    assert "killed by SIGKILL: the kernel killed it for want of memory" in first
    assert "its control group may have 500 MiB while it ran Hungry#1.eat" in first
    assert second == "not_started 1"
    assert sys.platform == "linux"
