"""The fork server and its client, with real processes."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes import all_ended, ended

from mosaic_like.errors import RuntimeDisconnectedError
from mosaic_like.runtimes.booting import interpreter_flags, open_pidfd
from mosaic_like.runtimes.processes import (
    ForkServer,
    describe_status,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mosaic_like.runtimes.processes import Child

ROOT = Path(__file__).parents[2]
WAIT_S = 20.0
THRESHOLD = "glibc.cpu.x86_non_temporal_threshold"
needs_pidfd = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="pidfds are of Linux"
)

# What the children run; a module of its own, so that they do not import pytest.
ENTRIES = '''
import json, os, random, signal, sys, threading


def nothing(argument, fds, control):
    pass


def leave(argument, fds, control):
    sys.exit(int(argument) if argument.isdigit() else argument.decode())


def fail(argument, fds, control):
    raise RuntimeError("as it should")


def wait(argument, fds, control):
    for fd in fds:
        os.write(fd, b"%d\\n" % os.getpid())
    while True:
        signal.pause()


def report(argument, fds, control):
    links = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            links[fd] = os.readlink("/proc/self/fd/" + fd)
        except OSError:
            pass  # that of the listing
    seen = {
        "fds": fds, "control": control, "links": links, "pid": os.getpid(),
        "argument": argument.decode(), "session": os.getsid(0),
        "random": random.random(), "environment": dict(os.environ),
        "mask": [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        "handlers": [
            signal.getsignal(n) is signal.SIG_DFL
            for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD)
        ],
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "threads": threading.active_count(), "path": sys.path,
        "modules": sorted(sys.modules), "flags": list(sys.flags),
        "warnings": sys.warnoptions, "main": sorted(vars(sys.modules["__main__"])),
    }
    with os.fdopen(fds[0], "w") as file:
        file.write(json.dumps(seen))


def speak(argument, fds, control):
    print("out", end="")
    print("err", end="", file=sys.stderr)


def forks(argument, fds, control):
    if os.fork() == 0:
        return  # and must end, not serve
    os.wait()
    os.write(fds[0], b"reaped")


def node(argument, fds, control):
    """Spawns workers, writes their pids and its own, and waits."""
    from mosaic_like.runtimes.processes import ForkServer

    server = ForkServer.adopt(control)
    workers = [
        server.spawn("fork_entries:wait", death_signal=argument == b"death")
        for _ in range(2)
    ]
    server.wait_until(lambda: all(w.pid for w in workers))
    pids = [os.getpid(), *(w.pid for w in workers)]
    os.write(fds[0], (" ".join(map(str, pids)) + "\\n").encode())
    if argument == b"exits":
        os.kill(workers[0].pid, signal.SIGUSR1)
        server.wait_until(lambda: workers[0].ended)
        os.write(fds[0], b"%d\\n" % workers[0].status)
    server.wait_until(lambda: server.lost, 3600)


def watch_owner(argument, fds, control):
    import select

    os.write(fds[0], b"%d\\n" % os.getpid())
    select.select([fds[-1]], [], [])
'''


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "fork_entries.py").write_text(ENTRIES)
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(ROOT), *sys.path])
    return tmp_path


@pytest.fixture
def server(entries: Path) -> Iterator[ForkServer]:
    server = ForkServer.start(modules=(), timeout_s=WAIT_S)
    yield server
    assert server.wait_gone(WAIT_S)


def read_line(fd: int) -> str:
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([fd], [], [], WAIT_S)[0], f"nothing came after {line!r}"
        byte = os.read(fd, 1)
        if not byte:
            break
        line += byte
    return line.decode()


def read_all(fd: int) -> str:
    text = b""
    while True:
        assert select.select([fd], [], [], WAIT_S)[0], f"nothing came after {text!r}"
        chunk = os.read(fd, 65536)
        if not chunk:
            os.close(fd)
            return text.decode()
        text += chunk


def end_of(server: ForkServer, child: Child) -> str:
    server.wait_until(lambda: child.ended)
    assert child.status is not None
    return describe_status(child.status)


def report_of(server: ForkServer, **options: object) -> dict[str, object]:
    ours, theirs = os.pipe()
    child = server.spawn("fork_entries:report", fds=[theirs], **options)  # type: ignore[arg-type]
    os.close(theirs)
    content: dict[str, object] = json.loads(read_all(ours))
    assert end_of(server, child) == "exit status 0"
    return content


def start_waiting(server: ForkServer, **options: object) -> Child:
    ours, theirs = os.pipe()
    child = server.spawn("fork_entries:wait", fds=[theirs], **options)  # type: ignore[arg-type]
    os.close(theirs)
    pid = int(read_line(ours))
    os.close(ours)
    server.wait_until(lambda: child.pid)
    assert child.pid == pid
    return child


def start_node(server: ForkServer, argument: bytes) -> tuple[Child, list[int], int]:
    ours, theirs = os.pipe()
    child = server.spawn("fork_entries:node", argument, fds=[theirs], attach=True)
    os.close(theirs)
    pids = [int(word) for word in read_line(ours).split()]
    server.wait_until(lambda: child.pid)
    return child, pids, ours


# -- how children end ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "argument", "end"),
    [
        ("nothing", b"", "exit status 0"),
        ("leave", b"3", "exit status 3"),
        ("leave", b"256", "exit status 0"),
        ("leave", b"a message", "exit status 1"),
        ("fail", b"", "exit status 1"),
        ("absent", b"", "exit status 1"),
    ],
)
def test_the_exit_status_of_a_child_is_reported(
    server: ForkServer, tmp_path: Path, entry: str, argument: bytes, end: str
) -> None:
    with (tmp_path / "errors").open("w+") as errors:
        child = server.spawn(f"fork_entries:{entry}", argument, stderr=errors.fileno())
        assert end_of(server, child) == end
        errors.seek(0)
        text = errors.read()
    assert ("as it should" in text) == (entry == "fail")
    assert ("a message" in text) == (argument == b"a message")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1])
def test_a_signal_ends_a_child(server: ForkServer, number: signal.Signals) -> None:
    child = start_waiting(server)
    server.kill(child.pid, number)
    assert end_of(server, child) == f"killed by {number.name}"
    assert child.max_rss_bytes > 1024 * 1024


def test_a_signal_sent_at_once_is_not_ignored(server: ForkServer) -> None:
    children = [
        server.spawn(
            "fork_entries:wait",
            on_started=lambda child: server.kill(child.pid, signal.SIGTERM),
        )
        for _ in range(20)
    ]
    assert {end_of(server, child) for child in children} == {"killed by SIGTERM"}


def test_only_children_of_the_server_are_signalled(server: ForkServer) -> None:
    stranger = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE
    )
    server.kill(stranger.pid)
    ended = server.spawn("fork_entries:nothing")
    assert end_of(server, ended) == "exit status 0"  # so the server has seen the kill
    server.kill(ended.pid)
    stranger.communicate(b"\n", timeout=WAIT_S)
    assert stranger.returncode == 0


def test_statuses_are_described_for_people() -> None:
    assert describe_status(0) == "exit status 0"
    assert describe_status(3 << 8) == "exit status 3"
    assert describe_status(signal.SIGSEGV | 0x80) == "killed by SIGSEGV"
    assert describe_status(40) == "killed by signal 40"


# -- what a child finds ----------------------------------------------------------------


def test_a_child_has_a_session_signals_and_threads_of_its_own(
    server: ForkServer,
) -> None:
    seen = report_of(server)
    assert seen["session"] == seen["pid"]
    assert seen["mask"] == []
    assert seen["handlers"] == [True] * 4
    assert seen["interrupt"] is True
    assert seen["threads"] == 1


def test_a_child_holds_no_descriptor_but_its_own(server: ForkServer) -> None:
    others = [start_waiting(server, attach=True) for _ in range(2)]
    with Path(__file__).open() as extra:
        os.set_inheritable(extra.fileno(), True)
        second = ForkServer.start(modules=(), timeout_s=WAIT_S)
        seen = report_of(second)
        plain = report_of(server)
    for found in (seen, plain):
        links, fds = found["links"], found["fds"]
        assert isinstance(links, dict)
        assert isinstance(fds, list)
        assert set(links) == {"0", "1", "2", str(fds[0])}
        assert links["0"] == "/dev/null"
    for child in others:
        server.kill(child.pid)
    assert second.wait_gone(WAIT_S)


def test_an_attached_child_has_a_control_socket(server: ForkServer) -> None:
    seen = report_of(server, attach=True)
    links = seen["links"]
    assert isinstance(links, dict)
    assert links[str(seen["control"])].startswith("socket:")
    assert len(links) == 5
    assert report_of(server)["control"] is None


@pytest.mark.parametrize(
    ("given", "at_start"),
    [
        ("", f"{THRESHOLD}=0x400000"),
        ("glibc.malloc.check=0", f"glibc.malloc.check=0:{THRESHOLD}=0x400000"),
        (f"{THRESHOLD}=0x800000", f"{THRESHOLD}=0x800000"),
    ],
)
def test_large_copies_go_past_the_caches_and_only_in_our_own_processes(
    entries: Path, monkeypatch: pytest.MonkeyPatch, given: str, at_start: str
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if given:
        monkeypatch.setenv("GLIBC_TUNABLES", given)
    server = ForkServer.start(modules=(), timeout_s=WAIT_S)
    try:
        # First: until the server serves, the kernel may not have its environment yet.
        environment = report_of(server)["environment"]
        # Where a process was started the C library ends each value that it has read.
        found = Path(f"/proc/{server.pid}/environ").read_bytes().replace(b"\0", b":")
        assert f"GLIBC_TUNABLES={at_start}".encode() in found
        assert isinstance(environment, dict)
        assert environment.get("GLIBC_TUNABLES", "") == given
    finally:
        assert server.wait_gone(WAIT_S)


def test_the_environment_is_changed_for_that_child_alone(
    entries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORK_REMOVED", "1")
    server = ForkServer.start(
        environment={"FORK_ALL": "all"}, modules=(), timeout_s=WAIT_S
    )
    changes = {"OMP_NUM_THREADS": "7", "FORK_REMOVED": None}
    changed = report_of(server, environment=changes)["environment"]
    plain = report_of(server)["environment"]
    assert isinstance(changed, dict)
    assert isinstance(plain, dict)
    assert changed["OMP_NUM_THREADS"] == "7"
    assert "FORK_REMOVED" not in changed
    assert plain.get("OMP_NUM_THREADS") == os.environ.get("OMP_NUM_THREADS")
    assert plain["FORK_REMOVED"] == "1"
    assert plain["FORK_ALL"] == changed["FORK_ALL"] == "all"
    assert server.wait_gone(WAIT_S)


def test_children_do_not_share_random_numbers(entries: Path) -> None:
    server = ForkServer.start(modules=("random",), timeout_s=WAIT_S)
    numbers = {str(report_of(server)["random"]) for _ in range(3)}
    assert len(numbers) == 3
    assert server.wait_gone(WAIT_S)


def test_what_is_preloaded_is_there_and_what_is_absent_is_left_out(
    entries: Path,
) -> None:
    server = ForkServer.start(modules=("colorsys", "no_such.module"), timeout_s=WAIT_S)
    modules = report_of(server)["modules"]
    assert isinstance(modules, list)
    assert "colorsys" in modules
    assert not {"numpy", "psutil", "cloudpickle", "no_such"} & set(modules)
    assert server.wait_gone(WAIT_S)


def test_standard_streams_may_be_files(server: ForkServer, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        child = server.spawn(
            "fork_entries:speak", stdout=out.fileno(), stderr=err.fileno()
        )
        assert end_of(server, child) == "exit status 0"
    assert (tmp_path / "out").read_text() == "out"
    assert (tmp_path / "err").read_text() == "err"


def test_a_fork_of_a_child_never_serves(server: ForkServer) -> None:
    ours, theirs = os.pipe()
    child = server.spawn("fork_entries:forks", fds=[theirs])
    os.close(theirs)
    assert read_all(ours) == "reaped"
    assert end_of(server, child) == "exit status 0"


# -- lives and deaths ------------------------------------------------------------------


def test_a_node_spawns_and_hears_of_its_workers(server: ForkServer) -> None:
    node, pids, ours = start_node(server, b"exits")
    assert int(read_line(ours)) == signal.SIGUSR1
    os.close(ours)
    server.kill(pids[2])  # a child of the server, though not of ours
    server.kill(node.pid)
    assert end_of(server, node) == "killed by SIGKILL"


def test_a_killed_node_takes_its_workers_and_no_others(server: ForkServer) -> None:
    bystander = start_waiting(server)
    node, pids, ours = start_node(server, b"")
    os.close(ours)
    server.kill(node.pid)
    assert all_ended(pids, within_s=WAIT_S)
    server.receive()
    assert not ended(bystander.pid)
    server.kill(bystander.pid)
    assert end_of(server, bystander) == "killed by SIGKILL"


def test_a_killed_server_takes_those_with_a_death_signal(entries: Path) -> None:
    server = ForkServer.start(modules=(), timeout_s=WAIT_S)
    marked = start_waiting(server, death_signal=True)
    _, pids, ours = start_node(server, b"death")  # the node sees its socket end
    os.close(ours)
    os.kill(server.pid, signal.SIGKILL)
    assert all_ended([marked.pid, *pids], within_s=WAIT_S)
    with pytest.raises(RuntimeDisconnectedError, match="fork server has ended"):
        server.wait_until(lambda: False)
    assert marked.lost
    assert marked.status is None
    with pytest.raises(RuntimeDisconnectedError, match="fork server has ended"):
        server.spawn("fork_entries:nothing")
    assert server.wait_gone(WAIT_S)


OWNER = """
import os, sys
sys.path[:0] = sys.argv[1:]
from mosaic_like.runtimes.processes import ForkServer
server = ForkServer.start(modules=())
ours, theirs = os.pipe()
server.spawn("fork_entries:node", fds=[theirs], attach=True)
pids = os.read(ours, 99).decode().split()
server.spawn("fork_entries:watch_owner", fds=[theirs], owner_pidfd=True)
pids.append(os.read(ours, 99).decode())
forked = os.fork()
if forked == 0:  # holds the owner's socket and outlives it
    os.closerange(0, 3)
    import time
    time.sleep(60)
    os._exit(0)
# The node here waits for the server: end it as a real one would by itself.
print(server.pid, forked, *pids, flush=True)
sys.stdin.read()
"""


@needs_pidfd
def test_a_killed_owner_leaves_no_orphan_though_a_fork_holds_its_socket(
    entries: Path,
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(entries), str(ROOT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    server, forked, node, *others = map(int, owner.stdout.readline().split())
    try:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait(WAIT_S)
        assert all_ended(others[2:], within_s=WAIT_S)  # by the owner's pidfd
        assert not ended(node)  # left to end by itself
        os.kill(node, signal.SIGKILL)
        assert all_ended([server, *others], within_s=WAIT_S)
    finally:
        os.kill(forked, signal.SIGKILL)
        owner.stdin.close()
        owner.stdout.close()
    assert all_ended([forked], WAIT_S)


def test_the_server_outlives_a_close_until_its_last_child(entries: Path) -> None:
    server = ForkServer.start(modules=(), timeout_s=WAIT_S)
    child = start_waiting(server)
    server.close()
    assert not server.wait_gone(0.05)
    os.kill(child.pid, signal.SIGTERM)
    assert server.wait_gone(WAIT_S)
    assert child.status == signal.SIGTERM


def test_signals_of_a_terminal_do_not_reach_the_server(server: ForkServer) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(server.pid, number)  # perhaps before it has begun
    server.wait_until(lambda: server.ready)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(server.pid, number)
    assert end_of(server, server.spawn("fork_entries:nothing")) == "exit status 0"
    assert os.getsid(server.pid) != os.getsid(0)


def test_nothing_is_left_when_other_code_reaps_the_server(entries: Path) -> None:
    before = os.listdir("/proc/self/fd")
    server = ForkServer.start(modules=(), timeout_s=WAIT_S)
    child = server.spawn("fork_entries:leave", b"4")
    assert end_of(server, child) == "exit status 4"
    pid = server.pid
    server.close()
    os.waitpid(pid, 0)
    assert server.wait_gone(WAIT_S)
    assert os.listdir("/proc/self/fd") == before


def test_no_descriptor_and_no_zombie_stays_of_many_children(entries: Path) -> None:
    before = os.listdir("/proc/self/fd")
    server = ForkServer.start(modules=(), timeout_s=WAIT_S)
    server.wait_until(lambda: server.ready)
    theirs = len(os.listdir(f"/proc/{server.pid}/fd"))
    children = [
        server.spawn("fork_entries:nothing", fds=[0], attach=n % 2 == 0)
        for n in range(30)
    ]
    assert {end_of(server, child) for child in children} == {"exit status 0"}
    assert len(os.listdir(f"/proc/{server.pid}/fd")) == theirs
    tasks = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    assert tasks == ""
    pid = server.pid
    assert server.wait_gone(WAIT_S)
    assert not Path(f"/proc/{pid}").exists()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="others' limits are changed on Linux alone"
)
@pytest.mark.parametrize("spare", range(3))
def test_a_server_without_descriptors_says_so_and_makes_no_child(
    server: ForkServer, spare: int
) -> None:
    server.wait_until(lambda: server.ready)
    before = os.listdir(f"/proc/{server.pid}/fd")
    free = (n for n in range(4096) if str(n) not in before)
    limit = next(itertools.islice(free, spare, None))  # so many are below it
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    ours, theirs = os.pipe()

    def spawn() -> Child:
        child = server.spawn("fork_entries:speak", stdout=theirs, fds=[theirs, theirs])
        server.wait_until(lambda: child.ended)
        return child

    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, limits[1]))
    try:
        failed = spawn()
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
    assert failed.failure == "[Errno 24] Too many open files"
    assert failed.pid == 0
    assert spawn().status == 0
    os.close(theirs)
    assert read_all(ours) == "out"
    assert os.listdir(f"/proc/{server.pid}/fd") == before


def test_a_fork_of_the_owner_cannot_use_the_server_nor_end_it(
    server: ForkServer,
) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            server.spawn("fork_entries:nothing")
        except RuntimeError:
            server.close()
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert end_of(server, server.spawn("fork_entries:nothing")) == "exit status 0"


# -- the client ------------------------------------------------------------------------


def test_a_loop_learns_of_starts_and_ends(server: ForkServer) -> None:
    async def main() -> None:
        server.watch(asyncio.get_running_loop())
        ended: list[Child] = []
        waiting = server.spawn("fork_entries:wait", on_exited=ended.append)
        server.kill(await waiting.started())
        assert await waiting.exited() == signal.SIGKILL
        assert ended == [waiting]
        many = [server.spawn("fork_entries:leave", b"%d" % n) for n in range(10)]
        statuses = await asyncio.gather(*(child.exited() for child in many))
        assert statuses == [n << 8 for n in range(10)]
        server.unwatch()

    asyncio.run(asyncio.wait_for(main(), WAIT_S))


def test_a_loop_learns_of_the_death_of_the_server(entries: Path) -> None:
    server = ForkServer.start(modules=(), timeout_s=WAIT_S)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server.watch(loop)
        lost = loop.create_future()
        server.on_lost = lambda: lost.set_result(None)
        child = server.spawn("fork_entries:wait", death_signal=True)
        await child.started()
        os.kill(server.pid, signal.SIGKILL)
        assert await child.exited() is None
        await lost

    asyncio.run(asyncio.wait_for(main(), WAIT_S))
    assert server.wait_gone(WAIT_S)


@needs_pidfd
def test_a_pidfd_tells_of_the_end_of_a_child(server: ForkServer) -> None:
    child = start_waiting(server)
    pidfd = child.pidfd
    assert pidfd is not None
    assert not select.select([pidfd], [], [], 0)[0]
    server.kill(child.pid)
    assert select.select([pidfd], [], [], WAIT_S)[0]
    assert end_of(server, child) == "killed by SIGKILL"
    assert child.pidfd is None
    assert open_pidfd(2**22 + 1) is None  # beyond the largest pid


def test_what_cannot_be_asked_for_is_refused_here(server: ForkServer) -> None:
    with pytest.raises(ValueError, match="expected 'module:function'"):
        server.spawn("fork_entries")
    with pytest.raises(ValueError, match="pass a file descriptor instead"):
        server.spawn("fork_entries:nothing", bytes(200_000))
    child = server.spawn("fork_entries:nothing", bytes(100_000))
    assert end_of(server, child) == "exit status 0"


def test_waiting_for_a_server_that_does_not_answer_ends(server: ForkServer) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        child = server.spawn("fork_entries:nothing")
        with pytest.raises(TimeoutError, match="did not answer"):
            server.wait_until(lambda: child.pid, 0.05)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert end_of(server, child) == "exit status 0"


# -- however the program was started ---------------------------------------------------

PROGRAM = """
import sys
sys.path.append({root!r})
sys.path.insert(0, {entries!r})
from mosaic_like.runtimes.processes import ForkServer, describe_status
server = ForkServer.start()
child = server.spawn("fork_entries:leave", b"5", death_signal=True)
server.wait_until(lambda: child.ended, 20)
print(describe_status(child.status), server.wait_gone(20))
"""


def run_program(
    arguments: list[str], entries: Path, cwd: Path, stdin: bool = False
) -> None:
    program = PROGRAM.format(root=str(ROOT), entries=str(entries))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *arguments, *([] if stdin else ["-c", program])],
        input=program if stdin else "",
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env=environment,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("exit status 5 True\n", "")


@pytest.mark.parametrize(
    "arguments", [["-W", "error"], ["-X", "dev", "-W", "error"], ["-OO"], ["-I"]]
)
def test_it_works_whatever_the_options_of_the_interpreter(
    entries: Path, arguments: list[str]
) -> None:
    run_program(arguments, entries, entries)


def test_it_works_for_a_program_on_standard_input(entries: Path) -> None:
    run_program(["-W", "error"], entries, entries, stdin=True)


def test_it_works_from_an_empty_directory_that_is_read_only(entries: Path) -> None:
    empty = entries / "empty"
    empty.mkdir(mode=0o500)
    run_program(["-W", "error"], entries, empty)
    assert os.listdir(empty) == []


def test_modules_of_the_user_with_our_names_are_not_taken_for_ours(
    entries: Path,
) -> None:
    cwd = entries / "shadows"
    (cwd / "mosaic_like").mkdir(parents=True)
    trap = "raise AssertionError('the wrong module')"
    (cwd / "mosaic_like" / "__init__.py").write_text(trap)
    for name in ("comms", "runtimes", "json", "processes", "forkserver"):
        (cwd / f"{name}.py").write_text(trap)
    program = entries / "program.py"
    program.write_text(PROGRAM.format(root=str(ROOT), entries=str(entries)))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("exit status 5 True\n", "")


def test_children_have_the_options_and_the_path_of_this_interpreter(
    server: ForkServer,
) -> None:
    seen = report_of(server)
    assert seen["flags"] == list(sys.flags)
    assert seen["path"] == sys.path
    main = seen["main"]
    assert isinstance(main, list)
    assert "PROGRAM" not in main


def test_options_are_passed_on_in_full() -> None:
    program = (
        f"import sys; sys.path.append({str(ROOT)!r})\n"
        "from mosaic_like.runtimes.booting import interpreter_flags\n"
        "print(*interpreter_flags())"
    )
    options = ["-OO", "-B", "-s", "-Wignore", "-Werror::UserWarning", "-Xutf8=1"]
    done = subprocess.run(
        [sys.executable, *options, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
    )
    assert sorted(done.stdout.split()) == sorted(options)
    assert all(flag.startswith("-") for flag in interpreter_flags())


def test_a_request_that_cannot_be_read_harms_no_child(server: ForkServer) -> None:
    child = start_waiting(server)
    for body in (b"\xff", b"\x93\x01\x02", os.urandom(64)):
        server._control.send(body)
    assert end_of(server, server.spawn("fork_entries:leave", b"3")) == "exit status 3"
    assert not ended(child.pid)
    server.kill(child.pid)
    assert end_of(server, child) == "killed by SIGKILL"
