"""Tasks of a module, which other programs find by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Mapping


def bored(info: object, transition: object) -> None:
    """A hook."""


@mosaic.task(max_retries=2, retry_on=(OSError, ValueError), tags={"b", "a"})
def double(x: int) -> int:
    return 2 * x


def account(parameters: Mapping[str, Any]) -> Any:
    """A ``key`` of a Concurrency."""
    return parameters["x"]


def plain(x: int) -> int:
    return x
