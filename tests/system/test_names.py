"""Named tesserae: one for each name, whoever asks and whoever dies."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic
from mosaic_like.launch import status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from specimens import RunIn


@mosaic.tessera
class Register:
    def __init__(self, start: int = 0, busy_s: float = 0.0) -> None:
        if start < 0:
            raise ValueError(f"start is {start}")
        time.sleep(busy_s)
        self.values = [start]

    def put(self, value: int) -> list[int]:
        self.values.append(value)
        return self.values

    def pid(self) -> int:
        return os.getpid()

    async def asks(self, name: str, value: int) -> Any:
        """A worker gets it by its name, too."""
        found = Register.options(name=name).remote(-1)
        await found.put(value)
        return found

    async def asks_and_waits(self, name: str) -> list[int]:
        found = Register.options(name=name).remote(-1)
        await found
        values: list[int] = await found.put(0).result()
        return values

    async def forever(self) -> None:
        await asyncio.Event().wait()


@mosaic.task
def puts_to(name: str, *, keep: bool) -> list[int]:
    found = Register.options(name=name).remote()
    put = found.put(1)
    if not keep:
        del found
    values: list[int] = put.get()
    return values


@mosaic.tessera
class Other:
    def ping(self) -> None: ...


def named(name: str, start: int = 0, **options: Any) -> Any:
    return Register.options(name=name, **options).remote(start)


async def gone(runtime: Any, name: str) -> None:
    """Wait until nobody has this name."""
    async with asyncio.timeout(25):
        while name in [entry["name"] for entry in await status._names(runtime)]:
            gc.collect()
            await asyncio.sleep(0.01)


def test_methods_that_wait_for_one_name_do_not_stop_its_worker(cluster: RunIn) -> None:
    """It is made where one of them stands, and may be closed before others find it."""

    async def main(runtime: Any) -> None:
        for keep in (False, True):
            async with asyncio.timeout(30):
                values = await mosaic.gather(
                    puts_to.submit("waited for", keep=keep) for _ in range(8)
                )
            assert all(set(each) == {0, 1} for each in values)

    cluster(main)


def test_who_asks_again_gets_the_same_object(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = named("same", 1), named("same", 2)
        tasks = [second.put(10), first.put(20), second.put(11)]
        lists = await mosaic.gather(tasks)
        assert lists[2] == [1, 20, 10, 11] or lists[2] == [1, 10, 11]
        await first
        await second
        assert first == second
        assert len({first, second}) == 1
        assert repr(first) == repr(second)
        third = named("same", 3)  # now that it is known where it is
        assert (await third.put(30).result())[0] == 1
        assert await third == first
        assert await first.pid().result() == await third.pid().result()
        await mosaic.close(first)
        await gone(runtime, "same")

    cluster(main)


def test_runtimes_that_ask_at_once_get_the_same_object(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        asking = [
            Register.options(runtime=w).remote() for w in runtime.workers for _ in "ab"
        ]
        await mosaic.gather(asked.pid() for asked in asking)
        for turn in range(10):
            name = f"at once {turn}"
            # The head makes it: the constructors of the others would raise.
            mine = named(name, 7)
            await mine
            found = await mosaic.gather(
                asked.asks(name, i) for i, asked in enumerate(asking)
            )
            assert all(proxy == mine for proxy in found)
            values = await mine.put(99).result()
            assert sorted(values) == [0, 1, 2, 3, 7, 99]
            await found[0].put(1).result()
            del mine, found
            await gone(runtime, name)

    cluster(main)


def test_calls_keep_their_order_before_and_after_it_is_found(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first = named("order")
        await first
        second = named("order")
        for i in range(1, 200):
            second.put(i)
            if i % 50 == 0:
                await asyncio.sleep(0)
        assert await second.put(200).result() == list(range(201))
        await mosaic.close(first)

    cluster(main)


def test_calls_from_threads_arrive_whenever_it_is_found(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first = named("threads")
        await first
        for _ in range(5):
            second = named("threads")

            def call(proxy: Any = second) -> list[Any]:
                return [proxy.put(1) for _ in range(200)]

            tasks = await asyncio.to_thread(call)
            lengths = [len(values) for values in await mosaic.gather(tasks)]
            assert lengths == sorted(set(lengths))
        assert len(await first.put(0).result()) == 5 * 200 + 2
        await mosaic.close(first)

    cluster(main)


def test_a_proxy_travels_before_its_place_is_known(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        made = named("travels", 5)
        await made
        asked = await Register.remote()
        found = named("travels")
        (same,) = await mosaic.gather([mosaic.remote(Echo)().give(found)])
        assert same == made
        assert await same.put(6).result() == [5, 6]
        assert await asked.asks_and_waits("travels").result() == [5, 6, 0]
        # What is to be made beside it, too.
        beside = Register.options(runtime=named("travels")).remote()
        assert await beside.pid().result() == await made.pid().result()
        await mosaic.close(made)

    cluster(main)


class Echo:
    def give(self, value: Any) -> Any:
        return value


def test_another_class_under_the_name_is_refused(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        made = named("classes")
        await made
        other = Other.options(name="classes").remote()
        with pytest.raises(TypeError, match=r"'classes' is that of a .*Register"):
            await other
        with pytest.raises(TypeError, match="choose another name"):
            await other.ping().result()
        await mosaic.close(made)

    cluster(main)


def test_what_cannot_be_a_name_is_refused_at_once(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        for bad in ("", "a\nb", "x" * 257):
            with pytest.raises(ValueError, match="option 'name'"):
                Register.options(name=bad)
        with pytest.raises(TypeError, match="option 'name'"):
            Register.options(name=3)
        with pytest.raises(ValueError, match="for one tessera"):
            Register.options(name="x", len=2)
        with pytest.raises(ValueError, match="give it one by name="):
            Register.options(detached=True)
        with pytest.raises(ValueError, match="use remote"):
            Register.options(name="x", detached=True).local()
        # That of another test may only just be going.
        assert not {"", "a\nb", "x" * 257, "x"} & {
            entry["name"] for entry in await status._names(runtime)
        }

    cluster(main)


def test_a_name_is_free_when_its_tessera_has_ended(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        closed = named("free", 1)
        await mosaic.close(closed)
        again = named("free", 2)
        assert await again.put(0).result() == [2, 0]
        with pytest.raises(LookupError):
            await closed.put(0).result()
        assert again != closed
        del again  # collected
        await gone(runtime, "free")
        with pytest.raises(ValueError, match="start is -1"):
            await named("free", -1)  # could not be built
        third = named("free", 3)
        assert await third.put(0).result() == [3, 0]
        await mosaic.close(third)
        await gone(runtime, "free")

    cluster(main)


def test_who_waits_for_a_constructor_that_fails_gets_its_error(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first = Register.options(name="fails").remote(-5, 0.0)
        second = named("fails", -6)
        for proxy in (first, second):
            with pytest.raises(ValueError, match="start is -"):
                await proxy

    cluster(main)


def test_a_barrier_waits_for_what_is_asked_for_by_name(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        made = Register.options(name="barrier").remote(1, 0.1)
        again = named("barrier")
        await runtime.barrier(10)
        assert "starting" not in repr(made)
        assert "starting" not in repr(again)
        await mosaic.close(made)

    cluster(main)


def test_status_shows_names(cluster: RunIn, capfd: pytest.CaptureFixture[str]) -> None:
    async def main(runtime: Any) -> None:
        key = runtime.hold.cluster.key
        made = Register.options(name="shown", runtime=runtime.workers[1]).remote()
        await made
        about = await status.describe(status.find(str(key))[0])
        assert about is not None
        (entry,) = about["names"]
        assert entry["name"] == "shown"
        assert entry["runtime"] == "worker:0:1"
        assert entry["class"].endswith("test_names.Register")
        assert status._lines(about)[-1] == "  'shown'  Register on w0:1"
        await mosaic.close(made)

    cluster(main)


# -- deaths ----------------------------------------------------------------------------


@asynccontextmanager
async def head(key: Any, body: str) -> AsyncIterator[subprocess.Popen[str]]:
    """Another program in the cluster; it has done ``body`` when this is entered."""
    script = (
        "import asyncio, sys, mosaic_like as mosaic\n"
        "from test_names import Register, named\n"
        "async def main():\n"
        "    async with mosaic.connect(sys.argv[1]) as runtime:\n"
        + "".join(f"        {line}\n" for line in body.splitlines())
        + "        print('ready', flush=True)\n"
        "        await asyncio.to_thread(sys.stdin.readline)\n"
        "asyncio.run(main())\n"
    )
    here = os.path.dirname(__file__)
    paths = [here, os.path.dirname(os.path.dirname(here)), os.environ.get("PYTHONPATH")]
    process = subprocess.Popen(  # noqa: ASYNC220 - read in threads
        [sys.executable, "-c", script, str(key)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        while (line := await asyncio.to_thread(process.stdout.readline)) != "ready\n":
            assert line, "it ended instead"
        yield process
    finally:
        process.stdin.close()
        try:
            await asyncio.to_thread(process.wait, 10)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait, 10)
        process.stdout.close()


def test_a_name_is_free_when_its_maker_dies_unless_others_hold_it(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        key = runtime.hold.cluster.key
        body = "keeps = [await named('held', 1), await named('alone', 2)]"
        async with head(key, body) as other:
            held = named("held", 10)
            assert await held.put(0).result() == [1, 0]
            other.send_signal(signal.SIGKILL)
            await gone(runtime, "alone")
        assert await held.put(3).result() == [1, 0, 3]
        alone = named("alone", 20)
        assert await alone.put(0).result() == [20, 0]
        await mosaic.close(held)

    cluster(main)


def test_a_detached_tessera_outlives_its_head(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        key = runtime.hold.cluster.key
        keeps = "keeps = named('{}', {}, detached=True); await keeps.put(0)"
        async with head(key, keeps.format("left", 1)):
            pass  # it goes in order
        async with head(key, keeps.format("killed", 2)) as other:
            other.send_signal(signal.SIGKILL)
        uids = [f"head:{n}" for n in range(1, 99)]
        async with asyncio.timeout(15):
            while any(member.uid in uids for member in runtime.members.values()):
                await runtime.membership()
        # Another head finds both; that one goes too.
        body = "assert (await named('left').put(5).result()) == [1, 0, 5]"
        async with head(key, body):
            pass
        left, killed = named("left"), named("killed")
        assert await left.put(7).result() == [1, 0, 5, 7]
        assert await killed.put(7).result() == [2, 0, 7]
        del killed
        gc.collect()
        names = {e["name"]: e["detached"] for e in await status._names(runtime)}
        assert names == {"left": True, "killed": True}
        await mosaic.close(left)
        await mosaic.close(named("killed"))
        await gone(runtime, "left")
        await gone(runtime, "killed")

    cluster(main)
