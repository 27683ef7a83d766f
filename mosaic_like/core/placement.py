"""Where a new tessera goes: strategies that choose among the workers.

The runtime that makes a tessera places it, from the members that the monitor announced:
asking the monitor would cost each creation a round trip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol


class Worker(Protocol):
    """What a strategy sees of a worker."""

    @property
    def incarnation(self) -> int: ...


Load = Callable[
    [int], int
]  # calls in flight to an incarnation, and tesserae made there


class RoundRobin:
    """Each worker in turn.

    Args:
        start: where to begin, so that several runtimes do not all begin with the first.
    """

    def __init__(self, start: int = 0) -> None:
        self._next = start

    def choose(self, workers: Sequence[Worker], load: Load) -> Worker:
        chosen = workers[self._next % len(workers)]
        self._next += 1
        return chosen


class LeastLoaded:
    """The worker with the fewest tesserae of this runtime; the first of equals."""

    def choose(self, workers: Sequence[Worker], load: Load) -> Worker:
        return min(workers, key=lambda worker: load(worker.incarnation))


class Strategy(Protocol):
    """Chooses one of the workers, of which there is at least one."""

    def choose(self, workers: Sequence[Worker], load: Load) -> Worker: ...


STRATEGIES: Mapping[str, Callable[[], Strategy]] = MappingProxyType(
    {"round-robin": RoundRobin, "least-loaded": LeastLoaded}
)
