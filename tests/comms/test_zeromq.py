"""The transport over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
import zmq

from mosaic_like.comms.link import HEADER_BYTES, Link, LinkState
from mosaic_like.comms.transport import WasThere
from mosaic_like.comms.zeromq import (
    IPC_PATH_BYTES,
    KEPT_FRAME_BYTES,
    ZmqTransport,
    check_ipc_path,
)
from mosaic_like.errors import AddressInUse

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

WAIT_S = 20.0

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def loop_factory(request: pytest.FixtureRequest) -> Any:
    return LOOPS[request.param]


@pytest.fixture(params=["ipc", "tcp"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "tcp://127.0.0.1:*" if request.param == "tcp" else f"ipc://{tmp_path}/s"


def run(
    main: Coroutine[Any, Any, None],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(asyncio.wait_for(main, WAIT_S))


class Peer:
    """A transport and what arrived on it."""

    def __init__(self, **options: Any) -> None:
        self.transport = ZmqTransport(asyncio.get_running_loop(), **options)
        self.transport.on_packet = self._on_packet
        self.packets: list[tuple[bytes, list[Any]]] = []
        self.causes: list[str] = []
        self._changed = asyncio.Event()

    def _on_packet(self, routing_id: bytes, packet: list[Any]) -> None:
        self.packets.append((routing_id, packet))
        self._changed.set()

    def on_broken(self, cause: str) -> None:
        self.causes.append(cause)
        self._changed.set()

    async def until(self, condition: Callable[[Peer], bool]) -> None:
        while not condition(self):
            self._changed.clear()
            await self._changed.wait()


@contextlib.contextmanager
def peers(count: int = 2, **options: Any) -> Iterator[list[Peer]]:
    made = [Peer(**options) for _ in range(count)]
    try:
        yield made
    finally:
        for peer in made:
            peer.transport.close()


def descriptors() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    return found


def test_packets_arrive_in_order_and_name_their_connection(
    address: str, loop_factory: Any
) -> None:
    async def main() -> None:
        with peers() as (a, b):
            bound = b.transport.bind(address)
            channel = a.transport.connect(bound, b"a" * 12, a.on_broken)
            for number in range(1000):
                channel.send([b"%d" % number, b"second"])
            await b.until(lambda b: len(b.packets) == 1000)
            assert b.packets == [
                (b"a" * 12, [b"%d" % number, b"second"]) for number in range(1000)
            ]
            assert a.causes == []

    run(main(), loop_factory)


def test_a_hundred_thousand_small_packets_arrive_in_order(
    tmp_path: Path, loop_factory: Any
) -> None:
    async def main() -> None:
        with peers() as (a, b):
            bound = b.transport.bind(f"ipc://{tmp_path}/s")
            channel = a.transport.connect(bound, b"a" * 12, a.on_broken)
            for number in range(100_000):
                channel.send([b"%d" % number])
            await b.until(lambda b: len(b.packets) == 100_000)
            assert [int(parts[0]) for _, parts in b.packets] == list(range(100_000))

    run(main(), loop_factory)


def test_large_buffers_are_received_without_a_copy_and_read_only(
    address: str,
) -> None:
    async def main() -> None:
        big = os.urandom(4 << 20)
        with peers() as (a, b):
            ab = a.transport.connect(b.transport.bind(address), b"a" * 12, a.on_broken)
            ab.send([bytearray(b"head"), big, b"small", memoryview(big)])
            await b.until(lambda b: len(b.packets) == 1)
            head, first, small, second = b.packets[0][1]
            assert (head, small) == (b"head", b"small")
            for view in (first, second):
                assert view == big
                assert view.readonly
                # What came over the network was in several frames.
                is_near = address.startswith("ipc")
                assert isinstance(view.obj, zmq.Frame) == is_near

    run(main())


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A listener that is no peer: it never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_large_buffers_need_no_thread_and_are_not_kept(deaf: socket.socket) -> None:
    async def main() -> None:
        big = bytes(KEPT_FRAME_BYTES)
        references = sys.getrefcount(big)
        with peers(1) as (a,):
            channel = a.transport.connect(
                f"tcp://127.0.0.1:{deaf.getsockname()[1]}", b"a" * 12, a.on_broken
            )
            threads = threading.active_count()
            channel.send([b"head", big, big])
            # Where none can be started any more, libzmq would end the process.
            assert threading.active_count() == threads
            assert sys.getrefcount(big) == references

    run(main())


def test_a_handshake_that_never_ends_is_broken(deaf: socket.socket) -> None:
    async def main() -> None:
        with peers(1, handshake_s=0.05) as (a,):
            address = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
            a.transport.connect(address, b"a" * 12, a.on_broken)
            await a.until(lambda a: bool(a.causes))
            assert len(a.causes) == 1
            assert address in a.causes[0]

    run(main())


def test_connecting_to_nothing_is_broken(address: str, loop_factory: Any) -> None:
    async def main() -> None:
        with peers() as (a, b):
            bound = b.transport.bind(address)
            b.transport.close()
            channel = a.transport.connect(bound, b"a" * 12, a.on_broken)
            channel.send([b"into the void"])
            await a.until(lambda a: bool(a.causes))
            channel.send([b"dropped"])
            assert len(a.causes) == 1

    run(main(), loop_factory)


_ROUTER = """
import sys, zmq
router = zmq.Context().socket(zmq.ROUTER)
router.bind(sys.argv[1])
print(router.getsockopt(zmq.LAST_ENDPOINT).decode(), flush=True)
while True:
    router.recv_multipart()
    print("got", flush=True)
"""


def test_a_killed_peer_is_noticed(address: str, loop_factory: Any) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _ROUTER, address], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        bound = process.stdout.readline().strip()

        async def main() -> None:
            with peers(1) as (a,):
                channel = a.transport.connect(bound, b"a" * 12, a.on_broken)
                channel.send([b"hello"])
                assert process.stdout is not None
                assert process.stdout.readline() == "got\n"
                process.send_signal(signal.SIGKILL)
                await a.until(lambda a: bool(a.causes))
                channel.send([b"dropped"])
                assert len(a.causes) == 1
                # Only this is asked further: whoever refuses may be somebody else.
                assert isinstance(a.causes.pop(), WasThere)
                a.transport.connect(bound, b"b" * 12, a.on_broken)
                await a.until(lambda a: bool(a.causes))
                assert not isinstance(a.causes[0], WasThere)

        try:
            run(main(), loop_factory)
        finally:
            process.kill()


def test_a_connection_of_the_network_is_watched_by_the_kernel_and_not_by_libzmq() -> (
    None
):
    # Whose timer may abort the process: see the options.
    async def main() -> None:
        with (
            peers(1) as (a,),
            a.transport.network_socket(zmq.DEALER) as far,
            a.transport.socket(zmq.DEALER) as near,
        ):
            assert far.getsockopt(zmq.TCP_KEEPALIVE) == 1
            for socket in (far, near):
                assert socket.getsockopt(zmq.HEARTBEAT_IVL) == 0

    run(main())


def test_a_link_resumes_over_a_new_channel_after_a_cut(address: str) -> None:
    async def main() -> None:
        with peers() as (a, b):
            bound = b.transport.bind(address)
            sending, receiving = Link(b"sender a"), Link(b"receiver")
            bodies: list[int] = []

            def deliver(routing_id: bytes, packet: list[Any]) -> None:
                b.packets.append((routing_id, packet))
                if receiving.unwrap(packet, 0.0):
                    bodies.append(int(bytes(packet[0])[HEADER_BYTES:]))
                b._changed.set()

            b.transport.on_packet = deliver
            for cut in range(5):
                routing_id = sending.opened(0.0)
                channel = a.transport.connect(bound, routing_id, a.on_broken)
                for packet in sending.resend():
                    channel.send(packet)
                for number in range(200):
                    packet = [bytearray(HEADER_BYTES) + b"%d" % (cut * 200 + number)]
                    assert sending.wrap(packet)
                    channel.send(packet)
                if cut < 4:
                    await b.until(lambda b: len(b.packets) > 20)
                    channel.close()
                    sending.broken(0.0)
            await b.until(lambda _: len(bodies) == 1000)
            assert bodies == list(range(1000))
            assert sending.state is LinkState.UP
            assert a.causes == []  # nobody is told of what he closed himself

    run(main())


def test_a_callback_that_fails_does_not_stop_the_rest(tmp_path: Path) -> None:
    async def main() -> None:
        seen: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: seen.append(context["exception"])
        )
        with peers() as (a, b):
            bound = b.transport.bind(f"ipc://{tmp_path}/s")
            collect = b.transport.on_packet
            assert collect is not None

            def fail_once(routing_id: bytes, packet: list[Any]) -> None:
                b.transport.on_packet = collect
                raise LookupError("first")

            b.transport.on_packet = fail_once
            channel = a.transport.connect(bound, b"a" * 12, a.on_broken)
            for number in range(10):
                channel.send([b"%d" % number])
            await b.until(lambda b: len(b.packets) == 9)
            assert [type(error) for error in seen] == [LookupError]

    run(main())


def test_what_was_sent_last_goes_out_before_the_end(address: str) -> None:
    async def main() -> None:
        with peers() as (a, b):
            bound = b.transport.bind(address)
            channel = a.transport.connect(bound, b"a" * 12, a.on_broken)
            channel.send([b"goodbye"])
            a.transport.close()
            await b.until(lambda b: len(b.packets) == 1)

    run(main())


def test_the_end_does_not_wait_for_a_deaf_peer(deaf: socket.socket) -> None:
    async def main() -> None:
        with peers(1, linger_s=0.2) as (a,):
            channel = a.transport.connect(
                f"tcp://127.0.0.1:{deaf.getsockname()[1]}", b"a" * 12, a.on_broken
            )
            channel.send([b"goodbye"])
            start = time.monotonic()
            a.transport.close()
            assert time.monotonic() - start < 10.0
            assert a.causes == []

    run(main())


def test_nothing_is_left_open_after_the_end(address: str) -> None:
    async def main() -> None:
        before = descriptors()
        with peers() as (a, b):
            bound = b.transport.bind(address)
            for number in range(5):
                channel = a.transport.connect(bound, b"%012d" % number, a.on_broken)
                channel.send([b"x", bytes(1 << 20)])
            await b.until(lambda b: len(b.packets) == 5)
            channel.close()
            with pytest.raises(ValueError, match="no address"):
                a.transport.connect("nonsense", b"a" * 12, a.on_broken)
        b.transport.close()  # again: harmless
        assert descriptors() - before == set()

    run(main())


def test_it_works_on_a_thread_that_is_not_the_main_one(
    tmp_path: Path, loop_factory: Any
) -> None:
    arrived: list[int] = []

    async def main() -> None:
        with peers() as (a, b):
            bound = b.transport.bind(f"ipc://{tmp_path}/s")
            channel = a.transport.connect(bound, b"a" * 12, a.on_broken)
            for _ in range(500):
                channel.send([b"x"])
            await b.until(lambda b: len(b.packets) == 500)
            arrived.append(len(b.packets))

    thread = threading.Thread(target=run, args=(main(), loop_factory))
    thread.start()
    thread.join(WAIT_S)
    assert arrived == [500]


def test_a_frame_that_is_too_large_breaks_the_connection(address: str) -> None:
    async def main() -> None:
        with peers(max_message_bytes=100_000) as (a, b):
            bound = b.transport.bind(address)
            channel = a.transport.connect(bound, b"a" * 12, a.on_broken)
            channel.send([b"head", bytes(100_001)])
            await a.until(lambda a: bool(a.causes))
            assert b.packets == []

    run(main())


def test_a_taken_port_is_named() -> None:
    async def main() -> None:
        with peers() as (a, b):
            bound = a.transport.bind("tcp://127.0.0.1:*")
            with pytest.raises(AddressInUse, match="taken"):
                b.transport.bind(bound)

    run(main())


def test_binding_without_a_receiver_is_refused() -> None:
    async def main() -> None:
        with peers(1) as (a,):
            a.transport.on_packet = None
            with pytest.raises(RuntimeError, match="on_packet"):
                a.transport.bind("tcp://127.0.0.1:*")

    run(main())


def test_an_ipc_path_that_is_too_long_is_named() -> None:
    longest = "/" + "x" * (IPC_PATH_BYTES - 1)
    check_ipc_path(f"ipc://{longest}")
    check_ipc_path(f"tcp://{longest}y")
    with pytest.raises(ValueError, match=f"{longest}y"):
        check_ipc_path(f"ipc://{longest}y")
    with pytest.raises(ValueError, match="108 bytes"):
        check_ipc_path("ipc://" + "é" * 54)


@pytest.mark.timeout(20)
def test_the_end_does_not_wait_for_what_an_interrupt_left_open(tmp_path: Path) -> None:
    async def main() -> None:
        peer = Peer()
        peer.transport.bind(f"ipc://{tmp_path}/s")
        # Made, when Ctrl-C came before anybody knew of it; with something to send.
        left = peer.transport.socket(zmq.DEALER)
        left.connect(f"ipc://{tmp_path}/nobody")
        left.send(b"x")
        await asyncio.to_thread(peer.transport.close)

    run(main())


def test_a_connection_that_is_interrupted_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = zmq.Socket.connect

    def interrupted(socket: zmq.Socket[bytes], address: str) -> Any:
        if address.startswith("ipc:"):
            raise KeyboardInterrupt
        return connect(socket, address)

    async def main() -> None:
        peer = Peer()
        with monkeypatch.context() as patch:
            patch.setattr(zmq.Socket, "connect", interrupted)
            with pytest.raises(KeyboardInterrupt):
                peer.transport.connect(f"ipc://{tmp_path}/s", b"me", peer.on_broken)
        peer.transport.close()

    run(main())


def test_what_breaks_off_in_the_middle_is_not_joined_to_what_comes_next(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with peers() as (a, b):
            bound = b.transport.bind(address)
            channel = a.transport.connect(bound, b"one", a.on_broken)
            send = channel._send

            def fails(data: Any, *args: Any) -> Any:
                if bytes(data) == b"bad":
                    raise OSError("no descriptors")
                return send(data, *args)

            with monkeypatch.context() as patch:
                patch.setattr(channel, "_send", fails)
                channel.send([b"head", b"bad"])
                channel.send([b"another"])  # goes nowhere: the link sends it again
            await a.until(lambda a: bool(a.causes))
            assert "no descriptors" in a.causes[0]
            again = a.transport.connect(bound, b"two", a.on_broken)
            again.send([b"head", b"good"])
            await b.until(lambda b: bool(b.packets))
            assert [list(map(bytes, p)) for _, p in b.packets] == [[b"head", b"good"]]

    run(main())


def test_a_connection_for_which_there_is_no_descriptor_may_be_tried_again(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = zmq.Socket.monitor

    def used_up(socket: zmq.Socket[bytes], address: Any, *args: Any) -> Any:
        if address is not None:  # else it is to end
            raise zmq.ZMQError(errno.EMFILE)
        monitor(socket, None, *args)

    async def main() -> None:
        with peers() as (a, b):
            bound = b.transport.bind(address)
            with monkeypatch.context() as patch:
                patch.setattr(zmq.Socket, "monitor", used_up)
                with pytest.raises(OSError, match="open files"):
                    a.transport.connect(bound, b"one", a.on_broken)
            a.transport.connect(bound, b"one", a.on_broken).send([b"it is there"])
            await b.until(lambda b: bool(b.packets))

    run(main())


@contextlib.contextmanager
def spare_descriptors(count: int) -> Iterator[None]:
    """No more than so many can be opened."""
    listed = map(int, os.listdir("/proc/self/fd"))
    # Not the one that listdir itself had open.
    used = {number for number in listed if os.path.lexists(f"/proc/self/fd/{number}")}
    free = (number for number in itertools.count() if number not in used)
    limit = next(itertools.islice(free, count, None))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_connection_that_is_never_begun_is_broken(
    address: str, loop_factory: Any
) -> None:
    # The channel's own three can still be opened, and libzmq's thread, which makes the
    # connection, finds none for it: it says nothing, and does not try again.
    async def main() -> None:
        with peers() as (a, b):
            bound = b.transport.bind(address)
            with spare_descriptors(3):
                channel = a.transport.connect(bound, b"one", a.on_broken)
                channel.send([b"into the void"])
                await a.until(lambda a: bool(a.causes))
            assert f"{bound}: no connection was begun in 2 s" in a.causes[0]
            channel.send([b"dropped"])
            a.transport.connect(bound, b"two", a.on_broken).send([b"it is there"])
            await b.until(lambda b: bool(b.packets))
            assert b.packets == [(b"two", [b"it is there"])]
            assert len(a.causes) == 1

    run(main(), loop_factory)


def test_a_connection_that_was_begun_while_the_loop_stood_still_is_kept(
    address: str, loop_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with peers() as (a, b):
            bound = b.transport.bind(address)
            channel = a.transport.connect(bound, b"one", a.on_broken)
            assert channel._monitor.poll(
                int(WAIT_S * 1000)
            )  # it is begun: nobody looked
            channel.send([b"it is there"])
            await b.until(lambda b: bool(b.packets))
            assert a.causes == []

    monkeypatch.setattr("mosaic_like.comms.zeromq.channel.BEGUN_AFTER_S", 0.0)
    run(main(), loop_factory)


def test_who_is_slow_to_take_a_connection_is_waited_for(
    deaf: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One whose Python, or all of it, stands still: its kernel has the connection.
    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as near, peers(1) as (a,):
            near.bind(f"{tmp_path}/s")
            near.listen()
            for address in (
                f"ipc://{tmp_path}/s",
                f"tcp://127.0.0.1:{deaf.getsockname()[1]}",
            ):
                channel = a.transport.connect(address, b"a" * 12, a.on_broken)
                assert channel._monitor.poll(int(WAIT_S * 1000))
                late = a.transport.loop.create_future()
                a.transport.loop.call_later(0.1, late.set_result, None)
                await late
            assert a.causes == []

    monkeypatch.setattr("mosaic_like.comms.zeromq.channel.BEGUN_AFTER_S", 0.05)
    run(main())
