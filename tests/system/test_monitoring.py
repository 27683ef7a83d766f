"""``mosaic.monitor`` of tesserae that are not built again; of others: test_restarts."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from linked_parts import Part, pair

import mosaic_like as mosaic
from mosaic_like import TesseraChange

if TYPE_CHECKING:
    from specimens import RunIn

    from mosaic_like.proxies.monitoring import Monitor

UP, DOWN = TesseraChange.UP, TesseraChange.DOWN


@mosaic.tessera(is_async=True)
class Guard:
    """Watches what another has made."""

    async def watch(self, part: Any) -> None:
        self.events = mosaic.monitor(part)
        self.first = await anext(self.events)

    async def seen(self) -> list[Any]:
        return [self.first, *await rest(self.events)]


async def rest(events: Monitor) -> list[Any]:
    """Those that are still to come."""
    return [event async for event in events]


def test_what_is_closed_or_killed_or_cannot_be_built_is_told(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        closed, killed = await pair(runtime)
        never = Part.remote(fails=True)
        guard = Guard.options(runtime=runtime.workers[0]).remote()
        of_closed, of_killed = mosaic.monitor(closed), mosaic.monitor(killed)
        of_never = mosaic.monitor(never)
        await guard.watch(killed)
        first, second = (worker.uid for worker in runtime.workers)
        assert await anext(of_killed) == (UP, second, "", 0)
        await mosaic.close(closed)
        assert await rest(of_closed) == [(UP, first, "", 0)]
        await mosaic.kill(killed)
        assert await rest(of_killed) == [(DOWN, second, "it was killed", 0)]
        expected = [(UP, second, "", 0), (DOWN, second, "it was killed", 0)]
        assert await guard.seen().result() == expected
        ((change, _, cause, _),) = await rest(of_never)
        assert (change, cause) == (DOWN, "ValueError: no such part")
        # When it has ended already, too.
        ((change, _, cause, _),) = await rest(mosaic.monitor(killed))
        assert (change, cause) == (DOWN, "it was killed")
        with pytest.raises(TypeError, match="takes a proxy of one tessera, found 3"):
            mosaic.monitor(3)  # type: ignore[arg-type]  # that is the point
        with pytest.raises(ValueError, match="no such part"):
            await never

    cluster(main)


def test_whoever_watches_no_more_leaves_nothing(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        part, other = await pair(runtime)
        for _ in range(5):
            assert (await anext(mosaic.monitor(part))).change is UP
        events = mosaic.monitor(other)
        assert (await anext(events)).change is UP
        assert len(runtime.linking.bonds) == 1
        await mosaic.close(other)
        assert await rest(events) == []
        assert len(runtime.linking.bonds) == 0

    cluster(main)


def test_the_loss_of_its_worker_is_told_with_how_it_ended(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        lost, _ = await pair(runtime)
        guard = Guard.options(runtime=runtime.workers[1]).remote()
        events = mosaic.monitor(lost)
        await guard.watch(lost)
        assert (await anext(events)).change is UP
        uid = runtime.workers[0].uid
        os.kill(await lost.pid().result(), signal.SIGKILL)
        down = (DOWN, uid, "killed by SIGKILL", 0)
        assert await rest(events) == [down]
        assert (await guard.seen().result())[1:] == [down]
        assert await rest(mosaic.monitor(lost))

    cluster(main)
