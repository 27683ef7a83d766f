"""A cluster that listens to the network: its options, its key, and who may join."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mosaic_like as mosaic
from mosaic_like.comms.messages import Member
from mosaic_like.comms.zeromq import new_keys
from mosaic_like.config import Config
from mosaic_like.errors import ConnectError
from mosaic_like.launch import keys
from mosaic_like.launch.listening import beside, network_of, network_to
from mosaic_like.runtimes.lone_node import options_for
from mosaic_like.runtimes.machine import machine_id

TCP = "tcp://127.0.0.1:4000"


def key_of(machine: str = "another", tcp: str = TCP) -> keys.Key:
    monitor = Member(1, "monitor", b"", "ipc:///nowhere/m", "h", 1, tcp, machine)
    secrets = new_keys() if tcp else None
    return keys.Key.of(monitor, b"8 bytes.", Path("/nowhere"), secrets)


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> Any:
    """Standard input, as bytes come."""
    source = io.BytesIO(text.encode())
    monkeypatch.setattr(os, "read", lambda fd, count: source.read(count))
    return source


def test_without_an_address_nothing_listens() -> None:
    assert network_of(Config(num_workers=1)) is None
    assert beside(None) is None
    assert network_to(key_of(tcp="")) is None


def test_with_an_address_all_listen_there_with_keys_and_one_at_the_port() -> None:
    network = network_of(Config(num_workers=1, address="127.0.0.1", port=4000))
    assert network is not None
    assert network.listen == TCP
    assert network.keys is not None
    other = beside(network)
    assert other is not None
    assert (other.listen, other.keys) == ("tcp://127.0.0.1:*", network.keys)


@pytest.mark.parametrize("options", [{"port": 4000}, {"insecure": True}])
def test_what_belongs_to_an_address_is_refused_without_one(
    options: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match="goes with address="):
        Config.make(**options)


def test_insecure_is_for_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(num_workers=1, address="127.0.0.1", insecure=True)
    network = network_of(config)
    assert network is not None
    assert network.keys is None
    listening = "mosaic_like.launch.listening.tcp_address"
    monkeypatch.setattr(listening, lambda host, port: "tcp://10.0.0.1:*")
    with pytest.raises(ValueError, match=r"only address='127\.0\.0\.1' is possible"):
        network_of(config)


def test_who_joins_listens_where_the_way_to_the_monitor_begins() -> None:
    network = network_to(key_of())
    assert network is not None
    assert network.listen == "tcp://127.0.0.1:*"
    with pytest.raises(ValueError, match="not of this machine"):
        network_to(key_of(), "192.0.2.1")


def test_on_its_machine_the_monitor_is_reached_by_its_socket_and_else_by_tcp() -> None:
    assert key_of(machine_id()).endpoint == "ipc:///nowhere/m"
    assert key_of("another").endpoint == TCP


def test_a_key_comes_on_one_line_of_standard_input_and_what_follows_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = key_of()
    source = feed(monkeypatch, json.dumps(key.content()) + "\nfor the program")
    source_name, found = keys.load("-")
    assert (source_name, found) == ("the key on standard input", key)
    assert source.read() == b"for the program"


def test_a_key_that_somebody_has_read_before_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    feed(monkeypatch, "")
    with pytest.raises(ConnectError, match=r"is empty: .*SSH_COMMANDS"):
        keys.load("-")


@pytest.mark.parametrize("text", ["\n", "[1]", '{"address": 3}', "x" * 100_000])
def test_what_is_no_key_is_refused_at_once(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, text)
    with pytest.raises(ConnectError, match="standard input is not a key file"):
        keys.load("-")


def test_a_key_without_keys_is_refused_for_another_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = key_of(tcp="tcp://10.0.0.1:4000").content() | {"keys": None}
    feed(monkeypatch, json.dumps(content))
    with pytest.raises(ConnectError, match="it needs the cluster's keys"):
        keys.load("-")


def test_secrets_of_a_key_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_of()
    assert key.keys is not None
    assert key.keys.server_secret not in repr(key)
    broken = key.content()
    secret = broken["keys"]["server_secret"]
    broken["keys"]["server_secret"] = secret[:-1]
    feed(monkeypatch, json.dumps(broken))
    with pytest.raises(ConnectError) as caught:
        keys.load("-")
    assert secret[:8] not in str(caught.value)


def test_a_cluster_that_is_not_reached_from_other_hosts_says_what_to_do(
    tmp_path: Path,
) -> None:
    key = key_of(tcp="")
    with pytest.raises(ConnectError, match=r"on .* is not reached from other hosts"):
        keys.check_alive(tmp_path / "key", key)


def test_a_node_has_the_options_of_the_cluster_but_its_own_cores() -> None:
    settings = Config(num_workers=7, stop_timeout_s=9.0, address="127.0.0.1")
    own = options_for(settings.to_bytes(), {"num_workers": 2, "num_threads": 3})
    assert (own.num_workers, own.num_threads) == (2, 3)
    assert own.stop_timeout_s == 9.0
    assert options_for(settings.to_bytes(), {}).num_workers == Config().num_workers


PROGRAM = """
import subprocess, sys
import mosaic_like as mosaic

def status():
    command = [sys.executable, "-m", "mosaic_like", "status"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout

with mosaic.init(num_workers=1, address="127.0.0.1", insecure=True) as runtime:
    print(status())
"""


def test_an_insecure_cluster_warns_and_says_so_in_status(run_script: Any) -> None:
    result = run_script(PROGRAM)
    assert result.code == 0, result.stderr
    assert "mosaic: warning: tcp://127.0.0.1:" in result.stderr
    assert "every user of this machine can run code as you" in result.stderr
    assert "without keys: INSECURE" in result.stdout


def secrets_seen(pids: list[int], secrets: list[str]) -> list[str]:
    """Where one of these processes shows one of these texts to others."""
    found = []
    for pid in pids:
        for name in ("cmdline", "environ"):
            content = Path(f"/proc/{pid}/{name}").read_text(errors="replace")
            if any(secret in content for secret in secrets):
                found.append(f"{pid} {name}")
    return found


def test_no_secret_is_on_a_command_line_or_in_an_environment() -> None:
    command = (sys.executable, "-m", "mosaic_like", "node", "-nw", "1", "--key", "-")
    with mosaic.init(num_workers=1, address="127.0.0.1") as runtime:
        text = Path(runtime.hold.cluster.key).read_text()
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as node:
            assert node.stdin is not None
            node.stdin.write(text.encode())
            node.stdin.close()

            async def both() -> None:
                async with asyncio.timeout(60):
                    await runtime.wait_for_workers(2)

            asyncio.run_coroutine_threadsafe(both(), runtime.loop).result(60)
            keys_of = json.loads(text)["keys"]
            secrets = [keys_of["server_secret"], keys_of["client_secret"]]
            others = [m.pid for m in runtime.members.values() if m.pid != os.getpid()]
            assert len(others) >= 4
            assert secrets_seen([node.pid, *others], secrets) == []
            mosaic.stop()
            assert node.wait(60) == 0
