"""Blocking pyzmq: a DEALER here, a ROUTER in one other process, over ipc, no asyncio.

Run as a program it is the other process. Nothing of mosaic_like is used.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Final

import zmq

if TYPE_CHECKING:
    from collections.abc import Iterator

# About what one small call of ours is on the wire.
PAYLOAD: Final = b"x" * 32
TIMEOUT_MS: Final = 30_000


class Baseline:
    """The calling side. Raises zmq.Again if the other process does not answer."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket

    def ping(self, calls: int) -> list[float]:
        """Seconds of each of so many round trips, one at a time."""
        send, receive, clock = (
            self._socket.send,
            self._socket.recv,
            time.perf_counter,
        )
        taken_s = []
        for _ in range(calls):
            start_s = clock()
            send(PAYLOAD)
            receive()
            taken_s.append(clock() - start_s)
        return taken_s

    def pipelined(self, calls: int) -> float:
        """Seconds for so many calls that are all outstanding at once."""
        send, receive = self._socket.send, self._socket.recv
        start_s = time.perf_counter()
        for _ in range(calls):
            send(PAYLOAD)
        for _ in range(calls):
            receive()
        return time.perf_counter() - start_s


@contextlib.contextmanager
def baseline() -> Iterator[Baseline]:
    """A Baseline whose other process answers, and is gone afterwards."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        endpoint = f"ipc://{folder}/echo"
        context = stack.enter_context(zmq.Context())
        socket = stack.enter_context(context.socket(zmq.DEALER))
        socket.set(zmq.LINGER, 0)
        socket.set_hwm(0)
        socket.set(zmq.RCVTIMEO, TIMEOUT_MS)
        socket.bind(endpoint)
        process = stack.enter_context(
            subprocess.Popen([sys.executable, "-m", __name__, endpoint])
        )
        stack.callback(process.kill)
        peer = Baseline(socket)
        # DEALER and ROUTER find each other in the first exchange.
        peer.ping(1)
        yield peer


def serve(endpoint: str) -> None:
    """Echo until the parent is gone."""
    parent = os.getppid()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.set(zmq.LINGER, 0)
        socket.set_hwm(0)
        socket.set(zmq.RCVTIMEO, 1000)
        socket.connect(endpoint)
        while os.getppid() == parent:
            with contextlib.suppress(zmq.Again):
                socket.send_multipart(socket.recv_multipart())


if __name__ == "__main__":
    serve(sys.argv[1])
