"""Programs one after the other that keep their values in one store.

Each ``mosaic.local`` is one: their uids are the same, their values need not be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@mosaic.task
def given(x: Any) -> Any:
    return x


@mosaic.task(cache_key="inputs")
def read(path: str) -> int:
    with open(path) as file:
        return int(file.read())


@mosaic.tessera
class Model:
    def __init__(self, k: int) -> None:
        self.k = k

    def data(self) -> int:
        return self.k


def tenfold(x: Any) -> Any:
    if isinstance(x, list):
        return [tenfold(item) for item in x]
    return 10 * (x if isinstance(x, int) else x.data().get())


ARGUMENTS: dict[str, Callable[[int], Any]] = {
    "a task": lambda k: given.submit(k),
    "a part of a task": lambda k: given.submit((k, 0)).outputs[0],
    "a task of a tessera": lambda k: Model.remote(k).data(),
    "a tessera": lambda k: Model.remote(k),
    "what was put": lambda k: mosaic.put(k),
    "a list of tasks": lambda k: [given.submit(k)],
}


@pytest.mark.parametrize("what", ARGUMENTS)
def test_what_a_store_does_not_know_is_never_found_by_the_next_program(
    tmp_path: Path, what: str
) -> None:
    kept = mosaic.task(cache_key="inputs", store=tmp_path)
    multiplied = kept(tenfold)
    found = []
    for k in (2, 3):
        with mosaic.local():
            argument = ARGUMENTS[what](k)
            task = multiplied.submit(argument)
            found.append((task.get(), task.reason))
            again = multiplied.submit(argument)
            assert (again.get(), again.reason) == (found[-1][0], "cached")
    values = [[20], [30]] if what == "a list of tasks" else [20, 30]
    assert found == [(value, None) for value in values]


@pytest.mark.parametrize("options", [{}, {"cache_expiration": 0.001}])
def test_what_takes_a_task_that_runs_anew_does_so_too(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    world = tmp_path / "world"
    store = tmp_path / "values"
    loading = read.options(**options, store=store if options else None)
    multiplied = mosaic.task(cache_key="inputs", store=store)(tenfold)
    for number in (2, 3):
        world.write_text(str(number))
        with mosaic.local():
            loaded = loading.submit(str(world))
            assert multiplied.submit(loaded).get() == 10 * loaded.get()
    if not options:
        assert loaded.get() == 3, "without a store it ran anew"


def test_chains_are_found_again_by_the_next_program(tmp_path: Path) -> None:
    def step(name: str) -> Any:
        def plus_one(x: Any, *more: Any) -> Any:
            return x + 1

        return mosaic.task(
            cache_key="inputs", store=tmp_path / "values", name=name, version=name
        )(plus_one)

    for reason in (None, "cached"):
        with mosaic.local():
            tasks = [step("a").submit(1)]
            for name in "bcd":
                tasks.append(step(name).submit(tasks[-1]))
            tasks.append(step("e").submit(*reversed(tasks)))
            assert [task.get() for task in tasks] == [2, 3, 4, 5, 6]
            assert [task.reason for task in tasks] == [reason] * 5


def test_what_takes_a_refreshed_task_is_made_anew_too(tmp_path: Path) -> None:
    world = tmp_path / "world"
    kept = mosaic.task(cache_key="inputs", store=tmp_path / "values")

    load = kept(read.fn)
    multiplied = kept(tenfold)
    found = []
    for number, refresh in (("1", None), ("2", True), ("3", None)):
        world.write_text(number)
        with mosaic.local():
            loaded = load.options(refresh_cache=refresh).submit(str(world))
            last = multiplied.submit(multiplied.submit(loaded))
            found.append((last.get(), last.reason))
    assert found == [(100, None), (200, None), (200, "cached")]


def test_an_exception_that_was_allowed_is_not_taken_for_the_value(
    tmp_path: Path,
) -> None:
    def text(x: Any) -> str:
        return str(x)

    world = tmp_path / "world"
    kept = mosaic.task(cache_key="inputs", store=tmp_path / "values")

    @kept
    def load(path: str) -> str:
        with open(path) as file:
            return file.read()

    shown = kept(text)
    with mosaic.local():
        failed = mosaic.allow_failure(load.submit(str(world)))
        assert "No such file" in shown.submit(failed).get()
    world.write_text("there")
    with mosaic.local():
        loaded = mosaic.allow_failure(load.submit(str(world)))
        assert shown.submit(loaded).get() == "there"


def test_a_store_key_that_says_too_little_gives_nobody_the_value_of_another(
    tmp_path: Path,
) -> None:
    where: dict[str, Any] = {
        "cache_key": "inputs",
        "store": tmp_path,
        "store_key": "{info.name}/{parameters[x]}",
        "serializer": "json",
    }

    def cube(x: int) -> int:
        return x**2  # a mistake

    def mended(x: int) -> int:
        return x**3

    @mosaic.task(**where)
    def power(x: int, n: int) -> int:
        return x**n

    wrong = mosaic.task(**where, name="cube", version="1")(cube)
    right = mosaic.task(**where, name="cube", version="2")(mended)
    with mosaic.local():
        assert wrong.submit(3).get() == 9
    for reason in (None, "cached"):
        with mosaic.local():
            task = right.submit(3)
            assert (task.get(), task.reason) == (27, reason)
            assert [power.submit(2, n).get() for n in (1, 2, 3)] == [2, 4, 8]
    assert (tmp_path / "cube" / "3").read_text() == "27"


def test_a_class_that_was_edited_gives_another_value(tmp_path: Path) -> None:
    @mosaic.task(cache_key="inputs", store=tmp_path)
    def rate(params: Any) -> float:
        return float(params.lr)

    for lr in (0.1, 0.2):
        scope: dict[str, Any] = {"__name__": "__main__"}
        exec(f"class Params:\n    lr = {lr}", scope)
        with mosaic.local():
            assert rate.submit(scope["Params"]()).get() == lr


def test_the_record_of_a_cached_call_has_the_name_of_its_task() -> None:
    known = mosaic.task(cache_key="inputs")(tenfold)
    found: list[Any] = []
    with mosaic.local(), mosaic.record(found.append):
        for _ in range(2):
            known.submit(1)
    assert [(r["name"], r["reason"]) for r in found] == [
        ("tenfold", None),
        ("tenfold", "cached"),
    ]
