"""What both type checkers know without a plugin: classes with ``mosaic.Tessera``."""

from __future__ import annotations

from typing import Any, assert_type

import mosaic_like as mosaic


@mosaic.tessera
class Counter(mosaic.Tessera):
    def __init__(self, start: int = 0) -> None:
        self.n = start

    def add(self, k: int) -> int:
        self.n += k
        return self.n

    async def later(self, k: int) -> float:
        return k / 2

    def twin(self) -> Counter:
        return Counter(self.n)


@mosaic.tessera(is_async=True)
class Named(mosaic.Tessera):
    def __init__(self, name: str) -> None:
        self.name = name

    def hello(self) -> str:
        return f"hello {self.name}"


class Bare(mosaic.Tessera):
    def __init__(self, *, size: int) -> None:
        self.size = size


class Small(Counter):
    def __init__(self) -> None:
        super().__init__(1)


def the_class_is_an_ordinary_one(counter: Counter, other: object) -> list[Counter]:
    assert_type(Counter(3), Counter)
    assert_type(Counter(3).add(1), int)
    assert_type(counter.twin().n, int)
    if isinstance(other, Counter):
        return [counter, other]
    return [Counter(), Small()]


async def constructors() -> None:
    assert_type(Counter.remote(10), mosaic.TesseraProxy[Counter])
    assert_type(Counter.local(start=3), mosaic.TesseraProxy[Counter])
    assert_type(Named.remote("x"), mosaic.TesseraProxy[Named])
    assert_type(Bare.remote(size=3), mosaic.TesseraProxy[Bare])
    assert_type(Small.remote(), mosaic.TesseraProxy[Small])
    assert_type(Counter.options(inline=True).remote(4), mosaic.TesseraProxy[Counter])
    assert_type(Counter.options(len=3).remote(4), mosaic.ArrayProxy[Counter])
    assert_type(mosaic.remote(Counter)(3), mosaic.TesseraProxy[Counter])
    assert_type(await Counter.select_worker(), str)
    assert_type(await Named.remote("x").name, Any)
    Counter.remote("ten")  # type: ignore[arg-type]
    Counter.remote(1, 2)  # type: ignore[call-arg]
    Counter.options(inline=True).remote("ten")  # type: ignore[arg-type]
    Counter.options(len=3).remote("ten")  # type: ignore[arg-type]
    Named.remote()  # type: ignore[call-arg]
    Bare.remote(3)  # type: ignore[call-arg]
    Small.remote(1)  # type: ignore[call-arg]


async def calls(counter: mosaic.TesseraProxy[Counter]) -> None:
    assert_type(counter.add(5), mosaic.TaskProxy[Any])
    assert_type(mosaic.call(counter, Counter.add, 5), mosaic.TaskProxy[int])
    assert_type(mosaic.call(counter, Counter.later, 5), mosaic.TaskProxy[float])
    assert_type(await mosaic.call(counter, Counter.add, k=5).result(), int)
    assert_type(await mosaic.call(counter, Counter.twin).result(), Counter)
    mosaic.call(counter, Counter.add, "five")  # type: ignore[call-overload]
    mosaic.call(counter, Counter.add)  # type: ignore[call-overload]
    mosaic.call(counter, Named.hello)  # type: ignore[call-overload]
