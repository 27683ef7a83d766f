"""What a run leaves of processes, threads, descriptors, segments and directories (I6).

All of one run have the same temporary directory in their environment, which nobody else
has: so its processes are found, whoever their parent is by now.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import tempfile
import time
from pathlib import Path

import uvloop
import zmq

GRACE_S = 6.0  # what a killed head had is gone in 5 s
_KEPT = ("logs",)


def processes_of(folder: str) -> list[int]:
    """Those that live and have this as their temporary directory, but for this one."""
    mark = b"TMPDIR=" + os.fsencode(folder) + b"\0"
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it has just ended
            here = Path("/proc", name)
            if mark in (here / "environ").read_bytes() + b"\0" and not ended(int(name)):
                found.append(int(name))
    return found


def ended(pid: int) -> bool:
    """Gone, or a zombie that nobody has waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def kill_all_of(folder: str) -> None:
    """End what is left of a run, each by its pid."""
    for pid in processes_of(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def warm_up() -> None:
    """Make what stays as long as the process: uvloop's pipe, pyzmq's thread."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))
    with zmq.Context() as context, context.socket(zmq.PAIR) as pair:
        pair.bind("inproc://warm")
        with context.socket(zmq.PAIR) as other:
            other.connect("inproc://warm")
            other.send(bytes(1 << 20), copy=False)
            pair.recv()


def belongings() -> set[str]:
    """What this process has, and what its runs have outside of it."""
    found = {f"process {pid}" for pid in processes_of(tempfile.gettempdir())}
    own = tempfile.gettempdir()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listdir itself had open
            file = os.readlink(f"/proc/self/fd/{number}")
            if not file.startswith(own + "/") or "mosaic" in file:
                found.add(f"descriptor {number} {file}")
    found |= {f"thread {number}" for number in os.listdir("/proc/self/task")}
    found |= {f"/dev/shm/{n}" for n in os.listdir("/dev/shm") if n.startswith("mosaic")}
    folder = Path(own, f"mosaic-{os.getuid()}")
    if folder.is_dir():
        for name in os.listdir(folder):
            if name not in _KEPT and not name.endswith(".log"):
                found.add(str(folder / name))
    return found


def left(before: set[str]) -> list[str]:
    """What has come and does not go within the grace."""
    gc.collect()  # a descriptor that hangs in a cycle is not ours to blame
    deadline_s = time.monotonic() + GRACE_S
    while (found := belongings() - before) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return sorted(found)
