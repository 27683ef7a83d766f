"""What mypy knows of marked classes by the plugin, and pyright does not."""

from __future__ import annotations

from typing import assert_type

import mosaic_like as mosaic


@mosaic.tessera
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.n = start

    def add(self, k: int) -> int:
        self.n += k
        return self.n


class Small(Counter):
    def __init__(self) -> None:
        super().__init__(1)


class Own:
    @classmethod
    def options(cls, level: int) -> str:
        return f"{cls.__name__} {level}"


@mosaic.tessera
class Keeps(Own):
    """Has a method of our name from its base."""


async def constructors() -> None:
    assert_type(Counter(3).add(1), int)
    assert_type(Counter.remote(10), mosaic.TesseraProxy[Counter])
    assert_type(Counter.local(), mosaic.TesseraProxy[Counter])
    assert_type(Counter.options(inline=True).remote(), mosaic.TesseraProxy[Counter])
    assert_type(Counter.options(len=3).remote(4), mosaic.ArrayProxy[Counter])
    assert_type(Small.remote(), mosaic.TesseraProxy[Small])
    assert_type(Small.parameter(), mosaic.Parameter[Small])
    assert_type(Counter.local_parameter(3), mosaic.Parameter[Counter])
    assert_type(Keeps.options(3), str)
    assert_type(Keeps.remote(), mosaic.TesseraProxy[Keeps])
    Small.remote(1)  # type: ignore[call-arg]
    Small.parameter(1)  # type: ignore[call-arg]


async def copies_are_instances(model: mosaic.Parameter[Counter]) -> int:
    assert isinstance(model, Counter)
    await model.pull()
    return model.add(1)


async def calls(counter: mosaic.TesseraProxy[Counter]) -> None:
    assert_type(mosaic.call(counter, Counter.add, 5), mosaic.TaskProxy[int])
    assert_type(await mosaic.call(counter, Counter.add, k=5).result(), int)
    mosaic.call(counter, Counter.add, "five")  # type: ignore[call-overload]
    mosaic.call(counter, Counter.add)  # type: ignore[call-overload]
