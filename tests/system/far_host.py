"""Another host, as a network namespace: nothing is shared with it but the files.

A pair of virtual interfaces joins it to this one; run directories are elsewhere. Needs
root, and Linux's ``ip``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMMAND_S = 20.0
END_S = 30.0


@mosaic.tessera
class Far:
    """Has large values."""

    def total(self, array: np.ndarray[Any, Any]) -> float:
        return float(array.sum())

    def make(self, size: int) -> np.ndarray[Any, Any]:
        return np.arange(size, dtype=np.float64)

    def echo(self, value: Any) -> Any:
        return value

    async def wait(self) -> None:
        await asyncio.Event().wait()


class Unavailable(Exception):
    """There can be no such host here."""


@dataclass
class FarHost:
    """What is known of it."""

    name: str
    near: str  # address of this side
    far: str  # and of the other
    folder: str  # for its temporary files

    def start(
        self,
        *words: str,
        stdin: str = "",
        stderr: int | None = None,
        **environment: str,
    ) -> subprocess.Popen[bytes]:
        """Start Python there with these arguments; its output is in files."""
        with tempfile.TemporaryFile() as given:
            given.write(stdin.encode())
            given.seek(0)
            with open(Path(self.folder) / "said", "ab") as said:
                return subprocess.Popen(
                    ["ip", "netns", "exec", self.name, sys.executable, *words],
                    stdin=given,
                    stdout=said,
                    stderr=said if stderr is None else stderr,
                    env={**os.environ, "TMPDIR": self.folder, **environment},
                    cwd="/",
                )

    def node(
        self, key: str, *words: str, stderr: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a node there."""
        all_words = ("-m", "mosaic_like", "node", "--key", "-", *words)
        return self.start(*all_words, stdin=key, stderr=stderr)

    def join(self, runtime: Any, stderr: int | None = None) -> subprocess.Popen[bytes]:
        """Start a node there, with one worker, in the cluster of this runtime."""
        return self.node(key_of(runtime), "-nw", "1", stderr=stderr)

    def cut(self) -> None:
        """From now on nothing reaches it, nor anything of it others."""
        _ip("link", "set", self.name, "down")

    def heal(self) -> None:
        """Undo ``cut``."""
        _ip("link", "set", self.name, "up")

    @property
    def said(self) -> str:
        """What its processes have printed."""
        return (Path(self.folder) / "said").read_text()

    @property
    def left(self) -> list[str]:
        """Run directories that are there."""
        base = Path(self.folder) / f"mosaic-{os.getuid()}"
        return [str(path) for path in base.iterdir()] if base.exists() else []

    @property
    def pids(self) -> list[int]:
        """Processes that run there."""
        done = _ip("netns", "pids", self.name)
        return [int(pid) for pid in done.stdout.split()]


def key_of(runtime: Any) -> str:
    """What is in the key file of a cluster that was started here."""
    return Path(runtime.hold.cluster.key).read_text()


def code_of(process: subprocess.Popen[bytes]) -> int:
    """Its exit code, as soon as it has ended."""
    try:
        return process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


@contextlib.contextmanager
def far_host() -> Iterator[FarHost]:
    """Another host.

    Raises:
        Unavailable: it cannot be made here.
    """
    if sys.platform != "linux" or os.geteuid() or shutil.which("ip") is None:
        raise Unavailable("network namespaces need root, and ip")
    name = f"mt{os.getpid()}"
    # One of the test networks of RFC 2544, which nothing else uses.
    place = f"198.{random.choice((18, 19))}.{random.randrange(256)}"
    folder = tempfile.mkdtemp(prefix="mf-")
    host = FarHost(name, f"{place}.1", f"{place}.2", folder)
    try:
        _make(host)
        yield host
    finally:
        for pid in _pids(host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _ip("netns", "del", name)
        _ip("link", "del", name)  # the other end is gone with its namespace
        shutil.rmtree(folder, ignore_errors=True)


def _pids(host: FarHost) -> list[int]:
    with contextlib.suppress(ValueError):
        return host.pids
    return []


def _make(host: FarHost) -> None:
    name, far = host.name, f"{host.name}f"
    for words in (
        ("netns", "add", name),
        ("link", "add", name, "type", "veth", "peer", "name", far),
        ("link", "set", far, "netns", name),
        ("addr", "add", f"{host.near}/30", "dev", name),
        ("link", "set", name, "up"),
        ("-n", name, "addr", "add", f"{host.far}/30", "dev", far),
        ("-n", name, "link", "set", far, "up"),
        ("-n", name, "link", "set", "lo", "up"),
    ):
        done = _ip(*words)
        if done.returncode:
            raise Unavailable(f"ip {' '.join(words)}: {done.stderr}")


def _ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ip", *words], capture_output=True, text=True, timeout=_COMMAND_S, check=False
    )
