"""What a run leaves of processes, threads, descriptors, segments and directories (I6).

All of one run have the same temporary directory in their environment, which nobody else
has: so its processes are found, whoever their parent is by now.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import tempfile
import time
from pathlib import Path

from processes import ended

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


def kill_all_of(folder: str) -> None:
    """End what is left of a run, each by its pid."""
    for pid in processes_of(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


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
