"""Ctrl-C and SIGTERM in a program under ``mosaic.run``.

The first cancels: ``main`` gets CancelledError, and all calls of this head are
cancelled. The second gives ``main`` up and stops the cluster in order. The third kills
it. The handlers are Python's own kind and not the loop's, so that they also run while
user code holds the loop; what was there before is put back.

Where the program has something to do at its deadline (``deadlines``), SIGTERM, SIGUSR1
and SIGUSR2 have that done first, and only Ctrl-C does not wait for it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from ..runtimes.job_signals import SAME_S, SIGNALS
from .deadlines import Deadline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import FrameType

    from ..runtimes.head import Head
    from .cluster import Cluster
    from .held import Held

_TAKEN = (signal.SIGINT, signal.SIGTERM)
# Only these are replaced: whoever has set another handler, or ignores the signal, means
# it.
_REPLACED = (signal.SIG_DFL, signal.default_int_handler)


class Interrupted(KeyboardInterrupt, SystemExit):
    """The program was interrupted, by Ctrl-C.

    It is both so that ``except KeyboardInterrupt`` catches it, and that the interpreter
    ends with 130 and without a traceback where nobody does.
    """

    def __init__(self, code: int) -> None:
        SystemExit.__init__(self, code)


class Interrupts:
    """What the signals do, from the start of a cluster to its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.count = 0
        self.number = 0  # of the first signal
        self.head: Head | None = None
        self.cluster: Cluster | None = None
        self.task: asyncio.Future[Any] | None = None  # that the first one cancels
        self.in_main = False
        self.given_up: asyncio.Future[None] = loop.create_future()
        self.deadline = Deadline()
        self._last_s = -SAME_S  # when an engine's signal came
        self._loop = loop
        self._before: dict[int, Any] = {}

    def install(self, held: Held) -> None:
        """Take the signals; only the main thread can.

        Args:
            held: it may stand in the place of handlers, which are then those it had
                found.
        """
        if threading.current_thread() is threading.main_thread():
            self._take(_TAKEN, held.before)

    def _take(
        self, numbers: tuple[signal.Signals, ...], before: Mapping[int, Any]
    ) -> None:
        for number in numbers:
            handler = before.get(number, signal.getsignal(number))
            if handler in _REPLACED:
                self._before[number] = handler
                signal.signal(number, self._handle)

    def on_deadline(self, function: Callable[[], Any]) -> None:
        """See ``deadlines.on_deadline``.

        Only now are the signals taken that mean nothing else: a program without such a
        function has them as ever.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "on_deadline() was called on another thread than the main one, which "
                "alone can take signals: call it in main"
            )
        self.deadline.functions.append(function)
        self._take(SIGNALS, {})

    def save_at_deadline(self, save: Callable[[], Awaitable[list[str]]]) -> None:
        """The same for what the runtime does: see ``runtimes.saving``."""
        if threading.current_thread() is threading.main_thread():
            self.deadline.save = save
            self._take(SIGNALS, {})

    def remove(self) -> None:
        """Put back what was there."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
        self._before.clear()

    @property
    def exception(self) -> BaseException:
        """What ``run`` ends with."""
        if self.number == signal.SIGINT:
            return Interrupted(128 + signal.SIGINT)
        if self.deadline.task is not None:
            return SystemExit(0 if self.deadline.is_met else 1)
        return SystemExit(128 + self.number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT and self._is_taken(number):
            return
        self.count += 1
        self.number = self.number or number
        if self.count >= 3 and self.cluster is not None:
            self.cluster.kill()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._act, self.count)
        if (
            self.count >= 2
            and self.in_main
            and asyncio.current_task(self._loop) is not None
        ):
            # User code holds the loop, so what was asked of it cannot be done.
            raise KeyboardInterrupt

    def _is_taken(self, number: int) -> bool:
        """A signal of an engine that is the same as one before, or the deadline."""
        now_s = time.monotonic()
        in_job = self.head is not None and self.head.config.in_job
        if in_job and now_s - self._last_s < SAME_S:
            return True
        self._last_s = now_s
        if not self.deadline.is_wanted or not self.in_main or self.count:
            return False
        if not self.number:
            self.number = number
            self._loop.call_soon_threadsafe(self._meet)
        return True

    def _meet(self) -> None:
        """On the loop: the deadline has come."""
        self._say("is taken for the deadline of this job: what is to be done then runs")
        self.deadline.start(self._met)

    def _met(self) -> None:
        self.count = self.count or 1
        if self.in_main and (self.task is None or not self.task.done()):
            self._cancel()

    def _cancel(self) -> None:
        done = "stopping"
        if self.head is not None and self.in_main:
            running, queued = self.head.cancel_all("the program was interrupted")
            done += f": {running:,} running, {queued:,} queued cancelled"
        self._say(f"{done} (again to stop)")
        if self.task is not None:
            self.task.cancel()

    def _act(self, count: int) -> None:
        """On the loop."""
        if count == 1:
            self.deadline.give_up()
            self._cancel()
            return
        if count == 2:
            self._say("stopping the cluster (again to kill)")
        elif count == 3:
            self._say("killed")
        if not self.given_up.done():
            self.given_up.set_result(None)

    def _say(self, what: str) -> None:
        if sys.stderr is not None:
            name = signal.Signals(self.number).name.replace("SIGINT", "^C")
            print(f"{name} {what}", file=sys.stderr, flush=True)
