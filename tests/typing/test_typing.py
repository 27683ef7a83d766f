"""The types that users see, as mypy and pyright find them in the files beside this."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).resolve().parent
_CHECKOUT = _HERE.parent.parent


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        cwd=_CHECKOUT,
        timeout=110,
        check=False,
    )


@pytest.mark.timeout(120)
def test_mypy_finds_the_types_and_just_the_mistakes_that_are_marked() -> None:
    # A user's configuration: strict and the plugin. Errors of the package itself are
    # the business of `make check`.
    result = _mypy(
        _HERE / "user.cfg",
        "reveal.py",
        "reveal_plugin.py",
        "reveal_base.py",
        "reveal_tasks.py",
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.timeout(120)
def test_without_the_plugin_mypy_knows_remote_by_the_base_class(tmp_path: Path) -> None:
    config = tmp_path / "no_plugin.cfg"
    config.write_text("[mypy]\nstrict = true\n")
    result = _mypy(config, "reveal.py", "reveal_base.py")
    assert '"type[Counter]" has no attribute "remote"' in result.stdout
    wrong = {line.partition(":")[0] for line in result.stdout.splitlines()}
    assert not [file for file in wrong if file.endswith("reveal_base.py")]


def _mypy(config: Path, *names: str) -> subprocess.CompletedProcess[str]:
    files = [str(_HERE / name) for name in names]
    return _run("mypy", "--config-file", str(config), "--follow-imports=silent", *files)


@pytest.mark.timeout(120)
def test_pyright_finds_the_types_and_just_the_mistakes_that_are_marked() -> None:
    result = _run(
        "pyright", "-p", str(_HERE), "--pythonpath", sys.executable, "--outputjson"
    )
    try:
        report = json.loads(result.stdout)
    except json.JSONDecodeError:
        # It needs Node.js, which its package fetches when it is run first.
        pytest.skip(f"pyright does not run here: {result.stderr.strip()[-200:]}")
    found = [
        f"{d['range']['start']['line'] + 1}: {d['message']}"
        for d in report["generalDiagnostics"]
    ]
    assert found == []
    assert report["summary"]["filesAnalyzed"] == 3
