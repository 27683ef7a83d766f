"""Programs of tests that are sent signals while they run."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from processes import ended

ROOT = Path(__file__).resolve().parents[2]
LEFT_S = 15.0  # on a slow machine; what holds anything up holds it for longer

PREAMBLE = """\
import asyncio, json, os, sys, time
import mosaic_like as mosaic

def ready(runtime):
    owner = runtime.hold.cluster
    print(json.dumps({
        "members": {m.uid: m.pid for m in runtime.members.values()},
        "server": owner._server.pid if owner else 0,
        "directory": str(owner.directory.path) if owner else "",
        "key": str(owner.key) if owner else "",
    }), flush=True)

@mosaic.tessera
class Sleeper:
    def __init__(self, closing_s=0.0): self.closing_s = closing_s
    def ping(self): return os.getpid()
    def sleep(self, s): time.sleep(s)
    async def nap(self, s): await asyncio.sleep(s)
    def __close__(self):
        time.sleep(self.closing_s)
        if "CLOSED" in os.environ:
            with open(os.environ["CLOSED"], "a") as file: file.write("closed\\n")
"""


class Program:
    """A script that prints what it consists of when it is ready."""

    def __init__(self, script: str, *args: str, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PREAMBLE + script, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        )
        self.about: dict[str, Any] = {}

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        self.process.wait()

    def ready(self, timeout_s: float = 20.0) -> Program:
        """Wait for its first line."""
        try:
            self.about = json.loads(self.line(timeout_s))
        except BaseException:
            self.__exit__()
            raise
        return self

    def line(self, timeout_s: float = 20.0, error: bool = False) -> str:
        """The next line that it writes; unbuffered, so that none is overlooked."""
        stream = self.process.stderr if error else self.process.stdout
        assert stream is not None
        fd = stream.fileno()
        deadline_s = time.monotonic() + timeout_s
        text = b""
        while not text.endswith(b"\n"):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([fd], [], [], left_s)[0]:
                raise AssertionError(f"no line in {timeout_s:g} s, only {text!r}")
            byte = os.read(fd, 1)
            if not byte:
                raise AssertionError(f"it ended instead: {text!r} {self.errors()}")
            text += byte
        return text.decode()

    def errors(self) -> str:
        """What it has written to standard error, after its end."""
        assert self.process.stderr is not None
        fd = self.process.stderr.fileno()
        text = b""
        while select.select([fd], [], [], 10.0)[0] and (part := os.read(fd, 65536)):
            text += part
        return text.decode()

    def signal(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def code(self, timeout_s: float = 20.0) -> int:
        """Its exit code, as subprocess has it."""
        return self.process.wait(timeout_s)

    def pids(self) -> list[int]:
        """All of its cluster but itself."""
        members = [p for p in self.about["members"].values() if p != self.process.pid]
        return [self.about["server"], *members]

    def left(self) -> list[str]:
        """What is still there of it when all of it has had time to go."""
        deadline_s = time.monotonic() + LEFT_S
        while True:
            left = [f"process {pid}" for pid in self.pids() if not ended(pid)]
            if os.path.exists(self.about["directory"]):
                left.append(self.about["directory"])
            if not left or time.monotonic() > deadline_s:
                return left
            time.sleep(0.01)
