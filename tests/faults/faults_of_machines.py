"""F14, F15: there is no memory, no disk, no descriptor left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cells import Cell, Skip
from faults_of_workers import ANY_LOSS, LOST_BEFORE, LOST_WHILE, others_go_on
from history import Outcome as O

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from program import Stage

_GROUPS = Path("/sys/fs/cgroup/memory")
_LIMIT_BYTES = 600 << 20
MIB = 1 << 20


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """A control group with little memory, which this process and its children share."""
    if os.getuid() != 0 or not (_GROUPS / "memory.limit_in_bytes").exists():
        raise Skip("needs root and the memory groups of control group version 1")
    group = _GROUPS / f"mosaic-fault-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(_LIMIT_BYTES))
        (group / "cgroup.procs").write_text("0")
        yield
    finally:
        (_GROUPS / "cgroup.procs").write_text("0")
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):  # it has just ended
                (_GROUPS / "cgroup.procs").write_text(pid)
        group.rmdir()


def killed_for_want_of_memory(stage: Stage) -> None:
    """m4: the kernel kills it, the error says why, and nobody else is hit."""
    with little_memory():
        stage.run(eats_it_all)


async def eats_it_all(stage: Stage) -> None:
    running = stage.call(stage.a, "eat", expect=LOST_WHILE)
    stage.calls(stage.a, LOST_BEFORE)
    stage.calls(stage.b)
    await stage.started(running)
    error = await running.task.exception()
    if not isinstance(error, mosaic.WorkerOutOfMemory):
        stage.left.append(f"it is no WorkerOutOfMemory: {error!r}")
    await others_go_on(stage)


async def result_is_too_large(stage: Stage) -> None:
    """m7: its result does not go into what the node may keep."""
    await stage.runtime.sharing.ready()
    for probe in stage.probes():
        while not await probe.shares().result():  # noqa: ASYNC110 -- no event
            await asyncio.sleep(0.01)
    stage.call(stage.a, "", 40 * MIB, expect=(O.NO_ROOM,))
    stage.calls(stage.a)
    await stage.settled()
    await same_workers(stage)


def disk_is_full(stage: Stage) -> None:
    """m7: values go to a disk of 8 MiB, where not all have room."""
    folder = tempfile.mkdtemp()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder]
    if os.getuid() != 0 or subprocess.run(mount, check=False).returncode:
        raise Skip("needs root, and to mount")
    try:
        stage.run(
            fill_disk, memory=16 * MIB, spill_directory=folder, spill_limit=64 * MIB
        )
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        os.rmdir(folder)


async def fill_disk(stage: Stage) -> None:
    kept = [
        stage.call(actor, "", 3 * MIB, expect=(O.VALUE, O.NO_ROOM))
        for _ in range(8)
        for actor in (stage.a, stage.b)
    ]
    await stage.settled()
    held = [one for one in kept if await one.task.exception() is None]
    stage.calls(stage.a)
    await stage.settled()
    if not held:
        stage.left.append("not one value was kept")
    kept.clear()
    held.clear()
    await same_workers(stage)


async def descriptors_are_used_up(stage: Stage) -> None:
    """m4: by the method itself, which alone is told; then by everybody else."""
    stage.call(stage.a, "fill_descriptors", expect=(O.RAISED,))
    stage.calls(stage.a)
    await stage.settled()
    pid = stage.first.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    now = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (now, limits[1]))
    # What needs a segment may fail, or go another way. And libzmq ends a process that
    # has no descriptor for a connection that somebody makes to it.
    may_be = (O.VALUE, O.NO_ROOM, *ANY_LOSS)
    calls = [
        stage.call(stage.a, "", size, expect=may_be) for size in (0, 300_000, 3 * MIB)
    ]
    stage.relayed(stage.a, 10, may_be)
    await stage.delivered(stage.second)
    await stage.jitter(0.5)
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    stage.healed()
    await stage.settled()
    lost = [one for one in calls if await one.task.exception() is not None]
    if not lost:
        stage.call(stage.a, "", 3 * MIB)


async def same_workers(stage: Stage) -> None:
    """Nobody was ended."""
    pids = {stage.first.pid, stage.second.pid}
    assert {w.pid for w in stage.runtime.workers} == pids, "a worker was ended"


def no_processes(stage: Stage) -> None:
    """m3: ``fork`` fails."""
    raise Skip("limits of processes do not hold for root, who runs the tests")


LITTLE = (("memory", 16 * MIB), ("spill_limit", 0))

CELLS = (
    Cell("F14", "m4", killed_for_want_of_memory, in_ci=True),
    Cell("F15", "memory", result_is_too_large, options=LITTLE, in_ci=True),
    Cell("F15", "disk", disk_is_full),
    Cell("F15", "descriptors", descriptors_are_used_up, after_healing_s=10.0),
    Cell("F15", "processes", no_processes),
)
