"""Real engines on this machine, by scripts that are not part of the project.

They are looked for in the folder that ``MOSAIC_TEST_CLUSTER_SCRIPTS`` names, else in
``shared/cluster`` beside the checkout, and need root. Each bed has a folder of its own,
so that beds of different sessions do not meet.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).resolve().parents[2]
UP_S = 200.0  # with packages that have to be installed
DOWN_S = 60.0
COMMAND_S = 90.0
LONGEST = 40  # characters of a directory in which that of a test is
MRUN = [sys.executable, "-m", "mosaic_like"]
ALL = bool(os.environ.get("MOSAIC_TEST_CLUSTERS_ALL"))
LONG = [  # marks of files that are not for each run of CI
    pytest.mark.timeout(300),
    pytest.mark.skipif(not ALL, reason="takes minutes: make ci-cluster"),
]


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Bed:
    """An engine that is up."""

    scripts: Path
    environ: dict[str, str]
    folder: Path  # for files that all hosts see

    def script(self, name: str, *words: str, limit_s: float = COMMAND_S) -> Said:
        """Run one of the scripts; its output is in files."""
        with self.start(name, *words) as (process, said):
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
                found = said()
                pytest.fail(f"{name} {words} did not end: {found.out} {found.err}")
            return said()

    @contextlib.contextmanager
    def start(
        self, name: str, *words: str
    ) -> Iterator[tuple[subprocess.Popen[str], Callable[[], Said]]]:
        """Start one; what is given with it tells what it has said."""
        out, err = self.folder / "out", self.folder / "err"
        with out.open("w") as to_out, err.open("w") as to_err:
            process = subprocess.Popen(
                [str(self.scripts / name), *words],
                stdin=subprocess.DEVNULL,
                stdout=to_out,
                stderr=to_err,
                env=self.environ,
                text=True,
            )

        def said() -> Said:
            code = process.poll()
            return Said(-1 if code is None else code, out.read_text(), err.read_text())

        try:
            yield process, said
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def mrun(self, *words: str) -> str:
        """What mrun prints, here."""
        return subprocess.run(
            [*MRUN, *words],
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=True,
        ).stdout

    def write(self, name: str, text: str) -> str:
        """A file that all hosts see; its path."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def tell(self, engine: str, text: str) -> None:
        """Print how long it took: for a program that touches ``ended`` at its end."""
        ready = re.search(r"ready in ([0-9.]+) s", text)
        gone_s = time.time() - (self.folder / "ended").stat().st_mtime
        print(
            f"{engine}: ready in {ready and ready[1]} s, gone {gone_s:.1f} s after it"
        )

    def left(self, host: str) -> list[str]:
        """Processes of ours on a host."""
        said = self.script("hosts", "run", "--on", host, "--", "ps", "-eo", "args")
        return [line for line in said.out.splitlines() if "mosaic_like" in line]


@contextlib.contextmanager
def bed(name: str, *words: str, under: Bed | None = None) -> Iterator[Bed]:
    """Bring it up, and down again.

    Args:
        name: of the script.
        words: for ``up``.
        under: the hosts that it is to be on.
    """
    scripts = Path(
        os.environ.get("MOSAIC_TEST_CLUSTER_SCRIPTS")
        or CHECKOUT.parent / "shared" / "cluster"
    )
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("hosts in namespaces need Linux, and root")
    if not (scripts / name).is_file():
        pytest.skip(f"no script {name} in {scripts}: see MOSAIC_TEST_CLUSTER_SCRIPTS")
    # The engines have sockets there, and take no blanks.
    usual = tempfile.gettempdir()
    is_good = len(usual) <= LONGEST and " " not in usual
    folder = Path(tempfile.mkdtemp(prefix="mc-", dir=usual if is_good else "/tmp"))
    environ = dict(os.environ) if under is None else dict(under.environ)
    for variable in ("MOSAIC_CLUSTER", "SSH_FLAGS", "SSH_COMMANDS"):
        environ.pop(variable, None)
    environ["PYTHONPATH"] = str(CHECKOUT)
    environ["MOSAIC_TIMEOUT"] = "80"  # a machine with much else to do
    if under is None:
        environ["MOSAIC_TEST_HOSTS_DIR"] = str(folder / "h")
    if name != "hosts":
        environ[f"MOSAIC_TEST_{name.upper()}_DIR"] = str(folder / name[0])
    made = Bed(scripts, environ, folder)
    try:
        up = made.script(name, "up", *words, limit_s=UP_S)
        if up.code:
            if "cannot install" in up.err:
                pytest.skip(up.err.splitlines()[-1])
            pytest.fail(f"{name} up: {up.err}")
        yield made
    finally:
        down = made.script(name, "down", limit_s=DOWN_S)
        if under is None and name != "hosts" and "--on-hosts" in words:
            made.script("hosts", "down", limit_s=DOWN_S)
        shutil.rmtree(folder, ignore_errors=True)
        assert down.code == 0, down.err


def until(condition: Callable[[], object], limit_s: float = COMMAND_S) -> None:
    """Wait for it."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, condition
        time.sleep(0.05)
