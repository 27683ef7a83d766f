"""A cluster, or another host, that the tests of one file share."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest
from far_host import Unavailable, far_host
from shared_cluster import shared_cluster, warm_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from far_host import FarHost
    from specimens import RunIn

LIMIT_S = 45.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunIn]:
    """Runs ``main(runtime)`` in a cluster of two workers; bounded in time."""
    try:
        with shared_cluster(warm_up, LIMIT_S) as run:
            yield run
    finally:
        assert not segments_left()


@pytest.fixture(scope="module")
def host() -> Iterator[FarHost]:
    """Another host; without root, what needs one is skipped."""
    try:
        with far_host() as host:
            yield host
    except Unavailable as error:
        pytest.skip(str(error))


def segments_left() -> list[str]:
    """Segments that this process has open; those of values may still be mapped."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listdir itself had open
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [line for line in found if "/memfd:mosaic" in line]
