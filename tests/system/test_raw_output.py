"""What a worker's process prints past Python, at the head and in its log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import asyncio, ctypes, os, signal, subprocess, sys
import mosaic_like as mosaic

@mosaic.tessera
class Talker:
    def talk(self):
        libc = ctypes.PyDLL(None)  # it keeps the GIL
        libc.puts(b"from C")
        subprocess.run(["sh", "-c", "echo from sh; echo 1%\\\\\\r2% >&2; printf half"])
        print("from Python")
    def much(self):
        libc = ctypes.PyDLL(None)
        for _ in range(3000):
            libc.puts(b"x" * 99)  # more than a pipe holds
    def die(self):
        os.write(2, b"last words")
        os.kill(os.getpid(), signal.SIGKILL)

async def main(runtime):
    talker = Talker.remote()
    await talker.talk()
    await talker.much()
    try:
        await talker.die().result()
    except mosaic.MosaicError:
        pass
    print("end of main", flush=True)

mosaic.run(main, num_workers=1, logs=sys.argv[1])
"""


def test_lines_of_c_and_of_other_programs_come_with_their_tessera(
    run_script: Any, tmp_path: Path
) -> None:
    done = run_script(PROGRAM, str(tmp_path))
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    for said in ("from C", "from sh", "from Python"):
        assert f"w0:0 Talker#1 | {said}" in lines
    assert sum(line.endswith("x" * 99) for line in lines) == 3000
    assert f"w0:0 Talker#1 | half{'x' * 99}" in lines
    assert "w0:0 Talker#1 | 2%" in done.stderr
    assert "w0:0 Talker#1 | last words" in done.stderr
    kept = (tmp_path / "w0-0.log").read_text().splitlines()
    shown = [line for line in (*lines, *done.stderr.splitlines()) if "w0:0" in line]
    assert sorted(kept) == sorted(line.removeprefix("w0:0 ") for line in shown)
