"""mrun with several hosts that are all this one, by a program instead of ssh."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from mosaic_like.launch.engines import VARIABLES
from mosaic_like.launch.mrun import cli

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S = 100.0
pytestmark = pytest.mark.timeout(150)
MRUN = [sys.executable, "-m", "mosaic_like"]
# Numbers of a network that is nobody's, so that no name has to be looked up.
GOOD, GOOD_TOO, GONE, SHUT, BARE, MUTE = (f"203.0.113.{n}" for n in (1, 2, 6, 7, 8, 9))
HERE = ("--address", "127.0.0.1")

SSH = f"""#!/bin/sh
echo "$@" >>"$RECORD"
while [ "$1" != -T ]; do shift; done
case $2 in
{GONE}) echo "ssh: connect to host $2 port 22: No route to host" >&2; exit 255 ;;
{SHUT}) echo "$2: Permission denied (publickey)." >&2; exit 255 ;;
{BARE}) exec sh -c "exec /no/such/python" ;;
{MUTE}) exec sleep 1000 ;;
esac
exec sh -c "$3"
"""
# As blaunch and mpiexec have it: the host, then words.
BLAUNCH = """#!/bin/sh
echo "blaunch $@" >>"$RECORD"
shift
exec sh -c "$1"
"""
MPIEXEC = """#!/bin/sh
echo "mpiexec $@" >>"$RECORD"
while [ "$1" != -host ]; do shift; done
shift 2
exec "$@"
"""
PROGRAM = """
import asyncio, os, sys
import mosaic_like as mosaic

@mosaic.tessera
class Place:
    def pid(self): return os.getpid()
    def threads(self): return os.environ.get("OMP_NUM_THREADS")

async def main(runtime):
    places = [Place.options(runtime=w).remote() for w in runtime.workers]
    pids = await mosaic.gather(p.pid() for p in places)
    threads = await mosaic.gather(p.threads() for p in places)
    print("pids", *pids, "threads", *threads, flush=True)
    if "--stay" in sys.argv:
        await asyncio.Event().wait()

mosaic.run(main)
sys.exit(7)
"""


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """In which ssh is the stand-in."""
    for name in (*VARIABLES, "MOSAIC_CLUSTER", "SSH_FLAGS", "SSH_COMMANDS"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("ssh", SSH), ("blaunch", BLAUNCH), ("mpiexec", MPIEXEC)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "MOSAIC_TIMEOUT": "90",  # a machine with much else to do
        "RECORD": str(tmp_path / "record"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }


def run(environ: dict[str, str], *words: str) -> tuple[int, str, str]:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        code = subprocess.run(
            [*MRUN, *words, sys.executable, "-c", PROGRAM],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environ,
            timeout=LIMIT_S,
            check=False,
        ).returncode
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


def test_hosts_that_fail_are_named_with_their_causes_and_the_others_do(
    environ: dict[str, str],
) -> None:
    hosts = f"{GOOD},{GONE},{GOOD_TOO}:2,{SHUT},{BARE}"
    code, out, err = run(environ, *HERE, "-nw", "1", "-nth", "1", "--hosts", hosts)
    assert code == 7, err
    assert len(out.split()) == 8
    assert f"mosaic: {GONE}: it cannot be reached" in err
    assert f"mosaic: {SHUT}: it lets nobody in without a password" in err
    assert f"mosaic: {BARE}: there is no {sys.executable}" in err
    assert "mosaic: going on with 2 of 5 hosts (--strict stops instead)" in err
    assert "ssh · 2 nodes, 3 workers (203.0.113.[1-2], lo) · ready in " in err
    assert "slower" not in err  # large values go through memory that both nodes share
    assert "token" not in Path(environ["RECORD"]).read_text()


def test_the_hosts_of_pbs_are_reached_by_ssh(
    environ: dict[str, str], tmp_path: Path
) -> None:
    nodes = tmp_path / "nodes"
    nodes.write_text(f"{GOOD}\n{GOOD}\n{GOOD_TOO}\n")
    environ |= {"PBS_NODEFILE": str(nodes), "PBS_JOBID": "12.server"}
    environ |= {"MOSAIC_NUM_THREADS": "2", "MOSAIC_ADDRESS": "127.0.0.1"}
    code, out, err = run(environ, "-n", "1")
    assert code == 7, err
    assert out.split()[-2:] == ["threads", "2"]
    assert f"pbs 12.server · 1 node x 1 worker x 2 threads ({GOOD}, lo)" in err


def test_the_hosts_of_lsf_are_reached_by_blaunch(environ: dict[str, str]) -> None:
    environ |= {"LSB_MCPU_HOSTS": f"{GOOD} 2 {GOOD_TOO} 2", "LSB_JOBID": "12"}
    code, _, err = run(environ, *HERE, "-n", "1", "-nw", "1")
    assert code == 7, err
    assert f"lsf 12 · 1 node x 1 worker x 2 threads ({GOOD}, lo) · ready" in err
    assert Path(environ["RECORD"]).read_text().startswith(f"blaunch {GOOD} exec env ")


def test_mpiexec_starts_the_nodes_if_it_is_asked_to(environ: dict[str, str]) -> None:
    words = ("--mpi", "--hosts", GOOD, "-nw", "1", "-nth", "1", "--address", "lo")
    code, _, err = run(environ, *words)
    assert code == 7, err
    assert f"mpi · 1 node x 1 worker x 1 thread ({GOOD}, lo) · ready" in err
    assert f"-host {GOOD} " in Path(environ["RECORD"]).read_text()


@pytest.mark.parametrize("is_started", [False, True])
def test_nothing_is_left_on_any_host_when_mrun_is_ended(
    environ: dict[str, str], is_started: bool
) -> None:
    host = GOOD if is_started else MUTE
    words = [*HERE, "-q", "-nw", "1", "--hosts", host]
    with subprocess.Popen(
        [*MRUN, *words, sys.executable, "-c", PROGRAM, "--stay"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environ,
    ) as process:
        assert process.stdout is not None
        if is_started:
            assert process.stdout.readline().startswith("pids")
            process.kill()
        else:
            until(lambda: Path(environ["RECORD"]).exists())
            process.terminate()
        code = process.wait(LIMIT_S)
    # That nothing is left is looked for after each test.
    assert code == (-signal.SIGKILL if is_started else 128 + signal.SIGTERM)


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (("-n", "4"), f"looked for {', '.join(VARIABLES)}"),
        (("-c",), "--cluster needs the hosts of a job"),
        (("-fh",), "--free-head leaves no host for workers"),
        (("--hosts", "localhost", "-fh"), "the only one is the head's"),
        (("--hosts", "localhost", "-n", "3"), "-n 3: ssh has 1 host (localhost)"),
        (("--hosts", "localhost,127.0.0.1"), "localhost and 127.0.0.1 are all this"),
        (("--hosts", "a:x"), "such as host2:4"),
        (("--hosts", "a", "--hostfile", "b"), "exclude each other"),
        (("-l", "--hosts", "a"), "--local and --hosts exclude each other"),
        (("-c", "--hosts", "a"), "--cluster and --hosts exclude each other"),
        (("--mpi",), "--mpi starts the nodes of other hosts, and there are none"),
        (("-l", "--mpi"), "--local and --mpi exclude each other"),
        (("-l", "-fh"), "--local and --free-head exclude each other"),
        (("--hostfile", "/no/such"), "--hostfile /no/such: No such file"),
        (("--hosts", GOOD, "--insecure"), "--insecure is for this machine alone"),
        (("--hosts", GOOD, "--address", "0.0.0.0"), "all addresses of this machine"),
    ],
)
def test_what_cannot_be_is_said_and_ends_with_2(
    environ: dict[str, str], words: tuple[str, ...], phrase: str
) -> None:
    done = CliRunner().invoke(cli, [*words, "true"], prog_name="mrun")
    assert done.exit_code == 2
    assert phrase in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("words", "variable"), [((), "SSH_FLAGS"), (("--mpi",), "MPIEXEC")]
)
def test_a_quote_that_does_not_end_is_told_before_anything_is_started(
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    variable: str,
) -> None:
    monkeypatch.setenv(variable, "-o 'x")
    done = CliRunner().invoke(cli, [*HERE, "--hosts", GOOD, *words, "true"])
    assert done.exit_code == 2
    assert f"{variable}: No closing quotation" in done.output


def test_hosts_that_are_named_one_by_one_are_all_there(
    environ: dict[str, str],
) -> None:
    done = CliRunner().invoke(cli, ["--hosts", "a", "--hosts", "a", "true"])
    assert done.exit_code == 2
    assert "--hosts: a is named twice" in done.output


def test_a_prompt_has_the_workers_of_all_hosts(environ: dict[str, str]) -> None:
    words = [*HERE, "-nth", "1", "--hosts", f"{GOOD},{GOOD_TOO}", "repl", "-nw", "1"]
    done = subprocess.run(
        [*MRUN, *words],
        input="[w.uid for w in runtime.workers]\nexit(5)\n",
        capture_output=True,
        text=True,
        env=environ,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert "['worker:0:0', 'worker:1:0']" in done.stdout
    assert "ssh · 2 nodes x 1 worker x 1 thread" in done.stderr


def test_one_host_of_a_job_that_is_this_one_needs_no_network(
    environ: dict[str, str],
) -> None:
    code, out, err = run(environ, "--hosts", "localhost:2", "-nth", "1")
    assert code == 7, err
    assert out.split()[3:] == ["threads", "1", "1"]
    assert "ssh · 1 node x 2 workers x 1 thread (localhost)" in err
    assert not Path(environ["RECORD"]).exists()
