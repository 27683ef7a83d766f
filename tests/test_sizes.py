"""Amounts of memory, and the options that take them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.config import Config
from mosaic_like.sizes import parse_size, size_text

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4096", 4096),
        ("2 GiB", 2 << 30),
        ("2gib", 2 << 30),
        (" 1.5 KiB ", 1536),
        ("3 MB", 3_000_000),
        ("7 B", 7),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "2 giraffes", "-1 GiB", "2 GiB 3", "1e9"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="a size such as"):
        parse_size(text)


@given(st.integers(0, 1 << 60))
def test_what_is_shown_is_near_to_what_it_is(nbytes: int) -> None:
    shown = parse_size(size_text(nbytes))
    assert abs(shown - nbytes) <= max(1, nbytes * 0.06)


def test_options_of_sizes_take_both_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Config.make(memory="2 GiB").memory == 2 << 30
    assert Config.make(memory=3 << 20).memory == 3 << 20
    assert Config.make().memory is None
    monkeypatch.setenv("MOSAIC_SPILL_LIMIT", "500 MB")
    assert Config.make().spill_limit == 500_000_000
    with pytest.raises(ValueError, match="memory: found '2 apples'"):
        Config.make(memory="2 apples")
    with pytest.raises(ValueError, match=r"memory: found 5, .* at least 1\.0 MiB"):
        Config.make(memory=5)
    with pytest.raises(TypeError, match=r"memory: found 1\.5 \(float\)"):
        Config.make(memory=1.5)


def test_a_spill_directory_must_be_there(tmp_path: Path) -> None:
    relative = os.path.relpath(tmp_path)
    assert Config.make(spill_directory=relative).spill_directory == str(tmp_path)
    with pytest.raises(ValueError, match="spill_directory: found '/no/where'"):
        Config.make(spill_directory="/no/where")
