"""The two applications on images: each compares itself with one process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import RunScript

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_ENV = {"PYTHONWARNINGS": "error", "MPLBACKEND": "agg"}
_PNG = b"\x89PNG\r\n"


@pytest.mark.timeout(120)
def test_the_tiles_of_the_retina_are_bit_for_bit_what_one_process_makes(
    run_script: RunScript, tmp_path: Path
) -> None:
    pytest.importorskip("skimage")
    picture = tmp_path / "retina.png"
    result = run_script(
        _EXAMPLES / "retina.py", "--check", "--plot", str(picture), env=_ENV, timeout=90
    )
    assert (result.code, result.stderr) == (0, ""), result.stdout
    assert "equal, bit by bit" in result.stdout
    # Diffusion moves grey and makes none.
    assert result.stdout.count("0.32417514") == 2
    assert picture.read_bytes().startswith(_PNG)


@pytest.mark.timeout(180)
def test_the_inversion_finds_the_brain_and_draws_it(
    run_script: RunScript, tmp_path: Path
) -> None:
    pytest.importorskip("nilearn")
    pytest.importorskip("matplotlib")
    picture = tmp_path / "fwi.png"
    result = run_script(
        _EXAMPLES / "fwi.py", "--check", "--plot", str(picture), env=_ENV, timeout=150
    )
    # matplotlib may say on stderr that it looks for fonts, the first time.
    assert result.code == 0, result.stdout + result.stderr
    assert "check: as it should be" in result.stdout
    errors = [float(m) for m in re.findall(r"error +([\d.]+) m/s", result.stdout)]
    assert errors[0] > 50
    assert errors[-1] < 7
    assert errors == sorted(errors, reverse=True)
    assert picture.read_bytes().startswith(_PNG)
