"""Calls that came together and run on the loop: each is a call of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from specimens import RunIn


class Switching:
    """Puts another method in the place of one that runs."""

    def step(self) -> str:
        self.step = self.other  # type: ignore[method-assign]
        return "step"

    def other(self) -> str:
        del self.step
        return "other"


class Lookup:
    """Finds names in a table, and raises what the table raises."""

    def __init__(self) -> None:
        self.table: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "table":
            raise AttributeError(name)
        return self.table[name]

    def echo(self, value: int) -> int:
        return value


def test_a_method_that_is_replaced_by_a_call_is_so_for_the_next(
    cluster: RunIn,
) -> None:
    async def main(runtime: Any) -> None:
        for inline in (False, True):
            switching = mosaic.remote(Switching, inline=inline)()
            await switching.step()  # from here on its lane is known
            await switching.step()
            values = await mosaic.gather(switching.step() for _ in range(6))
            assert values == ["step", "other"] * 3

    cluster(main)


def test_a_name_whose_look_up_raises_fails_its_call_alone(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        lookup = mosaic.remote(Lookup, inline=True)()
        with pytest.raises(KeyError):  # from here on its lane is known
            await lookup.missing().result()
        await lookup.echo(0)
        tasks = [lookup.echo(1), lookup.missing(), lookup.missing(), lookup.echo(2)]
        ends = await mosaic.gather(tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [int, KeyError, KeyError, int]

    cluster(main)
