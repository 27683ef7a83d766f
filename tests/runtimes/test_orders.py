"""What a node leaves for a worker whose loop cannot run."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest

from mosaic_like.runtimes import orders

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> str:
    return orders.path_of(str(tmp_path), 7)


def test_the_last_order_is_found_until_the_worker_has_ended(path: str) -> None:
    assert orders.read(path) == (0, False)
    orders.write(path, 1, late=True)
    orders.write(path, 2**64 - 1, late=False)
    assert orders.read(path) == (2**64 - 1, False)
    orders.forget(path)
    assert orders.read(path) == (0, False)
    assert os.listdir(os.path.dirname(path)) == []


def test_an_order_can_be_left_where_no_file_can_be_written(path: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        orders.write(path, 5, late=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert orders.read(path) == (5, True)


def test_a_draft_that_was_left_is_in_nobodys_way(path: str) -> None:
    os.symlink("left", f"{path}.new")
    orders.write(path, 5, late=False)
    assert orders.read(path) == (5, False)
