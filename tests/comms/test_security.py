"""Who is let in over the network."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from test_zeromq import Peer, peers, run

from mosaic_like.comms.addresses import is_loopback
from mosaic_like.comms.security import (
    KEY_CHARACTERS,
    Keys,
    answer,
    check_guarded,
)
from mosaic_like.comms.zeromq import new_keys

if TYPE_CHECKING:
    from pathlib import Path

ADMITTED = bytes(range(32))
REQUEST = [b"1.0", b"7", b"mosaic", b"10.0.0.1", b"id", b"CURVE", ADMITTED]


def test_the_key_of_the_cluster_is_let_in_and_the_request_is_named() -> None:
    assert answer(REQUEST, ADMITTED) == [b"1.0", b"7", b"200", b"OK", b"", b""]


@pytest.mark.parametrize(
    "request_frames",
    [
        [*REQUEST[:6], bytes(32)],
        [*REQUEST[:6], ADMITTED[:31]],
        [*REQUEST[:6], b""],
        REQUEST[:6],
        [*REQUEST, b"more"],
        [*REQUEST[:5], b"NULL"],
        [*REQUEST[:5], b"PLAIN", b"user", b"password"],
    ],
)
def test_any_other_key_and_any_other_mechanism_is_refused(
    request_frames: list[bytes],
) -> None:
    reply = answer(request_frames, ADMITTED)
    assert reply is not None
    assert reply[2] == b"400"


def test_without_encryption_the_secret_is_asked_for_and_no_key_will_do() -> None:
    shown = [*REQUEST[:5], b"PLAIN", b"member", b"secret"]
    known = answer(shown, b"secret", encrypted=False)
    assert known is not None
    assert known[2] == b"200"
    for frames in (
        [*shown[:7], b"guessed"],
        [*shown[:7], b""],
        shown[:7],
        [*shown, b"more"],
        [*REQUEST[:6], b"secret"],
        [*REQUEST[:5], b"NULL"],
    ):
        refused = answer(frames, b"secret", encrypted=False)
        assert refused is not None
        assert refused[2] == b"400"


@given(st.lists(st.binary(max_size=40), max_size=9))
def test_only_the_exact_request_is_ever_let_in(frames: list[bytes]) -> None:
    reply = answer(frames, ADMITTED)
    if reply is not None:
        assert (reply[2] == b"200") == (frames[5:] == [b"CURVE", ADMITTED])


def test_a_key_of_another_length_is_refused_without_being_shown() -> None:
    keys = new_keys()
    with pytest.raises(ValueError, match="40 characters, this has 39") as caught:
        Keys(
            keys.server_public,
            keys.server_secret[:-1],
            keys.client_public,
            keys.client_secret,
        )
    assert keys.server_secret[:8] not in str(caught.value)
    assert len(keys.client_secret) == KEY_CHARACTERS


def test_secrets_are_not_in_the_repr() -> None:
    keys = new_keys()
    assert keys.server_secret not in repr(keys)
    assert keys.client_secret not in repr(keys)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://127.0.0.1:5000", True),
        ("tcp://127.9.9.9:*", True),
        ("tcp://[::1]:5000", True),
        ("tcp://localhost:5000", True),
        ("tcp://0.0.0.0:5000", False),
        ("tcp://*:5000", False),
        ("tcp://eth0:5000", False),
        ("tcp://10.0.0.1:5000", False),
        ("tcp://[::]:5000", False),
    ],
)
def test_only_loopback_addresses_need_no_keys(address: str, expected: bool) -> None:
    assert is_loopback(address) == expected
    if expected:
        check_guarded(address, None)
    else:
        with pytest.raises(ValueError, match="needs the cluster's keys"):
            check_guarded(address, None)
    check_guarded(address, new_keys())


def test_peers_with_the_keys_talk_over_tcp_and_over_ipc_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        with peers(keys=new_keys()) as (a, b):
            far = a.transport.bind("tcp://127.0.0.1:*")
            near = a.transport.bind(f"ipc://{tmp_path}/s")
            for address, name in ((far, b"far"), (near, b"near")):
                channel = b.transport.connect(address, name, b.on_broken)
                channel.send([bytearray(b"head"), b"x" * 100_000])
            await a.until(lambda p: len(p.packets) == 2)
            assert sorted(routing_id for routing_id, _ in a.packets) == [
                b"far",
                b"near",
            ]
            assert all(len(packet[1]) == 100_000 for _, packet in a.packets)
            assert b.causes == []

    run(main())


async def _refused(a: Peer, b: Peer) -> str:
    address = a.transport.bind("tcp://127.0.0.1:*")
    channel = b.transport.connect(address, b"stranger", b.on_broken)
    channel.send([bytearray(b"head")])
    await b.until(lambda p: bool(p.causes))
    return b.causes[0]


def test_a_peer_of_another_cluster_is_not_let_in_and_told_so() -> None:
    async def main() -> None:
        keys, other = new_keys(), new_keys()
        # The server's key is public; it is the client's that is checked.
        stranger = Keys(
            keys.server_public,
            other.server_secret,
            other.client_public,
            other.client_secret,
        )
        with peers(1, keys=keys) as (a,), peers(1, keys=stranger) as (b,):
            assert "not admitted" in await _refused(a, b)
            assert a.packets == []

    run(main())


@pytest.mark.parametrize("stranger", ["another secret", "curve", "nothing"])
def test_without_encryption_only_who_shows_the_secret_is_let_in(stranger: str) -> None:
    async def main() -> None:
        keys = new_keys(encrypted=False)
        others = {
            "another secret": new_keys(encrypted=False),
            "curve": msgspec.structs.replace(keys, encrypted=True),
            "nothing": None,
        }
        with peers(keys=keys) as (a, b):
            address = a.transport.bind("tcp://127.0.0.1:*")
            channel = b.transport.connect(address, b"known", b.on_broken)
            channel.send([bytearray(b"head"), b"x" * 100_000])
            await a.until(lambda p: len(p.packets) == 1)
            with peers(1, keys=others[stranger], handshake_s=1.0) as (c,):
                channel = c.transport.connect(address, b"unknown", c.on_broken)
                channel.send([bytearray(b"head")])
                await c.until(lambda p: bool(p.causes))
            assert len(a.packets) == 1

    run(main())


def test_a_peer_that_takes_another_server_for_ours_is_not_let_in() -> None:
    async def main() -> None:
        with peers(1, keys=new_keys(), handshake_s=1.0) as (a,):
            with peers(1, keys=new_keys(), handshake_s=1.0) as (b,):
                assert await _refused(a, b)
            assert a.packets == []

    run(main())


def test_a_peer_without_keys_is_not_let_in() -> None:
    async def main() -> None:
        with peers(1, keys=new_keys()) as (a,), peers(1) as (b,):
            assert "handshake failed" in await _refused(a, b)
            assert a.packets == []

    run(main())


def test_garbage_on_the_port_harms_nobody() -> None:
    async def main() -> None:
        with peers(keys=new_keys()) as (a, b):
            address = a.transport.bind("tcp://127.0.0.1:*")
            host, port = address.removeprefix("tcp://").split(":")
            for garbage in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096, bytes(64)):
                with socket.create_connection((host, int(port))) as stranger:
                    stranger.sendall(garbage)
            channel = b.transport.connect(address, b"friend", b.on_broken)
            channel.send([bytearray(b"head")])
            await a.until(lambda p: bool(p.packets))
            assert a.packets[0][0] == b"friend"

    run(main())


def test_what_goes_over_the_network_cannot_be_read_there() -> None:
    """A relay between two peers sees no byte of what they say."""
    secret = b"the eagle has landed" * 10
    seen = bytearray()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                seen.extend(data)
                writer.write(data)
        finally:
            writer.close()

    async def main() -> None:
        with peers(keys=new_keys()) as (a, b):
            host, port = a.transport.bind("tcp://127.0.0.1:*")[6:].split(":")
            pumps: list[asyncio.Task[Any]] = []

            async def relay(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter
            ) -> None:
                there = await asyncio.open_connection(host, int(port))
                pumps.append(asyncio.create_task(pump(reader, there[1])))
                pumps.append(asyncio.create_task(pump(there[0], writer)))

            server = await asyncio.start_server(relay, "127.0.0.1", 0)
            public = server.sockets[0].getsockname()[1]
            channel = b.transport.connect(
                f"tcp://127.0.0.1:{public}", b"b", b.on_broken
            )
            channel.send([bytearray(b"head"), secret])
            await a.until(lambda p: bool(p.packets))
            assert bytes(a.packets[0][1][1]) == secret
            assert len(seen) > len(secret)
            assert b"eagle" not in seen
            channel.close()
            server.close()
            await asyncio.gather(*pumps, return_exceptions=True)

    run(main())


def test_this_libzmq_can_encrypt() -> None:
    assert zmq.has("curve")
