"""The entry of a node whose workers are replaced again after a few seconds."""

from __future__ import annotations

from mosaic_like.runtimes import node

PERIOD_S = 12.0  # in which five are replaced, also on a slow machine


def main(argument: bytes, fds: list[int], control: int | None) -> None:
    """As that of any node."""
    setattr(node, "PERIOD_S", PERIOD_S)  # noqa: B010 -- of this process alone
    node.main(argument, fds, control)
