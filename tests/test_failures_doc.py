"""Each text of docs/failures.md is what a user sees: it is brought about here."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from processes import halt

import mosaic_like as mosaic
from mosaic_like.comms.messages import PROTOCOL, Hello, Member
from mosaic_like.core.monitor import MonitorState
from mosaic_like.core.node import MOST, Replacing
from mosaic_like.core.verdicts import decode, encode
from mosaic_like.runtimes import draining
from mosaic_like.runtimes.base import PYTHON
from mosaic_like.runtimes.oom import MemoryKills

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mosaic_like.runtimes.user import UserRuntime

PAGE = Path(__file__).parent.parent / "docs" / "failures.md"
LIMIT_S = 40.0
# What is different each time, and what the page has instead.
PLACEHOLDERS = (
    (r"\bpid \d+", "pid <pid>"),
    (re.escape(socket.gethostname()), "<host>"),
    (r"(Solver|Stateful)#\d+", "Solver#1"),
    (r"[^\s(]*/checkpoints-\w+(/\d+)?", "<folder>/<tessera>"),
    (r"[\d,]+ bytes", "<number> bytes"),
    (re.escape(str(Path(__file__).parent)), "<folder>"),
    (r"\.py:\d+", ".py:<line>"),
    (r"\bprotocol \d+", "protocol <number>"),
    (r"this cluster \d+:", "this cluster <number>:"),
    (r"ipc://\S+", "<address>"),
)


class Solver:
    """The object of the page's examples."""

    def __init__(self, fails: bool = False) -> None:
        if fails:
            raise ValueError("no such model")

    def run(self, started: str = "") -> None:
        if started:
            Path(started).touch()
        time.sleep(30)

    async def wait(self, started: str = "") -> None:
        if started:
            Path(started).touch()  # noqa: ASYNC240 -- one call
        await asyncio.Event().wait()

    def model(self) -> Any:
        return [str(number) for number in range(20_000)]

    def lock(self) -> Any:
        return threading.Lock()

    def image(self, value: Any = None) -> Any:
        return value

    def scale(self, array: Any) -> None:
        array *= 2

    def fail(self) -> None:
        raise ValueError("no such image")

    def leave(self) -> None:
        os._exit(3)

    def crash(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(30)

    def ask_itself(self, me: Any) -> Any:
        return me.image().get(20)

    def exits(self) -> None:
        raise SystemExit(1)

    def allow_threads(self, allow: bool) -> None:
        """Let its process start threads, or none, as if there were too many."""

        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        real = vars(self).setdefault("_start", threading.Thread.start)
        setattr(threading.Thread, "start", real if allow else start)  # noqa: B010

    def make(self, runtime: str) -> Any:
        """One that is built again, of this worker's."""
        return mosaic.remote(Solver, max_restarts=2, runtime=runtime)()


class Stateful(Solver):
    """One whose state is written down."""

    def limit_files(self, nbytes: int) -> None:
        """From now on its process can write no larger file."""
        # Otherwise that is a signal which ends it.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))

    def __checkpoint__(self) -> bytes:
        return bytes(100_000)

    def __restore__(self, state: bytes) -> None: ...


@mosaic.task(concurrency=mosaic.Concurrency(on_conflict="error"))
def simulate(started: str) -> None:
    """The function task of the page."""
    Path(started).touch()
    time.sleep(30)


def shown(text: str) -> str:
    """A text as the page has it."""
    for pattern, placeholder in PLACEHOLDERS:
        text = re.sub(pattern, placeholder, text)
    return text.strip()


def on_the_page() -> dict[str, str]:
    """The text under each heading that has one."""
    parts = re.split(r"^### (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    found = {}
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        blocks = re.findall(r"^```text\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)
        if blocks:
            found[heading] = "".join(blocks).strip()
    return found


async def error_of(task: Any) -> str:
    """What the call ended by, as its traceback ends."""
    error = await task.exception()
    return line_of(error)


async def lookup_error_of(call: Callable[[], Any]) -> str:
    """As ``error_of``, where calls may end otherwise until the news has come."""
    error = None
    try:
        while not isinstance(error := await call().exception(), LookupError):
            pass
    except asyncio.CancelledError as late:
        late.add_note(f"no LookupError has come; the last call ended by {error!r}")
        raise
    return line_of(error)


def line_of(error: BaseException | None) -> str:
    assert error is not None
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__.startswith("mosaic_like"):
        name = f"mosaic_like.{name}"
    return shown(f"{name}: {error}")


def raised_by(function: Callable[[], Any]) -> str:
    try:
        function()
    except Exception as error:
        return line_of(error)
    raise AssertionError("nothing was raised")


async def there(path: Path) -> None:
    async with asyncio.timeout(20):
        while not path.exists():  # noqa: ASYNC110, ASYNC240 -- made by a method
            await asyncio.sleep(0.005)


def make(runtime: Any, index: int) -> Any:
    return mosaic.remote(Solver, runtime=runtime.workers[index])()


async def of_deaths(runtime: Any, tmp_path: Path) -> dict[str, str]:
    """A worker dies, in several ways; each is replaced, at most five in a minute."""
    texts = {}
    first = runtime.workers[0]
    solver = mosaic.remote(Solver, runtime=first)()
    kept = solver.model()
    await kept
    running = solver.run(str(tmp_path / "killed"))
    queued = solver.image()
    using = make(runtime, 1).image(running)
    await there(tmp_path / "killed")
    os.kill(first.pid, signal.SIGKILL)
    texts["A worker was killed while it ran the call"] = await error_of(running)
    texts["A worker was killed before it ran the call"] = await error_of(queued)
    error = None
    try:
        await kept.result()
    except mosaic.WorkerDied as caught:
        error = caught
    texts["A worker was killed that had the result"] = line_of(error)
    texts["An argument of the call failed"] = await error_of(using)
    for heading, method in (
        ("A method ended its process", "leave"),
        ("A worker crashed", "crash"),
    ):
        await runtime.wait_for_workers(2, 20)
        texts[heading] = await error_of(getattr(make(runtime, 0), method)())
    await runtime.wait_for_workers(2, 20)
    return texts


async def of_cancelling(runtime: Any, tmp_path: Path) -> dict[str, str]:
    texts = {}
    solver = make(runtime, 0)
    running = solver.wait(str(tmp_path / "runs"))
    queued = solver.image()
    await there(tmp_path / "runs")
    queued.cancel()
    texts["The call was cancelled before it started"] = await error_of(queued)
    running.cancel("it is not needed")
    texts["The call was cancelled while it ran"] = await error_of(running)
    running = solver.wait.options(timeout=2)()
    texts["The call took too long"] = await error_of(running)
    running = solver.run(str(tmp_path / "slow"))
    await there(tmp_path / "slow")
    queued = solver.image.options(timeout=0.2)()
    texts["The call waited too long"] = await error_of(queued)
    running.cancel()
    await running.exception()
    frozen = runtime.workers[1]
    other = make(runtime, 1)
    await other.image()
    halt(frozen.pid)
    silent = other.image.options(timeout=0.2)()
    texts["A worker does not answer"] = await error_of(silent)
    os.kill(frozen.pid, signal.SIGCONT)
    return texts


async def of_values(runtime: Any) -> dict[str, str]:
    texts = {}
    solver = make(runtime, 0)
    texts["An argument cannot travel"] = raised_by(
        lambda: solver.image([1, threading.Lock()])
    )
    texts["A result cannot travel"] = await error_of(solver.lock())
    texts["An array that came from elsewhere was changed"] = await error_of(
        solver.scale(np.ones(100_000))
    )
    texts["A method raised SystemExit"] = await error_of(solver.exits())
    return texts


async def of_use(runtime: Any) -> dict[str, str]:
    texts = {}
    solver = make(runtime, 0)
    texts["Calls wait for each other in a circle"] = await error_of(
        solver.ask_itself(solver)
    )
    closed = make(runtime, 0)
    await closed.image()
    await mosaic.close(closed)
    texts["The object was closed"] = await error_of(closed.image())
    one, other = make(runtime, 0), make(runtime, 1)
    mosaic.link(one, other)
    await mosaic.kill(one)
    # It may be queued still when the news come: then it is cancelled for the same.
    text = await lookup_error_of(other.image)
    texts["The object was linked to another one"] = text
    threads = solver.allow_threads
    await threads(False)
    single = mosaic.remote(Solver, runtime=runtime.workers[0], thread=True)()
    texts["An object can have no thread of its own"] = await error_of(single.image())
    await threads(True)
    broken = mosaic.remote(Solver, runtime=runtime.workers[0])(fails=True)
    texts["The object could not be made"] = await error_of(broken.image())
    return texts


async def of_tasks(tmp_path: Path) -> dict[str, str]:
    running = simulate.submit(str(tmp_path / "simulates"))
    await there(tmp_path / "simulates")
    another = simulate.submit(str(tmp_path / "simulates"))
    texts = {"A rule lets no more calls run": await error_of(another)}
    running.cancel()
    await running.exception()
    return texts


async def of_draining(runtime: Any) -> dict[str, str]:
    """Last: a worker less is there afterwards."""
    texts = {}
    solver = make(runtime, 1)
    await solver.image()
    await runtime.drain(runtime.workers[1], timeout=20)
    texts["The worker was drained"] = await error_of(solver.image())
    return texts


def of_many_deaths() -> dict[str, str]:
    """What a node says of the sixth, 2 s after the first."""
    replacing = Replacing()

    def said_of(uid: str) -> str:
        for _ in range(MOST):
            assert not replacing.died(uid, "killed by SIGKILL", 0.0)[1]
        return f"mosaic: {replacing.died(uid, 'killed by SIGKILL', 2.0)[1]}"

    how = "could not be forked: [Errno 11] Resource temporarily unavailable"
    _, none = replacing.not_forked("worker:0:0", how)
    return {
        "No process can be started": f"mosaic: {none}",
        "Workers died too often": said_of("worker:0:0"),
        "The warehouse died too often": said_of("warehouse:0"),
    }


def of_versions() -> dict[str, str]:
    state = MonitorState(PYTHON, b"")

    def refusal(protocol: int, python: str) -> str:
        hello = Hello(protocol, python, "node", "", b"12345678", "ipc:///x", "far", 1)
        _, answer, _ = state.hello(hello)
        return shown(f"mosaic_like.ConnectError: {answer.why}")  # type: ignore[attr-defined]  # it is refused

    return {
        "Another version of the library": refusal(PROTOCOL + 1, PYTHON),
        "Another version of Python": refusal(PROTOCOL, "3.9"),
    }


def of_programs() -> dict[str, str]:
    return {
        "There is no runtime": raised_by(mosaic.runtime),
        "There is no such cluster": raised_by(lambda: mosaic.connect("/tmp/no-key")),
    }


def of_the_monitor(tmp_path: Path) -> dict[str, str]:
    """It is killed, so in a cluster of its own; before that, a call kills workers."""
    texts = {}

    async def main(runtime: Any) -> None:
        solver = make(runtime, 0)
        running = solver.wait(str(tmp_path / "monitored"))
        await there(tmp_path / "monitored")
        (monitor,) = [m for m in runtime.members.values() if m.uid == "monitor"]
        os.kill(monitor.pid, signal.SIGKILL)
        texts["The monitor has ended"] = await error_of(running)
        texts["Something is made when the monitor has ended"] = await error_of(
            mosaic.remote(Solver)().image()
        )

    mosaic.run(bounded(main), num_workers=1)
    return texts


def of_a_node(tmp_path: Path) -> dict[str, str]:
    """It dies, so in a cluster of its own, with little memory."""
    texts = {}

    async def main(runtime: Any) -> None:
        await runtime.sharing.ready()
        texts["A value is larger than all memory"] = raised_by(
            lambda: mosaic.put(np.ones(500_000))
        )
        running = make(runtime, 0).wait(str(tmp_path / "drained"))
        await there(tmp_path / "drained")
        os.kill(runtime.nodes[0].pid, signal.SIGKILL)
        texts["The node of a worker was lost"] = await error_of(running)

    options = {"memory": "2 MiB", "spill_limit": "1 MiB"}
    mosaic.run(bounded(main), num_workers=1, **options)
    return texts


def of_restarts(tmp_path: Path) -> dict[str, str]:
    """Three workers die: in a cluster of its own, which replaces them."""
    texts = {}

    async def main(runtime: Any) -> None:
        solver = mosaic.remote(Solver, max_restarts=2, idempotent=True)()
        texts["A call has ended two workers"] = await error_of(solver.crash())
        await solver.image()
        worker = runtime.get_worker(mosaic.info(solver).runtime_id)
        os.kill(worker.pid, signal.SIGKILL)
        while (error := await solver.image().exception()) is None:
            pass  # until it is known here
        texts["An object has no restarts left"] = line_of(error)
        await runtime.wait_for_workers(2, 20)
        first, second = (
            mosaic.remote(Solver, max_restarts=3, runtime=worker)()
            for worker in runtime.workers
        )
        mosaic.supervise(first, second)
        running = second.wait(str(tmp_path / "supervised"))
        await there(tmp_path / "supervised")
        first.crash()
        texts["The object is built again with another one"] = await error_of(running)

    mosaic.run(bounded(main), num_workers=2)
    # Where each life is made is not what the page is about.
    return {name: re.sub(r"\bw0:\d", "w0:<n>", text) for name, text in texts.items()}


def of_what_is_not_built_again(tmp_path: Path) -> dict[str, str]:
    """Four more die: in another cluster, which replaces no more than five."""
    texts = {}

    async def main(runtime: Any) -> None:
        texts.update(await of_groups_and_makers(runtime))
        await runtime.wait_for_workers(2, 20)
        texts.update(await of_checkpoints(tmp_path))
        await runtime.wait_for_workers(2, 20)
        texts.update(await of_memory(runtime, tmp_path))
        await runtime.wait_for_workers(2, 20)
        texts.update(await of_a_late_drain(runtime, tmp_path))

    mosaic.run(bounded(main), num_workers=2, checkpoint_directory=str(tmp_path))
    return {name: re.sub(r"\bw0:\d", "w0:<n>", text) for name, text in texts.items()}


async def of_groups_and_makers(runtime: Any) -> dict[str, str]:
    texts = {}
    one, other = runtime.workers
    first = mosaic.remote(Solver, max_restarts=1, runtime=one)()
    second = mosaic.remote(Solver, max_restarts=1, runtime=other)()
    mosaic.supervise(first, second, max_restarts=0)
    await mosaic.gather(first.image(), second.image())
    os.kill(one.pid, signal.SIGKILL)
    # As above: a call that is queued when the news come is cancelled for the same.
    text = await lookup_error_of(second.image)
    texts["The object was supervised with one that has ended"] = text
    await runtime.wait_for_workers(2, 20)
    one, other = runtime.workers
    made = await mosaic.remote(Solver, runtime=one)().make(other.uid).result()
    await made.image()
    os.kill(one.pid, signal.SIGKILL)
    # While it is being closed its own name is in the text.
    while "tessera." not in str(error := await made.image().exception()):
        pass
    texts["The maker of the object was lost"] = line_of(error)
    return texts


async def of_checkpoints(tmp_path: Path) -> dict[str, str]:
    texts = {}
    solver = mosaic.remote(Stateful, max_restarts=1)()
    await mosaic.checkpoint(solver)
    await solver.limit_files(50_000)
    texts["A checkpoint cannot be written"] = await error_of(mosaic.checkpoint(solver))
    for file in tmp_path.glob("checkpoints-*/*"):  # noqa: ASYNC240 -- two files
        file.write_bytes(b"damaged")
    await solver.leave().exception()
    texts["A checkpoint is damaged"] = await error_of(solver.image())
    return texts


async def of_a_late_drain(runtime: Any, tmp_path: Path) -> dict[str, str]:
    """A worker less is there afterwards."""
    running = make(runtime, 1).wait(str(tmp_path / "late"))
    await there(tmp_path / "late")
    try:
        await runtime.drain(runtime.workers[1], timeout=0.2)
    except TimeoutError as error:
        await running.exception()
        return {"Calls had not ended when their worker was drained": line_of(error)}
    raise AssertionError("it left in time")


async def of_memory(runtime: Any, tmp_path: Path) -> dict[str, str]:
    """The evidence is made up: only some machines have it."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text("0::/\n")
    (tmp_path / "memory.max").write_text(str(4 << 30))
    (tmp_path / "memory.events").write_text("oom_kill 0\n")
    kills = MemoryKills(tmp_path, tmp_path)
    kills.watch(7)
    (tmp_path / "memory.events").write_text("oom_kill 1\n")
    left = runtime.remains

    def killed_for_memory(member: Any, data: bytes) -> None:
        remains = decode(data)
        remains.memory = kills.killed(7, 3 << 30).text
        left(member, encode(remains))

    runtime.remains = killed_for_memory
    running = make(runtime, 0).run(str(tmp_path / "hungry"))
    await there(tmp_path / "hungry")
    os.kill(runtime.workers[0].pid, signal.SIGKILL)
    text = await error_of(running)
    runtime.remains = left
    return {"A worker was killed for want of memory": text}


def of_a_drained_node() -> dict[str, str]:
    """Of two hosts, so it is made up too."""
    node = Member(3, "node:1", b"", "", "far", 7)
    runtime = SimpleNamespace(
        causes={3: (node, "its process has ended")},
        leavers=SimpleNamespace(left={}),
    )
    why = raised_by(lambda: draining._judge(cast("UserRuntime", runtime), node, [node]))
    return {"A node died while it was drained": why}


def bounded(main: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Any]:
    async def inside(runtime: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(runtime)

    return inside


def collected(tmp_path: Path) -> dict[str, str]:
    """Every text, brought about."""
    texts = {**of_versions(), **of_programs(), **of_the_monitor(tmp_path)}
    texts.update(of_a_drained_node())
    texts.update(of_many_deaths())
    texts.update(of_restarts(tmp_path))
    texts.update(of_what_is_not_built_again(tmp_path))
    texts.update(of_a_node(tmp_path))

    async def main(runtime: Any) -> None:
        texts.update(await of_deaths(runtime, tmp_path))
        texts.update(await of_cancelling(runtime, tmp_path))
        texts.update(await of_values(runtime))
        texts.update(await of_use(runtime))
        texts.update(await of_tasks(tmp_path))
        texts.update(await of_draining(runtime))

    mosaic.run(bounded(main), num_workers=2)
    return texts


@pytest.mark.timeout(120)  # five clusters
def test_each_text_of_the_page_is_what_a_user_sees(tmp_path: Path) -> None:
    page, texts = on_the_page(), collected(tmp_path)
    assert {heading: page.get(heading) for heading in texts} == texts
    assert page.keys() == texts.keys()
