"""The fixtures that users' tests get; row 39."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = "mosaic_like.pytest_plugin"

pytest_plugins = ["pytester"]

_TESTS = """
import os
import mosaic_like as mosaic

pid = mosaic.task(os.getpid)

def test_inline(mosaic_local):
    assert pid.submit().get() == os.getpid()

def test_in_a_cluster(mosaic_cluster):
    assert mosaic_cluster.num_workers == 1
    assert pid.submit().get() != os.getpid()

def test_inline_while_there_is_a_cluster(mosaic_cluster, mosaic_local):
    assert pid.submit().get() == os.getpid()

def test_in_the_same_cluster(mosaic_cluster):
    assert mosaic.runtime() is mosaic_cluster
    assert pid.submit().get() == mosaic_cluster.workers[0].pid
"""


def test_the_plugin_has_a_cluster_and_the_inline_mode(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(_TESTS)
    result = pytester.runpytest_subprocess(
        "-p", PLUGIN, "--mosaic-workers", "1", "-q", timeout=50
    )
    result.assert_outcomes(passed=4)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("--mosaic-workers", "0"), "--mosaic-workers: found 0, expected at least 1"),
        (("-o", "mosaic_workers=two"), "mosaic_workers: found 'two', expected"),
    ],
)
def test_a_cluster_of_no_workers_is_refused(
    pytester: pytest.Pytester, given: tuple[str, str], text: str
) -> None:
    pytester.makepyfile("def test_one(mosaic_cluster): ...")
    result = pytester.runpytest_subprocess("-p", PLUGIN, *given, "-q", timeout=50)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*{text}*"])


def test_pytest_loads_the_plugin_which_imports_nothing_else() -> None:
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[2] / "setup.cfg")
    points = config["options.entry_points"]["pytest11"].split()
    assert points == [PLUGIN, "=", PLUGIN]
    program = (
        f"import sys, pytest; before = set(sys.modules); import {PLUGIN}; "
        "print(sorted(set(sys.modules) - before))"
    )
    found = subprocess.check_output([sys.executable, "-c", program], timeout=50)
    assert found.decode().strip() == str(sorted(["mosaic_like", PLUGIN]))
