"""Making loops: uvloop where it is to be had."""

from __future__ import annotations

import asyncio
import gc


def new_loop() -> asyncio.AbstractEventLoop:
    """A new loop; the policy of the process stays as it is."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def tune_collector(threshold: int) -> None:
    """For processes that are ours alone: fewer passes over what never dies."""
    if threshold:
        gc.set_threshold(threshold, 20, 50)
