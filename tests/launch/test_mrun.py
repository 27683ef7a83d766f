"""mrun as people use it: real processes, from the command line."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pexpect
import pytest
from click.testing import CliRunner
from processes import all_ended, ended

import mosaic_like as mosaic
from mosaic_like.launch.mrun import cli, main

LIMIT_S = 30.0
MRUN = [sys.executable, "-m", "mosaic_like"]

PRINTS_AT_ITS_END = """
import mosaic_like as mosaic

class Last:
    def ready(self): pass
    def __close__(self): print("closed")

async def main(runtime):
    last = mosaic.remote(Last)()
    await last.ready()
    raise LookupError("main has failed")

mosaic.run(main)
"""
HELLO = """
import sys
import mosaic_like as mosaic

@mosaic.tessera
class Counter:
    def __init__(self, n): self.n = n
    def add(self, k): self.n += k; return self.n

async def main(runtime):
    counter = Counter.remote(10)
    print(await counter.add(5).result(), runtime.num_workers)

mosaic.run(main, num_workers=5)
"""

# Says what a program sees of its surroundings, and ends with 7.
LOOK = """
import json, os, stat, sys
key = os.environ["MOSAIC_CLUSTER"]
mode = lambda path: stat.S_IMODE(os.stat(path).st_mode)
print(json.dumps({
    "argv": sys.argv[1:],
    "stdin": sys.stdin.read(),
    "key": json.load(open(key)),
    "modes": [mode(key), mode(os.path.dirname(key))],
    "here": os.listdir(),
    "cwd": os.getcwd(),
}))
sys.exit(7)
"""

# Prints each signal that comes, and ends with 5 after SIGTERM.
SIGNALS = """
import signal, sys
numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM)
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)  # none comes while none is awaited
print("ready", flush=True)
while True:
    name = signal.Signals(signal.sigwait(numbers)).name
    print(name, flush=True)
    if name == "SIGTERM":
        sys.exit(5)
"""

# Two tesserae at work for ever; says which processes there are.
BUSY = """
import asyncio, os
import mosaic_like as mosaic

@mosaic.tessera
class Sleeper:
    def pid(self): return os.getpid()
    async def sleep(self): await asyncio.sleep(1000)

async def main(runtime):
    sleepers = [Sleeper.remote() for _ in runtime.workers]
    pids = await mosaic.gather(s.pid() for s in sleepers)
    pids += [n.pid for n in runtime.nodes]
    tasks = [s.sleep() for s in sleepers]
    print("pids", os.getpid(), *pids, flush=True)
    await mosaic.gather(tasks)

mosaic.run(main)
"""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of every command; the package is found though it may not be installed."""
    monkeypatch.delenv("MOSAIC_CLUSTER", raising=False)
    env = dict(os.environ)
    try:
        importlib.metadata.distribution("mosaic_like")
    except importlib.metadata.PackageNotFoundError:
        assert mosaic.__file__ is not None
        env["PYTHONPATH"] = str(Path(mosaic.__file__).parents[1])
    return env


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def mrun(environment: dict[str, str], tmp_path: Path) -> Run:
    """Runs mrun to its end, in an empty directory that is read-only."""
    folder = tmp_path / "empty"
    folder.mkdir(mode=0o555)

    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(
                [*MRUN, *words],
                input=stdin,
                stdout=out,
                stderr=err,
                text=True,
                env=environment,
                cwd=folder,
                timeout=LIMIT_S,
                check=False,
            )
            out.seek(0)
            err.seek(0)
            done.stdout, done.stderr = out.read(), err.read()
        assert os.listdir(folder) == []
        return done

    return run


Start = Callable[[Sequence[str]], "subprocess.Popen[str]"]


@pytest.fixture
def started(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts mrun and gives the process; killed at the end if it still runs."""
    processes = []

    def start(words: Sequence[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*MRUN, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=tmp_path,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait(LIMIT_S)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints; the test's own time limit bounds this."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def wait_until(condition: Callable[[], Any], limit_s: float) -> bool:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.005)
    return True


def invoke(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, list(words), prog_name="mrun")
    return result.exit_code, result.output


# -- what is typed ---------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_says_to_a_newcomer_what_to_type(words: tuple[str, ...]) -> None:
    code, text = invoke(*words)
    assert code == 0
    for phrase in (
        "Usage: mrun [OPTIONS] CMD [ARGS]...",
        "Start a cluster, run a program in it, and stop it again.",
        "mrun -nw 4 python hello.py       four workers",
        "mrun repl -nw 4",
        "MOSAIC_CLUSTER names its key file",
        "Commands:",
        "repl    A Python prompt with a cluster.",
        "Cluster:",
        "-nw, --nworkers N   Worker processes [default: usable cores //",
        "What is said:",
        "More than one host:",
        "--hosts A,B:N      Hosts to reach by ssh; N workers there",
        "What mrun is:",
        "--monitor               A cluster without a program",
    ):
        assert phrase in text
    assert max(map(len, text.splitlines())) <= 88


def test_all_options_of_the_original_are_in_the_help() -> None:
    _, text = invoke("--help")
    for name in (
        *("--head", "--monitor", "--node", "-i,", "--indices", "--daemon", "--inproc"),
        *("-n,", "--nnodes", "-nw,", "--nworkers", "-nth,", "--nthreads"),
        *("--address", "--port", "--monitor-address", "--monitor-port"),
        *("--pubsub-port", "-l,", "--local", "-c,", "--cluster", "-rh,"),
        *("--reuse-head", "-fh,", "--free-head", "--dynamic", "--perf", "--info"),
        *("--debug", "--error", "--profile"),
    ):
        assert f" {name}" in text, name


def test_the_version_is_told() -> None:
    assert invoke("--version")[1].startswith(f"mrun {mosaic.__version__} ")


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (("--nope", "true"), "No such option"),
        (("-nw", "0", "true"), "at least 1"),
        (("-nw", "two", "true"), "'two' is not a valid integer"),
        (("-nw", "2"), "Missing command"),
        (("-l", "-c", "true"), "--local and --cluster exclude each other"),
        (("-l", "--dynamic", "true"), "--local and --dynamic exclude each other"),
        (("--head", "--node", "true"), "--head and --node exclude each other"),
        (("--daemon", "--inproc", "true"), "exclude each other"),
        (("-rh", "-fh", "true"), "exclude each other"),
        (("--debug", "--error", "true"), "--debug and --error exclude each other"),
        (("-i", "3", "true"), "goes with --node"),
        (("--node", "-i", "3", "true"), "--node runs no program: leave CMD out"),
        (("--node", "-i", "3:1"), "-i 3:1: a node has one index"),
        (("--monitor", "true"), "--monitor runs no program: leave CMD out"),
        (("--dynamic", "-nw", "2", "true"), "and --dynamic starts none"),
        (("--dynamic",), "Missing command"),
        (("--port", "3000", "true"), "port=3000 goes with address="),
        (("--address", "192.0.2.1", "true"), "is not of this machine"),
        (("node", "--key", "k", "-nw", "0"), "at least 1"),
        (("doctor", "--nope"), "No such option"),
        (("script", "moab", "fwi"), "'moab' is not one of"),
        (("repl", "-nw", "0"), "at least 1"),
        (("status", "--nope"), "No such option"),
    ],
)
def test_what_is_typed_wrong_or_not_there_yet_ends_with_2(
    words: tuple[str, ...], phrase: str
) -> None:
    code, text = invoke(*words)
    assert code == 2
    assert phrase in text


def test_a_wrong_value_in_the_environment_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOSAIC_NUM_WORKERS", "many")
    code, text = invoke("true")
    assert code == 2
    assert "MOSAIC_NUM_WORKERS" in text


# -- programs --------------------------------------------------------------------------


def test_a_program_that_is_not_there_ends_with_127_or_126(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = tmp_path / "hello.py"
    script.write_text("print(1)")
    for words, code, text in (
        (("no-such-program",), 127, "mrun: no-such-program: no such program"),
        (("--", "status"), 127, "mrun: status: no such program"),
        ((str(script),), 126, f"write: mrun python {script}"),
        ((str(tmp_path),), 126, "is a directory"),
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == code
        said = capsys.readouterr().err
        assert text in said
        assert len(said.splitlines()) == 1  # and no cluster was started


def test_a_file_that_no_kernel_can_run_ends_with_126_or_127(
    mrun: Run, tmp_path: Path
) -> None:
    script = tmp_path / "hello"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    done = mrun("-q", "-nw", "1", str(script))
    assert (done.returncode, "interpreter" in done.stderr) == (127, True)
    assert len(done.stderr.splitlines()) == 1


def test_a_program_gets_its_words_its_input_and_the_key_file_and_gives_its_exit_code(
    mrun: Run,
) -> None:
    words = ("-nw", "9", "--help", "--", "repl", "two words", "$HOME", "")
    done = mrun("-nw", "1", sys.executable, "-c", LOOK, *words, stdin="in\n")
    assert done.returncode == 7, done.stderr
    seen = json.loads(done.stdout)
    assert seen["argv"] == list(words)
    assert seen["stdin"] == "in\n"
    assert seen["modes"] == [0o600, 0o700]
    assert seen["here"] == []
    assert seen["key"]["address"].startswith("ipc://")
    assert not Path(seen["key"]["directory"]).exists()
    (said,) = done.stderr.splitlines()
    assert "1 worker on" in said
    assert "ready in" in said


def test_a_script_joins_the_cluster_of_mrun(mrun: Run) -> None:
    done = mrun("-nw", "2", "--quiet", sys.executable, "-c", HELLO)
    assert (done.returncode, done.stdout, done.stderr) == (0, "15 2\n", "")


def test_what_is_printed_by_close_after_the_program_is_seen(mrun: Run) -> None:
    done = mrun("-q", "-nw", "1", sys.executable, "-c", PRINTS_AT_ITS_END)
    assert done.stdout == "w0:0 Last#1 | closed\n"
    assert done.stderr.endswith("LookupError: main has failed\n")


def test_a_program_that_died_of_a_signal_gives_128_and_its_number(mrun: Run) -> None:
    done = mrun("-q", "-nw", "1", "sh", "-c", "kill -9 $$")
    assert done.returncode == 128 + signal.SIGKILL


# -- signals ---------------------------------------------------------------------------


def test_signals_are_passed_on_and_the_program_decides(started: Start) -> None:
    process = started(["-q", "-nw", "1", sys.executable, "-c", SIGNALS])
    assert line(process) == "ready"
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        process.send_signal(number)
        assert line(process) == number.name
    assert process.wait(LIMIT_S) == 5


def test_sigterm_ends_with_143_and_leaves_nothing(started: Start) -> None:
    process = started(["-q", "-nw", "2", sys.executable, "-c", BUSY])
    name, *pids = line(process).split()
    assert name == "pids"
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 143
    assert all(ended(int(pid)) for pid in pids)


def test_a_signal_while_the_cluster_starts_stops_it(started: Start) -> None:
    base = Path(tempfile.gettempdir()) / f"mosaic-{os.getuid()}"
    process = started(["-nw", "2", sys.executable, "-c", "print('ran')"])
    assert wait_until(lambda: base.is_dir() and os.listdir(base), LIMIT_S)
    process.send_signal(signal.SIGTERM)
    code, said = process.wait(LIMIT_S), line(process)
    assert (code, said) == (143, "") or said == "ran"  # this process came too late


def test_mrun_killed_takes_the_program_and_the_cluster_with_it(started: Start) -> None:
    process = started(["-q", "-nw", "2", sys.executable, "-c", BUSY])
    name, *pids = line(process).split()
    assert name == "pids"
    assert len(pids) == 4
    process.kill()
    assert all_ended(map(int, pids), LIMIT_S)


def spawn(words: Sequence[str], env: dict[str, str], cwd: Path) -> Any:
    return pexpect.spawn(
        MRUN[0],
        [*MRUN[1:], *words],
        env={**env, "TERM": "dumb"},
        cwd=str(cwd),
        encoding="utf-8",
        timeout=LIMIT_S,
        echo=False,
    )


def test_ctrl_c_reaches_the_program_once(
    environment: dict[str, str], tmp_path: Path
) -> None:
    words = ["-q", "-nw", "1", sys.executable, "-c", SIGNALS]
    with spawn(words, environment, tmp_path) as terminal:
        terminal.expect_exact("ready\r\n")
        terminal.sendintr()
        terminal.expect_exact("SIGINT\r\n")
        os.kill(terminal.pid, signal.SIGTERM)  # to mrun alone: the next thing said
        terminal.expect(pexpect.EOF)
        assert terminal.before == "SIGTERM\r\n"
        terminal.wait()
        assert terminal.exitstatus == 5


def test_ctrl_c_of_a_script_ends_with_130_and_leaves_nothing(
    environment: dict[str, str], tmp_path: Path
) -> None:
    words = ["-q", "-nw", "2", sys.executable, "-c", BUSY]
    with spawn(words, environment, tmp_path) as terminal:
        terminal.expect(r"pids ([\d ]+)\r\n")
        pids = terminal.match[1].split()
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        assert "Traceback" not in terminal.before
        terminal.wait()
        assert terminal.exitstatus == 130
    assert all(ended(int(pid)) for pid in pids)


# -- status and stop -------------------------------------------------------------------

Said = Callable[..., tuple[object, str, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a sub-command in this process: exit code, standard output and error."""

    def run(*words: str) -> tuple[object, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(words)
        return end.value.code, *capsys.readouterr()

    return run


def test_status_says_which_clusters_run_and_stop_ends_one(
    mrun: Run, said: Said, started: Start
) -> None:
    assert said("status", "--json") == (0, "[]\n", "")
    code, text, _ = said("status")
    assert (code, "no cluster of yours runs here" in text) == (0, True)
    # Two at once, one inside the other.
    process = started(
        ["-q", "-nw", "2", *MRUN, "-q", "-nw", "1", sys.executable, "-c", BUSY]
    )
    pids = [int(pid) for pid in line(process).split()[1:]]
    first, second = json.loads(mrun("status", "--json").stdout)
    assert [len(c["workers"]) for c in (first, second)] == [2, 1]
    assert first["pid"] == process.pid
    assert second["workers"][0]["pid"] in pids
    assert second["heads"][0]["pid"] == pids[0]
    assert stat.S_IMODE(os.stat(second["key_file"]).st_mode) == 0o600
    code, text, _ = said("status", second["key_file"])
    one, worker, *rest = text.splitlines()
    assert one.startswith(f"{second['id']} · pid {second['pid']} · 1 worker · 1 node")
    assert worker.split()[:3] == ["w0:0", "pid", str(second["workers"][0]["pid"])]
    assert all(line.split()[:2] == ["warehouse:0", "pid"] for line in rest)
    code, _, text = said("stop")
    assert (code, first["id"] in text) == (2, True)
    code, _, text = said("stop", "0123456789ab")
    assert (code, "no cluster 0123456789ab" in text) == (1, True)
    assert said("stop", second["id"]) == (0, f"stopped {second['id']}\n", "")
    process.wait(LIMIT_S)
    assert all(ended(pid) for pid in pids)


def test_a_cluster_that_was_killed_is_not_shown(said: Said, started: Start) -> None:
    process = started(["-q", "-nw", "1", sys.executable, "-c", BUSY])
    pids = [int(pid) for pid in line(process).split()[1:]]
    process.kill()
    assert all_ended(pids, LIMIT_S)
    assert said("status", "--json") == (0, "[]\n", "")
