"""Threads that wait: blocked until a call has ended, or with a loop of their own.

The loop of the runtime is never blocked. What the main thread of a worker does while it
waits is in ``main_thread.py``.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from typing import TYPE_CHECKING, Any

from ..core.task import DONE
from ..proxies.runtime import check_open
from .calling import is_away
from .loops import on_a_loop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..core.call import Call
    from .actor import ActorRuntime

logger = logging.getLogger(__name__)


class Blocking:
    """Those of one process."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._loops: dict[asyncio.AbstractEventLoop, list[Callable[[], Any]]] = {}

    # -- threads -----------------------------------------------------------------------

    def block(self, call: Call, timeout: float | None, value: bool = False) -> None:
        """Block this thread until the call has ended, or its value is here."""
        runtime = self._runtime

        def ended() -> bool:
            return call.state >= DONE and not (
                value and call.state == DONE and is_away(call)
            )

        if ended():
            return
        check_open(runtime, "this task")
        name = call.name
        if runtime.on_loop or on_a_loop():
            raise RuntimeError(
                f"{name}: to block here would stop the loop that is to bring the "
                "result; write 'await task.result()'"
            )
        executor = runtime.executor
        waiter = executor.main.waits_here()
        signal: Callable[[], Any]
        if waiter is None:
            event = threading.Event()
            signal = event.set
        else:
            signal = executor.main.wake

        def look() -> None:
            if call.state == DONE and value and is_away(call):
                runtime.fetch(call, signal)
            else:
                signal()

        runtime.when_settled(call, look)
        if waiter is not None:
            in_time = executor.main.wait(waiter, ended, call, timeout, certain=True)
        elif (task := executor.threads.task_here()) is not None:
            wait = executor.waits.blocked(task, call, timeout is None, signal)
            try:
                in_time = event.wait(timeout)
            finally:
                executor.waits.unblocked(wait)
            if not ended():
                wait.refuse()
        else:
            in_time = event.wait(timeout)
        if not in_time:
            time_s = round(timeout or 0.0, 3)
            raise TimeoutError(f"{name} has not ended in {time_s:g} s; it goes on")

    def block_until(
        self, condition: Callable[[], bool], call: Call, timeout: float | None
    ) -> bool:
        """On a worker's main thread: wait for more than one call; False if too long.

        Args:
            condition: over; who makes it true calls ``wake_main``.
            call: one of those that are waited for.
            timeout: seconds.
        """
        main = self._runtime.executor.main
        waiter = main.waits_here()
        assert waiter is not None, "asked by waits_on_main"
        return main.wait(waiter, condition, call, timeout)

    def wake_main(self) -> None:
        """Make a main thread that waits look again; from any thread."""
        self._runtime.executor.main.wake()

    def waits_on_main(self) -> bool:
        """This thread is a worker's main thread and runs a plain method."""
        return self._runtime.executor.main.waits_here() is not None

    def is_apart(self) -> bool:
        """This thread runs no call and no loop: nothing depends on how it waits."""
        has_call = self.waits_on_main() or self._runtime.executor.threads.task_here()
        return not has_call and not on_a_loop()

    # -- other loops -------------------------------------------------------------------

    def on_other_loop(
        self, loop: asyncio.AbstractEventLoop, then: Callable[[], Any]
    ) -> None:
        """Call it on another loop of this process; many at once in one wake-up."""
        runtime = self._runtime
        if runtime.loop.is_closed():
            loop.call_soon_threadsafe(then, context=contextvars.Context())
            return
        waiting = self._loops.get(loop)
        if waiting is None:
            waiting = self._loops[loop] = []
            runtime.loop.call_soon(self._tell, loop, context=runtime.context)
        waiting.append(then)

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting = self._loops.pop(loop)

        def call_all() -> None:
            for then in waiting:
                then()

        try:
            loop.call_soon_threadsafe(call_all, context=contextvars.Context())
        except RuntimeError:
            logger.debug("a loop that waited for %d calls has closed", len(waiting))
