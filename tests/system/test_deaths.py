"""A worker that dies fails its calls, with how it died, and the rest goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import pytest

import mosaic_like as mosaic
from mosaic_like.errors import RuntimeDisconnectedError, Verdict, WorkerDied


class Mortal:
    """Ends its worker in several ways."""

    def pid(self) -> int:
        return os.getpid()

    def value(self) -> list[int]:
        return [1, 2]

    def large(self) -> list[str]:
        # Not so large that it would go into shared memory and outlive the worker.
        return [str(number) for number in range(20_000)]

    def signal(self, number: int) -> None:
        os.kill(os.getpid(), number)
        time.sleep(30)

    def exit(self, status: int) -> None:
        os._exit(status)

    async def forever(self) -> None:
        await asyncio.Event().wait()

    def block(self) -> None:
        time.sleep(30)

    def echo(self, value: Any) -> Any:
        return value

    def ask(self, other: Any) -> Any:
        return other.value().get()


def run(main: Any, workers: int = 2) -> None:
    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(40):
            await main(runtime)

    mosaic.run(bounded, num_workers=workers)


SOON_S = 10.0  # on a slow machine; what is told by nothing but silence takes longer

# Of a call that may not have been started before its worker died.
EITHER = (Verdict.NOT_STARTED, Verdict.MAYBE_RAN)


async def fails(task: Any, *verdicts: Verdict) -> WorkerDied:
    start_s = time.monotonic()
    with pytest.raises(WorkerDied) as caught:
        await task.result()
    assert time.monotonic() - start_s < SOON_S
    error = caught.value
    assert error.verdict in (verdicts or EITHER)
    assert error.runtime_id.startswith("worker:0:")
    return error


def test_calls_that_are_lost_alike_share_one_error() -> None:
    """A million of them would take 700 MiB, and half a minute at the end."""

    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        mortal = mosaic.remote(Mortal, runtime=first)()
        pid = await mortal.pid().result()
        mortal.block()
        values = [mortal.value() for _ in range(50)]
        others = [mortal.large() for _ in range(50)]
        await mosaic.remote(Mortal, runtime=second)().pid()
        os.kill(pid, signal.SIGKILL)
        for tasks, name in ((values, "value"), (others, "large")):
            for task in tasks:
                error = await fails(task, Verdict.NOT_STARTED)
                assert f"#1.{name} was not" in str(error)
            assert len({id(task._call.result) for task in tasks}) <= 2  # sent, or not

    run(main)


def test_a_killed_worker_fails_its_calls_with_the_signal() -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        mortal = mosaic.remote(Mortal, runtime=first)()
        other = mosaic.remote(Mortal, runtime=second)()
        kept = mortal.value()
        stays = mortal.large()
        await kept
        await stays
        pid = await mortal.pid().result()
        running = mortal.forever()
        queued = [mortal.value() for _ in range(100)]
        dependent = other.echo(running)
        os.kill(pid, signal.SIGKILL)
        error = await fails(running)
        assert "SIGKILL" in error.cause
        assert "SIGKILL" in str(error)
        for task in queued:
            await fails(task, Verdict.NOT_STARTED)
        with pytest.raises(mosaic.UpstreamError) as upstream:
            await dependent
        assert isinstance(upstream.value.__cause__, RuntimeDisconnectedError)
        assert await kept.result() == [1, 2]  # it had come already
        await fails(stays, Verdict.RAN_RESULT_LOST)  # it had stayed there
        await fails(mortal.value(), Verdict.NOT_STARTED)
        assert "lost" in repr(mortal)
        assert await other.value().result() == [1, 2]

    run(main)


def test_a_status_is_told_too_and_the_worker_is_replaced() -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        mortal = mosaic.remote(Mortal, runtime=first)()
        error = await fails(mortal.exit(3), Verdict.MAYBE_RAN)
        assert "3" in error.cause
        with pytest.raises(RuntimeDisconnectedError):
            mosaic.remote(Mortal, runtime=first)()
        await runtime.wait_for_workers(2, 10)
        again = runtime.get_worker(first.uid)
        assert again.pid != first.pid
        assert again != first
        assert await mosaic.remote(Mortal, runtime=again)().value().result() == [1, 2]
        assert second in runtime.workers

    run(main)


def test_workers_learn_of_a_death_as_the_head_does() -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        mortal = mosaic.remote(Mortal, runtime=first)()
        asking = mosaic.remote(Mortal, runtime=second)()
        assert await asking.ask(mortal).result() == [1, 2]
        blocked = mortal.block()
        asked = asking.ask(mortal)  # waits behind it, in a plain method
        pid = first.pid
        os.kill(pid, signal.SIGKILL)
        await fails(blocked)
        await fails(asked)
        with pytest.raises(WorkerDied):
            await asking.ask(mortal).result()
        assert await asking.value().result() == [1, 2]

    run(main)


def test_deaths_while_calls_fly_lose_none_of_the_others() -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        mortal = mosaic.remote(Mortal, runtime=first)()
        other = mosaic.remote(Mortal, runtime=second)()
        await mortal
        calls = [(mortal if i % 2 else other).echo(i) for i in range(20_000)]
        os.kill(first.pid, signal.SIGKILL)
        outcomes = await mosaic.gather(calls, return_exceptions=True)
        for i, outcome in enumerate(outcomes):
            if i % 2 == 0:
                assert outcome == i
            else:
                assert outcome == i or isinstance(outcome, WorkerDied)
        assert any(isinstance(o, WorkerDied) for o in outcomes)

    run(main)


def test_a_child_that_a_method_forks_is_no_second_worker() -> None:
    async def main(runtime: Any) -> None:
        forks = mosaic.remote(Forks)()
        assert await forks.fork().result() == 7
        assert await forks.fork().result() == 7
        assert len(runtime.workers) == 1

    run(main, workers=1)


class Forks:
    def fork(self) -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
