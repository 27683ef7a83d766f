"""What happens when hosts, steps and mrun are lost: with make ci-cluster."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest
from testbed import LONG, MRUN, Bed, Said, bed, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = LONG

# Calls a tessera on each worker again and again, and says how it went. Beside it, once
# per worker: a tessera with restarts, and a function task that takes a while.
BEATS = """
import asyncio, os, sys, time
import mosaic_like as mosaic

@mosaic.tessera
class Beat:
    def host(self): return os.uname().nodename
    def beat(self): return time.time()

@mosaic.task
async def long(seconds):
    await asyncio.sleep(seconds)
    return os.uname().nodename

async def moved(proxy):
    while True:
        try:
            return await proxy.host().result()
        except mosaic.RuntimeDisconnectedError as error:
            print("moves", error.verdict.name, flush=True)

async def main(runtime):
    seconds = float(sys.argv[1])
    beats = [Beat.options(runtime=w).remote() for w in runtime.workers]
    hosts = await mosaic.gather(b.host() for b in beats)
    again = [Beat.options(runtime=w, max_restarts=1).remote() for w in runtime.workers]
    await mosaic.gather(b.host() for b in again)
    tasks = [long.options(max_retries=1).submit(seconds / 4) for _ in hosts]
    print("up", *hosts, flush=True)
    begun_s = time.monotonic()
    longest_s = 0.0
    while beats and time.monotonic() - begun_s < seconds:
        for host, beat in list(zip(hosts, beats)):
            asked_s = time.monotonic()
            try:
                await beat.beat()
            except mosaic.RuntimeDisconnectedError as error:
                what = type(error).__name__, error.verdict.name
                print("lost", host, *what, flush=True)
                at = beats.index(beat)
                del beats[at], hosts[at]
            took_s = time.monotonic() - asked_s
            longest_s = max(longest_s, took_s)
        await asyncio.sleep(0.1)
    print("again", *sorted(await asyncio.gather(*map(moved, again))), flush=True)
    print("tasks", *sorted(await mosaic.gather(tasks)), flush=True)
    print(f"longest {longest_s:.1f} s", flush=True)

mosaic.run(main)
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Bed]:
    with bed("hosts", "3") as made:
        yield made


def command(
    hosts: Bed, seconds: float, *options: str, other: str = "host2"
) -> list[str]:
    program = hosts.write("beats.py", BEATS)
    words = [*MRUN, "--hosts", f"host1,{other}", "-nw", "1", *options]
    return ["run", "--", *words, sys.executable, program, str(seconds)]


def during(
    hosts: Bed, seconds: float, *faults: tuple[str, ...], other: str = "host2"
) -> Said:
    """Run the program; when it is up, do these to the hosts."""
    words = command(hosts, seconds, other=other)
    with hosts.start("hosts", *words) as (process, said):
        until(lambda: "up host" in said().out or process.poll() is not None)
        for fault in faults:
            assert beside(hosts).script("hosts", *fault).code == 0
        process.wait(120)
        return said()


def beside(hosts: Bed) -> Bed:
    """The same, for what is run while another command is."""
    folder = hosts.folder / "beside"
    folder.mkdir(exist_ok=True)
    return Bed(hosts.scripts, hosts.environ, folder)


@contextlib.contextmanager
def healed(hosts: Bed) -> Iterator[None]:
    """Its cables are in again at the end."""
    try:
        yield
    finally:
        assert hosts.script("hosts", "heal", "all").code == 0


def longest_s(said: Said) -> float:
    found = re.search(r"longest ([0-9.]+) s", said.out)
    assert found is not None, (said.out, said.err)
    return float(found[1])


def test_a_host_that_is_cut_for_three_seconds_is_not_missed(hosts: Bed) -> None:
    wait = ("run", "--", "sleep", "3")
    with healed(hosts):
        said = during(hosts, 10, ("cut", "host2"), wait, ("heal", "host2"))
    assert said.code == 0, said.err
    assert "lost" not in said.out
    assert longest_s(said) >= 2


@pytest.mark.parametrize(("fault", "undone"), [("cut", "heal"), ("freeze", "thaw")])
def test_a_host_that_is_silent_for_good_is_lost_and_ends_when_it_comes_back(
    hosts: Bed, fault: str, undone: str
) -> None:
    """Within 16 s; what is to go on does so elsewhere."""
    with healed(hosts):
        said = during(hosts, 25, (fault, "host2"))
        assert said.code == 0, said.err
        assert "lost host2 WorkerDied MAYBE_RAN" in said.out
        assert "lost host1" not in said.out
        assert "again host1 host1\n" in said.out
        assert "tasks host1 host1\n" in said.out
        print(f"{fault}: told after {longest_s(said)} s")
        assert longest_s(said) < 18  # on a machine with two cores and much to do
        assert beside(hosts).script("hosts", undone, "host2").code == 0
        until(lambda: not hosts.left("host2"), 20.0)


def test_a_host_that_is_far_away_is_slow_and_no_more(hosts: Bed) -> None:
    with healed(hosts):
        said = during(hosts, 8, ("slow", "host2", "100"))
    assert said.code == 0, said.err
    assert "lost" not in said.out
    assert "again host1 host2\ntasks host1 host2\n" in said.out
    assert longest_s(said) >= 0.2


def test_64_workers_on_three_hosts_are_soon_ready(hosts: Bed) -> None:
    program = hosts.write(
        "count.py",
        "import mosaic_like as mosaic\n"
        "async def main(runtime): print(len(runtime.workers))\n"
        "mosaic.run(main)\n",
    )
    words = [*MRUN, "--hosts", "host1:22,host2:21,host3:21", "-nth", "1"]
    begun_s = time.monotonic()
    said = hosts.script("hosts", "run", "--", *words, sys.executable, program)
    took_s = time.monotonic() - begun_s
    assert (said.code, said.out) == (0, "64\n"), said.err
    ready = re.search(r"3 nodes, 64 workers .* ready in ([0-9.]+) s", said.err)
    assert ready is not None, said.err
    load = f"{os.getloadavg()[0]:.0f} processes that want {os.cpu_count()} cores"
    print(f"64 workers: ready in {ready[1]} s, all of it {took_s:.1f} s; {load}")
    assert float(ready[1]) < 60  # 5 s where nothing else runs


def test_a_host_that_is_not_there_is_named_and_left_out(hosts: Bed) -> None:
    with healed(hosts):
        assert hosts.script("hosts", "cut", "host2").code == 0
        said = hosts.script("hosts", *command(hosts, 1))
    assert said.code == 0, said.err
    assert "mosaic: host2: it cannot be reached: is it up" in said.err
    assert "going on with 1 of 2 hosts" in said.err


def test_a_python_without_the_package_is_named(hosts: Bed) -> None:
    bare = hosts.write("python", f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    said = hosts.script("hosts", *command(hosts, 1, "--python", bare))
    assert said.code == 1
    assert "host[1-2]: the Python there has no mosaic_like" in said.err


def test_nothing_is_left_when_mrun_is_killed(hosts: Bed) -> None:
    with hosts.start("hosts", *command(hosts, 100)) as (process, said):
        until(lambda: "up host" in said().out or process.poll() is not None)
        process.send_signal(signal.SIGKILL)  # the script has become mrun
        process.wait(20)
    until(lambda: not hosts.left("host1") and not hosts.left("host2"), 20.0)


def test_slurm_on_hosts_and_a_job_that_is_cancelled(hosts: Bed) -> None:
    with bed("slurm", "--on-hosts", under=hosts) as slurm:
        program = slurm.write("beats.py", BEATS)
        words = [*MRUN, "-nw", "2", "-nth", "1", sys.executable, program]
        run = ("run", "--")
        said = slurm.script("slurm", *run, "salloc", "-Q", "-N3", *words, "1")
        assert said.code == 0, said.err
        assert "3 nodes x 2 workers x 1 thread (host[1-3], eth0)" in said.err
        output = slurm.folder / "output"
        words = ["script", "slurm", "beats", "-n", "2", "--", "python", program, "100"]
        job = slurm.write("job", slurm.mrun(*words))
        sbatch = ("sbatch", "--parsable", "-o", str(output), job)
        number = slurm.script("slurm", *run, *sbatch).out.strip()
        until(lambda: output.exists() and "up host" in output.read_text())
        assert slurm.script("slurm", *run, "scancel", number).code == 0
        squeue = ("squeue", "--noheader")
        until(lambda: not slurm.script("slurm", *run, *squeue).out, 30.0)
        assert [hosts.left(name) for name in ("host1", "host2")] == [[], []]


# The last: a host that is started again would look like one that is left.
@pytest.mark.parametrize(
    ("fault", "host", "seconds", "limit_s"),
    [("kill", "host2", 8, 8), ("crash", "host3", 25, 18)],
)
def test_a_host_that_has_died_is_lost(
    hosts: Bed, fault: str, host: str, seconds: float, limit_s: float
) -> None:
    said = during(hosts, seconds, (fault, host), other=host)
    assert said.code == 0, said.err
    assert f"lost {host} WorkerDied MAYBE_RAN" in said.out
    assert "again host1 host1\ntasks host1 host1\n" in said.out
    print(f"{fault}: told after {longest_s(said)} s")
    assert longest_s(said) < limit_s
