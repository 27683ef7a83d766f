"""What the README shows is so: its program, its output, its commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import RunScript

_CHECKOUT = Path(__file__).resolve().parent.parent
_README = (_CHECKOUT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", _README, re.DOTALL | re.MULTILINE)


def test_the_first_program_is_the_one_in_the_examples() -> None:
    assert _blocks("python")[0] == (_CHECKOUT / "examples" / "hello.py").read_text()


def test_every_program_prints_what_is_shown_below_it(run_script: RunScript) -> None:
    programs = re.findall(
        r"^```python\n(.*?)^```\n+^```(?:text|console)\n(?:\$ .*?\n)?(.*?)^```$",
        _README,
        re.DOTALL | re.MULTILINE,
    )
    assert len(programs) == len(_blocks("python"))
    for program, shown in programs:
        result = run_script(program, env={"PYTHONWARNINGS": "error"})
        assert (result.code, result.stderr) == (0, "")
        assert result.stdout == shown


def test_an_error_looks_as_it_is_shown(run_script: RunScript) -> None:
    program = _blocks("python")[0].replace("add(5)", 'add("five")')
    (shown,) = [b for b in _blocks("text") if b.startswith("Traceback")]
    result = run_script(program)
    assert result.code == 1
    said = re.sub(r'File "[^"]*"', 'File "hello.py"', result.stderr)
    said = re.sub(
        r"\(\S+, pid \d+\) · task \d+-\d+", "(laptop, pid 4113) · task 6-3", said
    )
    assert said == shown


def test_the_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (_CHECKOUT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"^make ([a-z]+)|`make ([a-z]+)`", _README, re.M))
    assert {a or b for a, b in named} <= targets
    assert {"demo", "test"} <= {a or b for a, b in named}


def test_files_and_public_names_that_are_mentioned_exist() -> None:
    import mosaic_like as mosaic

    for path in re.findall(r"\]\(([a-zA-Z][^):]*)\)", _README):
        assert (_CHECKOUT / path).exists(), path
    for name in re.findall(r"\bmosaic\.([a-z_]+)", _README):
        assert hasattr(mosaic, name), name


def test_the_place_of_the_measurements_is_marked() -> None:
    assert _README.count("<!-- benchmarks -->") == 1
    assert _README.count("<!-- /benchmarks -->") == 1
