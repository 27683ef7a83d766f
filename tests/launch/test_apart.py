"""Two clusters on one host: of two jobs, and of two users. They never meet."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)
LIMIT_S = 60.0
NOBODY = 65534
# For another interpreter of the same version too.
PATH = f"{Path(__file__).parents[2]}:{sysconfig.get_path('purelib')}"
# It stays until its standard input is closed.
PROGRAM = """
import json, os, sys
import mosaic_like as mosaic
async def main(runtime):
    key = os.environ["MOSAIC_CLUSTER"]
    print(json.dumps({"key": key, "workers": len(runtime.workers)}), flush=True)
    sys.stdin.read()
    print(len(runtime.workers), flush=True)
mosaic.run(main)
"""


@contextlib.contextmanager
def job(
    temporary: str,
    workers: int,
    *words: str,
    user: int | None = None,
    python: str = sys.executable,
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A cluster of mrun's, and what its program says of it."""
    environ = {
        **os.environ,
        "TMPDIR": temporary,
        "PYTHONPATH": PATH,
    }
    environ.pop("MOSAIC_CLUSTER", None)
    command = [python, "-m", "mosaic_like", "-q", "-nw", str(workers), *words]
    with subprocess.Popen(
        [*command, python, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
        cwd=temporary,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    ) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            assert process.stdin is not None
            process.stdin.close()
            code = process.wait(LIMIT_S)
    assert code == 0


@pytest.fixture
def temporary() -> Iterator[str]:
    """As /tmp: open to all, and short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="mosaic-t", dir="/tmp") as directory:
        os.chmod(directory, 0o1777)
        yield directory


def test_two_jobs_of_a_user_share_nothing_but_the_host(temporary: str) -> None:
    listens = ("--address", "127.0.0.1")
    with (
        job(temporary, 1, *listens) as (_, first),
        job(temporary, 2, *listens) as (_, second),
    ):
        assert (first["workers"], second["workers"]) == (1, 2)
        keys = [json.loads(Path(each["key"]).read_text()) for each in (first, second)]
        for name in ("address", "token", "directory", "tcp", "keys"):
            assert keys[0][name] != keys[1][name], name
        mixed = Path(temporary) / "mixed"
        mixed.touch(0o600)
        # Who goes to the address of the second with all else of the first.
        mixed.write_text(json.dumps({**keys[0], "tcp": keys[1]["tcp"], "machine": "x"}))
        with pytest.raises(mosaic.ConnectError), mosaic.connect(mixed):
            pass


def _interpreter(user: int) -> str | None:
    """One that this user may run, with all that is needed."""
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):  # we are no superuser, or there is none
            done = subprocess.run(
                [python, "-c", "import mosaic_like.launch.mrun, zmq, msgspec, uvloop"],
                user=user,
                group=user,
                extra_groups=[],
                cwd="/",
                env={"PYTHONPATH": PATH},
                capture_output=True,
                timeout=LIMIT_S,
                check=False,
            )
            if done.returncode == 0:
                return python
    return None


def test_two_users_share_nothing_but_the_host(temporary: str) -> None:
    python = _interpreter(NOBODY)
    if python is None:
        pytest.skip("needs root, and an interpreter that every user may run")
    with (
        job(temporary, 1) as (_, ours),
        job(temporary, 1, user=NOBODY, python=python) as (_, theirs),
    ):
        assert (ours["workers"], theirs["workers"]) == (1, 1)
        assert f"mosaic-{os.geteuid()}" in ours["key"]
        assert f"mosaic-{NOBODY}" in theirs["key"]
        program = (
            "import sys, mosaic_like as m\n"
            "try: m.connect(sys.argv[1])\n"
            "except (PermissionError, m.ConnectError) as error: print(error)\n"
        )
        said = subprocess.run(
            [python, "-c", program, ours["key"]],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            cwd="/",
            env={"PYTHONPATH": PATH, "TMPDIR": temporary},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
        ).stdout
        assert "ermission" in said
        with pytest.raises(mosaic.ConnectError, match=f"belongs to user {NOBODY}"):
            mosaic.connect(theirs["key"])
