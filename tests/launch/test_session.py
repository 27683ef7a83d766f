"""The ways to start, use, join and end a cluster in a program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from programs import PREAMBLE, ROOT, Program

import mosaic_like as mosaic

if TYPE_CHECKING:
    from conftest import RunScript

HELLO = """
import mosaic_like as mosaic
@mosaic.tessera
class Counter:
    def __init__(self, n=0): self.n = n
    def add(self, k): self.n += k; return self.n
async def main():
    return await Counter.remote(40).add(2).result()
print(mosaic.run(main, num_workers=1))
"""


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


# -- the package -----------------------------------------------------------------------


def test_the_import_is_quick_and_brings_nothing_along() -> None:
    code = (
        "import sys; before = set(sys.modules); import time; t = time.process_time();"
        "import mosaic_like; took = time.process_time() - t;"
        "import json; print(json.dumps([took, sorted(set(sys.modules) - before)]))"
    )
    took_s = []
    for _ in range(3):
        out = subprocess.check_output(
            [sys.executable, "-W", "error", "-c", code], env=_environment(), timeout=30
        )
        seconds, modules = json.loads(out)
        took_s.append(seconds)
    heavy = {"zmq", "uvloop", "cloudpickle", "numpy", "psutil", "click", "tblib"}
    assert not heavy & set(modules)
    assert "asyncio" not in modules
    assert "mosaic_like.errors" not in modules
    assert min(took_s) < 0.15


def test_every_public_name_is_there() -> None:
    for name in mosaic.__all__:
        assert getattr(mosaic, name) is getattr(mosaic, name)
    assert set(mosaic.__all__) <= set(dir(mosaic))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mosaic.nonsense  # type: ignore[attr-defined] # noqa: B018


def test_without_a_runtime_the_text_says_how_to_get_one() -> None:
    with pytest.raises(RuntimeError, match=r"mosaic\.run\(main\).*interactive"):
        mosaic.runtime()
    assert mosaic.logger().name == "mosaic_like"
    mosaic.stop()  # nothing to do


# -- scripts ---------------------------------------------------------------------------


def test_hello_works_in_every_way_a_script_is_run(tmp_path: Path) -> None:
    """By -c, by standard input, as a file without a guard; in a directory that is
    empty and read-only, with warnings as errors, two at once."""
    folder = tmp_path / "empty"
    folder.mkdir()
    folder.chmod(0o555)
    script = tmp_path / "hello.py"
    script.write_text(HELLO)
    python = [sys.executable, "-W", "error"]
    runs = [
        subprocess.Popen(
            [*python, *arguments],
            cwd=folder,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments in (["-c", HELLO], ["-"], [str(script)])
    ]
    for run, text in zip(runs, ("", HELLO, ""), strict=True):
        out, err = run.communicate(text, timeout=60)
        assert (out, err, run.returncode) == ("42\n", "", 0)
    assert list(folder.iterdir()) == []


def test_own_modules_beside_the_script_do_not_get_in_the_way(tmp_path: Path) -> None:
    for name in ("comms", "runtimes", "session", "core", "config"):
        (tmp_path / f"{name}.py").write_text(f"VALUE = {name!r}\n")
    script = tmp_path / "script.py"
    script.write_text(
        HELLO.replace("self.n += k; ", "import comms, runtimes; self.n += k; ")
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("42\n", "")


def test_exit_codes_are_the_program_s_own(run_script: RunScript) -> None:
    leave = HELLO.replace("return await", "await").replace(
        ".result()", ".result()\n    {}"
    )
    result = run_script(leave.format("raise SystemExit(7)"))
    assert (result.code, result.stdout, result.stderr) == (7, "", "")
    result = run_script(leave.format("raise ValueError('mine')"))
    assert result.code == 1
    assert "ValueError: mine" in result.stderr


def test_run_says_what_is_wrong_before_it_starts_anything() -> None:
    async def main() -> None: ...

    with pytest.raises(TypeError, match="did you mean 'num_workers'"):
        mosaic.run(main, num_worker=1)
    coroutine = main()
    with pytest.raises(TypeError, match="pass main, not main"):
        mosaic.run(coroutine)  # type: ignore[arg-type]


def test_run_says_what_it_was_given_in_place_of_a_coroutine_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOSAIC_LOCAL", "1")

    def plain(runtime: Any) -> list[int]:
        return [1]

    for main, text in (
        (lambda: 1, r"main is .*<lambda>, which returned 1, .*'async def'"),
        (plain, r"main is .*\.plain, which returned \[1\]"),
    ):
        with pytest.raises(TypeError, match=text) as caught:
            mosaic.run(main)  # type: ignore[arg-type]  # which is what is told
        assert len(caught.traceback) == 1  # of the line that calls it alone

    async def given() -> int:
        return 2

    assert mosaic.run(lambda: given()) == 2


async def test_run_on_a_loop_that_runs_says_what_to_write_instead() -> None:
    async def main() -> None: ...

    with pytest.raises(RuntimeError, match=r"async with mosaic\.init"):
        mosaic.run(main)


def test_run_leaves_the_loop_policy_alone(run_script: RunScript) -> None:
    result = run_script(
        "import asyncio\nbefore = asyncio.get_event_loop_policy()\n"
        + HELLO
        + "assert asyncio.get_event_loop_policy() is before\n"
        + "assert 'uvloop' not in type(before).__module__\n"
    )
    assert (result.stdout, result.stderr) == ("42\n", "")


# -- init ------------------------------------------------------------------------------

SYNCHRONOUS = (
    PREAMBLE
    + """
import atexit, threading
runtime = mosaic.init(num_workers=1)
atexit.register(lambda: print("last call", sleeper.ping().get(5) > 0))
assert mosaic.init() is runtime is mosaic.runtime() is mosaic.init(num_workers=1)
try:
    mosaic.init(num_workers=3)
except RuntimeError as error:
    assert "num_workers is 1, not 3" in str(error), error
else:
    raise AssertionError
sleeper = Sleeper.remote()
results = []
threads = [threading.Thread(target=lambda: results.append(sleeper.ping().get(10)))
           for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(results) == 4 and len(set(results)) == 1
assert sleeper.ping().as_future().result(10) == results[0]
print("in order")
"""
)


def test_init_serves_plain_programs_until_their_end(run_script: RunScript) -> None:
    result = run_script(SYNCHRONOUS)
    assert result.stdout == "in order\nlast call True\n"
    assert (result.stderr, result.code) == ("", 0)


def test_init_and_stop_leave_nothing_and_can_be_repeated() -> None:
    before = set(threading.enumerate())
    for _ in range(2):
        with mosaic.init(num_workers=1) as runtime:
            directory = runtime.hold.cluster.directory.path
            assert directory.exists()
        assert not directory.exists()
        with pytest.raises(RuntimeError):
            mosaic.runtime()
    assert set(threading.enumerate()) <= before


async def test_init_on_a_loop_that_is_not_awaited_is_told_at_the_next_use() -> None:
    started = mosaic.init(num_workers=1)
    with pytest.raises(RuntimeError, match=r"await mosaic\.interactive"):
        mosaic.runtime()
    with pytest.raises(RuntimeError, match=r"await mosaic\.interactive"):
        started.workers  # noqa: B018
    await mosaic.stop()


class Plain:
    def double(self, x: int) -> int:
        return 2 * x


async def test_async_with_init_uses_the_loop_that_runs() -> None:
    import asyncio

    async with mosaic.init(num_workers=1) as runtime:
        assert runtime.loop is asyncio.get_running_loop()
        assert mosaic.runtime() is runtime
        async with mosaic.init() as again:  # leaves it as it found it
            assert again is runtime
        assert await mosaic.remote(Plain)().double(4).result() == 8
        key = runtime.hold.cluster.key
        assert key.stat().st_mode & 0o777 == 0o600
        assert {"address", "token", "protocol", "pid"} <= set(
            json.loads(key.read_text())
        )
    assert not key.exists()


async def test_interactive_runs_on_a_thread_and_is_switched_any_number_of_times() -> (
    None
):
    import asyncio

    with pytest.raises(ValueError, match="'on' or 'off'"):
        await mosaic.interactive("maybe")
    await mosaic.interactive("off")
    runtime = await mosaic.interactive("on", num_workers=1)
    try:
        assert await mosaic.interactive("on", num_workers=1) is runtime
        with pytest.raises(RuntimeError, match="num_workers is 1, not 2"):
            await mosaic.interactive("on", num_workers=2)
        assert runtime.loop is not asyncio.get_running_loop()
        plain = mosaic.remote(Plain)()
        tasks = [plain.double(i) for i in range(100)]
        assert await mosaic.gather(tasks) == [2 * i for i in range(100)]
        # The user's loop stands still, and calls go on.
        task = plain.double(5)
        deadline_s = time.monotonic() + 10
        while not task.done() and time.monotonic() < deadline_s:
            time.sleep(0.01)  # noqa: ASYNC251
        assert task.done()
        await mosaic.ready(plain)
        await mosaic.barrier()
    finally:
        await mosaic.interactive("off")
    await mosaic.interactive("off")


# -- functions -------------------------------------------------------------------------


class Full:
    instances = 0

    def __init__(self) -> None:
        self.value = 1

    def me(self) -> object:
        return mosaic.current_tessera()

    def task(self) -> tuple[str, str, bool, int]:
        task = mosaic.current_task()
        return task.uid, task.name, task.cancelled, task.attempt

    def add(self, k: int) -> int:
        self.value += k
        return self.value

    async def wait(self) -> None:
        import asyncio

        await asyncio.sleep(60)

    def __close__(self) -> None:
        print("closed", flush=True)


class BadClose:
    def __close__(self) -> None:
        raise ValueError("on closing")


async def test_the_functions_of_the_package(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="for methods"):
        mosaic.current_task()
    async with mosaic.init(num_workers=1):
        full = mosaic.remote(Full)()
        await full
        assert mosaic.info(full)[1:] == ("Full#1", Full, "worker:0:0", "listening", 0)
        me = await full.me().result()
        assert me == full
        assert await me.add(1).result() == 2
        task = full.task()
        assert await task.result() == (task.uid, "Full#1.task", False, 1)
        assert await mosaic.call(full, Full.add, 3).result() == 5
        with pytest.raises(AttributeError, match="no method 'double'"):
            mosaic.call(full, Plain.double, 3)  # type: ignore[call-overload]
        await mosaic.set_attr(full, "value", 10)
        assert await mosaic.get_attr(full, "value").result() == 10

        # What is queued ends, then it is closed, then calls fail.
        queued = [full.add(1) for _ in range(10)]
        closing = mosaic.close(full)
        assert await mosaic.gather(queued) == list(range(11, 21))
        await closing
        with pytest.raises(LookupError, match="closed"):
            await full.add(1)
        with pytest.raises(LookupError, match="closed"):
            await mosaic.close(full)
        await mosaic.kill(full)

        other = mosaic.remote(Full)()
        running, waiting = other.wait(), other.add(1)
        with pytest.raises(TimeoutError, match=r"has not ended in 0\.05 s"):
            await mosaic.close(other, timeout=0.05)

        array = mosaic.remote(Full, len=2)()
        await array
        tasks = array.wait()
        await mosaic.kill(array)
        for task in tasks:
            assert isinstance(await task.exception(), mosaic.TaskCancelledError)
        with pytest.raises(ValueError, match="on closing"):
            await mosaic.close(mosaic.remote(BadClose)())
        running.cancel()
        await waiting.exception()
    assert capfd.readouterr().out.count("| closed\n") == 4


# -- connect ---------------------------------------------------------------------------

JOINS = """
import sys
import mosaic_like as mosaic
class Plain:
    def double(self, x): return 2 * x
    def __close__(self): print("released", flush=True)
with mosaic.connect(sys.argv[1]) as runtime:
    assert runtime.uid == "head:1", runtime.uid
    assert mosaic.remote(Plain)().double(4).get(10) == 8
    plain = mosaic.remote(Plain)()
    plain.double(1).get(10)
import os
async def main(runtime):
    return await mosaic.remote(Plain)().double(runtime.num_workers).result()
os.environ["MOSAIC_CLUSTER"] = sys.argv[1]
print(mosaic.run(main, num_workers=7))
"""


async def test_other_programs_join_and_leave(capfd: pytest.CaptureFixture[str]) -> None:
    import asyncio

    async with mosaic.init(num_workers=1) as runtime:
        key = runtime.hold.cluster.key
        done = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", JOINS, str(key), env=_environment()
        )
        async with asyncio.timeout(30):
            assert await done.wait() == 0
            while len(runtime.of_kind("head")) > 1:
                await runtime.membership()
            worker = runtime.workers[0]
            assert runtime.num_workers == 1
        plain = mosaic.remote(Plain)()
        assert await plain.double(2).result() == 4
        assert runtime.workers == [worker]
    out = capfd.readouterr().out
    assert "\n2\n" in "\n" + out.replace("\r", "")
    # Those of who leaves are released, in the output of whoever is left.
    assert out.count("released") >= 1


def test_connect_says_which_file_and_why(tmp_path: Path) -> None:
    began_s = time.monotonic()
    with pytest.raises(mosaic.ConnectError, match="no-such-file: no key file"):
        mosaic.connect(tmp_path / "no-such-file")
    bad = tmp_path / "bad.key"
    bad.write_text("{}")
    with pytest.raises(mosaic.ConnectError, match=r"bad\.key is open to others"):
        mosaic.connect(bad)
    bad.chmod(0o600)
    with pytest.raises(mosaic.ConnectError, match=r"bad\.key is not a key file"):
        mosaic.connect(bad)
    if os.getuid() == 0:
        os.chown(bad, 12345, -1)
        with pytest.raises(
            mosaic.ConnectError, match=r"bad\.key belongs to user 12345"
        ):
            mosaic.connect(bad)
    with mosaic.init(num_workers=1) as runtime:
        content = runtime.hold.cluster.key.read_bytes()
        with pytest.raises(RuntimeError, match="has a runtime already"):
            mosaic.connect(runtime.hold.cluster.key)
    stale = tmp_path / "stale.key"
    stale.touch(0o600)
    stale.write_bytes(content)
    with pytest.raises(mosaic.ConnectError, match=r"stale\.key is stale: nobody lis"):
        mosaic.connect(stale)
    with pytest.raises(mosaic.ConnectError, match="needs the cluster's key"):
        mosaic.connect("tcp://127.0.0.1:3000")
    assert time.monotonic() - began_s < 15


# -- what goes wrong at the start ------------------------------------------------------


def test_a_start_that_fails_says_what_and_why_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(
            mosaic.ConnectError, match="no process can be made with '/no"
        ):
            mosaic.run(main, num_workers=1)
    # Not tmp_path: it is too long for sockets.
    with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as patch:
        base = Path(folder, f"mosaic-{os.geteuid()}")
        base.mkdir()
        base.chmod(0o777)
        patch.setattr("tempfile.tempdir", folder)
        with pytest.raises(PermissionError, match="open to others") as caught:
            mosaic.run(main, num_workers=1)
        assert "TMPDIR" in caught.value.__notes__[0]


def without(who: str, folder: Path) -> dict[str, str]:
    """The environment in which a process of this kind cannot start."""
    # What sitecustomize does in the fork server, its children have.
    (folder / "sitecustomize.py").write_text(
        f"""
import sys
if sys.argv[:1] == ["-c"]:
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "mosaic_like.runtimes.{who}": raise RuntimeError("not today")
    sys.meta_path.insert(0, Finder())
"""
    )
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


@pytest.mark.parametrize("who", ["monitor", "node", "worker"])
def test_a_process_that_dies_at_the_start_ends_it_at_once(
    who: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(HELLO)
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(script)],
        env=without(who, tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert time.monotonic() - began_s < 25
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "ConnectError: the cluster did not start" in last
    assert who in last
    assert "exit status 1" in last


def test_a_warehouse_that_cannot_start_holds_up_only_those_who_put(
    tmp_path: Path,
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        """
import asyncio
import mosaic_like as mosaic
async def main(runtime):
    ref = mosaic.put(1)
    assert await mosaic.remote(Exception)(1).args == (1,)
    try:
        async with asyncio.timeout(0.5):
            await ref
    except TimeoutError:
        print("waits")
mosaic.run(main, num_workers=1)
"""
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env=without("warehouse", tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "waits\n"), done.stderr


def test_the_start_line_goes_to_a_terminal_only() -> None:
    pexpect = pytest.importorskip("pexpect")
    for quiet, expected in (("", "1 worker on"), ("1", None)):
        child = pexpect.spawn(
            sys.executable,
            ["-c", HELLO],
            env={**_environment(), "MOSAIC_QUIET": quiet},
            timeout=60,
            encoding="utf-8",
        )
        child.expect(pexpect.EOF)
        child.close()
        assert "42" in child.before
        lines = [x for x in child.before.splitlines() if x.startswith("mosaic ")]
        assert bool(lines) == bool(expected)
        if expected:
            assert lines[0].startswith("mosaic 0.1 · 1 worker on ")


def test_a_program_that_forgets_to_stop_leaves_nothing(run_script: RunScript) -> None:
    """The loop that the runtime was on is closed before anybody has stopped it."""
    result = run_script(
        PREAMBLE
        + """
async def main():
    runtime = await mosaic.init(num_workers=1)
    print(await Sleeper.remote().ping().result() > 0)
asyncio.run(main())
"""
    )
    assert (result.stdout, result.stderr, result.code) == ("True\n", "", 0)


def test_a_fork_of_the_program_does_not_end_its_cluster() -> None:
    script = """
async def main(runtime):
    sleeper = Sleeper.remote()
    await sleeper
    ready(runtime)
    pid = os.fork()
    if not pid:
        sys.exit(0)
    os.waitpid(pid, 0)
    print(await sleeper.ping().result() > 0, flush=True)
mosaic.run(main, num_workers=1)
"""
    with Program(script).ready() as program:
        assert program.line() == "True\n"
        assert program.code() == 0
        assert program.left() == []


def test_tasks_that_have_ended_are_waited_for_when_their_cluster_is_gone(
    run_script: RunScript,
) -> None:
    result = run_script(
        PREAMBLE
        + """
async def main(runtime):
    global tasks
    sleeper = Sleeper.remote()
    tasks = [sleeper.ping(), sleeper.ping()]
    await mosaic.gather(tasks)
    tasks.append(sleeper.sleep(60))
mosaic.run(main, num_workers=1)
async def after():
    done, pending = await mosaic.wait(tasks)
    print(len(done), len(pending))
    print(sum([task.state != "pending" async for task in mosaic.as_completed(tasks)]))
asyncio.run(after())
print(len(list(mosaic.as_completed(tasks))))
"""
    )
    assert (result.stdout, result.code) == ("3 0\n3\n3\n", 0)
