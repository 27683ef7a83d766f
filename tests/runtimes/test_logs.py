"""The files that keep what workers print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosaic_like.runtimes.logs import Logs

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_BYTES = 100
LINE = "x" * 29 + "\n"  # three of them fit


def test_a_file_that_is_full_is_kept_once_and_begun_again(tmp_path: Path) -> None:
    (tmp_path / "w0-1.log").write_text("before\n")  # of a program before: it counts
    logs = Logs(str(tmp_path), LIMIT_BYTES)
    for _ in range(8):
        logs.add("w0:1", LINE)
    logs.close()
    assert (tmp_path / "w0-1.log").read_text() == 2 * LINE
    assert (tmp_path / "w0-1.1.log").read_text() == 3 * LINE
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_larger_than_a_file_may_be_is_kept_whole(tmp_path: Path) -> None:
    logs = Logs(str(tmp_path), LIMIT_BYTES)
    logs.add("host", "a\n")
    logs.add("host", 9 * LINE)
    logs.add("host", "b\n")
    logs.close()
    assert (tmp_path / "host.log").read_text() == "b\n"
    assert (tmp_path / "host.1.log").read_text() == 9 * LINE


def test_two_programs_with_one_directory_lose_nothing_of_each_other(
    tmp_path: Path,
) -> None:
    one, other = Logs(str(tmp_path), LIMIT_BYTES), Logs(str(tmp_path), LIMIT_BYTES)
    one.add("w0:0", 2 * LINE)
    other.add("w0:0", LINE)
    one.add("w0:0", LINE)  # it knows of its own lines
    other.add("w0:0", LINE)  # it is full, and becomes the old one
    one.add("w0:0", LINE)  # which this one sees
    one.close()
    other.close()
    assert (tmp_path / "w0-0.1.log").read_text() == 4 * LINE
    assert (tmp_path / "w0-0.log").read_text() == 2 * LINE
