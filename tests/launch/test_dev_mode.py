"""Under ``python -W error -X dev`` a program says what it says without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mosaic_like as mosaic

_EXAMPLES = Path(mosaic.__file__ or "").parents[1] / "examples"

INIT = """\
import asyncio

import mosaic_like as mosaic

runtime = mosaic.init(num_workers=1)
names = mosaic.remote(list)("ab")
print(names.pop().get())
del names
mosaic.stop()


async def main():
    async with mosaic.init(num_workers=1):
        print(await mosaic.remote(list)("cd").pop().result())


asyncio.run(main())
runtime = mosaic.init(num_workers=1)  # and is left to the program's end
"""


def _run(*words: str, text: str | None = None) -> tuple[int, str, list[str]]:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", *words],
        input=text,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    # asyncio tells of steps that take 0.1 s: on a busy machine any may.
    lines = [ln for ln in result.stderr.splitlines() if " took 0." not in ln]
    return result.returncode, result.stdout, lines


def test_hello_is_clean() -> None:
    hello = str(_EXAMPLES / "hello.py")
    assert _run(hello) == (0, "15\n[15, 16, 18]\n", [])


def test_init_stop_and_the_end_of_the_program_are_clean() -> None:
    assert _run("-", text=INIT) == (0, "b\nd\n", [])


def test_mrun_is_clean() -> None:
    words = ["-m", "mosaic_like", "-nw", "1", "--quiet"]
    command = [sys.executable, "-W", "error", "-X", "dev", str(_EXAMPLES / "hello.py")]
    assert _run(*words, *command) == (0, "15\n[15, 16, 18]\n", [])
