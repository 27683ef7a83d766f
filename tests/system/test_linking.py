"""``mosaic.link``: a tessera ends when one fails that it is linked to."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest
from linked_parts import Part, ended, pair

import mosaic_like as mosaic
from mosaic_like import TaskCancelledError

if TYPE_CHECKING:
    from pathlib import Path

    from specimens import RunIn


def test_what_it_is_linked_to_was_killed(cluster: RunIn, tmp_path: Path) -> None:
    closed, started = tmp_path / "closed", tmp_path / "started"

    async def main(runtime: Any) -> None:
        one, two = await pair(runtime)
        two = await Part.options(runtime=runtime.workers[1]).remote(str(closed))
        running, queued = two.block(str(started)), two.pid()
        while not started.exists():  # noqa: ASYNC110 -- a method of another process
            await asyncio.sleep(0.005)
        mosaic.link(one, two)
        await mosaic.kill(one)
        because = r"it was linked to Part#\d+, which has ended: it was killed"
        with pytest.raises(TaskCancelledError, match=because):
            await running.result()
        # The news comes by another way than the call, which may be the slower one.
        with pytest.raises((TaskCancelledError, LookupError), match=because):
            await queued.result()
        assert re.search(because, str(await ended(two)))
        while not closed.exists():  # noqa: ASYNC110 -- a method of another process
            await asyncio.sleep(0.005)

    cluster(main)


def test_what_ended_before_it_was_built_says_why(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        _, two = await pair(runtime)
        never = two.block(str(tmp_path / "started"))
        killed, linked = Part.remote(never), Part.remote(never)
        mosaic.link(killed, linked)
        await mosaic.kill(killed)
        with pytest.raises(LookupError, match="it was killed"):
            await killed.pid().result()
        await ended(linked)
        with pytest.raises(LookupError, match="it was linked to"):
            await linked.pid().result()
        await mosaic.kill(killed)
        await mosaic.kill(two)  # which runs on else

    cluster(main)


def test_what_was_closed_or_has_failed_in_a_method_ends_nothing(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        one, two = await pair(runtime)
        mosaic.link(one, two)
        with pytest.raises(ValueError, match="only this"):
            await one.fail().result()
        await mosaic.close(one)
        three = await Part.remote()
        mosaic.link(two, three)
        del three
        # What two is told of them comes before the answers to these.
        for worker in runtime.workers:
            await Part.options(runtime=worker).remote()
        assert await two.pid().result()
        # The bond has gone with the one that was closed, too.
        await mosaic.kill(one)
        assert await two.pid().result()

    cluster(main)


def test_one_that_cannot_be_built_ends_the_other_also_through_a_third(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        one, two = await pair(runtime)
        never = Part.remote(fails=True)
        mosaic.link(one, two)
        mosaic.link(never, one)
        text = str(await ended(two))
        assert re.search(
            r"it was linked to Part#\d+, which has ended: it was linked to Part#\d+, "
            "which has ended: ValueError: no such part",
            text,
        )
        with pytest.raises(ValueError, match=r"^no such part"):
            await never.pid().result()

    cluster(main)


def test_it_is_made_by_a_method_and_outlives_that(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        one, two = await pair(runtime)
        maker = await Part.remote()
        await maker.link(one, two).result()
        await mosaic.close(maker)
        del maker
        await mosaic.kill(two)
        assert "which has ended: it was killed" in str(await ended(one))

    cluster(main)


def test_what_is_no_pair_is_refused_at_once(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        one = Part.remote()
        with pytest.raises(ValueError, match=r"found Part#\d+ twice"):
            mosaic.link(one, one)
        with pytest.raises(TypeError, match="found 3; the members of an array"):
            mosaic.link(one, 3)  # type: ignore[arg-type]  # that is the test

    cluster(main)
