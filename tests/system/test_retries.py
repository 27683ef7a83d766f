"""Retries on real processes: which errors, when, and what goes on meanwhile."""

from __future__ import annotations

import asyncio
import random
import re
import time
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic
from mosaic_like import TaskCancelledError, TaskState, TaskTimeoutError, session
from mosaic_like.runtimes.port import CURRENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import RunScript
    from specimens import RunIn

LONG_S = 300.0  # longer than any test: nobody waits it out
SOON_S = 10.0  # of a slow machine


class Refused(Exception):
    """Retried where an option says so."""


@mosaic.tessera(max_retries=4, retry_delay=0.05)
class Flaky:
    """Notes its attempts and fails so many times."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.times: list[float] = []

    def plain(self, failures: int, kind: type[BaseException] = Refused) -> int:
        self.log.append("try")
        self.times.append(time.monotonic())
        tries = self.log.count("try")
        if tries <= failures:
            raise kind(f"try {tries}")
        return tries

    async def coroutine(
        self, failures: int, kind: type[BaseException] = Refused
    ) -> int:
        await asyncio.sleep(0)
        return self.plain(failures, kind)

    def handed(self, failures: int, kind: type[BaseException] = Refused) -> Any:
        return self.coroutine(failures, kind)

    def handed_and_cancelled(self) -> Any:
        task = CURRENT.get()
        assert task is not None
        worker = session.current().worker
        loop = asyncio.get_running_loop()
        loop.call_soon(worker.stopping.cancel, task.uid, "before it began")
        return self.coroutine(0)

    def naps(self, seconds: float) -> int:
        self.log.append("try")
        if self.log.count("try") == 1:
            time.sleep(seconds)
        return self.log.count("try")

    def takes(self, value: Any) -> Any:
        self.log.append(value)
        return value

    def waits(self, other: Any, failures: int) -> int:
        value: int = other.plain(failures).get()
        return value

    async def asks(self, other: Any, failures: int) -> int:
        value: int = await other.plain.options(retry_delay=LONG_S)(failures).result()
        return value

    def note(self, item: Any) -> Any:
        self.log.append(item)
        return item

    def noted(self) -> list[Any]:
        log, self.log = self.log, []
        return log

    def gaps(self) -> list[float]:
        times, self.times = self.times, []
        return [b - a for a, b in pairwise(times)]


@mosaic.tessera
class Watcher:
    """Looks at the module where the calls of others run."""

    async def sees(self, name: str) -> None:
        await until(lambda: name in ASKED)


def never(error: BaseException, attempt: Any) -> bool:
    return False


def twice(error: BaseException, attempt: Any) -> bool:
    assert isinstance(error, Refused)
    assert str(error) == f"try {attempt.attempt}"
    assert attempt.max_retries == 4
    assert attempt.name == mosaic.current_task().name
    assert attempt.uid == mosaic.current_task().uid
    return bool(attempt.attempt < 3)


async def twice_later(error: BaseException, attempt: Any) -> bool:
    await asyncio.sleep(0.01)
    return twice(error, attempt)


ASKED: set[str] = set()  # names of calls, in a worker


async def asks_for_long(error: BaseException, attempt: Any) -> bool:
    ASKED.add(attempt.name)
    await asyncio.sleep(LONG_S)
    return True


def breaks(*args: Any) -> Any:
    raise ZeroDivisionError("as asked")


async def breaks_later(*args: Any) -> Any:
    await asyncio.sleep(0)
    breaks()


def text(retry: int) -> Any:
    return "soon"


def tenths(retry: int) -> float:
    return retry / 10


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 - told by messages
            await asyncio.sleep(0.005)


def waits_to_retry(task: Any) -> bool:
    return bool(task.state == TaskState.PENDING and task.reason == "retry")


KINDS = [{}, {"inline": True}, {"thread": True}]
METHODS = ["plain", "coroutine", "handed"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", KINDS)
def test_the_order_is_kept_while_a_call_waits(
    cluster: RunIn, options: dict[str, Any], method: str
) -> None:
    async def main(runtime: Any) -> None:
        flaky = await Flaky.options(**options).remote()
        call = getattr(flaky, method).options(retry_delay=[0.02, 0.1])
        for _ in range(2):
            task = call(2)
            others = [flaky.note(i) for i in range(20)]
            await until(partial(waits_to_retry, task))
            assert "pending, retry 1" in repr(task) or "pending, retry 2" in repr(task)
            assert await task.result() == 3
            assert task.attempt == 3
            assert task.reason is None
            await mosaic.gather(others)
            assert await flaky.noted().result() == [*["try"] * 3, *range(20)]

    cluster(main)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [*KINDS, {"is_async": True, "max_concurrency": 1}])
def test_a_call_that_waits_can_be_cancelled(
    cluster: RunIn, options: dict[str, Any], method: str
) -> None:
    async def main(runtime: Any) -> None:
        here = runtime.workers[0]
        flaky = await Flaky.options(runtime=here, **options).remote()
        watcher = await Watcher.options(runtime=here).remote()
        for more in ({"retry_delay": LONG_S}, {"retry_if": asks_for_long}):
            task = getattr(flaky, method).options(**more)(9)
            behind = flaky.note("behind")
            if "retry_delay" in more:
                await until(partial(waits_to_retry, task))
            else:
                await watcher.sees(task.name).result()
            start_s = time.monotonic()
            task.cancel("not needed")
            with pytest.raises(
                TaskCancelledError, match="not needed; attempt 1 had raised Refused: tr"
            ):
                await task
            assert await behind.result() == "behind"
            assert time.monotonic() - start_s < SOON_S
            assert (await flaky.noted().result()).count("try") == 1
        # It is as good as before.
        assert await getattr(flaky, method)(1).result() == 2

    cluster(main)


def test_a_call_that_waits_holds_no_thread_and_no_room(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        here = runtime.workers[0]
        waiting = Flaky.options(runtime=here).remote()
        other = Flaky.options(runtime=here).remote()
        overlapping = Flaky.options(
            runtime=here, is_async=True, max_concurrency=1
        ).remote()
        tasks = [
            waiting.plain.options(retry_delay=LONG_S)(1),
            overlapping.coroutine.options(retry_delay=LONG_S)(1),
        ]
        await until(lambda: all(map(waits_to_retry, tasks)))
        assert await other.note(1).result() == 1
        assert await overlapping.note(2).result() == 2
        assert await overlapping.coroutine(0).result() == 2
        # A plain method that waits for one lets its thread run the retry.
        assert await other.waits(Flaky.options(runtime=here).remote(), 2).result() == 3
        for task in tasks:
            task.cancel()
            with pytest.raises(TaskCancelledError):
                await task

    cluster(main)


def test_calls_that_take_its_value_wait_for_the_attempt_that_gives_it(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        here, there = runtime.workers
        flaky, near, far = (
            Flaky.options(runtime=w).remote() for w in (here, here, there)
        )
        await mosaic.gather(flaky.note(0), near.note(0), far.note(0))
        task = flaky.plain(2)
        taken = [t.takes(task) for t in (flaky, near, far)]
        assert await mosaic.gather(taken) == [3, 3, 3]

    cluster(main)


def test_many_calls_behind_one_that_waits_run_when_it_has_ended(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        flaky = await Flaky.options(runtime=runtime.workers[0]).remote()
        other = await Flaky.options(runtime=runtime.workers[0]).remote()
        start_s = time.monotonic()
        task = flaky.plain(2)
        behind = [flaky.note(i) for i in range(3000)]
        beside = [other.note(i) for i in range(50)]
        assert await task.result() == 3
        assert await mosaic.gather(behind) == list(range(3000))
        assert await mosaic.gather(beside) == list(range(50))
        assert await flaky.noted().result() == [*["try"] * 3, *range(3000)]
        assert time.monotonic() - start_s < 10

    cluster(main)


def test_plain_methods_that_give_coroutines_keep_their_order(cluster: RunIn) -> None:
    """They all stand in the queue of the main thread when the first one runs."""

    async def main(runtime: Any) -> None:
        flaky = await Flaky.remote()
        nap = flaky.naps(0.2)  # so that the others are there when it has ended
        handed = [flaky.handed(3), flaky.handed(4), flaky.handed(0)]
        notes = [flaky.note(i) for i in range(3)]
        assert await nap.result() == 1
        # Two tries of the first one fail, then one of the second.
        assert await mosaic.gather(handed) == [4, 5, 6]
        await mosaic.gather(notes)
        assert await flaky.noted().result() == [*["try"] * 6, 0, 1, 2]

    cluster(main)


def test_a_coroutine_that_was_handed_over_and_has_not_begun_can_be_cancelled(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        for options in ({"inline": True}, {"is_async": True}):
            flaky = Flaky.options(**options).remote()
            with pytest.raises(TaskCancelledError, match="before it began"):
                await flaky.handed_and_cancelled()
            assert await flaky.note(1).result() == 1

    cluster(main)


@pytest.mark.parametrize("method", ["plain", "coroutine"])
def test_only_what_retry_on_names_is_retried(cluster: RunIn, method: str) -> None:
    async def main(runtime: Any) -> None:
        flaky = Flaky.options(retry_on=(Refused, LookupError)).remote()
        call = getattr(flaky, method)
        assert await call(2).result() == 3
        await flaky.noted()
        assert await call(1, KeyError).result() == 2
        await flaky.noted()
        with pytest.raises(OSError, match="try 1"):
            await call(9, OSError)
        await flaky.noted()
        # The call's own count more; the delay is still the tessera's.
        assert await call.options(retry_on=OSError)(2, OSError).result() == 3
        assert (await flaky.gaps().result())[-1] > 0.04
        await flaky.noted()
        with pytest.raises(Refused, match="try 1"):
            await call.options(retry_on=OSError)(9)
        await flaky.noted()
        for kind, error in (
            (asyncio.CancelledError, TaskCancelledError),
            (KeyboardInterrupt, mosaic.RemoteError),
            (SystemExit, mosaic.RemoteError),
        ):
            with pytest.raises(error):
                await call.options(retry_on=Exception)(9, kind)
            assert await flaky.noted().result() == ["try"]

    cluster(main)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("condition", [twice, twice_later])
def test_retry_if_decides_with_error_and_attempt(
    cluster: RunIn, condition: Any, method: str
) -> None:
    async def main(runtime: Any) -> None:
        for delay in (0, 0.02):
            flaky = Flaky.options(retry_if=condition, retry_delay=delay).remote()
            call = getattr(flaky, method)
            behind = [call(2), flaky.note("behind")]
            assert await mosaic.gather(behind) == [3, "behind"]
            assert await flaky.noted().result() == [*["try"] * 3, "behind"]
            task, note = call(9), flaky.note("behind")
            with pytest.raises(Refused, match="try 3") as info:
                await task
            assert "attempt 3" in "".join(info.value.__notes__)
            await note
            assert await flaky.noted().result() == [*["try"] * 3, "behind"]
            with pytest.raises(Refused, match="try 1"):
                await call.options(retry_if=never)(9)
            await flaky.noted()
            assert await call.options(retry_if=None)(4).result() == 5

    cluster(main)


@pytest.mark.parametrize("method", ["plain", "coroutine"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retry_if": breaks}, "ZeroDivisionError: as asked"),
        ({"retry_if": breaks_later}, "ZeroDivisionError: as asked"),
        ({"retry_delay": breaks}, "ZeroDivisionError: as asked"),
        ({"retry_delay": text}, r"retry_delay\(1\) gave: found 'soon'"),
    ],
)
def test_what_the_options_raise_is_a_note_and_no_retry(
    cluster: RunIn,
    capfd: pytest.CaptureFixture[str],
    options: dict[str, Any],
    said: str,
    method: str,
) -> None:
    async def main(runtime: Any) -> None:
        flaky = Flaky.options(**options).remote()
        with pytest.raises(Refused, match="try 1") as info:
            await getattr(flaky, method)(9)
        (note,) = (n for n in info.value.__notes__ if "retry options raised" in n)
        assert re.search(said, note)
        assert await flaky.noted().result() == ["try"]

    cluster(main)
    assert "its retry options raised" in capfd.readouterr().err


def test_delays_are_numbers_sequences_or_functions(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        flaky = await Flaky.remote()
        for delay, expected in (
            (0.1, [0.1, 0.1, 0.1]),
            ((0.1, 0.2), [0.1, 0.2, 0.2]),
            (tenths, [0.1, 0.2, 0.3]),
        ):
            assert await flaky.plain.options(retry_delay=delay)(3).result() == 4
            gaps = await flaky.gaps().result()
            for gap, least in zip(gaps, expected, strict=True):
                assert least - 0.01 <= gap < least + SOON_S
            await flaky.noted()
        jittered = flaky.plain.options(retry_delay=0.2, retry_jitter=0.5)
        assert await jittered(4).result() == 5
        gaps = await flaky.gaps().result()
        assert all(gap > 0.09 for gap in gaps)
        assert len({round(gap, 3) for gap in gaps}) > 1

    cluster(main)


def test_the_time_of_an_attempt_does_not_run_while_it_waits(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        here, there = runtime.workers
        flaky = await Flaky.options(runtime=here).remote()
        call = flaky.plain.options(timeout=2.0, retry_delay=2.2)
        task = call(1)
        assert await task.result() == 2
        await flaky.noted()
        # An attempt that is late counts as TaskTimeoutError, which is an OSError.
        late = flaky.naps.options(timeout=1.5, retry_on=TimeoutError, retry_delay=0.3)
        assert await late(LONG_S).result() == 2
        await flaky.noted()
        with pytest.raises(TaskTimeoutError):
            await late.options(retry_on=Refused)(LONG_S)
        # That of the calls around it runs on.
        outer = await Flaky.options(runtime=there).remote()
        start_s = time.monotonic()
        with pytest.raises(TaskTimeoutError):
            await outer.asks.options(timeout=0.4, max_retries=0)(flaky, 99)
        assert await flaky.note("free").result() == "free"
        assert time.monotonic() - start_s < 0.4 + SOON_S

    cluster(main)


def test_close_waits_for_the_retry_and_kill_does_not(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        for options in ({}, {"is_async": True}):
            flaky = Flaky.options(**options).remote()
            task = flaky.plain.options(retry_delay=0.2)(1)
            await until(partial(waits_to_retry, task))
            await mosaic.close(flaky)
            assert await task.result() == 2
            flaky = Flaky.options(**options).remote()
            task = flaky.plain.options(retry_delay=LONG_S)(1)
            await until(partial(waits_to_retry, task))
            async with asyncio.timeout(SOON_S):
                await mosaic.kill(flaky)
            with pytest.raises(TaskCancelledError):
                await task

    cluster(main)


def test_local_tesserae_wait_as_those_in_workers_do(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        for options in (*KINDS, {"is_async": True}):
            for method in METHODS:
                made: Any = Flaky.options(**options)
                flaky = made.local()
                call = getattr(flaky, method)
                assert await call(2).result() == 3
                task = call.options(retry_delay=LONG_S)(9)
                await until(partial(waits_to_retry, task))
                await mosaic.kill(flaky)
                with pytest.raises(TaskCancelledError):
                    await task

    cluster(main)


def test_wrong_retry_options_are_refused_at_the_line(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        flaky = Flaky.remote()
        for wrong, error, said in (
            ({"retry_delay": ()}, ValueError, "at least one delay"),
            ({"retry_on": 3}, TypeError, "exception class"),
            ({"retry_jitter": 2}, ValueError, "0 to 1"),
            ({"retry_if": 1}, TypeError, "expected a function"),
            ({"retry_iff": never}, TypeError, "unknown option 'retry_iff'"),
        ):
            for line in (flaky.plain.options, Flaky.options, mosaic.tessera):
                with pytest.raises(error, match=said):
                    line(**wrong)
        made = (i for i in range(3))
        cannot = Flaky.options(retry_if=lambda error, attempt: next(made))
        with pytest.raises(mosaic.SerializationError, match="'retry_if' of Flaky"):
            cannot.remote()
        with pytest.raises(mosaic.SerializationError, match=r"of Flaky\.plain"):
            flaky.plain.options(retry_if=lambda error, attempt: next(made))
        assert await flaky.noted().result() == []

    cluster(main)


@mosaic.tessera(max_retries=6, retry_delay=[0, 0.002, 0.005], retry_jitter=0.5)
class Rough:
    """Fails at random; sees when two run at once, and in which order they began."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.running = False
        self.began: list[int] = []

    def _once(self, number: int, seconds: float) -> int:
        assert not self.running, "two at once"
        self.running = True
        try:
            if number not in self.began:
                self.began.append(number)
            time.sleep(seconds)
            if self.random.random() < 0.5:
                raise Refused(number)
            return number
        finally:
            self.running = False

    def plain(self, number: int, seconds: float) -> int:
        return self._once(number, seconds)

    async def coroutine(self, number: int, seconds: float) -> int:
        self._once(number, 0)
        await asyncio.sleep(seconds)
        return number

    def handed(self, number: int, seconds: float) -> Any:
        return self.coroutine(number, seconds)

    def order(self) -> list[int]:
        return self.began


async def sometimes(error: BaseException, attempt: Any) -> bool:
    await asyncio.sleep(0.001)
    return bool(attempt.attempt % 3)


async def go_through(options: dict[str, Any], seed: int) -> None:
    rough = Rough.options(**options).remote(seed)
    draw = random.Random(seed)
    tasks: list[Any] = []
    for number in range(40):
        more: dict[str, Any] = {}
        if draw.random() < 0.3:
            more["timeout"] = 0.004
        if draw.random() < 0.3:
            more["retry_if"] = sometimes
        method = getattr(rough, draw.choice(METHODS)).options(**more)
        tasks.append(method(number, draw.choice((0, 0, 0.003, 0.008))))
        if draw.random() < 0.3:
            await asyncio.sleep(draw.random() * 0.01)
        if draw.random() < 0.2:
            draw.choice(tasks).cancel("at random")
    ends = await mosaic.gather(tasks, return_exceptions=True)
    for number, end in enumerate(ends):
        expected = (Refused, TaskCancelledError, TaskTimeoutError)
        assert end == number or isinstance(end, expected), end
    began = await rough.order().result()
    assert options.get("is_async") or began == sorted(began)


@pytest.mark.parametrize("seed", range(8))
def test_all_calls_end_in_order_whatever_happens(cluster: RunIn, seed: int) -> None:
    async def main(runtime: Any) -> None:
        overlapping = {"is_async": True, "max_concurrency": 2}
        every: list[dict[str, Any]] = [*KINDS, overlapping]
        await asyncio.gather(*(go_through(options, seed) for options in every))

    cluster(main)


SCRIPT = """
import asyncio, time
import mosaic_like as mosaic

class Busy(Exception):
    pass

first_s = 0.01

@mosaic.tessera(max_retries=3, retry_on=Busy, retry_if=lambda e, a: e.args[0] < 3,
                retry_delay=lambda retry: first_s * retry)
class Server:
    def __init__(self):
        self.tries = 0
    def ask(self, kind=Busy):
        self.tries += 1
        raise kind(self.tries)

async def main():
    server = Server.remote()
    try:
        await server.ask()
    except Busy as error:
        print(error)
    try:
        await server.ask.options(retry_on=OSError)()
    except Busy as error:
        print(error)
    for options in ({}, {"thread": True}, {"is_async": True}, {"inline": True}):
        for make in (Server.options(**options).remote, Server.options(**options).local):
            task = make().ask.options(retry_delay=300)()
            while task.reason != "retry":
                await asyncio.sleep(0.01)
    print("waiting")

start_s = time.monotonic()
mosaic.run(main, num_workers=1)
print(time.monotonic() - start_s < 10)
"""


def test_classes_and_functions_of_a_script_and_the_end_while_some_wait(
    run_script: RunScript,
) -> None:
    result = run_script(SCRIPT)
    assert result.code == 0, result
    assert result.stdout.split() == ["3", "4", "waiting", "True"]
    assert result.stderr == ""
