"""Runs a program of a few lines in an interpreter of its own and reads its report.

The program prints one JSON object; it and its interpreter are what is measured.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

TIMEOUT_S: Final = 60.0
_CHECKOUT: Final = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What a program printed, and when it began and ended (time.monotonic)."""

    values: dict[str, Any]
    begin_s: float
    end_s: float


def run(program: str) -> Report:
    """Raises RuntimeError with the program's errors if it fails or does not end."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        script = Path(folder, "program.py")
        script.write_text(program)
        path = os.pathsep.join(filter(None, (str(_CHECKOUT), os.getenv("PYTHONPATH"))))
        begin_s = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, str(script)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path, "MOSAIC_QUIET": "1"},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the program did not end in {TIMEOUT_S:g} s") from None
        end_s = time.monotonic()
    if done.returncode:
        raise RuntimeError(f"the program ended with {done.returncode}: {done.stderr}")
    return Report(json.loads(done.stdout), begin_s, end_s)
