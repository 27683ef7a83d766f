"""The commands of other hosts, with shell scripts for them and no cluster."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from mosaic_like.errors import ConnectError
from mosaic_like.launch.engines import slurm, ssh
from mosaic_like.launch.engines.allocation import Allocation, Host
from mosaic_like.launch.keys import Key
from mosaic_like.launch.layout import Layout
from mosaic_like.launch.remote import Remote
from mosaic_like.launch.versions import SAID

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

LIMIT_S = 20.0
KEY = Key("ipc:///x", "00", "/x")
# The last word but one is the host of ssh.
SSH = """#!/bin/sh
read key
case $key in *'"token"'*) ;; *) echo "no key" >&2; exit 1 ;; esac
joined="mosaic: node:0 has joined, with 2 workers of 1 threads, on 1 core"
while [ "$1" != -T ]; do shift; done
case $2 in
good*) echo "$joined" >&2; exec sleep 1000 ;;
talks) echo "$joined" >&2; echo "one"; printf 'a\\033[2Jb\\n' >&2; sleep 0.2 ;;
short) echo "$joined" >&2; echo "mosaic: it broke" >&2; exit 3 ;;
mute) echo "Welcome" >&2; exec sleep 1000 ;;
stubborn) trap "" TERM; while :; do sleep 1000; done ;;
proxied) sleep 1000 & echo "waits" >&2; wait ;;
*) echo "mrun: no way" >&2; exit 1 ;;
esac
"""
SRUN = """#!/bin/sh
read key
echo "0: mosaic: on n2" >&2
echo "1: mosaic: on n1" >&2
echo "srun: error: n1: task 1: Exited with exit code 127" >&2
echo "1: sh: exec: /py: not found" >&2
echo "0: mosaic: node:0 has joined, with 2 workers of 1 threads, on 1 core" >&2
exec sleep 1000
"""


class FakeHead:
    """That of a cluster in which these workers have arrived."""

    def __init__(self, *workers: tuple[int, int]) -> None:
        self.workers = [
            SimpleNamespace(uid=f"worker:{node}:{index}", indices=(node, index))
            for node, index in workers
        ]
        self.num_workers = len(workers)
        self.never_joined: dict[str, str] = {}
        self.causes: dict[int, tuple[Any, str]] = {}
        self.nodes: list[Any] = []
        self._changed = asyncio.Event()

    def of_kind(self, kind: str) -> list[Any]:
        return self.nodes if kind == "node" else []

    async def membership(self) -> None:
        await self._changed.wait()

    def changes(self) -> None:
        self._changed.set()


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, text in (("ssh", SSH), ("srun", SRUN)):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return dict(os.environ)


def use(
    environ: dict[str, str],
    names: str,
    then: Callable[[Remote], Awaitable[Any]],
    *,
    engine: str = ssh.NAME,
    is_strict: bool = False,
) -> float:
    """Start the commands, do something, and stop; how many seconds that took."""
    hosts = tuple(Host(name) for name in names.split())
    layout = Layout(Allocation(engine, hosts), None, hosts, "10.0.0.1")

    async def main() -> float:
        remote = Remote(layout, "/py", environ, is_strict=is_strict, mask=set())
        await remote.start(KEY)
        try:
            await then(remote)
        finally:
            begun_s = time.monotonic()
            remote.kill()
            await remote.stopped()
        return time.monotonic() - begun_s

    return asyncio.run(asyncio.wait_for(main(), LIMIT_S))


def test_a_host_that_does_not_answer_is_given_up(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    async def then(remote: Remote) -> None:
        while not remote.arrivals.others["mute"].lines:  # noqa: ASYNC110 -- no event tells it
            await asyncio.sleep(0.01)
        await remote.ready(FakeHead((0, 0), (0, 1)), 1.5)  # type: ignore[arg-type]  # a fake

    use(environ, "good mute", then)
    said = capsys.readouterr().err.splitlines()
    assert "mosaic: mute: no answer in 1.5 s ('Welcome')" in said
    assert "mosaic: going on with 1 of 2 hosts (--strict stops instead)" in said


def test_workers_that_do_not_come_are_told_and_their_host_is_used(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    async def then(remote: Remote) -> None:
        await remote.ready(FakeHead((0, 0)), 1.0)  # type: ignore[arg-type]  # a fake

    use(environ, "good", then)
    said = capsys.readouterr().err
    assert said == "mosaic: good: 1 of 2 workers are there after 1 s\n"


def test_a_worker_that_dies_before_it_has_joined_is_not_waited_for(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    async def then(remote: Remote) -> None:
        head = FakeHead((0, 0))
        waiting = asyncio.create_task(remote.ready(head, None))  # type: ignore[arg-type]  # a fake
        while remote.arrivals.others["good"].node < 0:  # noqa: ASYNC110 -- no event tells it
            await asyncio.sleep(0.01)
        head.never_joined["worker:0:1"] = "worker:0:1 (pid 7) killed by SIGKILL"
        head.changes()
        await waiting

    use(environ, "good", then)
    assert capsys.readouterr().err == (
        "mosaic: good: 1 of 2 workers came: worker:0:1 (pid 7) killed by SIGKILL "
        "before it had joined; its node tries again\n"
    )


def test_with_strict_a_worker_that_dies_stops_the_start(
    environ: dict[str, str],
) -> None:
    async def then(remote: Remote) -> None:
        head = FakeHead((0, 0))
        head.never_joined["worker:0:1"] = "worker:0:1 (pid 7) exit status 1"
        with pytest.raises(ConnectError, match=r"all hosts.*\n  good: 1 of 2 workers"):
            await remote.ready(head, None)  # type: ignore[arg-type]  # a fake

    use(environ, "good mute", then, is_strict=True)


def test_a_host_that_is_lost_while_its_workers_start_is_given_up(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    async def then(remote: Remote) -> None:
        head = FakeHead((1, 0))
        head.causes[3] = SimpleNamespace(uid="node:0"), "it was not heard for 15 s"
        with pytest.raises(ConnectError, match="lost while its workers started: it"):
            await remote.ready(head, None)  # type: ignore[arg-type]  # a fake

    use(environ, "good", then, is_strict=True)


def test_with_strict_the_first_failure_is_enough(environ: dict[str, str]) -> None:
    async def then(remote: Remote) -> None:
        with pytest.raises(
            ConnectError, match=r"all hosts are wanted.*\n  bad: no way"
        ):
            await remote.ready(FakeHead((0, 0)), None)  # type: ignore[arg-type]  # a fake

    use(environ, "mute bad", then, is_strict=True)


def test_no_host_at_all_is_no_cluster(environ: dict[str, str]) -> None:
    async def then(remote: Remote) -> None:
        with pytest.raises(ConnectError, match=r"no host\n  bad\[1-2\]: no way"):
            await remote.ready(FakeHead(), None)  # type: ignore[arg-type]  # a fake

    use(environ, "bad1 bad2", then)


def test_a_node_that_ends_before_its_workers_are_there_is_no_node(
    environ: dict[str, str],
) -> None:
    async def then(remote: Remote) -> None:
        with pytest.raises(ConnectError, match="short: it broke"):
            await remote.ready(FakeHead(), None)  # type: ignore[arg-type]  # a fake

    use(environ, "short", then)


def test_what_a_host_says_later_is_shown_with_its_name_and_no_control_characters(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    async def then(remote: Remote) -> None:
        await remote.ready(FakeHead((0, 0), (0, 1)), None)  # type: ignore[arg-type]  # a fake
        (running,) = remote._steps
        assert running.task is not None
        await running.task

    use(environ, "talks", then)
    out, err = capsys.readouterr()
    assert out == "talks | one\n"
    assert err == "talks | a?[2Jb\n"


def test_hosts_of_which_more_is_asked_and_that_have_other_versions_are_named(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> Remote:
        hosts = (Host("a"), Host("b"), Host("c"), Host("d", cores=4))
        layout = Layout(Allocation(ssh.NAME, hosts), None, hosts, "10.0.0.1")
        return Remote(layout, "/py", environ, is_strict=False, mask=set())

    remote = asyncio.run(main())
    for name in ("a", "b", "d"):
        remote.said(name, f"{SAID}numpy 1.0, in the cluster 2.0")
    for name, cores in (("a", 2), ("b", 2), ("c", 8), ("d", 1)):
        node = "mosaic: node:0 has joined, with 2 workers of 3 threads"
        remote.said(name, f"{node}, on {cores} core{'s' * (cores > 1)}")
    assert remote.arrivals.warnings == [
        "a,b: 2 cores for 2 workers with 3 threads each: they will wait for each other",
        "a,b,d: numpy 1.0, in the cluster 2.0: if values cannot be read, install the "
        "same",
    ]
    assert capsys.readouterr().err == ""


def test_a_signal_that_nodes_got_is_told_and_not_shown(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    got: list[int] = []

    async def main() -> None:
        hosts = (Host("a"), Host("b"))
        layout = Layout(Allocation(slurm.NAME, hosts), None, hosts, "10.0.0.1")
        remote = Remote(
            layout, "/py", environ, is_strict=False, mask=set(), on_signal=got.append
        )
        remote.said("a", "mosaic: its job got SIGUSR1")
        remote.said("b", "mosaic: its job got SIGTERM")
        remote.said("b", "mosaic: its job got SIGKILL")

    asyncio.run(main())
    assert got == [signal.SIGUSR1, signal.SIGTERM]
    assert capsys.readouterr().err == ""


def test_a_command_that_does_not_heed_sigterm_is_killed(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mosaic_like.launch.step.ENDED_TIMEOUT_S", 0.3)
    monkeypatch.setattr("mosaic_like.launch.step.TERMINATE_TIMEOUT_S", 0.3)

    async def then(remote: Remote) -> None:
        await asyncio.sleep(0)

    assert use(environ, "stubborn mute", then) < LIMIT_S


def test_what_a_command_leaves_behind_is_killed_and_not_waited_for(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ssh does with a ProxyCommand that hangs: it has our pipes."""
    monkeypatch.setattr("mosaic_like.launch.step.ENDED_TIMEOUT_S", 1000.0)
    monkeypatch.setattr("mosaic_like.launch.step.TERMINATE_TIMEOUT_S", 0.3)
    tasks: list[asyncio.Task[None] | None] = []

    async def then(remote: Remote) -> None:
        while not remote.arrivals.others["proxied"].lines:  # noqa: ASYNC110 -- no event tells it
            await asyncio.sleep(0.01)
        tasks.extend(running.task for running in remote._steps)

    assert use(environ, "proxied mute", then) < LIMIT_S
    assert all(task is not None and not task.cancelled() for task in tasks)


def test_two_names_of_one_host_are_told(environ: dict[str, str]) -> None:
    said: list[str] = []

    async def then(remote: Remote) -> None:
        arrivals = list(remote.arrivals.others.values())
        while any(each.node < 0 for each in arrivals):  # noqa: ASYNC110 -- no event
            await asyncio.sleep(0.01)
        for node, arrival in enumerate(arrivals):
            arrival.node = node
        head = FakeHead((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))
        head.nodes = [
            SimpleNamespace(uid="node:0", machine="a"),
            SimpleNamespace(uid="node:1", machine="b"),
            SimpleNamespace(uid="node:2", machine="a"),
        ]
        await remote.ready(head, None)  # type: ignore[arg-type]  # a fake
        said.extend(remote.arrivals.warnings)

    use(environ, "good1 good2 good3", then)
    assert said[1:] == [
        "good1 and good3 are one host, whose cores are given to each: name it once"
    ]


def test_the_hosts_of_one_step_of_slurm_have_their_own_causes(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    async def then(remote: Remote) -> None:
        await remote.ready(FakeHead((0, 0), (0, 1)), None)  # type: ignore[arg-type]  # a fake
        assert remote.arrivals.others["n2"].workers == 2

    use(environ, "n1 n2", then, engine=slurm.NAME)
    said = capsys.readouterr().err
    assert "mosaic: n1: there is no /py" in said
    assert "sh: exec: /py: not found" in said


def test_a_command_that_is_not_here_is_the_cause(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    async def then(remote: Remote) -> None:
        with pytest.raises(ConnectError, match="ssh cannot be run here: No such file"):
            await remote.ready(FakeHead(), None)  # type: ignore[arg-type]  # a fake

    use({**environ, "PATH": "/nowhere"}, "good", then)
