"""A notebook: cells that a kernel of Jupyter runs, as its front ends ask it to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from jupyter_client.manager import AsyncKernelManager
from processes import ended

import mosaic_like as mosaic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT_S = 25.0
COUNTER = """\
@mosaic.tessera
class Counter:
    def __init__(self, start=0):
        self.n = start
    def add(self, k):
        print("adding", k)
        self.n += k
        return self.n
    def fail(self):
        return 1 / 0
    async def sleep(self):
        print("asleep")
        import asyncio
        await asyncio.sleep(1000)
"""
ON = "runtime = await mosaic.interactive('on', num_workers=1)"
_COLOR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Cell:
    """What stands below a cell."""

    printed: str = ""
    value: str = ""
    traceback: str = ""
    error: str = ""
    others: list[str] = field(default_factory=list)  # what other cells have printed


class Kernel:
    """A kernel, and a front end that waits for each cell."""

    def __init__(self, manager: AsyncKernelManager) -> None:
        self.manager = manager
        self.client = manager.client()

    async def ready(self) -> None:
        await self.client.wait_for_ready(timeout=LIMIT_S)

    async def run(self, code: str, interrupt_at: str = "") -> Cell:
        """Run a cell; ``interrupt_at``: when it has printed this."""
        cell = Cell()
        asked = self.client.execute(code)
        async with asyncio.timeout(LIMIT_S):
            while True:
                message = await self.client.get_iopub_msg()
                kind, content = message["msg_type"], message["content"]
                if message["parent_header"].get("msg_id") != asked:
                    if kind == "stream":
                        cell.others.append(content["text"])
                elif kind == "status" and content["execution_state"] == "idle":
                    return cell
                elif kind == "stream":
                    cell.printed += content["text"]
                    if interrupt_at and interrupt_at in cell.printed:
                        await self.manager.interrupt_kernel()
                        # Its loop is not woken by the signal, but by any message.
                        self.client.kernel_info()
                elif kind == "execute_result":
                    cell.value = content["data"]["text/plain"]
                elif kind == "error":
                    cell.error = content["ename"]
                    cell.traceback = _COLOR.sub("", "\n".join(content["traceback"]))

    def processes(self) -> list[int]:
        """Those of the kernel, and those that it has started."""
        pid = self.manager.provisioner.process.pid  # type: ignore[union-attr]  # it runs
        kernel = psutil.Process(pid)
        return [pid, *(child.pid for child in kernel.children(recursive=True))]


async def gone(pids: list[int]) -> None:
    """Wait until these processes have ended."""
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    _, left = await asyncio.to_thread(psutil.wait_procs, processes, timeout=20)
    assert not [process for process in left if not ended(process.pid)]


@pytest.fixture
async def kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Kernel]:
    for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    # Sockets in a short path.
    with tempfile.TemporaryDirectory(prefix="k-") as runtime_dir:
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", runtime_dir)
        monkeypatch.delenv("MOSAIC_CLUSTER", raising=False)
        assert mosaic.__file__ is not None
        env = {**os.environ, "PYTHONPATH": str(Path(mosaic.__file__).parents[1])}
        manager = AsyncKernelManager(
            transport="ipc", ip=f"{runtime_dir}/kernel", kernel_name="python3"
        )
        await manager.start_kernel(cwd=str(tmp_path), env=env)
        kernel = Kernel(manager)
        try:
            kernel.client.start_channels()
            await kernel.ready()
            yield kernel
        finally:
            kernel.client.stop_channels()
            if await manager.is_alive():
                await manager.shutdown_kernel(now=True)
            manager.context.destroy(linger=0)


async def test_cells_define_classes_and_show_what_methods_print(kernel: Kernel) -> None:
    await kernel.run("import mosaic_like as mosaic")
    assert (await kernel.run(ON + "; runtime")).value == "<head · 1 worker>"
    again = await kernel.run(ON.replace("runtime =", "again =") + "; again is runtime")
    assert again.value == "True"
    assert not (await kernel.run(COUNTER)).error

    cell = await kernel.run("c = Counter.remote(10); await c.add(5).result()")
    assert (cell.printed, cell.value) == ("w0:0 Counter#1 | adding 5\n", "15")
    cell = await kernel.run("await mosaic.gather(c.add(k) for k in (1, 2))")
    assert cell.printed.count("w0:0 Counter#1 | adding") == 2
    assert cell.value == "[16, 18]"

    # Forgotten await: what it is, and what to write.
    assert (await kernel.run("c.add(1)")).value.startswith("<Task Counter#1.add · ")
    assert "· await it for the value>" in (await kernel.run("c.n")).value
    assert (await kernel.run("await c.n")).value == "19"

    # The class of a cell that is run again is another one; what lives goes on.
    changed = COUNTER.replace("self.n += k", "self.n -= k")
    await kernel.run(changed + "\nd = Counter.remote(10)")
    assert (await kernel.run("await d.add(1).result()")).value == "9"
    assert (await kernel.run("await c.add(1).result()")).value == "20"

    # The user's lines, here and there, and none of ours.
    cell = await kernel.run("await c.fail().result()")
    assert cell.error == "ZeroDivisionError"
    assert "await c.fail().result()" in cell.traceback
    assert "return 1 / 0" in cell.traceback
    assert "in Counter#1.fail on w0:0" in cell.traceback
    assert "mosaic_like/" not in cell.traceback

    # To block would stop the kernel.
    cell = await kernel.run("c.add(1).get()")
    assert cell.error == "RuntimeError"
    assert "await task.result()" in cell.traceback

    processes = kernel.processes()
    assert len(processes) > 3
    await kernel.run("await mosaic.interactive('off')")
    await gone(processes[1:])
    assert (await kernel.run("runtime")).value.endswith("· stopped>")


async def test_an_interrupted_cell_leaves_the_cluster(kernel: Kernel) -> None:
    await kernel.run("import mosaic_like as mosaic\n" + COUNTER)
    await kernel.run(ON + "; c = Counter.remote()")
    cell = await kernel.run("await c.sleep().result(); print('on')", "asleep")
    assert cell.error == "CancelledError"
    cell = await kernel.run("Counter.remote().sleep()\nwhile True: pass", "asleep")
    assert cell.error in ("KeyboardInterrupt", "")  # it is shown as text
    cell = await kernel.run("await Counter.remote(1).add(1).result()")
    assert (cell.value, cell.others) == ("2", [])
    assert "on\n" not in cell.printed

    # A block of its own ends with its cell.
    await kernel.run("await mosaic.interactive('off')")
    cell = await kernel.run(
        "async with mosaic.init(num_workers=1) as runtime:\n"
        "    await Counter.remote().sleep().result()",
        "asleep",
    )
    assert cell.error == "CancelledError"
    assert (await kernel.run("runtime")).value.endswith("· stopped>")
    await gone(kernel.processes()[1:])


@pytest.mark.parametrize("now", [False, True], ids=["asked", "killed"])
async def test_a_kernel_that_ends_leaves_nothing(kernel: Kernel, now: bool) -> None:
    await kernel.run("import mosaic_like as mosaic\n" + COUNTER)
    await kernel.run(ON + "; c = Counter.remote(); t = c.sleep()")
    processes = kernel.processes()
    assert len(processes) > 3
    await kernel.manager.restart_kernel(now=now)
    await gone(processes)
    await kernel.ready()
    await kernel.run("import mosaic_like as mosaic")
    assert (await kernel.run(ON + "; runtime")).value == "<head · 1 worker>"
    processes = kernel.processes()
    await kernel.manager.shutdown_kernel(now=now)
    await gone(processes)
