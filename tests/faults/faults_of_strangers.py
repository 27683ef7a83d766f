"""F13: strangers at the sockets: noise, half a handshake, another key, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from cells import Cell
from faults_of_links import End, sockets
from history import Event

from mosaic_like.comms import messages as wire
from mosaic_like.comms.zeromq import ZmqTransport, new_keys

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from program import Stage

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + bytes(32)
# What strangers say; those that say nothing more stay all the same.
WORDS: tuple[Callable[[random.Random], bytes], ...] = (
    lambda rng: rng.randbytes(rng.randrange(1, 2000)),
    lambda rng: GREETING[: rng.randrange(len(GREETING))],
    lambda rng: GREETING + b"\x04\x26\x05READY" + bytes(31),
    lambda rng: GREETING + b"\x02" + (1 << 60).to_bytes(8, "big") + b"x",
    lambda rng: b"",
)
ROUNDS = 150
MOST_GROWN = 50 << 20  # bytes
LINES = 3  # in a run, which is shorter than the time in which one is said again


async def garbage(stage: Stage) -> None:
    """m11: into each socket noise, half a handshake, a length of 2**60.

    All of them stay connected until the end, and what it costs is bounded.
    """
    folder = Path(stage.runtime.hold.cluster.directory.path)
    runtime = stage.runtime
    pids = {os.getpid(), *(member.pid for member in runtime.members.values())}
    before = {pid: rss_bytes(pid) for pid in pids}
    said = lines_said()
    paths = sockets(folder)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # that this process may open
    rounds = ROUNDS if most < 0 else min(ROUNDS, most // 2 // len(paths))
    with contextlib.ExitStack() as stack:
        for _ in range(rounds):
            for path in paths:
                stranger = socket.socket(socket.AF_UNIX)
                stack.callback(stranger.close)
                stranger.connect(str(path))
                with contextlib.suppress(OSError):  # it is not heard to the end
                    stranger.sendall(stage.rng.choice(WORDS)(stage.rng))
            stage.calls(stage.a, most=5)
            stage.relayed(stage.a, 3)
            await asyncio.sleep(0)
        await stage.settled()
        for pid, size in before.items():
            grown = rss_bytes(pid) - size
            if grown > MOST_GROWN:
                stage.left.append(f"process {pid} has grown by {grown >> 20} MiB")
    if lines_said() - said > len(pids) * LINES:
        stage.left.append(f"{lines_said() - said} lines were said about it")
    workers = {stage.first.pid, stage.second.pid}
    assert {w.pid for w in runtime.workers} == workers, "a worker was ended"


def rss_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def lines_said() -> int:
    """On standard error, by all of this run."""
    with contextlib.suppress(OSError):
        return Path("/proc/self/fd/2").read_bytes().count(b"\n")
    return 0


def strangers_with_no_key(stage: Stage) -> None:
    """m11: another key, none, noise, and words that never end; two ends go on."""

    async def play() -> None:
        keys, others = new_keys(), new_keys()
        wrong = msgspec.structs.replace(others, server_public=keys.server_public)
        loop = asyncio.get_running_loop()
        ends = [End(stage, keys, 2, 2), End(stage, keys, 3, 1)]
        ports = [int(end.address.rpartition(":")[2]) for end in ends]
        ways = [
            (1, ends[0].meet(ends[1], ports[1])),
            (2, ends[1].meet(ends[0], ports[0])),
        ]
        before = rss_bytes(os.getpid())
        stage.fault()
        with contextlib.ExitStack() as stack:
            stranger = ZmqTransport(loop, keys=wrong)
            stack.callback(stranger.close)
            for number in range(ROUNDS):
                for end, port in zip(ends, ports, strict=True):
                    if number % 5 == 0:  # each costs the keys' arithmetic
                        name = secrets.token_bytes(12)
                        channel = stranger.connect(end.address, name, lambda _: None)
                        channel.send([bytearray(100)])
                    raw = socket.socket()
                    stack.callback(raw.close)
                    raw.connect(("127.0.0.1", port))
                    with contextlib.suppress(OSError):  # it is not heard to the end
                        raw.sendall(stage.rng.choice(WORDS)(stage.rng))
                for stream, peer in ways:
                    stage.log.note(Event.SUBMITTED, stream, number)
                    peer.send(wire.Stop(f"{number} "))
                await asyncio.sleep(0.002)
            await stage.history.until(
                lambda: all(end.received >= ROUNDS for end in ends), "last message"
            )
            grown = rss_bytes(os.getpid()) - before
            if grown > MOST_GROWN:
                stage.left.append(f"this process has grown by {grown >> 20} MiB")
        for end in ends:
            end.peers.close()

    asyncio.run(play())


CELLS = (
    Cell("F13", "garbage", garbage, in_ci=True),
    Cell("F13", "keys", strangers_with_no_key),
)
