"""Damaged files: what ``make fuzz`` does a hundred times longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import files
import pytest

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_as_it_should_be_is_read(tmp_path: Path) -> None:
    for name, reader in files.readers(tmp_path).items():
        for body in reader.valid:
            assert (
                files.attempt(name, reader._replace(refuses=()), tmp_path, body) == ""
            )


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_stands_in_a_file_is_read_or_refused_in_words(
    seed: int, tmp_path: Path
) -> None:
    assert files.fuzz(1000, seed, tmp_path) == []
