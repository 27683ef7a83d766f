"""The examples give what they should: each compares itself with one process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import RunScript

_EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
_TRUSTED = {"PYTHONWARNINGS": "error"}


def test_the_first_program_prints_what_it_says(run_script: RunScript) -> None:
    result = run_script(_EXAMPLES / "hello.py", env=_TRUSTED)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == "15\n[15, 16, 18]\n"


def test_docsearch_counts_as_one_process_does_and_answers(
    run_script: RunScript,
) -> None:
    result = run_script(
        _EXAMPLES / "docsearch.py", "--check", "--workers", "2", env=_TRUSTED
    )
    assert (result.code, result.stderr) == (0, ""), result.stdout
    assert "when is the else clause of a loop executed" in result.stdout
    assert "equal to Counter's counts" in result.stdout


def test_docsearch_says_so_when_nothing_is_found(run_script: RunScript) -> None:
    result = run_script(
        _EXAMPLES / "docsearch.py", "--ask", "zzz", "--workers", "1", env=_TRUSTED
    )
    assert (result.code, result.stderr) == (0, "")
    assert "nothing found" in result.stdout


@pytest.mark.timeout(120)
def test_the_parameter_server_reaches_the_known_figures(
    run_script: RunScript,
) -> None:
    pytest.importorskip("sklearn")
    result = run_script(
        _EXAMPLES / "parameter_server.py", "--check", "--workers", "2", timeout=100
    )
    assert (result.code, result.stderr) == (0, ""), result.stdout
    assert "check: as in one process" in result.stdout


def test_cholesky_equals_numpy_and_draws_its_graph(
    run_script: RunScript, tmp_path: Path
) -> None:
    options = ("--check", "--workers", "2", "--plot", str(tmp_path / "plot"))
    result = run_script(_EXAMPLES / "cholesky.py", *options, env=_TRUSTED)
    assert (result.code, result.stderr) == (0, ""), result.stdout
    assert "equal to NumPy's" in result.stdout
    assert "gemm 4,3,2" in (tmp_path / "plot-graph.svg").read_text()
    assert "worker:0:1" in (tmp_path / "plot-timeline.svg").read_text()


def test_wordcount_counts_as_one_process_does_and_prints_its_critical_path(
    run_script: RunScript,
) -> None:
    options = ("--check", "--workers", "2", "--files", "40")
    result = run_script(_EXAMPLES / "wordcount.py", *options, env=_TRUSTED)
    assert (result.code, result.stderr) == (0, ""), result.stdout
    assert "equal to one process" in result.stdout
    assert result.stdout.count("merge ") == 4


@pytest.mark.timeout(120)
def test_hyperparameters_gives_what_grid_search_gives(run_script: RunScript) -> None:
    pytest.importorskip("sklearn")
    options = ("--check", "--workers", "2", "--samples", "300")
    result = run_script(
        _EXAMPLES / "hyperparameters.py", *options, env=_TRUSTED, timeout=100
    )
    assert result.code == 0, result.stdout + result.stderr
    assert "equal to GridSearchCV" in result.stdout
    assert "1 go on" in result.stdout


@pytest.mark.parametrize("path", sorted(_EXAMPLES.glob("*.py")), ids=lambda p: p.name)
def test_an_example_is_short_enough_to_be_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 160
