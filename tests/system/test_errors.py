"""Errors on real processes: each arrives where it belongs and harms nothing else."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from typing import Any

import numpy as np
import pytest
import specimens as s
from specimens import RunIn

import mosaic_like as mosaic


class Odd(Exception):
    """Takes other arguments than it keeps."""

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"{code} at {where}")
        self.code = code
        self.where = where


class Stubborn(Exception):
    """Cannot be pickled at all."""

    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


class Bomb:
    """Its pickling raises."""

    def __reduce__(self) -> Any:
        raise ZeroDivisionError("in __reduce__")


class Trap:
    """Its unpickling raises."""

    def __reduce__(self) -> Any:
        return _spring, ()


_NOTHING: dict[str, int] = {}
# Without types: it is called wrongly here.
_PLAIN: Any = mosaic.remote(s.Plain)
_COUNTER: Any = s.Counter


def _spring() -> None:
    raise LookupError("sprung")


class Thrower:
    """Raises what it is told."""

    def ordinary(self) -> None:
        try:
            _NOTHING["key"]
        except KeyError as error:
            wrapped = ValueError("wrapped", 3)
            wrapped.add_note("a note of the user")
            raise wrapped from error

    def odd(self) -> None:
        raise Odd(7, where="here")

    def stubborn(self) -> None:
        raise Stubborn("text stays")

    def builtin(self, name: str) -> None:
        raise {
            "SystemExit": SystemExit,
            "KeyboardInterrupt": KeyboardInterrupt,
            "GeneratorExit": GeneratorExit,
            "StopIteration": StopIteration,
            "StopAsyncIteration": StopAsyncIteration,
        }[name]("from a method")

    async def abuiltin(self, name: str) -> None:
        self.builtin(name)

    def cancelled(self) -> None:
        raise asyncio.CancelledError("by itself")

    async def acancelled(self) -> None:
        raise asyncio.CancelledError("by itself")

    def group(self) -> None:
        raise ExceptionGroup("several", [ValueError("a"), Odd(1, where="x")])

    def recursion(self) -> None:
        self.recursion()

    def lock(self) -> Any:
        return {"deep": [threading.Lock()]}

    def bomb(self) -> Any:
        return Bomb()

    def trap(self) -> Any:
        return Trap()

    def take(self, *args: Any, **kwargs: Any) -> int:
        return len(args) + len(kwargs)

    def local_error(self) -> None:
        class Hidden(Exception):
            pass

        raise Hidden("by value")

    def alive(self) -> bool:
        return True


class Failing:
    """Its constructor raises."""

    def __init__(self, why: str = "no") -> None:
        raise OSError(why)

    def method(self) -> None: ...


class Leaving:
    """Its constructor ends the process, as it hopes."""

    def __init__(self) -> None:
        raise SystemExit(4)

    def method(self) -> None: ...


def test_a_remote_exception_keeps_type_cause_and_frames(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        thrower = mosaic.remote(Thrower)()
        with pytest.raises(ValueError, match="wrapped") as info:
            await thrower.ordinary().result()
        error = info.value
        assert error.args == ("wrapped", 3)
        assert isinstance(error.__cause__, KeyError)
        text = "".join(traceback.format_exception(error))
        assert "in ordinary" in text
        assert "raise wrapped from error" in text
        assert "a note of the user" in text
        note = error.__notes__[-1]
        assert "Thrower#1.ordinary on w0:" in note
        worker = next(w for w in runtime.workers if str(w.pid) in note)
        assert f"pid {worker.pid}" in note
        assert "attempt 1" in note
        with pytest.raises(Odd) as odd:
            await thrower.odd()
        assert (odd.value.code, odd.value.where) == (7, "here")
        with pytest.raises(mosaic.RemoteError, match="text stays") as stubborn:
            await thrower.stubborn()
        assert stubborn.value.type_name.endswith("Stubborn")
        assert "not me" in str(stubborn.value)
        with pytest.raises(ExceptionGroup) as group:
            await thrower.group()
        assert [type(e) for e in group.value.exceptions] == [ValueError, Odd]
        with pytest.raises(RecursionError):
            await thrower.recursion()
        with pytest.raises(Exception, match="by value") as hidden:
            await thrower.local_error()
        assert type(hidden.value).__name__ == "Hidden"
        assert await thrower.alive().result() is True

    cluster(main)


@pytest.mark.parametrize(
    "name",
    [
        "SystemExit",
        "KeyboardInterrupt",
        "GeneratorExit",
        "StopIteration",
        "StopAsyncIteration",
    ],
)
def test_what_would_end_a_program_only_fails_the_task(
    cluster: RunIn, name: str
) -> None:
    async def main(runtime: Any) -> None:
        for options in ({}, {"inline": True}, {"thread": True}):
            thrower = mosaic.remote(Thrower, **options)()
            for method in ("builtin", "abuiltin"):
                if method == "abuiltin" and name.startswith("Stop"):
                    continue  # Python makes a RuntimeError of it
                with pytest.raises(mosaic.RemoteError, match=name):
                    await getattr(thrower, method)(name)
            assert await thrower.alive().result() is True

    cluster(main)


def test_a_method_that_cancels_itself_is_cancelled(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        thrower = mosaic.remote(Thrower)()
        for method in (thrower.cancelled, thrower.acancelled):
            task = method()
            with pytest.raises(mosaic.TaskCancelledError):
                await task
            assert task.cancelled()
        assert await thrower.alive().result() is True

    cluster(main)


def test_an_argument_that_cannot_travel_raises_at_the_call(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        thrower = mosaic.remote(Thrower)()
        await thrower
        sent = len(runtime.caller.calls)
        with pytest.raises(mosaic.SerializationError) as info:
            thrower.take(1, {"log": [threading.RLock()]})
        text = str(info.value)
        assert "Thrower.take" in text
        assert "['log'][0]" in text
        assert "RLock" in text
        with pytest.raises(mosaic.SerializationError, match="in __reduce__"):
            thrower.take(x=Bomb())
        with pytest.raises(TypeError):
            _PLAIN(threading.Lock())
        with pytest.raises(mosaic.SerializationError):
            thrower.set_attr("x", threading.Lock())
        assert len(runtime.caller.calls) == sent
        # the next call is the next in its stream: nothing was numbered
        assert await thrower.take(1, 2, x=3).result() == 3

    cluster(main)


def test_what_cannot_be_rebuilt_fails_that_call_alone(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        thrower = mosaic.remote(Thrower)()
        task = thrower.lock()
        with pytest.raises(mosaic.SerializationError, match="lock"):
            await task
        assert task.reason == "serialize"
        assert task.state == "failed"
        bomb = thrower.bomb()
        with pytest.raises(mosaic.SerializationError, match="in __reduce__"):
            await bomb
        with pytest.raises(mosaic.SerializationError, match="LookupError: sprung"):
            await thrower.take(Trap())
        trap = thrower.trap()
        assert await trap is trap  # it was made and is there
        with pytest.raises(mosaic.SerializationError, match="LookupError: sprung"):
            await trap.result()
        with pytest.raises(mosaic.SerializationError, match="LookupError: sprung"):
            await thrower.take(trap)
        assert await thrower.alive().result() is True

    cluster(main)


def test_a_failing_constructor_fails_every_call(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        failing = mosaic.remote(Failing)("disk")
        early = failing.method()
        with pytest.raises(OSError, match="disk"):
            await failing
        with pytest.raises(OSError, match="disk"):
            await early
        with pytest.raises(OSError, match="disk"):
            await failing.method()
        with pytest.raises(OSError, match="disk"):
            await failing.some_attribute
        assert "failed" in repr(failing)
        leaving = mosaic.remote(Leaving)()
        with pytest.raises(mosaic.RemoteError, match="SystemExit"):
            await leaving.method()
        unbuilt = _PLAIN(Trap())
        with pytest.raises(mosaic.SerializationError, match="LookupError: sprung"):
            await unbuilt.shout()
        waiting = _PLAIN(mosaic.remote(Thrower)().odd())
        with pytest.raises(mosaic.UpstreamError):
            await waiting.shout()
        with pytest.raises(mosaic.UpstreamError):
            await waiting
        assert await mosaic.remote(s.Plain)("x").shout().result() == "X"

    cluster(main)


def test_arguments_that_do_not_fit_raise_at_the_call(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        for mistake in (
            lambda: counter.add(),
            lambda: counter.add(1, 2),
            lambda: counter.add(1, tims=2),
            lambda: counter.add(1, k=2),
            lambda: counter.twice(),
            lambda: _COUNTER.remote(1, 2),
            lambda: _COUNTER.remote(begin=1),
            lambda: _PLAIN(),
        ):
            with pytest.raises(TypeError):
                mistake()
        with pytest.raises(TypeError, match=r"Counter\.add\(k.*unexpected.*tims"):
            counter.add(1, tims=2)
        assert await counter.add(1).result() == 1

    cluster(main)


def test_a_failed_argument_fails_what_needs_it(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = (s.Counter.options(runtime=w).remote() for w in runtime.workers)
        for other in (first, second):
            bad = first.fail("the cause")
            task = other.add(bad)
            with pytest.raises(mosaic.UpstreamError, match="the cause") as info:
                await task
            assert isinstance(info.value.__cause__, ValueError)
            assert task.reason == "upstream"
            chained = other.identity([task])
            with pytest.raises(mosaic.UpstreamError) as deep:
                await chained
            assert isinstance(deep.value.__cause__, ValueError)  # the original
            with pytest.raises(mosaic.UpstreamError):
                await other.identity(bad.outputs.done)
            assert await other.value().result() == 0

    cluster(main)


def test_an_error_that_nobody_awaits_is_logged_once_with_its_place(
    cluster: RunIn, caplog: pytest.LogCaptureFixture
) -> None:
    labels: list[str] = []

    async def main(runtime: Any) -> None:
        counter = s.Counter.remote()
        labels.append(repr(counter).strip("<>").split()[0])
        counter.fail("dropped at once")  # the line that is named
        kept = counter.fail("dropped later")
        heard = counter.fail("heard")
        with pytest.raises(ValueError, match="heard"):
            await heard
        asked = counter.fail("asked")
        assert isinstance(await asked.exception(), ValueError)
        cancelled = counter.add(heard)
        cancelled.cancel()
        with pytest.raises(mosaic.TaskError):
            await cancelled
        await counter.value()
        del kept, heard, asked, cancelled
        await runtime.barrier(20)

    with caplog.at_level(logging.ERROR):
        cluster(main)
    texts = [
        record
        for record in caplog.records
        if "nobody asked" in record.getMessage()
        and record.getMessage().startswith(f"{labels[0]}.")
    ]
    assert len(texts) == 2
    first = texts[0].getMessage()
    assert "Counter#" in first
    assert "test_errors.py:" in first
    line = int(first.partition("test_errors.py:")[2].split(",")[0])
    with open(__file__) as file:
        assert "the line that is named" in file.readlines()[line - 1]
    assert texts[0].exc_info is not None
    assert "dropped at once" in str(texts[0].exc_info[1])


def test_large_results_of_a_failed_fetch_are_errors_and_no_hangs(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        first, second = (s.Counter.options(runtime=w).remote() for w in runtime.workers)
        big = first.identity(np.ones(100_000))
        await big
        assert (await second.identity((big, 1)).result())[0].shape == (100_000,)
        arrived = await big.result()
        with pytest.raises(ValueError, match="read-only"):
            arrived[0] = 2

    cluster(main)
