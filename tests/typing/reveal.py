"""What type checkers know of a program: read by mypy and pyright, never run.

Each ``type: ignore`` stands at a mistake that must be found: an unused one is an error.
"""

from __future__ import annotations

from typing import Any, assert_type

import mosaic_like as mosaic


@mosaic.tessera
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.n = start

    def add(self, k: int) -> int:
        self.n += k
        return self.n


@mosaic.tessera(is_async=True)
class Named:
    def __init__(self, name: str) -> None:
        self.name = name


class Plain:
    def __init__(self, start: int) -> None:
        self.n = start

    def half(self) -> float:
        return self.n / 2


def the_class_is_an_ordinary_one(counter: Counter, other: object) -> list[Counter]:
    if isinstance(other, Counter):
        return [counter, other]
    return [Counter(), Counter(3)]


async def tesserae() -> None:
    counter = Counter.remote(10)
    await counter
    held: mosaic.TesseraProxy[Counter] = counter
    held = Counter.local(start=3)
    held = Counter.options(is_async=True).remote(4)
    many: mosaic.ArrayProxy[Counter] = Counter.options(len=3).remote(4)
    assert_type(await Counter.select_worker(), str)
    assert_type(await Named.remote("x").name, Any)
    Counter.remote("ten")  # type: ignore[arg-type]
    Counter.remote(1, 2)  # type: ignore[call-arg]
    Named.remote()  # type: ignore[call-arg]
    Counter.options(len=3).remote("ten")  # type: ignore[arg-type]
    print(held, many)


async def parameters() -> None:
    model = Counter.options(cached=True).parameter(3)
    own: mosaic.Parameter[Counter] = model
    own = Counter.local_parameter(start=3)
    Counter.parameter("three")  # type: ignore[arg-type]
    assert_type(model.n, Any)
    model.n = 3  # of its attributes nothing is known
    assert_type(await model.add(5, propagate=True), Any)
    assert_type(model.version, int)
    await model.pull("n", discard=True)
    await model.push(["n"], force=True)
    assert_type(await model.get("n"), Any)
    assert_type(await model.set("n", 4), None)
    await model.publish()
    model.push(force=1, name="n")  # type: ignore[call-arg, arg-type]
    model.pull().get(timeout=1.0)
    print(own)


async def plain_classes() -> None:
    plain = mosaic.remote(Plain)(3)
    assert_type(plain, mosaic.TesseraProxy[Plain])
    assert_type(mosaic.remote(Plain, len=2)(3), mosaic.ArrayProxy[Plain])
    mosaic.remote(Plain)("three")  # type: ignore[arg-type]


async def tasks(counter: mosaic.TesseraProxy[Counter]) -> None:
    task = counter.add(5)
    assert_type(task, mosaic.TaskProxy[Any])
    assert_type(await task, mosaic.TaskProxy[Any])
    assert_type(await task.result(), Any)
    assert_type(task.get(timeout=1.0), Any)
    assert_type(await task.exception(), BaseException | None)
    counter.add(counter.add(1), k=2)  # of a proxy's method nothing is known
    async for _ in counter.stream():
        pass


async def waiting(one: mosaic.TaskProxy[int], two: mosaic.TaskProxy[int]) -> None:
    assert_type(await one.result(), int)
    assert_type(await mosaic.gather(one, two), list[int])
    assert_type(await mosaic.gather([one, two]), list[int])
    assert_type(await mosaic.gather(t for t in (one, two)), list[int])
    mixed = await mosaic.gather(one, two, return_exceptions=True)
    assert_type(mixed, list[int | BaseException])
    done, pending = await mosaic.wait([one, two], timeout=1.0)
    assert_type(done, set[mosaic.TaskProxy[int]])
    async for task in mosaic.as_completed([one, two]):
        assert_type(task, mosaic.TaskProxy[int])
    await mosaic.gather(1, 2)  # type: ignore[call-overload]
    print(pending)


async def arrays(many: mosaic.ArrayProxy[Counter]) -> None:
    assert_type(many[0], mosaic.TesseraProxy[Counter])
    assert_type(await many, mosaic.ArrayProxy[Counter])
    values = await many.add(1).result()
    print(values)


class Async:
    async def half(self, of: int) -> float:
        return of / 2


async def calls(
    plain: mosaic.TesseraProxy[Plain], other: mosaic.TesseraProxy[Async]
) -> None:
    assert_type(mosaic.call(plain, Plain.half), mosaic.TaskProxy[float])
    assert_type(mosaic.call(other, Async.half, 3), mosaic.TaskProxy[float])
    assert_type(await mosaic.call(other, Async.half, of=3).result(), float)
    mosaic.call(plain, Plain.half, 3)  # type: ignore[call-overload]
    mosaic.call(other, Async.half, "x")  # type: ignore[call-overload]
    mosaic.call(other, Plain.half)  # type: ignore[call-overload]


async def calls_of_marked_classes(counter: mosaic.TesseraProxy[Counter]) -> None:
    value: int = await mosaic.call(counter, Counter.add, 5).result()
    print(value)


def half_of(n: int, times: int = 1) -> float:
    return n / 2 * times


async def later(n: int | None) -> str:
    return str(n)


async def values(counter: mosaic.TesseraProxy[Counter]) -> None:
    ref = mosaic.put(3)
    assert_type(ref, mosaic.WarehouseObject[int])
    assert_type(await ref, mosaic.WarehouseObject[int])
    assert_type(await mosaic.get(ref), int)
    assert_type(mosaic.get(ref).get(timeout=1.0), int)
    assert_type(await ref.value(), int)
    task: mosaic.TaskProxy[int] = mosaic.call(counter, Counter.add, 1)
    assert_type(await mosaic.get(task), int)
    assert_type(await mosaic.get("key"), Any)
    assert_type(ref.apply(half_of, times=2), mosaic.TaskProxy[float])
    assert_type(ref.apply(later), mosaic.TaskProxy[str])
    assert_type(mosaic.exec("key", half_of, 3), mosaic.WarehouseObject[float])
    assert_type(mosaic.exec("key", later), mosaic.WarehouseObject[str])
    assert_type(mosaic.drop(ref), mosaic.TaskProxy[None])
    held: mosaic.TaskProxy[object] = ref
    ref.apply(half_of, "twice")  # type: ignore[call-overload]
    mosaic.put("x").apply(half_of)  # type: ignore[call-overload]
    mosaic.get(3)  # type: ignore[call-overload]
    mosaic.drop(task)  # type: ignore[arg-type]
    print(held)
