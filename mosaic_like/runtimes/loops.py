"""Making loops: uvloop where it is to be had."""

from __future__ import annotations

import asyncio
import gc

_SLOW_S = 10.0


def new_loop() -> asyncio.AbstractEventLoop:
    """A new loop; the policy of the process stays as it is."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def new_own_loop() -> asyncio.AbstractEventLoop:
    """A new loop for a process that is ours alone.

    Under ``python -X dev`` asyncio names each step that takes 0.1 s, which user code
    and a busy machine do; what holds a worker's loop for long is told by the worker.
    """
    loop = new_loop()
    loop.slow_callback_duration = _SLOW_S
    return loop


def tune_collector(threshold: int) -> None:
    """For processes that are ours alone: fewer passes over what never dies."""
    if threshold:
        gc.set_threshold(threshold, 20, 50)
