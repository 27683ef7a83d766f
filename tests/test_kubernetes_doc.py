"""The manifest of the documentation: its fields, and its commands. No Kubernetes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(100)
LIMIT_S = 60.0
ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "docs" / "kubernetes.yaml"
PROGRAM = """
import mosaic_like as mosaic
async def main(runtime):
    await runtime.wait_for_workers(1)
    print(len(runtime.workers) > 0)
mosaic.run(main)
"""


def kubectl(*words: str) -> list[dict[str, Any]]:
    """The objects that it prints, which need no Kubernetes to be read."""
    done = subprocess.run(
        ["kubectl", *words, "--local", "-o", "json", "-f", "-"],
        input=MANIFEST.read_text(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    found: list[dict[str, Any]] = []
    text = done.stdout.strip()
    while text:
        each, end = json.JSONDecoder().raw_decode(text)
        found += each["items"] if each["kind"] == "List" else [each]
        text = text[end:].strip()
    return found


def missing(written: Any, known: Any, path: str = "") -> list[str]:
    """What was written and is not known."""
    if isinstance(written, dict):
        lost = [f"{path}.{name}" for name in written if name not in (known or {})]
        for name in written.keys() & (known or {}).keys():
            lost += missing(written[name], known[name], f"{path}.{name}")
        return lost
    if isinstance(written, list):
        pairs = zip(written, known, strict=False)
        return [name for pair in pairs for name in missing(*pair, f"{path}[]")]
    return []


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
def test_kubectl_knows_every_field() -> None:
    # As it was written; and as what is no field is left out of a typed object. Only
    # objects with pods are read by the second.
    written = [each for each in kubectl("label", "a=b") if each["kind"] == "Job"]
    known = [each for each in kubectl("set", "env", "A=b") if each["kind"] == "Job"]
    assert [each["metadata"]["name"] for each in known] == ["fwi-head", "fwi-nodes"]
    for each in written:
        each["metadata"].pop("labels")
    assert missing(written, known) == []


def test_its_commands_make_a_cluster(tmp_path: Path) -> None:
    text = MANIFEST.read_text().replace("/shared", str(tmp_path))
    (head,) = re.findall(r"args:\n +- \|\n((?: {14}.*\n)+)", text)
    (node,) = re.findall(r'command: \[/bin/sh, -ec, "(.*)"\]', text)
    (tmp_path / "fwi.py").write_text(PROGRAM)
    mrun = tmp_path / "bin" / "mrun"  # none may be installed
    mrun.parent.mkdir()
    python = shlex.quote(sys.executable)
    mrun.write_text(f'#!/bin/sh\nexec {python} -m mosaic_like "$@"\n')
    mrun.chmod(0o755)
    environ = {
        **os.environ,
        "PATH": f"{mrun.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "POD_IP": "127.0.0.1",
        "MOSAIC_TIMEOUT": "60",
    }
    environ.pop("MOSAIC_CLUSTER", None)

    def start(line: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["/bin/sh", "-ec", line],
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with start(node) as early:
        assert early.wait(LIMIT_S)  # Kubernetes starts it again
    with start(textwrap.dedent(head)) as first:
        try:
            deadline_s = time.monotonic() + LIMIT_S
            while not (tmp_path / "key").exists():
                assert first.poll() is None
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
            with start(node) as second:
                out, err = first.communicate(timeout=LIMIT_S)
                assert (first.returncode, out) == (0, "True\n"), err
                assert second.wait(LIMIT_S) == 0
        finally:
            first.terminate()
