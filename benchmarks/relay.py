"""Blocking pyzmq, passed on from process to process: what a chain can be at best.

Two processes send one message to each other, each only when it has come. In each a
thread receives and sends; either it passes the message on itself, or it hands it to the
main thread and takes it back, as a worker does whose plain methods run there. Run as a
program it is one of the two. Nothing of mosaic_like is used.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import zmq

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_MS: Final = 30_000
_HOP: Final = b"h"  # by the main thread
_DIRECT: Final = b"d"
_SWITCH_INTERVAL_S: Final = 0.0005  # as in a worker


class Relay:
    """The side that begins, and waits for the last. Raises zmq.Again if none comes."""

    def __init__(self, first: zmq.Socket[bytes], answers: zmq.Socket[bytes]) -> None:
        self._first = first
        self._answers = answers

    def chain(self, links: int, *, hop: bool) -> float:
        """Seconds until a message was passed on so many times."""
        start_s = time.perf_counter()
        self._first.send((_HOP if hop else _DIRECT) + b"%d" % links)
        self._answers.recv()
        return time.perf_counter() - start_s


@contextlib.contextmanager
def relay() -> Iterator[Relay]:
    """A Relay whose two processes are gone afterwards."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        ends = [f"ipc://{folder}/{name}" for name in ("first", "second", "last")]
        context = stack.enter_context(zmq.Context())
        answers = stack.enter_context(context.socket(zmq.PULL))
        first = stack.enter_context(context.socket(zmq.PUSH))
        for socket in (answers, first):
            socket.set(zmq.LINGER, 0)
        answers.set(zmq.RCVTIMEO, TIMEOUT_MS)
        answers.bind(ends[2])
        for own, other in ((ends[0], ends[1]), (ends[1], ends[0])):
            arguments = [sys.executable, "-m", __name__, own, other, ends[2]]
            process = stack.enter_context(subprocess.Popen(arguments))
            stack.callback(process.kill)
        first.connect(ends[0])
        peers = Relay(first, answers)
        peers.chain(2, hop=True)  # connections are made by the first message
        yield peers


class _Process:
    """One of the two: a receiving thread, and the main one."""

    def __init__(self, own: str, other: str, last: str) -> None:
        context = zmq.Context()
        self._receiver = context.socket(zmq.PULL)
        self._receiver.bind(own)
        self._other = context.socket(zmq.PUSH)
        self._other.connect(other)
        self._last = context.socket(zmq.PUSH)
        self._last.connect(last)
        self._to_main: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._from_main: deque[bytes] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)

    def run(self) -> None:
        """Until the parent is gone; on the main thread."""
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        threading.Thread(target=self._receive, daemon=True).start()
        parent = os.getppid()
        while os.getppid() == parent:
            with contextlib.suppress(queue.Empty):
                self._from_main.append(self._to_main.get(timeout=1.0))
                os.eventfd_write(self._wake, 1)

    def _receive(self) -> None:
        poll = select.epoll()
        poll.register(int(self._receiver.get(zmq.FD)), select.EPOLLIN)
        poll.register(self._wake, select.EPOLLIN)
        while True:
            poll.poll()
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            while self._from_main:
                self._pass_on(self._from_main.popleft())
            while int(self._receiver.get(zmq.EVENTS)) & zmq.POLLIN:
                message = self._receiver.recv()
                if message[:1] == _HOP:
                    self._to_main.put(message)
                else:
                    self._pass_on(message)

    def _pass_on(self, message: bytes) -> None:
        left = int(message[1:]) - 1
        socket = self._other if left else self._last
        socket.send(message[:1] + b"%d" % left)


if __name__ == "__main__":
    _Process(*sys.argv[1:]).run()
