"""Who has no key and comes all the same: what it costs those who have one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from test_zeromq import Peer, peers, run

from mosaic_like.comms.addresses import host_and_port
from mosaic_like.comms.gate import CONNECTIONS
from mosaic_like.comms.security import Keys
from mosaic_like.comms.splitting import FRAME_BYTES
from mosaic_like.comms.zeromq import network, new_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = int(os.environ.get("MOSAIC_TEST_STRANGERS", "1500"))  # 10,000 by hand
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
MIB = 1 << 20


def rss_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Told:
    """What a transport says of those that it did not let in."""

    def __init__(self, peer: Peer) -> None:
        self.lines: list[tuple[str, str]] = []

        def told(sender: str, what: str) -> None:
            self.lines.append((sender, what))
            peer._changed.set()  # for who waits by `until`

        peer.transport.on_refused = told


async def friendly(a: Peer, b: Peer, address: str, name: bytes) -> float:
    """How long it takes a packet of one who has the key, in seconds."""
    count = len(a.packets)
    begun_s = time.monotonic()
    b.transport.connect(address, name, b.on_broken).send([bytearray(b"head")])
    await a.until(lambda p: len(p.packets) > count)
    assert a.packets[-1][0] == name
    return time.monotonic() - begun_s


def test_a_wrong_key_is_counted_and_told_with_the_address_it_came_from() -> None:
    async def main() -> None:
        keys, other = new_keys(), new_keys()
        wrong = Keys(
            keys.server_public,
            other.server_secret,
            other.client_public,
            other.client_secret,
        )
        with peers(keys=keys) as (a, b), peers(1, keys=wrong) as (c,):
            told = Told(a)
            address = a.transport.bind("tcp://127.0.0.1:*")
            for name in (b"1", b"2", b"3"):
                c.transport.connect(address, name, c.on_broken)
            await c.until(lambda p: len(p.causes) == 3)
            assert told.lines == [("127.0.0.1", "a connection without our key")] * 3
            assert a.transport.refusals.counts["a connection without our key"] == 3
            await friendly(a, b, address, b"friend")

    run(main())


def test_a_frame_before_the_handshake_cannot_fill_the_memory() -> None:
    """libzmq keeps what comes of a frame until its end has come."""

    async def main() -> None:
        with peers(keys=new_keys()) as (a, b):
            address = a.transport.bind("tcp://127.0.0.1:*")
            with socket.create_connection(host_and_port(address)) as stranger:
                stranger.sendall(_GREETING)
                stranger.settimeout(20)
                assert await asyncio.to_thread(stranger.recv, 1)
                # A command of 1 GiB, as ZMTP says it.
                flood = b"\x06" + struct.pack(">Q", 1 << 30) + bytes(256 * MIB)
                before = rss_bytes()
                with pytest.raises(OSError):  # reset, or a broken pipe
                    await asyncio.to_thread(stranger.sendall, flood)
            assert rss_bytes() - before < 50 * MIB
            await friendly(a, b, address, b"friend")

    run(main())


def test_who_says_nothing_is_put_out_and_its_place_is_free_again() -> None:
    async def main() -> None:
        with peers(keys=new_keys(), handshake_s=0.3) as (a, b):
            address = a.transport.bind("tcp://127.0.0.1:*")
            with contextlib.ExitStack() as stack:
                strangers = [
                    stack.enter_context(
                        socket.create_connection(host_and_port(address))
                    )
                    for _ in range(10)
                ]
                for number, stranger in enumerate(strangers):
                    stranger.sendall(_GREETING[: number * 7])  # some begin, and stop
                for stranger in strangers:
                    stranger.settimeout(20)
                    while await asyncio.to_thread(stranger.recv, 64):
                        pass  # the end: it was put out
            await friendly(a, b, address, b"friend")
            assert sum(a.transport.refusals.counts.values()) >= 10

    run(main())


@contextlib.contextmanager
def many_descriptors(count: int) -> Iterator[int]:
    """As many as may be had, at most so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + 500
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    try:
        yield min(count, max(soft, most) - CONNECTIONS - 500)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_crowd_is_kept_out_and_who_is_in_goes_on() -> None:
    async def main() -> None:
        with many_descriptors(MANY) as count, peers(keys=new_keys()) as (a, b):
            told = Told(a)
            address = a.transport.bind("tcp://127.0.0.1:*")
            channel = b.transport.connect(address, b"friend", b.on_broken)
            channel.send([bytearray(b"head")])
            await a.until(lambda p: bool(p.packets))
            place = host_and_port(address)
            before = rss_bytes()
            with contextlib.ExitStack() as stack:
                for number in range(count):
                    stranger = stack.enter_context(socket.socket())
                    stranger.setblocking(False)
                    stranger.connect_ex(place)
                    if number % 100 == 0:
                        await asyncio.sleep(0)
                begun_s = time.monotonic()
                for _ in range(100):
                    channel.send([bytearray(b"head")])
                await a.until(lambda p: len(p.packets) == 101)
                assert time.monotonic() - begun_s < 10
                what = f"a connection beyond the {CONNECTIONS} there may be"
                # libzmq accepts them on a thread of its own, in its time.
                await a.until(lambda p: ("a stranger", what) in told.lines)
                inside = len(os.listdir("/proc/self/fd")) - count
                # Some wait to be accepted when it is shut.
                assert inside < CONNECTIONS + 700
                assert rss_bytes() - before < 50 * MIB
            # They are gone: there is room, and who comes is let in.
            assert await friendly(a, b, address, b"late") < 20

    run(main())


def test_a_large_packet_goes_in_frames_that_are_taken() -> None:
    async def main() -> None:
        with peers(keys=new_keys()) as (a, b):
            address = a.transport.bind("tcp://127.0.0.1:*")
            sizes = (0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 20 * MIB)
            packet: list[Any] = [bytearray(b"\1" * size) for size in sizes]
            channel = b.transport.connect(address, b"b", b.on_broken)
            channel.send(packet)
            await a.until(lambda p: bool(p.packets))
            assert [len(part) for part in a.packets[0][1]] == list(sizes)
            assert not b.causes

    run(main())


def test_without_curve_no_address_of_the_network_is_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        with peers(1, keys=new_keys()) as (a,):
            monkeypatch.setattr(zmq, "has", lambda capability: False)
            with pytest.raises(RuntimeError, match="without CURVE cannot guard"):
                a.transport.bind("tcp://127.0.0.1:*")
            monkeypatch.undo()
            monkeypatch.setattr(network, "_OLDEST_LIBZMQ", (99, 0, 0))
            with pytest.raises(RuntimeError, match=r"99\.0\.0 with CURVE is needed"):
                a.transport.bind("tcp://127.0.0.1:*")

    run(main())
