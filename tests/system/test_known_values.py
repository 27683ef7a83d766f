"""Values that the caller has go with its calls: the makers are not asked for them."""

from __future__ import annotations

import asyncio
import ctypes
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from large_values import MIB, Holder, all_returned, pair

import mosaic_like as mosaic

if TYPE_CHECKING:
    from pathlib import Path

    from specimens import RunIn

_LIMIT_S = 30.0


class Thing:
    """Is no class of a module that workers can import."""

    def __init__(self, x: int) -> None:
        self.x = x
        self.array = np.ones(MIB, "u1")


Thing.__module__ = "__main__"


class Maker(Holder):
    """Can keep the interpreter of its worker to itself, as C code may."""

    def number(self) -> int:
        return 7

    def text(self, length: int) -> str:
        return "x" * length

    def thing(self, cls: Any) -> Any:
        return cls(3)

    def keep_interpreter(self, begun: str, go_on: str) -> int:
        """Until a byte can be read: by C code that does not let go of the GIL."""
        file = os.open(go_on, os.O_RDWR)
        byte = ctypes.create_string_buffer(1)
        with open(begun, "w"):
            pass
        read: int = ctypes.PyDLL(None).read(file, byte, 1)
        os.close(file)
        return read


class Taker(Holder):
    """Takes what others have made."""

    def looks(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return float(value.sum())
        return (value.x, float(value.array.sum())) if hasattr(value, "x") else value

    def both(self, values: list[Any], more: Any) -> Any:
        return len(values), more


async def _exists(path: Path) -> None:
    async with asyncio.timeout(_LIMIT_S):
        while not path.exists():  # noqa: ASYNC110, ASYNC240 -- nothing tells of it
            await asyncio.sleep(0.01)


def test_a_worker_that_keeps_its_interpreter_delays_no_reader_of_its_values(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        first, second = pair(runtime)
        maker = mosaic.remote(Maker).options(runtime=runtime.workers[0])()
        taker = mosaic.remote(Taker).options(runtime=runtime.workers[1])()
        values = [
            maker.number(),
            maker.text(50_000),
            maker.ones(MIB),
            maker.thing(Thing),
        ]
        for value in values:
            await value
        os.mkfifo(tmp_path / "go on")
        held = maker.keep_interpreter(str(tmp_path / "begun"), str(tmp_path / "go on"))
        await _exists(tmp_path / "begun")
        async with asyncio.timeout(_LIMIT_S):
            found = [await taker.looks(value).result() for value in values]
            both = await taker.both([values[0], values[2]], values[0]).result()
        await asyncio.to_thread((tmp_path / "go on").write_bytes, b"!")
        assert found == [7, "x" * 50_000, MIB, (3, MIB)]
        assert both == (2, 7)
        assert await held.result() == 1
        del values, value, held
        await all_returned(runtime, first, second)

    cluster(main)


def test_many_calls_that_take_one_value_get_it_whoever_sends_it(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        maker = mosaic.remote(Maker).options(runtime=runtime.workers[0])()
        taker = mosaic.remote(Taker).options(runtime=runtime.workers[1])()
        value = maker.text(30_000)
        await value
        calls = [taker.both([value], number) for number in range(600)]
        found = [await call.result() for call in calls]
        assert found == [(1, number) for number in range(600)]

    cluster(main)
