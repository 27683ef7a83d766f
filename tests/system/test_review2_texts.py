"""What mistakes with proxies say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from specimens import RunIn


class Shape:
    """Has a property and a method."""

    @property
    def area(self) -> int:
        return 4

    def scale(self, by: int) -> int:
        return by


def test_a_property_that_is_called_is_not_likened_to_itself(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        shape = mosaic.remote(Shape)()
        with pytest.raises(AttributeError, match=r"'area': it is an .*await proxy\.ar"):
            shape.area()
        with pytest.raises(AttributeError, match="did you mean 'scale'"):
            shape.scal(2)
        assert await shape.area == 4

    cluster(main)


def test_a_member_that_an_array_lacks_is_named(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        shapes = mosaic.remote(Shape, len=2)()
        assert await shapes[-1].scale(3).result() == 3
        with pytest.raises(IndexError, match=r"Shape.*no member 2"):
            shapes[2]

    cluster(main)
