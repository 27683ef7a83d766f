"""Why a host has no node, and what is said of it, by real ssh: with make ci-cluster."""

from __future__ import annotations

import json
import re
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
from testbed import CHECKOUT, LONG, MRUN, Bed, Said, bed

from mosaic_like.comms.messages import PROTOCOL
from mosaic_like.comms.zeromq import new_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = LONG

COUNT = """
import mosaic_like as mosaic
async def main(runtime):
    print(len(runtime.workers))
mosaic.run(main)
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Bed]:
    with bed("hosts", "2") as made:
        yield made


def altered(hosts: Bed, file: str, old: str, new: str) -> str:
    """A Python whose mosaic_like is another one; its path."""
    folder = hosts.folder / "altered"
    shutil.rmtree(folder, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "mosaic_like", folder / "mosaic_like", ignore=ignored)
    path = folder / "mosaic_like" / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    line = f'PYTHONPATH={folder} exec {sys.executable} "$@"'
    return hosts.write("python", f"#!/bin/sh\n{line}\n")


def run(hosts: Bed, *options: str, hosts_of: str = "host1,host2") -> Said:
    program = hosts.write("count.py", COUNT)
    words = [*MRUN, "--hosts", hosts_of, "-nw", "1", "-nth", "1", *options]
    return hosts.script("hosts", "run", "--", *words, sys.executable, program)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (
            ("runtimes/base.py", 'PYTHON = f"{', 'PYTHON = "2.7" or f"{'),
            "its cluster runs Python 3.*, this program 2.7",
        ),
        (
            ("comms/messages/codec.py", f"PROTOCOL = {PROTOCOL}\n", "PROTOCOL = 77\n"),
            f"its cluster speaks protocol {PROTOCOL}, this program 77: install",
        ),
        (None, "there is no /no/such/python: install Python there at the same path"),
    ],
)
def test_what_a_host_has_that_does_not_fit_is_its_cause(
    hosts: Bed, change: tuple[str, str, str] | None, cause: str
) -> None:
    python = "/no/such/python" if change is None else altered(hosts, *change)
    said = run(hosts, "--python", python)
    assert said.code == 1, said.err
    assert re.search(rf"did not start: no host\n  host\[1-2\]: .*{cause}", said.err)


def test_a_host_that_lets_nobody_in_is_left_out_or_stops_the_start(hosts: Bed) -> None:
    config = hosts.folder / "config"  # of several settings ssh takes the first
    config.write_text(
        "Host host2\n  PubkeyAuthentication no\n"
        f"Host *\nInclude {hosts.folder}/h/etc/ssh_config\n"
    )
    hosts.environ["SSH_FLAGS"] = f"-F {config}"
    try:
        said = run(hosts)
        strict = run(hosts, "--strict")
    finally:
        del hosts.environ["SSH_FLAGS"]
    assert (said.code, said.out) == (0, "1\n"), said.err
    assert "mosaic: host2: it lets nobody in without a password" in said.err
    assert "going on with 1 of 2 hosts" in said.err
    assert strict.code == 1
    assert "all hosts are wanted (--strict)\n  host2: it lets nobody in" in strict.err


def test_two_names_of_one_host_are_told(hosts: Bed) -> None:
    said = run(hosts, hosts_of="host1,10.77.0.11,host2")
    assert (said.code, said.out) == (0, "3\n"), said.err
    assert "mosaic: host1 and 10.77.0.11 are one host, whose cores" in said.err


def test_other_versions_of_libraries_are_named_and_no_more(hosts: Bed) -> None:
    given = 'return {**found, "numpy": "0.1", "libzmq": "4.0"}'
    python = altered(
        hosts, "launch/versions.py", "    return found\n", f"    {given}\n"
    )
    said = run(hosts, "--python", python)
    assert (said.code, said.out) == (0, "2\n"), said.err
    assert re.search(
        r"mosaic: host\[1-2\]: libzmq 4\.0, in the cluster 4\.\S+; "
        r"numpy 0\.1, in the cluster \d\S+: if values cannot be read",
        said.err,
    )


def test_who_has_not_the_clusters_key_does_not_join(hosts: Bed) -> None:
    """One that was in the hands of somebody, of another cluster or made up."""
    words = [*MRUN, "--dynamic", sys.executable, "-c", "import time; time.sleep(60)"]
    with hosts.start("hosts", "run", "--", *words) as (process, said):
        while "--key - <" not in said().err:
            assert process.poll() is None, said().err
        path = said().err.partition("--key - <")[2].split()[0]
        with open(path) as file:
            key = json.load(file)
        other = new_keys()
        for name in ("client_public", "client_secret"):
            key["keys"][name] = getattr(other, name)
        strange = hosts.write("key", json.dumps(key))
        beside = hosts.folder / "beside"
        beside.mkdir(exist_ok=True)
        node = f"exec {' '.join(MRUN)} --node --key - -nw 1 <{strange}"
        on_host = ("run", "--on", "host1", "--", "sh", "-c", node)
        refused = Bed(hosts.scripts, hosts.environ, beside).script("hosts", *on_host)
    assert refused.code == 1
    assert "could not join" in refused.err, refused.err


def test_doctor_finds_the_way_there_and_back(hosts: Bed) -> None:
    words = [*MRUN, "doctor", "host1", "host2", "host9"]
    said = hosts.script("hosts", "run", "--", *words)
    assert "ok    address        for those hosts: 10.77.0.1" in said.out
    assert "eth0 10.77.0.1" in said.out
    of = dict(part.split("\n", 1) for part in said.out.rstrip().split("\n\n")[1:])
    assert of["host1"] == of["host2"] == "  ok    all            as here, and well"
    assert "not asked: there is no host of this name" in of["host9"]
