"""Runs user code: plain methods on the worker's main thread, coroutines on its loop.

The loop's thread hands tasks over by ``start`` and gets their ends back by
``Port.completed``. Here it is chosen what runs where, and running calls are stopped.
How they run is in ``plain_calls`` and ``coroutine_calls``, and where in ``inline``,
``main_thread``, ``own_threads`` and ``coroutines``. Nothing in any of these sends
messages or changes who holds what.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.limits import interrupt_of
from ..core.task import RUNNING, Task
from ..core.tessera import INLINE, LOOP, MAIN, THREAD, Tessera
from . import coroutine_calls, coroutines, plain_calls
from .attempts import Attempts
from .coroutine_calls import CoroutineCalls
from .coroutines import Coroutines
from .inline import run_inline
from .interrupts import Interrupts
from .main_thread import MainThread, Stalled
from .own_threads import AGAIN_S, OwnThreads
from .plain_calls import PlainCalls
from .port import CURRENT, Port, Raised, cancelled, set_current
from .retrying import Later, Retries
from .waits import Waits

if TYPE_CHECKING:
    from queue import SimpleQueue

    from .journal import Journal

CLOSE_TIMEOUT_S = 10.0


class Executor:
    """The threads and the loop that run the methods of one runtime's tesserae.

    Args:
        port: to the runtime.
        loop: of the runtime.
        journal: of what starts and finishes.
        main_thread: plain methods run on this process's main thread.

    Attributes:
        codes: of the frames above which there is only user code.
    """

    def __init__(
        self,
        port: Port,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        *,
        main_thread: bool,
    ) -> None:
        self._port = port
        self._loop = loop
        self._has_main = main_thread
        self.journal = journal
        self.retries = Retries(loop, self)
        self.attempts = Attempts(port, self.retries)
        self.waits = Waits()
        self.interrupts = Interrupts(plain_calls.CODES)
        on_loop = (*coroutine_calls.CODES, *coroutines.CODES, run_inline.__code__)
        self.codes = (*plain_calls.CODES, *on_loop)
        stalled = Stalled()
        self.plain = PlainCalls(
            port, journal, self.attempts, stalled if main_thread else None
        )
        self.main = MainThread(
            self.plain, stalled, journal, self.interrupts, self.waits
        )
        self._queue = self.main.queue
        self.threads = OwnThreads(port, loop, journal, self.plain)
        calls = CoroutineCalls(port, journal, self.attempts)
        self.coroutines = Coroutines(port, loop, journal, calls, self.main)
        self._start_elsewhere = {
            INLINE: self.plain.run,
            THREAD: self.threads.start,
            LOOP: self.coroutines.start,
        }

    def step(self, queue: SimpleQueue[Any], interrupts: Interrupts) -> None:
        """Let whoever takes from this queue be the main thread; see ``solo``."""
        self._queue = queue
        self.interrupts = interrupts
        self.main.step(queue, interrupts)

    # -- Runner ------------------------------------------------------------------------

    def lane(self, tessera: Tessera, name: str) -> int:
        """Where a method runs; asked once for each method of a tessera."""
        method = inspect.getattr_static(type(tessera.instance), name, None)
        if isinstance(method, (staticmethod, classmethod)):
            method = method.__func__
        options = tessera.options
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            return LOOP
        if options.stateless and options.is_async and name[0] != "_":
            return LOOP  # of function tasks: all of them are coroutine functions
        if options.thread:
            return THREAD
        if options.is_async or options.inline or not self._has_main:
            return INLINE
        return MAIN

    def start(self, task: Task) -> None:
        """Run a task on its lane."""
        lane = task.lane
        if lane == MAIN:
            task.handed = True
            self._queue.put(task)
        else:
            self._start_elsewhere[lane](task)

    def start_run(self, run: list[Task]) -> None:
        """Run tasks of one caller, tessera and lane, in order; noted as handed."""
        if run[0].lane == MAIN:
            self._queue.put(run if len(run) > 1 else run[0])
        else:
            run_inline(run, CURRENT, self._port.talk, self.plain)

    def construct(self, task: Task) -> None:
        """Run a constructor; its tessera's other calls wait until it has ended."""
        if task.tessera.options.thread:
            task.lane = THREAD
        elif not self._has_main or task.tessera.options.stateless:
            # Of functions: nothing that takes long, and perhaps wanted by a call that
            # blocks the main thread.
            task.lane = INLINE
        else:
            task.lane = MAIN  # also of asynchronous ones: imports take long
        task.tessera.lane = task.lane
        self.start(task)

    # -- stopping ----------------------------------------------------------------------

    def cancel(self, task: Task) -> None:
        """Stop a task that runs; its end is told as always."""
        if self.retries.stop(task):
            pass  # it waits for its next attempt
        elif task.lane == LOOP:
            running = task.rare
            if isinstance(running, asyncio.Task):
                running.cancel()
        elif interrupt_of(task) == wire.FLAG:
            self.main.wake()  # one that waits looks again at what it waits for
        # Soon: a thread that is interrupted takes up the call behind, which may be the
        # next to be cancelled.
        elif task.lane == MAIN and self._has_main:
            self._loop.call_soon(self._interrupt, task, 0)
        elif task.lane == THREAD:
            self._loop.call_soon(self.threads.interrupt, task)

    def _interrupt(self, task: Task, tries: int) -> None:
        if task not in self.main.stack or task.cancelled is None:
            return
        if tries and not self.interrupts.pending:
            # It was raised, and what it lands in may catch it: Python swallows it in
            # __del__. Not at once, for the method may have something to put in order.
            self._loop.call_later(AGAIN_S, self._interrupt, task, 0)
            return
        self.interrupts.send(task)
        if self._queue.empty():
            # If it waits for another call it is not interrupted but woken.
            self.main.wake()
        # Tried soon again, in case the thread was where it may not be interrupted.
        delay_s = 0.001 if tries < 20 else AGAIN_S
        self._loop.call_later(delay_s, self._interrupt, task, tries + 1)

    def running(self) -> list[Task]:
        """What runs at this moment, as far as it can be seen from the loop's thread."""
        found = [*self.main.stack, *self.coroutines.running()]
        return [task for task in found if task.state == RUNNING]

    def tessera_gone(self, tessera: Tessera) -> None:
        """Its own thread, if it has one, ends."""
        self.journal.gone(tessera)
        self.threads.end(tessera)

    def stop(self) -> None:
        """Let the main thread end after what is queued, and the others."""
        self.close()
        self._queue.put(None)

    def close(self) -> None:
        """No call runs again later, and the threads of tesserae end."""
        self.retries.close()
        self.threads.end_all()

    # -- Runs: calls that wait for their next attempt ----------------------------------

    def enter(self, task: Task) -> None:
        set_current(task)

    def put_off(self, task: Task, attempt: int, delay_s: float) -> bool:
        if not self._port.retry_later(task, attempt, delay_s):
            return False
        self.attempts.begin(task, attempt)
        return True

    def hand_back(self, task: Task, later: Later) -> bool:
        if not self._port.may_hand_back(task):
            return False
        again = Raised(wire.AGAIN, (later.attempt, later.delay_s))
        self._end_waiting(task, later, again)
        return True

    def resume(self, task: Task, later: Later) -> None:
        at_once = self._port.retry_now(task, later.attempt)
        if later.then is not None:
            later.then(at_once)
        elif at_once and task.lane == MAIN:
            task.raw = None  # from now on the main thread may take it
            self.main.wake()
        elif at_once:
            task.raw = None
            self.start(task)

    def give_up(self, task: Task, later: Later, error: BaseException | None) -> None:
        if error is None or task.cancelled is not None:
            outcome = cancelled(self._port, task, started=True)
        else:
            outcome = Raised(wire.ERROR, self._port.dump_error(error, task))
        self._end_waiting(task, later, outcome)

    def _end_waiting(self, task: Task, later: Later, outcome: Raised) -> None:
        self.attempts.forget(task)
        self.journal.finish(task)
        task.raw = outcome
        self._port.completed(task, outcome)
        if later.then is not None:
            later.then(False)
        self.main.wake_stalled()
