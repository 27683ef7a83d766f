"""The cluster without processes that most tests of states are about."""

from __future__ import annotations

import pytest
from simulation import Runtime, World


@pytest.fixture
def world() -> World:
    """Runtimes 2 and 3 make calls, 4 and 5 own tesserae."""
    return World(heads=2, workers=2)


@pytest.fixture
def head(world: World) -> Runtime:
    return world.runtimes[2]


@pytest.fixture
def owner(world: World) -> Runtime:
    return world.runtimes[4]
