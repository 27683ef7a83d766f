"""Tasks of a module, which other programs find by their names."""

from __future__ import annotations

import mosaic_like as mosaic


def bored(info: object, transition: object) -> None:
    """A hook."""


@mosaic.task(max_retries=2, retry_on=(OSError, ValueError), tags={"b", "a"})
def double(x: int) -> int:
    return 2 * x


def plain(x: int) -> int:
    return x
