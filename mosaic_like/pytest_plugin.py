"""Fixtures for the tests of programs that use mosaic; pytest loads this by itself.

``mosaic_local`` runs all calls inside the test; ``mosaic_cluster`` is a cluster that
the tests of a session share. Nothing else is imported before a test wants one.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORKERS = "mosaic_workers"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--mosaic-workers`` and the ini option of the same name."""
    text = "how many workers the cluster of the fixture mosaic_cluster has"
    group = parser.getgroup("mosaic")
    group.addoption("--mosaic-workers", type=int, metavar="N", help=text)
    parser.addini(_WORKERS, f"{text} (2)", default="2")


@pytest.fixture
def mosaic_local() -> Iterator[Any]:
    """All calls run inside the test: see ``mosaic_like.local``."""
    import mosaic_like

    with mosaic_like.local() as runtime:
        yield runtime


@pytest.fixture(scope="session")
def mosaic_cluster(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A cluster that all tests of the session share; the runtime of this process."""
    import mosaic_like

    workers = _workers(request.config)
    with mosaic_like.init(num_workers=workers, quiet=True) as runtime:
        yield runtime


def _workers(config: pytest.Config) -> int:
    given = config.getoption("--mosaic-workers")
    name = _WORKERS if given is None else "--mosaic-workers"
    text = config.getini(_WORKERS) if given is None else given
    with contextlib.suppress(ValueError):
        if int(text) > 0:
            return int(text)
    raise pytest.UsageError(f"{name}: found {text!r}, expected at least 1 worker")
