"""Somebody removes the files of the run directory while the cluster runs."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from large_values import until

import mosaic_like as mosaic
from mosaic_like.runtimes.peer import GONE_S

if TYPE_CHECKING:
    import pytest

TEXT = "cannot be reached: its socket"
CLOSES_S = GONE_S + 3.0


class Counting:
    def pid(self) -> int:
        return os.getpid()


class Slow:
    """Takes longer to close than a socket may be gone."""

    async def talk(self, other: Any) -> int:
        self.other = other
        pid: int = await other.pid().result()
        return pid

    async def __close__(self) -> None:
        await asyncio.sleep(CLOSES_S)
        print("closed at last")


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_it_is_said_once_that_the_socket_of_a_worker_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pids: list[int] = []
    socket = ""

    def told() -> list[str]:
        return [text for text in caplog.messages if TEXT in text]

    async def main(runtime: Any) -> float:
        nonlocal socket
        here, there = runtime.workers
        pids.extend(member.pid for member in runtime.members.values())
        known = mosaic.remote(Counting, runtime=here)()
        assert await known.pid().result() == here.pid
        socket = f"{runtime.hold.cluster.directory.path}/w{there.pid}"
        os.unlink(socket)
        unknown = mosaic.remote(Counting, runtime=there)()
        call = asyncio.ensure_future(unknown.pid().result())
        await until(told)
        peers = runtime.peers.by_incarnation.values()
        (link,) = (peer.link for peer in peers if peer.uid == there.uid)
        tried = link.connection
        await until(lambda: link.connection > tried + 1)  # on it goes, and says no more
        assert not call.done()  # and nobody is lost
        assert await known.pid().result() == here.pid
        call.cancel()
        return time.monotonic()

    with caplog.at_level(logging.WARNING):
        ending_s = mosaic.run(main, num_workers=2)
    assert time.monotonic() - ending_s < 15
    (text,) = told()
    assert text.startswith("worker:0:1 cannot be reached")
    assert socket in text
    assert "end the program and start it again" in text
    assert not [pid for pid in pids if is_there(pid)]


def test_nothing_is_said_of_sockets_that_go_in_order(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    # One worker takes long to end, so that the others have gone for a while.
    async def main(runtime: Any) -> None:
        here, there = runtime.workers
        counting = mosaic.remote(Counting, runtime=here)()
        slow = mosaic.remote(Slow, runtime=there, is_async=True)()
        assert await slow.talk(counting).result() == here.pid
        assert await counting.pid().result() == here.pid

    with caplog.at_level(logging.WARNING):
        mosaic.run(main, num_workers=2)
    said = capfd.readouterr()
    assert "closed at last" in said.out
    assert TEXT not in caplog.text + said.out + said.err
