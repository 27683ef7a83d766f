"""Programs that are started without some of the standard streams."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

HELLO = """
import os, sys
import mosaic_like as mosaic
@mosaic.tessera
class Counter:
    def add(self, k):
        print("adding")
        return k
async def main():
    return await Counter.remote().add(2).result()
value = mosaic.run(main, num_workers=1)
mosaic.init(num_workers=1)
value += Counter.remote().add(40).get(10)
mosaic.stop()
open(sys.argv[1], "w").write(str(value))
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_program_may_be_started_with_streams_closed(
    tmp_path: Path, closed: str
) -> None:
    script = tmp_path / "hello.py"
    script.write_text(HELLO)
    out = tmp_path / "out"
    done = subprocess.run(
        ["sh", "-c", f'"$0" "$@" {closed}', sys.executable, str(script), str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    assert (done.returncode, out.read_text()) == (0, "42")
