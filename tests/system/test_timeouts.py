"""``timeout=`` on real processes: who waits is answered in time, whatever happens."""

from __future__ import annotations

import asyncio
import math
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from specimens import Slow, catch_all

import mosaic_like as mosaic
from mosaic_like import TaskTimeoutError, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from specimens import RunIn

BEGUN_S = 1.0  # in which a call has begun, also on a slow machine
SOON_S = 10.0  # of a slow machine
FOR_EVER_S = 60.0  # longer than any test: nobody waits it out


@mosaic.tessera
class Late(Slow):
    """Takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[int] = []
        self.was: list[str] = []

    def pid(self) -> int:
        return os.getpid()

    def naps(self, seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    async def anaps(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    def stubborn(self, begun: Path, go: Path) -> str:
        catch_all(begun, lambda _: go.exists())
        return "too late"

    async def swallows(self, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.was.append("cancelled")
        return "too late"

    async def blocks_the_loop(self, begun: Path, go: Path) -> None:
        catch_all(begun, lambda _: go.exists())

    def seen(self) -> list[str]:
        return self.was

    def third_time_lucky(self, how_often: int = 3) -> int:
        attempt = mosaic.current_task().attempt
        self.attempts.append(attempt)
        if attempt < how_often:
            time.sleep(FOR_EVER_S)
        return attempt

    async def athird_time_lucky(self, how_often: int = 3) -> int:
        attempt = mosaic.current_task().attempt
        self.attempts.append(attempt)
        if attempt < how_often:
            await asyncio.sleep(FOR_EVER_S)
        return attempt

    def tried(self) -> list[int]:
        return self.attempts

    def fails_then_naps(self, seconds: float) -> int:
        attempt = mosaic.current_task().attempt
        time.sleep(seconds)
        if attempt == 1:
            raise ValueError("the first")
        return attempt

    async def asks(self, other: Any, method: str, *args: Any) -> Any:
        """Call another, and give what came of it."""
        call = getattr(other, method)(*args)
        try:
            return await call.result()
        except TaskTimeoutError as error:
            self.was.append(f"{method} {error.verdict}")
            raise

    def asks_and_blocks(self, other: Any, method: str, *args: Any) -> Any:
        return getattr(other, method)(*args).get(FOR_EVER_S)

    async def asks_with(self, other: Any, seconds: float, nap_s: float) -> Any:
        return await other.anaps.options(timeout=seconds)(nap_s).result()

    async def counts(self, seconds: float) -> Any:
        for number in range(100):
            yield number
            await asyncio.sleep(seconds)


async def keep(stream: Any, items: list[int]) -> None:
    async for item in stream:
        items.append(item)  # noqa: PERF401 - they are to be there when it raises


# Of a call that may not have begun when its time was over.
EITHER = (Verdict.NOT_STARTED, Verdict.MAYBE_RAN)


async def times_out(task: Any, *verdicts: Verdict) -> float:
    """Seconds until it does."""
    start_s = time.monotonic()
    with pytest.raises(TaskTimeoutError) as caught:
        await task
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.verdict in (verdicts or EITHER)
    assert task.reason == "timeout"
    assert task.state == "failed"
    return time.monotonic() - start_s


@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan])
def test_a_time_that_is_none_is_refused_where_it_is_written(
    cluster: RunIn, value: float
) -> None:
    async def main(runtime: Any) -> None:
        late = Late.remote()
        with pytest.raises(ValueError, match="option 'timeout': found"):
            late.naps.options(timeout=value)
        with pytest.raises(ValueError, match="option 'timeout'"):
            Late.options(timeout=value)
        with pytest.raises(ValueError, match="option 'timeout'"):
            mosaic.tessera(timeout=value)

    cluster(main)


def test_wrong_kinds_of_options_are_refused(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        late = Late.remote()
        for wrong in ("5", True, [1]):
            with pytest.raises(TypeError, match="option 'timeout'"):
                late.naps.options(timeout=wrong)
        with pytest.raises(ValueError, match="'flag', 'raise' or 'kill'"):
            late.naps.options(interrupt="please")
        with pytest.raises(ValueError, match="'flag', 'raise' or 'kill'"):
            Late.options(interrupt=1)
        assert await late.naps.options(timeout=None)(0).result() == "slept"
        assert await late.naps.options(timeout=math.inf)(0).result() == "slept"

    cluster(main)


@pytest.mark.parametrize("method", ["naps", "anaps"])
@pytest.mark.parametrize("where", ["call", "class", "decorator"])
def test_a_call_that_takes_too_long_is_stopped(
    cluster: RunIn, method: str, where: str
) -> None:
    class Marked(Late):
        pass

    async def main(runtime: Any) -> None:
        late: Any
        if where == "call":
            late = Late.remote()
            call = getattr(late, method).options(timeout=BEGUN_S)
        else:
            if where == "decorator":
                late = mosaic.tessera(timeout=BEGUN_S)(Marked).remote()
            else:
                late = Late.options(timeout=BEGUN_S).remote()
            call = getattr(late, method)
        await late
        assert await times_out(call(FOR_EVER_S)) < SOON_S
        assert await call(0.0).result() == "slept"
        later = getattr(late, method).options(timeout=None)
        assert await later(0.4).result() == "slept"

    cluster(main)


def test_a_proxy_takes_the_time_of_its_tessera_along(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        here, there = runtime.workers
        late = Late.options(timeout=BEGUN_S, runtime=here).remote()
        asks = Late.options(runtime=there).remote()
        await late
        await asks
        task = asks.asks(late, "anaps", FOR_EVER_S)
        with pytest.raises(TaskTimeoutError, match=r"timeout=1"):
            await task
        assert await asks.seen().result() == ["anaps maybe_ran"]

    cluster(main)


def test_waiting_counts_and_what_is_late_never_starts(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        late = Late.remote()
        first = late.hold(str(tmp_path / "go"))
        in_the_thread = late.touch.options(timeout=0.2)(str(tmp_path / "never"))
        on_the_loop = late.anaps.options(timeout=0.2)(0)
        argument = late.anaps(0)  # which cannot come before `first` has ended
        lacking = late.touch.options(timeout=0.2)(argument)
        for task in (in_the_thread, on_the_loop, lacking):
            assert await times_out(task, Verdict.NOT_STARTED) < SOON_S
        (tmp_path / "go").touch()
        assert await first.result() == "held"
        await argument
        assert await late.anaps(0).result() == "slept"
        assert not (tmp_path / "never").exists()

    cluster(main)


@pytest.mark.parametrize("method", ["stubborn", "blocks_the_loop"])
def test_the_caller_is_answered_whatever_the_method_does(
    cluster: RunIn, tmp_path: Path, method: str
) -> None:
    async def main(runtime: Any) -> None:
        late = await Late.remote()
        begun, go = tmp_path / "begun", tmp_path / "go"
        await times_out(getattr(late, method).options(timeout=BEGUN_S)(begun, go))
        assert begun.exists()
        after = late.pid()
        go.touch()  # it has run until now
        assert await after.result()

    cluster(main)


def test_a_value_that_comes_too_late_is_none(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        late = Late.remote()
        await late
        await times_out(late.swallows.options(timeout=BEGUN_S)(FOR_EVER_S))
        assert await late.seen().result() == ["cancelled"]

    cluster(main)


def test_calls_inside_have_no_more_than_is_left(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        here, there = runtime.workers
        outer, middle, inner = (
            Late.options(runtime=w).remote() for w in (here, there, here)
        )
        task = outer.asks.options(timeout=0.4)(
            middle, "asks", inner, "anaps", FOR_EVER_S
        )
        await times_out(task)
        # The innermost was stopped too: it is free at once.
        async with asyncio.timeout(SOON_S):
            assert await inner.anaps(0).result() == "slept"
        # A smaller one of its own counts; a larger one does not help.
        start_s = time.monotonic()
        with pytest.raises(TaskTimeoutError, match=r"timeout=0\.1"):
            await outer.asks_with.options(timeout=FOR_EVER_S)(inner, 0.1, FOR_EVER_S)
        asks = outer.asks_with.options(timeout=0.3)
        await times_out(asks(inner, FOR_EVER_S, FOR_EVER_S))
        blocks = outer.asks_and_blocks.options(timeout=0.3)
        await times_out(blocks(middle, "naps", FOR_EVER_S))
        assert time.monotonic() - start_s < 2 * SOON_S
        assert await middle.naps(0).result() == "slept"

    cluster(main)


@pytest.mark.parametrize("method", ["third_time_lucky", "athird_time_lucky"])
def test_each_attempt_has_its_own_time(cluster: RunIn, method: str) -> None:
    async def main(runtime: Any) -> None:
        late = Late.remote()
        await late
        call = getattr(late, method).options(timeout=BEGUN_S, max_retries=2)
        task = call()
        assert task.attempt == 1
        assert await task.result() == 3
        assert task.attempt == 3
        assert await late.tried().result() == [1, 2, 3]
        failed = call(9)
        spent_s = await times_out(failed)
        assert 2.9 * BEGUN_S < spent_s < 3 * BEGUN_S + SOON_S
        assert failed.attempt == 3
        assert (await late.tried().result())[3:] == [1, 2, 3]
        # An attempt that raises gives the next one its whole time.
        whole = late.fails_then_naps.options(timeout=2.0, max_retries=1)
        assert await whole(1.1).result() == 2

    cluster(main)


def test_the_calls_around_it_end_all_attempts(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        here, there = runtime.workers
        outer = Late.options(runtime=here).remote()
        inner = Late.options(runtime=there, max_retries=100, timeout=0.5).remote()
        await outer
        await inner
        await times_out(outer.asks.options(timeout=2.0)(inner, "athird_time_lucky", 99))
        tried = await inner.tried().result()
        assert 2 <= len(tried) <= 5

    cluster(main)


def test_a_stream_has_one_time_for_all(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        late = Late.remote()
        await late
        stream = late.counts.options(timeout=BEGUN_S)(0.1)
        items: list[int] = []
        with pytest.raises(TaskTimeoutError):
            await keep(stream, items)
        assert 1 <= len(items) < 100
        assert await late.pid().result()

    cluster(main)


def test_a_call_for_which_there_is_no_worker_ends_in_time(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        late = Late.remote()
        lost = Late.remote()
        stream = lost._mosaic_handle.stream
        await lost
        outbox, stream.outbox = stream.outbox, None  # as if it had no place yet
        task = lost.pid.options(timeout=0.1)()
        assert await times_out(task, Verdict.NOT_STARTED) < SOON_S
        stream.outbox = outbox
        runtime.caller.held.release(stream)
        assert await lost.pid().result()
        assert await late.pid().result()

    cluster(main)


def test_limits_that_were_kept_leave_nothing_behind(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        late = Late.remote()
        call = late.anaps.options(timeout=1000)
        for _ in range(10):
            await mosaic.gather(call(0) for _ in range(100))
        assert len(runtime.limiting._calls) < 300

    cluster(main)
