"""Calls that wait for each other in a circle, and those that only seem to."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from specimens import RunIn


class Waiting:
    """Waits for others in every way; the classes below say where it runs."""

    def __init__(self, *others: Any) -> None:
        self.others = others

    def point(self, *others: Any) -> None:
        self.others = others

    def leaf(self, x: Any = 1) -> Any:
        return x

    async def aleaf(self, x: Any = 1) -> Any:
        return x

    def blocks(self, *path: str) -> Any:
        """Call the next one's method of that name with the rest, and block."""
        return getattr(self.others[0], path[0])(*path[1:]).get()

    async def awaits(self, *path: str) -> Any:
        return await getattr(self.others[0], path[0])(*path[1:]).result()

    async def awaits_end(self, *path: str) -> str:
        return (await getattr(self.others[0], path[0])(*path[1:])).name

    async def gathers(self, *path: str) -> Any:
        calls = [getattr(other, path[0])(*path[1:]) for other in self.others]
        return await mosaic.gather(calls)

    async def gathers_all(self, *path: str) -> Any:
        calls = [getattr(other, path[0])(*path[1:]) for other in self.others]
        return await mosaic.gather(calls, return_exceptions=True)

    async def passes(self, other: Any) -> Any:
        """Its argument is a call that stands behind this one."""
        return await self.others[0].leaf(other.leaf()).result()

    # -- ends by itself ----------------------------------------------------------------

    def blocks_for(self, timeout_s: float, *path: str) -> str:
        try:
            getattr(self.others[0], path[0])(*path[1:]).get(timeout_s)
        except TimeoutError as error:
            return type(error).__name__
        return "ended"

    async def awaits_for(self, timeout_s: float, *path: str) -> str:
        try:
            async with asyncio.timeout(timeout_s):
                await getattr(self.others[0], path[0])(*path[1:])
        except TimeoutError as error:
            return type(error).__name__
        return "ended"

    async def waits_for(self, timeout_s: float, *path: str) -> str:
        call = getattr(self.others[0], path[0])(*path[1:])
        try:
            await asyncio.wait_for(call.result(), timeout_s)
        except TimeoutError as error:
            return type(error).__name__
        return "ended"

    async def first_of(self, timeout_s: float, *path: str) -> str:
        call = getattr(self.others[0], path[0])(*path[1:])
        sleep = asyncio.create_task(asyncio.sleep(timeout_s))
        task = asyncio.create_task(call.result())
        await asyncio.wait([sleep, task], return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        return "TimeoutError" if not call._call.settled else "ended"

    async def in_a_group(self, timeout_s: float, *path: str) -> str:
        async def give_up() -> None:
            await asyncio.sleep(timeout_s)
            raise TimeoutError

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(give_up())
                await getattr(self.others[0], path[0])(*path[1:])
        except BaseExceptionGroup as errors:
            return type(errors.exceptions[0]).__name__
        return "ended"

    async def one_of(self, timeout_s: float, *path: str) -> str:
        call = getattr(self.others[0], path[0])(*path[1:])
        done, _ = await mosaic.wait([call], timeout=timeout_s)
        return "ended" if done else "TimeoutError"


@mosaic.tessera
class Member(Waiting):
    """On the main thread, or its coroutines one at a time."""


@mosaic.tessera(thread=True)
class Threaded(Waiting):
    """On a thread of its own."""


@mosaic.tessera(is_async=True)
class Overlapping(Waiting):
    """Its coroutines beside each other."""


async def ring(places: list[Any], cls: Any = Member) -> list[Any]:
    """Each calls the next one, and the last the first."""
    members = [cls.options(runtime=place).remote() for place in places]
    pairs = zip(members, members[1:] + members[:1], strict=True)
    await mosaic.gather([member.point(following) for member, following in pairs])
    return members


async def circle_of(call: Any, *named: str) -> str:
    """It ends as a circle, soon; the text."""
    begun_s = time.monotonic()
    with pytest.raises(mosaic.CycleError) as caught:
        await call.result()
    assert time.monotonic() - begun_s < 15  # 0.4 s where the machine has time
    text = str(caught.value)
    for name in named:
        assert name in text, text
    return text


@pytest.mark.parametrize("cls", [Member, Threaded])
@pytest.mark.parametrize("way", ["blocks", "awaits", "awaits_end", "gathers"])
def test_two_that_wait_for_each_other_are_told_of_the_circle(
    cluster: RunIn, cls: Any, way: str
) -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        one, two = await ring([first, second], cls)
        text = await circle_of(getattr(one, way)(way, "leaf"), f".{way}", ".leaf")
        assert "is queued behind" in text
        assert ("is_async=True" in text) == (way != "blocks")
        # Both are as good as before.
        assert await mosaic.gather(one.leaf(3), two.leaf(4)) == [3, 4]

    cluster(main)


@pytest.mark.parametrize("length", [1, 3, 7])
@pytest.mark.parametrize("ways", [["awaits"], ["blocks", "awaits"], ["gathers"]])
def test_a_circle_of_any_length_is_found(
    cluster: RunIn, length: int, ways: list[str]
) -> None:
    async def main(runtime: Any) -> None:
        places = [runtime.workers[i % 2] for i in range(length)]
        members = await ring(places)
        names = [ways[i % len(ways)] for i in range(length)]
        call = getattr(members[0], names[0])(*names[1:], "aleaf")
        await circle_of(call)
        assert await mosaic.gather(m.leaf(1) for m in members) == [1] * length

    cluster(main)


def test_a_circle_by_way_of_an_argument_is_found(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        two = Member.options(runtime=second).remote()
        one = Member.options(runtime=first).remote(two)
        text = await circle_of(one.passes(one), "takes the value of Member#")
        assert "one at a time" in text
        assert await one.leaf(2).result() == 2

    cluster(main)


def test_a_circle_through_the_program_itself_is_found(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        far = Member.options(runtime=runtime.workers[0]).remote()
        here = Member.local(far)
        await far.point(here)
        await circle_of(here.awaits("awaits", "aleaf"))
        await circle_of(far.blocks("awaits", "leaf"))
        other = Member.local(here)
        await here.point(other)
        await circle_of(here.awaits("awaits", "aleaf"))

    cluster(main)


def test_one_of_many_that_are_gathered_may_stand_in_a_circle(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        two = Member.options(runtime=second).remote()
        fine = [Member.options(runtime=first).remote(i) for i in range(20)]
        one = Member.options(runtime=first).remote(*fine, two)
        await mosaic.gather(other.point(two) for other in fine)
        await two.point(one)
        found = await one.gathers_all("awaits", "leaf").result()
        assert found[:-1] == [1] * 20
        assert isinstance(found[-1], mosaic.CycleError)

    cluster(main)


def test_a_wait_that_ends_by_itself_is_no_circle(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        ways = ["blocks_for", "awaits_for", "waits_for", "first_of", "in_a_group"]
        for inner in (("blocks", "leaf"), ("awaits", "aleaf")):
            # Those that block take the main threads of both workers.
            for some in (ways[:1], [*ways[1:], "one_of"]):
                rings = [await ring(runtime.workers) for _ in some]
                calls = [
                    getattr(members[0], way)(1.2, *inner)
                    for way, members in zip(some, rings, strict=True)
                ]
                assert set(await mosaic.gather(calls)) == {"TimeoutError"}
                everybody = [m.leaf(2) for members in rings for m in members]
                assert set(await mosaic.gather(everybody)) == {2}

    cluster(main)


def test_a_call_that_has_a_time_is_told_that_it_is_over(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        one, two = await ring(runtime.workers)
        with pytest.raises(mosaic.TaskTimeoutError):
            await one.awaits.options(timeout=1.0)("awaits", "leaf")
        assert await mosaic.gather(one.leaf(), two.leaf()) == [1, 1]

    cluster(main)


def test_coroutines_that_overlap_call_each_other_as_they_like(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        one, two = await ring(runtime.workers, Overlapping)
        path = ["awaits"] * 9 + ["aleaf"]
        calls = [member.awaits(*path) for member in (one, two) for _ in range(5)]
        assert await mosaic.gather(calls) == [1] * 10

    cluster(main)
