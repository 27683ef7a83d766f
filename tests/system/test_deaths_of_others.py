"""The monitor, the fork server or another head is killed: what callers then see."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from large_values import until
from test_names import head

import mosaic_like as mosaic
from mosaic_like.errors import MonitorLost, RuntimeDisconnectedError, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator


class Busy:
    def __init__(self, path: str = "") -> None:
        self.path = path

    def ping(self) -> int:
        return 1

    def block(self) -> None:
        time.sleep(60)

    async def forever(self) -> None:
        await asyncio.Event().wait()

    async def items(self) -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    def steps(self) -> Iterator[int]:
        yield 1
        time.sleep(60)

    def ask(self, other: Any) -> Any:
        return other.ping().get()

    def ask_at_the_end(self, other: Any, said: Path) -> None:
        said.touch()
        while not mosaic.runtime().stopping:
            time.sleep(0.001)
        try:
            other.ping()
        except Exception as error:
            said.write_text(f"{error!r}\n")
            raise

    def __close__(self) -> None:
        if self.path:
            Path(self.path).touch()


def run(main: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(40):
            await main(runtime)

    mosaic.run(bounded, num_workers=2)


async def ends(task: Any, within_s: float = 15.0) -> Any:
    async with asyncio.timeout(within_s):
        error = await task.exception()
    assert error is not None
    return error


def test_calls_end_with_monitor_lost_when_it_is_killed() -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        # What blocks the main thread of the one worker, and of the other.
        made = [mosaic.remote(Busy, runtime=w)() for w in (first, first, second)]
        other = mosaic.remote(Busy, thread=True)()
        await mosaic.gather(b.ping() for b in (*made, other))
        blocked, forever = made[0].block(), made[1].forever()
        behind = [made[0].ping(), made[1].ping()]
        asked = made[2].ask(made[0])
        stream = made[1].items()  # waits behind `forever`
        steps = other.steps()
        assert await anext(steps) == 1
        following = asyncio.ensure_future(anext(steps))
        await asyncio.sleep(0)
        (monitor,) = [m for m in runtime.members.values() if m.uid == "monitor"]
        os.kill(monitor.pid, signal.SIGKILL)
        for task, verdict in (
            (blocked, Verdict.MAYBE_RAN),
            (forever, Verdict.MAYBE_RAN),
            (behind[0], Verdict.NOT_STARTED),
            (behind[1], Verdict.NOT_STARTED),
        ):
            error = await ends(task)
            assert isinstance(error, MonitorLost), repr(error)
            assert error.verdict is verdict, repr(error)
            assert "the monitor has ended" in str(error)
            assert "mosaic.stop()" in str(error)
        assert isinstance(await ends(asked), MonitorLost)
        for waited in (anext(stream), following):
            with pytest.raises(MonitorLost):
                await asyncio.wait_for(waited, 20)
        with pytest.raises(MonitorLost):
            await mosaic.remote(Busy)()
        with pytest.raises(RuntimeDisconnectedError):
            await other.ping().result()

    run(main)


def test_calls_made_in_a_worker_that_has_lost_the_monitor_raise_monitor_lost(
    tmp_path: Path,
) -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        other = mosaic.remote(Busy, runtime=second)()
        late = mosaic.remote(Busy, runtime=first, interrupt="flag")()
        await mosaic.gather(other.ping(), late.ping())
        said = tmp_path / "said"
        asked = late.ask_at_the_end(other, said)
        await until(said.exists)
        (monitor,) = [m for m in runtime.members.values() if m.uid == "monitor"]
        os.kill(monitor.pid, signal.SIGKILL)
        assert isinstance(await ends(asked), MonitorLost)
        await until(lambda: said.read_text().endswith("\n"))
        text = said.read_text()
        assert text.startswith("MonitorLost("), text
        assert "Busy#1.ping was not sent: the monitor has ended" in text

    run(main)


def test_who_lost_the_fork_server_is_told_so() -> None:
    async def main(runtime: Any) -> None:
        made = mosaic.remote(Busy)()
        await made
        running = made.forever()
        server = runtime.hold.cluster._server.pid
        os.kill(server, signal.SIGKILL)
        error = await ends(running)
        assert isinstance(error, RuntimeDisconnectedError)
        assert "fork server" in str(error)
        assert "fork server" in error.cause
        while not isinstance(error, MonitorLost):
            # What goes to the other worker, which is about to be killed, too.
            with pytest.raises(RuntimeDisconnectedError, match="fork server") as caught:
                await mosaic.remote(Busy)()
            error = caught.value
            assert error.verdict is not Verdict.RAN_RESULT_LOST
        assert f"fork server (pid {server})" in str(error)

    run(main)


def test_what_a_killed_head_had_goes_and_all_else_stays(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        key = runtime.hold.cluster.key
        mine = mosaic.remote(Busy)()
        await mine
        names = ["idle", "runs", "blocks", "queued", "shared"]
        paths = {name: tmp_path / name for name in names}
        body = (
            "from test_deaths_of_others import Busy\n"
            f"made = {{n: mosaic.remote(Busy)({str(tmp_path)!r} + '/' + n)"
            f" for n in {names}}}\n"
            "await mosaic.gather(b.ping() for b in made.values())\n"
            "calls = [made['runs'].forever(), made['blocks'].block()]\n"
            "calls += [made['queued'].forever() for _ in range(10)]\n"
            "calls += [b.ping() for b in made.values()]\n"
            "keep = mosaic.remote(Keeper, name='keeper', detached=True)()\n"
            "await keep.put(made['shared'])"
        )
        body = "from test_deaths_of_others import Keeper\n" + body
        async with head(key, body) as other:
            heads = [m.uid for m in runtime.of_kind("head")]
            assert len(heads) == 2
            other.send_signal(signal.SIGKILL)
            async with asyncio.timeout(15):
                while not all(paths[n].exists() for n in names[:4]):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert [m.uid for m in runtime.of_kind("head")] == ["head"]
        assert await mine.ping().result() == 1
        # What it had given to something that lives on is still there.
        assert not paths["shared"].exists()
        keeper = mosaic.remote(Keeper, name="keeper")()
        shared = await keeper.take().result()
        assert await shared.ping().result() == 1
        del shared
        gc.collect()
        await mosaic.close(keeper)
        async with asyncio.timeout(15):
            while not paths["shared"].exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        # The workers are as they were.
        assert sum(len(w) for w in await tables(runtime)) <= 4

    run(main)


class Keeper:
    def __init__(self) -> None:
        self.kept: Any = None

    def put(self, value: Any) -> None:
        self.kept = value

    def take(self) -> Any:
        kept, self.kept = self.kept, None
        return kept


class Looker:
    async def tesserae(self) -> list[str]:
        runtime: Any = mosaic.runtime()
        return [t.options.name for t in runtime.worker.tesserae.values()]


async def tables(runtime: Any) -> list[list[str]]:
    lookers = [mosaic.remote(Looker, runtime=w)() for w in runtime.workers]
    found: list[list[str]] = await mosaic.gather(x.tesserae() for x in lookers)
    return found
