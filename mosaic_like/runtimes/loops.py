"""Making loops: uvloop where it is to be had."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource

SLOW_S = 10.0


def new_loop() -> asyncio.AbstractEventLoop:
    """A new loop; the policy of the process stays as it is."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    fill_standard_streams()
    return uvloop.new_event_loop()


def new_own_loop() -> asyncio.AbstractEventLoop:
    """A new loop for a process that is ours alone.

    Under ``python -X dev`` asyncio names each step that takes 0.1 s, which user code
    and a busy machine do; what holds a worker's loop for long is told by the worker.
    """
    loop = new_loop()
    loop.slow_callback_duration = SLOW_S
    return loop


def fill_standard_streams() -> None:
    """Keep the numbers 0 to 2 of closed standard streams from being used for others.

    A program started with one of them closed, as services are, would get a loop that
    has that number, and libuv aborts the process when it closes it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def tune_collector() -> None:
    """For processes that are ours alone: fewer passes over what never dies."""
    gc.set_threshold(50_000, 20, 50)


def allow_open_files(most: int = 1 << 20) -> None:
    """For processes that are ours alone: each segment that is in use is an open file.

    The usual limit of 1024 is there for programs that use select().

    Args:
        most: files, since some systems allow so many that programs choke on them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def on_a_loop() -> bool:
    """This thread runs a loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
