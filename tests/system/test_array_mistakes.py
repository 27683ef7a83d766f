"""What a user of arrays is told who takes one thing for another."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from specimens import RunIn


class Tile:
    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels

    def rims(self) -> dict[str, Any]:
        return {"north": self.pixels[0], "south": self.pixels[-1]}

    def both(self) -> tuple[Any, Any]:
        return self.pixels[0], self.pixels[-1]

    def dim(self) -> None:
        self.pixels *= 0.5

    def total(self, pixels: Any) -> float:
        return float(np.sum(pixels))

    def asked(self, other: Any) -> list[Any]:
        return [other.rims()]


def test_an_output_that_is_not_there_names_those_that_are(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        here, there = (
            mosaic.remote(Tile, runtime=w)(np.ones(3)) for w in runtime.workers
        )
        for tile in (here, there):
            missing = tile.total(here.rims().outputs["nroth"])
            with pytest.raises(KeyError, match=r"'nroth'.* dict with 'north', 'south'"):
                await missing
            missing = tile.total(here.both().outputs[2])
            with pytest.raises(IndexError, match=r"outputs\[2\].* tuple of 2"):
                await missing
        with pytest.raises(KeyError, match=r"'nroth'.* dict with 'north', 'south'"):
            await here.rims().outputs["nroth"].result()
        assert await there.total(here.both().outputs[1]).result() == 1

    cluster(main)


def test_writing_to_an_array_that_was_received_says_to_copy_it(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        tile = mosaic.remote(Tile)(np.ones(200_000))
        with pytest.raises(ValueError, match="read-only") as info:
            await tile.dim()
        assert "copy()" in "\n".join(info.value.__notes__)

    cluster(main)


def test_gathering_attributes_says_how_to_make_tasks_of_them(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        tile: Any = mosaic.remote(Tile)(np.ones(3))
        with pytest.raises(TypeError, match=r"get_attr\(proxy, 'pixels'\)"):
            await mosaic.gather(t.pixels for t in [tile])
        (pixels,) = await mosaic.gather(mosaic.get_attr(t, "pixels") for t in [tile])
        assert np.array_equal(pixels, np.ones(3))

    cluster(main)


def test_numpy_makes_no_array_of_what_is_not_here(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        tile: Any = mosaic.remote(Tile)(np.ones(3))
        task = tile.rims()
        for make in (np.asarray, np.sqrt, lambda t: np.array([t, t])):
            with pytest.raises(TypeError, match=r"a Task .* not its value"):
                make(task)
            with pytest.raises(TypeError, match="a proxy of a Tile"):
                make(tile)

    cluster(main)


def test_a_task_of_another_runtime_is_called_by_its_number(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        here, there = (
            mosaic.remote(Tile, runtime=w)(np.ones(3)) for w in runtime.workers
        )
        (task,) = await here.asked(there).result()
        await task
        assert re.fullmatch(r"<Task task \d+-\d+ · .*>", repr(task))

    cluster(main)
