"""What a cell is: a fault, a moment, what is done, and how soon all must know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from program import Stage

Play = Callable[[Stage], Any]


class Skip(Exception):
    """This machine has not what the cell needs; the text says what."""


@dataclass(frozen=True)
class Cell:
    """One fault at one moment.

    Args:
        fault: as in the table of faults, such as ``F1``.
        moment: ``m1`` to ``m11``, or a word where a fault has no moments.
        play: a coroutine function of a Stage, run in a cluster with actors, or a plain
            one, which does without or has its own.
        bound_s: seconds from the fault until everybody is told.
        after_healing_s: seconds from the end of the fault until every call has ended.
        in_ci: this one of the fault's cells runs with every change.
        options: of the cluster.
    """

    fault: str
    moment: str
    play: Play
    bound_s: float = 1.0
    after_healing_s: float | None = None
    in_ci: bool = False
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.fault}.{self.moment}"
