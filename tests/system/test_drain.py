"""Workers and nodes that leave in order: calls end, all closes, values go elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_cluster import add_node

import mosaic_like as mosaic
from mosaic_like.runtimes import departing, executor, worker
from mosaic_like.runtimes.departing import Departing

LARGE = 150_000  # characters: more than travels with the news of the end


class Closing:
    """Notes in a file that it was closed."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def pid(self) -> int:
        return os.getpid()

    def wait(self, name: str) -> str:
        """Until a file of this name is there."""
        path = os.path.join(self._folder, name)
        for _ in range(3000):
            if os.path.exists(path):
                return name
            time.sleep(0.01)
        raise TimeoutError(name)

    def large(self, k: int) -> dict[str, str]:
        return {"text": str(k) * LARGE}

    def array(self) -> np.ndarray[Any, Any]:
        return np.arange(LARGE)

    def last(self, array: np.ndarray[Any, Any]) -> int:
        return int(array[-1])

    def fail(self) -> None:
        raise ValueError("on purpose")

    def length(self, value: Any) -> int:
        return len(value["text"])

    def child_that_gets_sigterm(self) -> int | None:
        child = multiprocessing.get_context("fork").Process(
            target=time.sleep, args=(9,)
        )
        child.start()
        child.terminate()
        child.join(20)
        return child.exitcode

    def die_when_all_is_handed_on(self) -> None:
        hand_on = Departing.hand_on

        async def die(leaving: Departing) -> int:
            await hand_on(leaving)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("it was killed")

        setattr(Departing, "hand_on", die)  # noqa: B010 -- of this process, which ends

    def same(self, k: int) -> int:
        return k

    def put_aside(self) -> int:
        """Have ended calls put aside also where there are few; how many are."""
        archive = mosaic.runtime().worker.archive
        archive.least = 0
        return len(archive)

    def note_what_is_handed_on(self) -> None:
        give = Departing._give

        def note(outbox: Any, task: Any, shares: bool) -> None:
            with open(os.path.join(self._folder, "given"), "a") as file:
                file.write(f"{task.uid} {task.outcome.data!r}\n")
            give(outbox, task, shares)

        setattr(Departing, "_give", staticmethod(note))  # noqa: B010 -- as below

    def ask(self, other: Any) -> list[Any]:
        """Tasks of another worker, whose values are not looked at."""
        return [other.large(3), other.fail()]

    async def ask_after(self, name: str, other: Any, third: Any) -> int:
        """A call that goes out and comes back, made when that file is there."""
        await asyncio.to_thread(self.wait, name)
        pid: int = await other.pid_of(third).result()
        return pid

    async def pid_of(self, other: Any) -> int:
        pid: int = await other.pid().result()
        return pid

    def __close__(self) -> None:
        with open(os.path.join(self._folder, f"closed-{os.getpid()}"), "a") as file:
            file.write("closed\n")


def closed(folder: Path, pid: int) -> int:
    path = folder / f"closed-{pid}"
    return len(path.read_text().splitlines()) if path.exists() else 0


def run(main: Any, workers: int) -> None:
    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(50):
            await main(runtime)

    mosaic.run(bounded, num_workers=workers)


def make(where: Any, folder: Path) -> Any:
    return mosaic.remote(Closing, runtime=where)(str(folder))


async def nothing_kept(runtime: Any) -> None:
    """Wait until no large value is left."""
    while True:
        gc.collect()
        report = await runtime.memory()
        if not report.values:
            return
        await asyncio.sleep(0.05)


def test_a_drained_worker_ends_its_calls_closes_and_hands_on(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        leaver, other = runtime.workers
        await runtime.sharing.ready()
        one, two, idle = (make(leaver, tmp_path) for _ in range(3))
        beside = make(other, tmp_path)
        unread, read = one.large(1), one.large(2)
        await read.result()
        array, other_array = one.array(), one.array()
        await mosaic.gather(one.array())
        passed, failed = await beside.ask(one).result()
        running = two.wait("go")
        queued = [two.pid() for _ in range(3)]
        inner = one.ask_after("go", beside, two)
        draining = asyncio.ensure_future(runtime.drain(leaver))
        while leaver in runtime.workers:
            await runtime.membership()
        # As soon as it has heard it itself.
        with pytest.raises(  # noqa: PT012 -- any of them
            mosaic.RuntimeDisconnectedError, match="being drained"
        ):
            while True:
                await idle.pid_of(beside)
        with pytest.raises(mosaic.RuntimeDisconnectedError, match="being drained"):
            make(leaver, tmp_path)
        assert await make(None, tmp_path).pid().result() == other.pid
        assert not draining.done()
        (tmp_path / "go").touch()
        await draining
        # What was called before runs, and what those calls have called.
        assert await running.result() == "go"
        assert await mosaic.gather(queued) == [leaver.pid] * 3
        assert await inner.result() == leaver.pid
        assert closed(tmp_path, leaver.pid) == 3
        with pytest.raises(mosaic.RuntimeDisconnectedError) as caught:
            await one.pid()
        assert "has left the cluster: it was drained" in str(caught.value)
        assert caught.value.verdict is mosaic.Verdict.NOT_STARTED
        # Values, whoever holds them, whether they were read or not.
        assert len((await unread.result())["text"]) == LARGE
        assert await beside.length(read).result() == LARGE
        assert await beside.length(passed).result() == LARGE
        assert len((await passed.result())["text"]) == LARGE
        assert await beside.last(array).result() == LARGE - 1
        assert int((await other_array.result())[-1]) == LARGE - 1
        with pytest.raises(ValueError, match="on purpose"):
            await failed.result()
        del unread, read, passed, failed, array, other_array, caught
        await nothing_kept(runtime)
        assert [w.uid for w in runtime.workers] == [other.uid]

    run(main, 2)


def test_ended_calls_that_were_put_aside_are_handed_on(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        leaver, other = runtime.workers
        one, beside = make(leaver, tmp_path), make(other, tmp_path)
        held = [one.same(k) for k in range(20)]
        await mosaic.gather(held)
        await one.note_what_is_handed_on()
        while await one.put_aside().result() < len(held):  # noqa: ASYNC110 -- by ticks
            await asyncio.sleep(0.01)
        await runtime.drain(leaver)
        given = (tmp_path / "given").read_text().splitlines()
        expected = {f"{t._call.uid} {t._call.result!r}" for t in held}
        assert expected <= set(given)
        found = [beside.same(task) for task in held]
        assert await mosaic.gather(found) == list(range(20))

    run(main, 2)


def test_a_tessera_with_restarts_goes_on_elsewhere(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        leaver, other = runtime.workers
        moving = mosaic.remote(Closing, runtime=leaver, max_restarts=1)(str(tmp_path))
        await moving
        before = [moving.wait("go"), moving.pid()]
        draining = asyncio.ensure_future(runtime.drain(leaver))
        while leaver in runtime.workers:
            await runtime.membership()
        later = [moving.pid() for _ in range(3)]
        (tmp_path / "go").touch()
        await draining
        assert await mosaic.gather(before) == ["go", leaver.pid]
        assert await mosaic.gather(later) == [other.pid] * 3
        assert closed(tmp_path, leaver.pid) == 1

    run(main, 2)


def test_a_worker_that_dies_while_it_is_drained_has_died(tmp_path: Path) -> None:
    """Also when its values had gone to a warehouse, where nobody would find them."""

    async def main(runtime: Any) -> None:
        leaver, _ = runtime.workers
        await runtime.sharing.ready()
        one = make(leaver, tmp_path)
        value = one.large(5)
        await mosaic.gather(one.die_when_all_is_handed_on(), one.pid())
        await value
        with pytest.raises(
            mosaic.WorkerDied, match="died while it was drained: killed"
        ):
            await runtime.drain(leaver)
        with pytest.raises(mosaic.WorkerDied, match="its result is lost"):
            await value.result()
        del value
        await nothing_kept(runtime)

    run(main, 2)


class CutOff(Closing):
    """Notes what it runs, and can cut its worker off from the head."""

    async def cut_off(self, patience_s: float, *uids: str) -> None:
        """Soon, and until the file ``heal`` is there; then the file ``cut`` is."""
        for module in (departing, worker):
            setattr(module, "ANSWER_S", patience_s)  # noqa: B010 -- of this process
        runtime = mosaic.runtime()
        peers = [p for p in runtime.peers.by_token.values() if p.uid in uids]

        def connect_when_healed(peer: Any) -> None:
            if os.path.exists(os.path.join(self._folder, "heal")):
                type(peer).open(peer)
            else:
                runtime.loop.call_later(0.01, connect_when_healed, peer)

        def cut() -> None:
            if any(p.link.unacknowledged for p in peers):  # that this call has ended
                runtime.loop.call_later(0.01, cut)
                return
            for peer in peers:
                peer.open = functools.partial(connect_when_healed, peer)
                peer._channel.close()
                peer._broken("cut by the test")
            Path(self._folder, "cut").touch()

        runtime.loop.call_later(0.01, cut)

    def note(self) -> None:
        with open(os.path.join(self._folder, "ran"), "a") as file:
            file.write("ran\n")
        self.wait("go")


async def there(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 -- made by a method
        await asyncio.sleep(0.005)


async def drained_behind_a_cut(
    runtime: Any, folder: Path, patience_s: float, *uids: str
) -> Any:
    """A call ends and all is closed while these cannot hear it: call and drain."""
    leaver, _ = runtime.workers
    moving = mosaic.remote(CutOff, runtime=leaver, max_restarts=1)(str(folder))
    await moving.cut_off(patience_s, *uids).result()
    await there(folder / "cut")
    call = moving.note()
    await there(folder / "ran")
    draining = asyncio.ensure_future(runtime.drain(leaver, timeout=20))
    while leaver in runtime.workers:
        await runtime.membership()
    (folder / "go").touch()
    await there(folder / f"closed-{leaver.pid}")
    return call, draining


def test_who_leaves_waits_for_a_connection_that_is_broken(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        call, draining = await drained_behind_a_cut(runtime, tmp_path, 20.0, "head")
        await asyncio.wait([draining], timeout=0.5)
        assert not draining.done()
        (tmp_path / "heal").touch()
        assert await call.result() is None
        await draining
        assert (tmp_path / "ran").read_text() == "ran\n"

    run(main, 2)


@pytest.mark.parametrize(
    ("deaf", "verdict"),
    [
        (["head"], mosaic.Verdict.RAN_RESULT_LOST),
        # What the node reads when all has been closed.
        (["head", "monitor"], mosaic.Verdict.MAYBE_RAN),
    ],
)
def test_a_call_whose_end_was_not_heard_is_not_said_not_to_have_started(
    tmp_path: Path, deaf: list[str], verdict: mosaic.Verdict
) -> None:
    async def main(runtime: Any) -> None:
        call, draining = await drained_behind_a_cut(runtime, tmp_path, 0.1, *deaf)
        with pytest.raises(mosaic.RuntimeDisconnectedError, match="left the cluster"):
            await call.result()
        error = await call.exception()
        assert error.verdict is verdict
        await draining
        assert (tmp_path / "ran").read_text() == "ran\n"

    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(50):
            await main(runtime)

    mosaic.run(bounded, num_workers=2, node_timeout_s=5.0)


def test_what_has_not_ended_in_time_is_cancelled(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        leaver, _ = runtime.workers
        one = make(leaver, tmp_path)
        await one
        calls = [one.wait("never"), one.pid()]
        with pytest.raises(TimeoutError, match="2 calls that had not ended"):
            await runtime.drain(leaver, timeout=0.2)
        for call in calls:
            with pytest.raises(mosaic.TaskCancelledError, match="being drained"):
                await call
        assert closed(tmp_path, leaver.pid) == 1

    run(main, 2)


class Counting(Closing):
    """Its state goes with it."""

    count = 0

    def add(self, k: int) -> int:
        self.count += k
        return self.count

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def add_slowly(self, k: int, seconds: float) -> None:
        """Cannot be interrupted."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            with contextlib.suppress(BaseException):
                time.sleep(0.01)
        self.count += k

    def __checkpoint__(self) -> int:
        return self.count

    def __restore__(self, count: int) -> None:
        self.count = count


def test_a_checkpoint_does_not_wait_for_calls_whose_time_is_over(
    tmp_path: Path,
) -> None:
    async def main(runtime: Any) -> None:
        first, second, third = runtime.workers
        one, stubborn = (
            mosaic.remote(Counting, runtime=where, max_restarts=1)(str(tmp_path))
            for where in (first, second)
        )
        assert await one.add(5).result() == 5
        await stubborn
        # Both would end before a checkpoint is waited for no longer.
        calls = [one.sleep(executor.CLOSE_TIMEOUT_S / 2), one.add(1), one.add(1)]
        calls += [stubborn.add_slowly(7, runtime.config.stop_timeout_s + 1)]
        calls += [stubborn.add(1), stubborn.add(1)]
        drains = [runtime.drain(where, timeout=0.2) for where in (first, second)]
        for error in await asyncio.gather(*drains, return_exceptions=True):
            assert isinstance(error, TimeoutError)
            assert "3 calls that had not ended" in str(error)
        for call in calls:
            with pytest.raises(mosaic.TaskCancelledError, match="being drained"):
                await call
        assert await one.add(0).result() == 5
        assert await stubborn.add(0).result() == 7  # it could be had in time
        assert await stubborn.pid().result() == third.pid
        assert closed(tmp_path, first.pid) == closed(tmp_path, second.pid) == 1

    run(main, 3)


def test_what_cannot_be_drained_is_refused_at_once(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        (only,) = runtime.workers
        for wrong, error, text in (
            (only, ValueError, "worker:0:0 is the last worker"),
            ("node:0", ValueError, "node:0 is the last node"),
            ("worker:0:7", LookupError, "there are: node:0, worker:0:0"),
            (5, TypeError, "expected a worker"),
        ):
            with pytest.raises(error, match=text):
                await runtime.drain(wrong)
        with pytest.raises(ValueError, match="at least 0"):
            await runtime.drain(only, timeout=-1)
        one = make(only, tmp_path)
        assert await one.pid().result() == only.pid  # nothing has happened

    run(main, 1)


def test_a_worker_that_gets_sigterm_leaves_in_order_and_is_replaced(
    tmp_path: Path,
) -> None:
    async def main(runtime: Any) -> None:
        leaver, other = runtime.workers
        one = make(leaver, tmp_path)
        # What a method forks is no worker.
        assert await one.child_that_gets_sigterm().result() == -signal.SIGTERM
        running = one.wait("go")
        os.kill(leaver.pid, signal.SIGTERM)
        while leaver in runtime.workers:
            await runtime.membership()
        (tmp_path / "go").touch()
        assert await running.result() == "go"
        while len(runtime.workers) < 2:
            await runtime.membership()
        assert closed(tmp_path, leaver.pid) == 1
        assert {w.uid for w in runtime.workers} == {leaver.uid, other.uid}
        assert leaver.pid not in {w.pid for w in runtime.workers}

    run(main, 2)


def test_a_second_sigterm_does_not_wait_for_calls(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        leaver, _ = runtime.workers
        one = make(leaver, tmp_path)
        await one
        running = one.wait("never")
        os.kill(leaver.pid, signal.SIGTERM)
        while leaver in runtime.workers:
            await runtime.membership()
        os.kill(leaver.pid, signal.SIGTERM)
        with pytest.raises(mosaic.TaskCancelledError):
            await running
        while any(m.pid == leaver.pid for m in runtime.members.values()):
            await runtime.membership()
        assert closed(tmp_path, leaver.pid) == 1

    run(main, 2)


def test_a_drained_node_leaves_with_all_that_is_on_it(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        child = add_node(runtime)
        await runtime.wait_for_workers(2)
        node = runtime.get_worker("worker:1:0")
        while not any(m.uid == "warehouse:1" for m in runtime.members.values()):
            await runtime.membership()
        with pytest.raises(ValueError, match="values with a key"):
            await runtime.drain("node:0")
        one = make(node, tmp_path)
        value = one.large(4)
        await value
        await runtime.drain("node:1")
        assert closed(tmp_path, node.pid) == 1
        assert await child.exited() == 0
        assert len((await value.result())["text"]) == LARGE
        assert [n.uid for n in runtime.nodes] == ["node:0"]
        assert [w.uid for w in runtime.workers] == ["worker:0:0"]
        beside = make(None, tmp_path)
        assert await beside.length(value).result() == LARGE

    run(main, 1)


def test_a_warehouse_leaves_with_what_it_is_just_given(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        child = add_node(runtime)
        await runtime.wait_for_workers(2)
        leaver = runtime.get_worker("worker:1:0")
        while not any(m.uid == "warehouse:1" for m in runtime.members.values()):
            await runtime.membership()
        one = make(leaver, tmp_path)
        values = [one.large(4), one.array()]
        await mosaic.gather(one.array(), *values)
        await asyncio.gather(runtime.drain(leaver), runtime.drain("node:1"))
        assert await child.exited() == 0
        assert len((await values[0].result())["text"]) == LARGE
        beside = make(None, tmp_path)
        assert await beside.last(values[1]).result() == LARGE - 1

    run(main, 1)
