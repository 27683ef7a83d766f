"""What tests know of processes: which have ended, and what this one has for good.

Of those that a test starts, how it does so is its own affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
import zmq

if TYPE_CHECKING:
    from collections.abc import Iterable

HALTED_S = 10.0


def ended(pid: int) -> bool:
    """Whether it is gone or a zombie that nobody has waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def all_ended(pids: Iterable[int], within_s: float) -> bool:
    """Whether each of them has, after so long at the most."""
    deadline_s = time.monotonic() + within_s
    left = [*pids]
    while left := [pid for pid in left if not ended(pid)]:
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.005)
    return True


def halt(pid: int) -> None:
    """SIGSTOP, and wait until no thread of it takes up anything.

    The others go on until the one that gets the signal has had the processor.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline_s = time.monotonic() + HALTED_S
    while not all(state == "T" for state in _states_of_threads(pid)):
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def _states_of_threads(pid: int) -> list[str]:
    states = []
    for file in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            states.append(file.read_text().rpartition(")")[2].split()[0])
    return states


def warm_up() -> None:
    """Open what lives as long as the process: it is no test's to close.

    That is the signal pipe of uvloop, and the thread of pyzmq that frees buffers.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))
    with zmq.Context() as context, context.socket(zmq.PAIR) as pair:
        pair.bind("inproc://warm")
        with context.socket(zmq.PAIR) as other:
            other.connect("inproc://warm")
            other.send(bytes(1 << 20), copy=False)
            pair.recv()
