"""Other ways to a cluster than a program in a job: with make ci-cluster."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest
from testbed import LONG, MRUN, Bed, bed, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = LONG

# Says who is there whenever that changes, and where what is made then goes.
PROGRAM = """
import asyncio, os
import mosaic_like as mosaic

@mosaic.tessera
class Place:
    def host(self):
        os.write(1, b"past Python\\n")
        return os.uname().nodename

async def main(runtime):
    while not runtime.cluster_lost:
        hosts = {w.host for w in runtime.workers}
        made = [Place.remote().host() for _ in hosts]
        found = await mosaic.gather(made, return_exceptions=True)
        print("there", *sorted(f for f in found if type(f) is str), flush=True)
        await runtime.membership()

mosaic.run(main)
"""


# Has one call, which goes on while its worker is told to leave.
FINISHES = """
import asyncio, time
import mosaic_like as mosaic

@mosaic.tessera
class Slow:
    def ready(self): pass
    def run(self): time.sleep(1); return "finished"

async def main(runtime):
    slow = Slow.remote()
    await slow.ready()
    running = slow.run()
    print("running", flush=True)
    print(await running.result())

mosaic.run(main)
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Bed]:
    with bed("hosts", "3") as made:
        yield made


@pytest.fixture(scope="module")
def slurm() -> Iterator[Bed]:
    with bed("slurm", "2") as made:
        yield made


def beside(hosts: Bed, name: str) -> Bed:
    """The same, for what is run while another command is."""
    folder = hosts.folder / name
    folder.mkdir(exist_ok=True)
    return Bed(hosts.scripts, hosts.environ, folder)


def test_nodes_of_other_hosts_join_and_leave_a_dynamic_cluster(hosts: Bed) -> None:
    program = hosts.write("places.py", PROGRAM)
    logs = hosts.folder / "logs"
    words = [*MRUN, "--dynamic", "--no-encryption", "--logs", str(logs)]
    words += [sys.executable, program]
    with hosts.start("hosts", "run", "--", *words) as (process, said):
        until(lambda: "--key - <" in said().err or process.poll() is not None)
        found = re.search(r"nodes may join at 10\.77\.0\.1:(\d+)", said().err)
        assert found is not None, said().err
        key = said().err.partition("--key - <")[2].split()[0]
        node = f"exec {' '.join(MRUN)} --node --key - -nw 1 <{key}"
        first, second = beside(hosts, "1"), beside(hosts, "2")
        on_host1 = ("run", "--on", "host1", "--", "sh", "-c", node)
        there = f"export MOSAIC_MONITOR_HOST=head MOSAIC_MONITOR_PORT={found[1]}"
        on_host2 = ("run", "--on", "host2", "--", "sh", "-c", f"{there}; {node}")
        with first.start("hosts", *on_host1):
            until(lambda: "there host1\n" in said().out)
            with second.start("hosts", *on_host2):
                until(lambda: "there host1 host2\n" in said().out)
                terminal = beside(hosts, "terminal")
                status = terminal.script("hosts", "run", "--", *MRUN, "status")
                assert "2 workers · 2 nodes · 1 head" in status.out
                assert "with keys, but not encrypted" in status.out
                assert re.search(r"w1:0 +pid \d+ +host2", status.out)
            # It was killed with its command, and all that it had started.
            until(
                lambda: re.findall("^there.*$", said().out, re.M)[-1] == "there host1"
            )
            stopped = terminal.script("hosts", "run", "--", *MRUN, "stop")
            assert stopped.out.startswith("stopped "), stopped.err
            assert process.wait(60) is not None
    assert re.search(r"w1:0( Place#\d+)? \| past Python", said().out)
    assert "past Python" in (logs / "w0-0.log").read_text()
    assert "past Python" in (logs / "w1-0.log").read_text()
    until(lambda: not hosts.left("host1") and not hosts.left("host2"), 20.0)


def test_a_node_whose_job_is_cancelled_ends_its_calls_first(slurm: Bed) -> None:
    program = slurm.write("finishes.py", FINISHES)
    words = [*MRUN, "--dynamic", sys.executable, program]
    with slurm.start("slurm", "run", "--", *words) as (process, said):
        until(lambda: "--key - <" in said().err or process.poll() is not None)
        key = said().err.partition("--key - <")[2].split()[0]
        line = " ".join([*MRUN, "--node", "--key", key, "-nw", "1"])
        job = slurm.write("job", f"#!/bin/sh\nexec {line}\n")
        terminal = beside(slurm, "terminal")
        sbatch = ("sbatch", "--parsable", "-o", str(slurm.folder / "output"), job)
        number = terminal.script("slurm", "run", "--", *sbatch).out.strip()
        until(lambda: "running" in said().out or process.poll() is not None)
        assert terminal.script("slurm", "run", "--", "scancel", number).code == 0
        assert process.wait(60) == 0, said().err
        assert said().out == "running\nfinished\n"


def test_a_prompt_in_an_allocation_of_slurm_has_its_hosts(slurm: Bed) -> None:
    typed = "len(runtime.workers), len({w.indices[0] for w in runtime.workers})"
    line = f"echo '{typed}' | {' '.join(MRUN)} -nw 2 -nth 1 repl"
    salloc = ("salloc", "--quiet", "-N2", "sh", "-c", line)
    said = slurm.script("slurm", "run", "--", *salloc)
    assert said.code == 0, said.err
    assert ">>> (4, 2)" in said.out
    assert "2 nodes x 2 workers x 1 thread (n[1-2], lo)" in said.err
