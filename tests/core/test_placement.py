"""Where new tesserae go."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from mosaic_like.core.placement import STRATEGIES, LeastLoaded, RoundRobin


@dataclass(frozen=True)
class Worker:
    incarnation: int


WORKERS = [Worker(i) for i in (5, 6, 9)]


def idle(incarnation: int) -> int:
    return 0


def test_workers_are_taken_in_turn_from_where_it_begins() -> None:
    strategy = RoundRobin(1)
    chosen = [strategy.choose(WORKERS, idle).incarnation for _ in range(4)]
    assert chosen == [6, 9, 5, 6]


def test_turns_go_on_when_workers_come_and_go() -> None:
    strategy = RoundRobin()
    strategy.choose(WORKERS, idle)
    strategy.choose(WORKERS, idle)
    assert strategy.choose(WORKERS[:1], idle) is WORKERS[0]
    assert strategy.choose(WORKERS, idle) is WORKERS[0]


def test_the_least_loaded_is_taken_and_of_equals_the_first() -> None:
    load = Counter({5: 2, 6: 1, 9: 1})
    assert LeastLoaded().choose(WORKERS, load.__getitem__) is WORKERS[1]


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_each_strategy_spreads_over_all_workers(name: str) -> None:
    strategy = STRATEGIES[name]()
    load: Counter[int] = Counter()
    for _ in range(30):
        load[strategy.choose(WORKERS, load.__getitem__).incarnation] += 1
    assert load == {5: 10, 6: 10, 9: 10}
