"""Options never take a keyword that may be the user's; arrays can be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from specimens import RunIn


@mosaic.tessera
class Anything:
    """Takes every keyword."""

    def __init__(self, **kwargs: Any) -> None:
        self.given = kwargs

    def echo(self, **kwargs: Any) -> dict[str, Any]:
        return kwargs

    def __call__(self, x: int, **kwargs: Any) -> tuple[int, dict[str, Any]]:
        return x, kwargs


@mosaic.tessera
class Named:
    """Has parameters that are called as options are."""

    def __init__(self, len: int = 0, runtime: str = "") -> None:
        self.given = (len, runtime)

    def call(self, max_retries: int = 0, *, eager: bool = True) -> tuple[int, bool]:
        return max_retries, eager

    def where(self, runtime: str = "") -> str:
        return runtime


class Few:
    """Takes no such keywords: they are options."""

    def __init__(self, x: int = 0) -> None:
        self.x = x
        self.calls = 0

    def fail_first(self) -> int:
        self.calls += 1
        if self.calls == 1:
            raise ValueError("the first time")
        return self.calls

    def __call__(self, y: int) -> int:
        return self.x + y


# Not as a decorator: type checkers know what such a class is called with.
mosaic.tessera(Few)
few: Any = Few


def test_beside_the_users_kwargs_every_keyword_is_the_users(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        words = {"len": 2, "runtime": "r", "max_retries": 3, "eager": False}
        words |= {"is_async": 1, "silence": 1}
        one = Anything.remote(**words)
        assert isinstance(one, mosaic.TesseraProxy)
        assert await one.given == words
        assert await one.echo(**words).result() == words
        assert await one(1, **words).result() == (1, words)
        local = Anything.local(**words)
        assert await local.given == words

    cluster(main)


def test_options_reach_such_a_class_and_its_methods_all_the_same(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        first, second = runtime.workers
        array = Anything.options(len=2).remote(len=7)
        assert len(array) == 2
        assert await array.given == [{"len": 7}] * 2
        assert await array.echo(runtime="mine").result() == [{"runtime": "mine"}] * 2
        assert await array.on(second).echo(runtime="mine").result() == {
            "runtime": "mine"
        }
        placed = mosaic.remote(Anything, runtime=first)(runtime="mine")
        assert await placed.given == {"runtime": "mine"}
        await placed
        assert mosaic.info(placed).runtime_id == first.uid
        echo = placed.echo.options(max_retries=1)
        assert await echo(max_retries=5).result() == {"max_retries": 5}

    cluster(main)


def test_a_parameter_of_an_options_name_is_the_users(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        one = Named.remote(len=3, runtime="mine")
        assert await one.given == (3, "mine")
        assert await one.call(max_retries=4, eager=False).result() == (4, False)
        array = Named.options(len=2).remote(len=5)
        assert await array.given == [(5, "")] * 2
        assert await array.where(runtime="mine").result() == ["mine"] * 2

    cluster(main)


def test_where_the_signature_has_no_such_name_it_is_the_option(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        second = runtime.workers[1]
        one = few.remote(1, runtime=second)
        await one
        assert mosaic.info(one).runtime_id == second.uid
        assert await one.fail_first(max_retries=1, eager=True).result() == 2
        assert len(few.remote(len=3)) == 3
        with pytest.raises(TypeError, match="a call is sent at once"):
            one.fail_first(eager=False)
        with pytest.raises(TypeError, match="unexpected keyword argument 'lenn'"):
            few.remote(lenn=3)
        with pytest.raises(TypeError, match="'max_retries': found 'x', expected int"):
            one.fail_first(max_retries="x")

    cluster(main)


def test_calling_an_array_calls_its_objects(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        second = runtime.workers[1]
        array = few.remote(10, len=2)
        tasks = array(1)
        assert type(tasks) is mosaic.TaskArrayProxy
        assert await tasks.result() == [11, 11]
        assert await array(2, runtime=second).result() == 12
        open_array = Anything.options(len=2).remote()
        given = await open_array(1, runtime="mine").result()
        assert given == [(1, {"runtime": "mine"})] * 2
        with pytest.raises(TypeError, match=r"Few\.__call__\(y: .*missing a required"):
            array()
        named = Named.options(len=2).remote()
        with pytest.raises(TypeError, match="Named has no __call__"):
            named(1)

    cluster(main)
