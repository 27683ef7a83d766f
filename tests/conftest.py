"""What all tests share: nothing may be left behind, and how scripts are run.

After each test the processes, file descriptors, shared-memory segments and run
directories that it left are looked for; what does not go within a grace fails the
test. The session has a temporary directory of its own, so that two sessions of one
user do not see each other's.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import hypothesis
import processes
import pytest

from mosaic_like import session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# No test is about how long an example takes, and a machine with other work may take
# long over any of them.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")
# In CI each run tries the same examples: what only chance finds is no fault of the
# change that happens to be tested.
hypothesis.settings.register_profile(
    "steady", hypothesis.settings.get_profile("patient"), derandomize=True
)

GRACE_S = 15.0
_PR_SET_CHILD_SUBREAPER = 36
_CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class ScriptResult:
    """How a script ended; ``code`` is negative for a signal, as in subprocess."""

    stdout: str
    stderr: str
    code: int


class RunScript(Protocol):
    def __call__(
        self,
        script: str | Path,
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 60.0,
    ) -> ScriptResult: ...


@pytest.fixture(scope="session", autouse=True)
def _own_temporary_directory(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    tmp_path_factory.getbasetemp()  # where it always is: kept when a test fails
    # Short and not below pytest's: socket paths end at 107 bytes.
    is_short = len(tempfile.gettempdir()) < 40
    folder = tempfile.mkdtemp(prefix="mt-", dir=None if is_short else "/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal() -> None:
    """Shells and nohup have what they start in the background ignore some of them.

    Programs that tests start would inherit that, and a handler they do not.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def _adopt_orphans() -> None:
    """Processes whose parent died become our children, so none can be overlooked.

    They are zombies when they have ended, until the check after the test: a test that
    waits for one to go uses ``processes.ended``.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.fixture(scope="session", autouse=True)
def _warm_up() -> None:
    processes.warm_up()


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = _belongings()
    yield
    left = _new_since(before)
    if not left:
        return
    gc.collect()  # a descriptor that hangs in a cycle is not ours to blame
    deadline_s = time.monotonic() + GRACE_S
    while True:
        _reap(left)
        left = _new_since(before)
        if not left:
            return
        if time.monotonic() > deadline_s:
            break
        time.sleep(0.01)
    names = [_describe(item) for item in sorted(left)]
    _remove(left)  # so that the next test starts clean
    pytest.fail(f"left behind {GRACE_S:g} s after the test: " + "; ".join(names))


@pytest.fixture
def run_script(tmp_path_factory: pytest.TempPathFactory) -> RunScript:
    """Runs a Python script, as a text or a path, in a fresh directory."""

    def run(
        script: str | Path,
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 60.0,
    ) -> ScriptResult:
        folder = tmp_path_factory.mktemp("script")
        if isinstance(script, str):
            path = folder / "script.py"
            path.write_text(script)
        else:
            path = script.resolve()
        # Files rather than pipes: whoever inherits a pipe would keep us waiting.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with subprocess.Popen(
                [sys.executable, str(path), *args],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd or folder,
                env={**os.environ, **_import_path(), **(env or {})},
            ) as process:
                try:
                    code = process.wait(timeout)
                except subprocess.TimeoutExpired:
                    process.kill()
                    code = None
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        if code is None:
            pytest.fail(
                f"script did not end in {timeout:g} s\n--- stdout\n{texts[0]}"
                f"\n--- stderr\n{texts[1]}"
            )
        return ScriptResult(texts[0], texts[1], code)

    return run


def _import_path() -> dict[str, str]:
    """For tests that are run before the package is installed in the environment."""
    try:
        importlib.metadata.distribution("mosaic_like")
    except importlib.metadata.PackageNotFoundError:
        return {"PYTHONPATH": str(_CHECKOUT)}
    return {}


# A belonging is (kind, name, detail); the kinds are those that _describe knows.
_Belonging = tuple[str, str, str]


def _belongings() -> set[_Belonging]:
    found = {("process", pid, "") for pid in _children()}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listdir itself had open
            file = os.readlink(f"/proc/self/fd/{number}")
            # A runtime keeps the memory of large values for the next, until it ends.
            if not (file.startswith("/memfd:mosaic") and session.peek() is not None):
                found.add(("descriptor", number, file))
    for name in os.listdir("/dev/shm"):
        if name.startswith("mosaic"):
            found.add(("segment", f"/dev/shm/{name}", ""))
    folder = os.path.join(tempfile.gettempdir(), f"mosaic-{os.getuid()}")
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if name != "logs" and not name.endswith(".log"):  # kept for people
                found.add(("run directory", os.path.join(folder, name), ""))
    return found


def _new_since(before: set[_Belonging]) -> set[_Belonging]:
    """What is there that was not, but for what has taken the place of another.

    A cluster that several tests share makes a connection again whose peer did not
    answer for some seconds, as on a machine that stood still for so long.
    """
    now = _belongings()
    free = Counter(_sort(item) for item in before - now)
    left = set()
    for item in sorted(now - before):
        if free[_sort(item)] and item[0] == "descriptor":
            free[_sort(item)] -= 1
        else:
            left.add(item)
    return left


def _sort(item: _Belonging) -> str:
    """Sockets are all alike, and all else has its name."""
    return "socket" if item[2].startswith("socket:") else item[2]


def _children() -> Iterator[str]:
    for thread in os.listdir("/proc/self/task"):
        # a thread may end between the two lines
        with (
            contextlib.suppress(OSError),
            open(f"/proc/self/task/{thread}/children") as file,
        ):
            yield from file.read().split()


def _reap(left: set[_Belonging]) -> None:
    for kind, name, _ in left:
        if kind == "process" and processes.ended(int(name)):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(int(name), os.WNOHANG)


def _describe(item: _Belonging) -> str:
    kind, name, detail = item
    if kind == "process":
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            detail = b" ".join(words).decode(errors="replace").strip()[:200]
    elif detail.startswith("socket:["):
        # A row ends in its inode and, where it has one, the path that it is bound to.
        with open("/proc/net/unix") as rows:
            bound = {row[6]: " ".join(row[7:]) for row in map(str.split, rows)}
        detail += " " + bound.get(detail[8:-1], "not of the unix domain")
    return f"{kind} {name} {detail}".rstrip()


def _remove(left: set[_Belonging]) -> None:
    for kind, name, _ in left:
        if kind == "process":
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(int(name), signal.SIGKILL)
                os.waitpid(int(name), 0)
        elif kind == "segment":
            with contextlib.suppress(OSError):
                os.unlink(name)
        elif kind == "run directory":
            shutil.rmtree(name, ignore_errors=True)
