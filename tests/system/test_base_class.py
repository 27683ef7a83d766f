"""``mosaic.Tessera`` as a base class: at run time what the decorator does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from specimens import RunIn


class Counter(mosaic.Tessera):
    def __init__(self, start: int = 0) -> None:
        self.n = start

    def add(self, k: int) -> int:
        self.n += k
        return self.n


@mosaic.tessera(is_async=True)
class Asked(Counter):
    async def later(self) -> int:
        return self.n


class Own(mosaic.Tessera):
    def __init__(self) -> None:
        self.n = 1

    def remote(self) -> str:  # type: ignore[override]  # the user's names win
        return "the user's"


def test_the_base_is_enough_and_goes_with_the_decorator(cluster: RunIn) -> None:
    async def main(runtime: object) -> None:
        counter = Counter.remote(10)
        assert await mosaic.call(counter, Counter.add, 5).result() == 15
        assert dir(counter) == ["add"]
        assert len(Counter.options(len=3).remote()) == 3
        asked = Asked.remote(start=4)
        assert await mosaic.call(asked, Asked.later).result() == 4
        assert await mosaic.call(asked, Asked.add, 1).result() == 5
        here = Counter.local(1)
        assert await here.add(1).result() == 2
        assert (await Counter.select_worker()).startswith("worker:")
        with pytest.raises(TypeError, match="too many positional"):
            Counter.remote(1, 2)  # type: ignore[call-arg]

    cluster(main)


def test_the_class_stays_an_ordinary_one(cluster: RunIn) -> None:
    assert Counter(1).add(2) == 3
    assert not hasattr(Counter(1), "remote")
    with pytest.raises(AttributeError, match=r"belongs to the class: Counter\.remote"):
        Counter(1).remote()
    assert Own().remote() == "the user's"

    async def main(runtime: object) -> None:
        own = mosaic.remote(Own)()
        assert await own.remote().result() == "the user's"

    cluster(main)


def test_a_class_of_a_function_with_the_base_travels(cluster: RunIn) -> None:
    class Inner(mosaic.Tessera):
        def double(self, x: int) -> int:
            return 2 * x

    async def main(runtime: object) -> None:
        assert await Inner.remote().double(4).result() == 8

    cluster(main)
