"""mrun doctor, with a program that stands in for ssh."""

from __future__ import annotations

import json
import os
import resource
import socket
from typing import TYPE_CHECKING

import pytest

from mosaic_like.comms.messages import PROTOCOL
from mosaic_like.launch.engines import VARIABLES
from mosaic_like.launch.mrun import main
from mosaic_like.runtimes.base import PYTHON

if TYPE_CHECKING:
    from pathlib import Path

OTHER = {"host": "old", "python": "3.9", "protocol": 0, "findings": []}
POOR = {
    "python": PYTHON,
    "protocol": PROTOCOL,
    "findings": [
        {"name": "cores", "text": "4", "remedy": ""},
        {"name": "memory", "text": "1 MiB\x1b[2J", "remedy": "buy some"},
    ],
}
SSH = f"""#!/bin/sh
while [ "$1" != -T ]; do shift; done
echo "Welcome to $2"
case $2 in
old) echo '{json.dumps(OTHER)}' ;;
poor) echo '{json.dumps(POOR)}'; exit 1 ;;
good) exec sh -c "$3" ;;
*) echo "ssh: connect to host $2 port 22: Connection refused" >&2; exit 255 ;;
esac
"""


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "SSH_FLAGS", "SSH_COMMANDS"):
        monkeypatch.delenv(name, raising=False)
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(["doctor", *words])
    assert isinstance(end.value.code, int)
    return end.value.code, capsys.readouterr().out


def test_this_host_is_looked_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-3]")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    code, said = run(capsys)
    lines = said.splitlines()
    assert code == 1
    assert any(line.startswith("  ok    python") for line in lines)
    assert "  warn  open files     64 at once: for many workers say" in said
    assert "  warn  processes      64 at once, with threads: all threads" in said
    assert "CUDA_VISIBLE_DEVICES=0,1, split over the workers of a host" in said
    assert "ok    network        " in said
    assert "lo 127.0.0.1" in said
    assert "slurm 7: 3 hosts (n[1-3])" in said


def test_other_hosts_are_compared_with_this_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, said = run(capsys, "good", "old,poor", "gone")
    assert code == 1
    of = dict(part.split("\n", 1) for part in said.rstrip().split("\n\n"))
    assert of["good"] == "  ok    all            as here, and well"
    assert f"python         3.9, here {PYTHON}: use the same" in of["old"]
    assert "protocol 0, here" in of["old"]
    assert of["poor"] == "  warn  memory         1 MiB?[2J: buy some"
    assert "not asked: nothing there takes ssh connections" in of["gone"]


def test_a_host_from_which_there_is_no_way_back_is_told_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        there = run(capsys, "--back", f"tcp://127.0.0.1:{port}")[1]
    gone = run(capsys, "--back", f"tcp://127.0.0.1:{port}")[1]
    assert "ok    way back       to 127.0.0.1" in there
    assert "warn  way back       not to 127.0.0.1: Connection refused: a fire" in gone
    # Of hosts whose names are known, or not.
    assert "ok    address        for those hosts: " in run(capsys, "localhost")[1]
    said = run(capsys, "no-such-host.invalid")[1]
    assert "warn  address        for those hosts: none: " in said


def test_programs_get_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "--json", "poor")
    told = json.loads(said)
    assert code == 1
    assert told["python"] == PYTHON
    assert [each["name"] for each in told["hosts"]["poor"]] == ["memory"]


def test_what_is_no_name_of_a_host_is_wrong_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(capsys, "--", "-oProxyCommand=x")[0] == 2
