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

from actors import Actor
from cells import Cell, Skip
from faults_of_workers import ANY_LOSS, LOST_BEFORE, LOST_WHILE, kill, others_go_on
from history import Event
from history import Outcome as O

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from program import Stage

_GROUPS = Path("/sys/fs/cgroup/memory")
_PROCESSES = Path("/sys/fs/cgroup/pids")
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


def killed_while_pulled(stage: Stage) -> None:
    """m7: its results are on their way here and to the other worker."""
    with little_memory():
        stage.run(eats_while_pulled)


async def eats_while_pulled(stage: Stage) -> None:
    may_be = (O.VALUE, *ANY_LOSS)
    large = stage.call(stage.a, "", 64 * MIB, expect=may_be)
    await large.task
    stage.call(stage.b, "", 0, large.task, expect=(*may_be, O.UPSTREAM))
    await eats_it_all(stage)


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


@contextlib.contextmanager
def little_disk() -> Iterator[str]:
    """A directory on a disk of 8 MiB."""
    folder = tempfile.mkdtemp()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder]
    if os.getuid() != 0 or subprocess.run(mount, check=False).returncode:
        raise Skip("needs root, and to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        os.rmdir(folder)


def disk_is_full(stage: Stage) -> None:
    """m7: values go to a disk of 8 MiB, where not all have room."""
    with little_disk() as folder:
        stage.run(
            fill_disk, memory=16 * MIB, spill_directory=folder, spill_limit=64 * MIB
        )


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


@mosaic.tessera(max_restarts=1)
class Growing(Actor):
    """Has a state that can be too large for the disk."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.total = 0
        self.size = 0

    def add(self, stream: int, number: int, size: int) -> int:
        self._log.note(Event.STARTED, stream, number)
        self.total += 1
        self.size = size
        self._log.note(Event.ENDED, stream, number)
        return self.total

    def __checkpoint__(self) -> tuple[int, bytes]:
        return self.total, os.urandom(self.size)

    def __restore__(self, state: tuple[int, bytes]) -> None:
        self.total = state[0]


def checkpoint_has_no_room(stage: Stage) -> None:
    """m9: it says so, and the one before is there when the worker is killed."""
    with little_disk() as folder:
        stage.run(save_too_much, checkpoint_directory=folder)


async def save_too_much(stage: Stage) -> None:
    growing = Growing.options(runtime=stage.first).remote(stage.folder)
    saved = stage.rng.randint(1, 5)
    for _ in range(saved):
        stage.call(growing, 1000, method="add")
    await mosaic.checkpoint(growing)
    stage.call(growing, 32 * MIB, method="add")
    error = await mosaic.checkpoint(growing).exception()
    if not isinstance(error, OSError):
        stage.left.append(f"the disk is full, and it raises {error!r}")
    stage.calls(stage.a)
    await stage.settled()
    await same_workers(stage)
    kill(stage)
    again = stage.call(growing, 0, method="add")
    total = await again.task.result()
    if total != saved + 1:
        stage.left.append(f"{total - 1} was restored, not {saved}")
    await stage.replaced()


@contextlib.contextmanager
def no_processes(pids: Iterable[int]) -> Iterator[None]:
    """A control group in which none of these can start a thread or a process."""
    if os.getuid() != 0 or not _PROCESSES.is_dir():
        raise Skip("needs root and the pids groups of control group version 1")
    group = _PROCESSES / f"mosaic-fault-{os.getpid()}"
    group.mkdir()
    try:
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        (group / "pids.max").write_text("0")
        yield
    finally:
        for left in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):  # it has just ended
                (_PROCESSES / "cgroup.procs").write_text(left)
        group.rmdir()


async def fork_fails(stage: Stage) -> None:
    """m3: what starts one is told; a lost worker is replaced when that can be."""
    made = (*stage.calls(stage.a), *stage.calls(stage.b))
    await mosaic.gather([one.task for one in made])  # also the values: ``a`` is killed
    gate = stage.gate()
    held = stage.call(stage.a, f"gate {gate}", expect=LOST_WHILE)
    await stage.started(held)
    stage.calls(stage.a, LOST_BEFORE)
    server = stage.runtime.hold.cluster._server.pid
    others = {m.pid for m in stage.runtime.members.values()} - {os.getpid()}
    with no_processes((server, *others)):
        stage.call(stage.b, "start_process", expect=(O.RAISED,))
        for size in (70_000, 300_000, 3 * MIB):  # no thread is needed for them
            stage.call(stage.b, "", size)
        for _ in range(stage.rng.randint(1, 40)):
            stage.call(stage.b)
        await stage.delivered(stage.second)
        kill(stage)
        await held.task.exception()
        await stage.call(stage.b).task
        await stage.jitter(1.0)
    await others_go_on(stage)


LITTLE = (("memory", 16 * MIB), ("spill_limit", 0))

CELLS = (
    Cell("F14", "m4", killed_for_want_of_memory, in_ci=True),
    Cell("F14", "m7", killed_while_pulled),
    Cell("F15", "memory", result_is_too_large, options=LITTLE, in_ci=True),
    Cell("F15", "disk", disk_is_full),
    Cell("F15", "descriptors", descriptors_are_used_up, after_healing_s=10.0),
    Cell("F15", "processes", fork_fails),
    Cell("F15", "m9", checkpoint_has_no_room),
)
