"""The tesserae that have a thread of their own, and what runs on these.

How one such thread takes its calls and is interrupted is in ``own_thread.py``.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from ..core.task import STARTED, Task
from ..core.tessera import THREAD, Tessera
from .own_thread import OwnThread
from .port import CURRENT, UNFINISHED, Handed, Port, failed, set_current
from .retrying import Later

if TYPE_CHECKING:
    import asyncio

    from .journal import Journal
    from .plain_calls import PlainCalls

AGAIN_S = 0.1  # between two interrupts of one call


class OwnThreads:
    """Those of one runtime, and of the parts of values there.

    Args:
        port: to the runtime.
        loop: of the runtime.
        journal: of what starts and finishes.
        plain: runs the calls.
    """

    def __init__(
        self,
        port: Port,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        plain: PlainCalls,
    ) -> None:
        self._port = port
        self._loop = loop
        self._journal = journal
        self._plain = plain
        self._threads: dict[int, OwnThread] = {}

    def start(self, task: Task) -> None:
        """Run it on the thread of its tessera, which is made for the first."""
        tessera = task.tessera
        thread = self._threads.get(tessera.uid)
        if thread is None:
            try:
                thread = OwnThread(self._run, f"mosaic {tessera.options.name}")
            except RuntimeError as error:
                self._cannot_start(task, error)
                return
            self._threads[tessera.uid] = thread
        thread.queue.put(task)

    def _cannot_start(self, task: Task, error: RuntimeError) -> None:
        """There are no more threads to be had: that is how it ends, on the loop."""
        state = STARTED[task.state]
        if state < 0:
            self._plain.settled_before(task)
            return
        task.state = state
        why = RuntimeError(
            f"{task.tessera.options.name} is to have a thread of its own (thread=True),"
            f" and none can be started: {error}; see `ulimit -u`, and pids.max of the"
            " control group"
        )
        task.raw = outcome = failed(self._port, task, why)
        self._port.completed(task, outcome)

    def _run(self, task: Task, thread: OwnThread) -> None:
        while self._run_once(task, thread):
            pass  # it was put off, on its own thread, and now runs again

    def _run_once(self, task: Task, thread: OwnThread) -> bool:
        """As ``PlainCalls.run``, where the thread is the tessera's; True: once more."""
        state = STARTED[task.state]
        if state < 0:
            self._plain.settled_before(task)
            return False
        task.state = state
        if task.cancelled is not None:
            self._port.completed(task, self._plain.never_started(task))
            return False
        self._journal.start(task)
        set_current(task)
        try:
            try:
                thread.enter(task)
                outcome = self._plain.run_user(task)
            finally:
                thread.leave()
        except BaseException as error:
            outcome = self._plain.failure(task, error)
        if type(outcome) not in UNFINISHED:
            self._journal.finish(task)
        set_current(None)
        task.raw = outcome
        goes_on: queue.SimpleQueue[bool] | None = None
        if type(outcome) is Later:
            goes_on = queue.SimpleQueue()
            outcome.then = goes_on.put
        handed = outcome if type(outcome) is Handed else None
        if handed is not None:
            handed.ended = threading.Event()
        self._port.completed(task, outcome)
        if handed is not None and handed.ended is not None:
            handed.ended.wait()  # the next call of it is not to run beside this one
        return goes_on is not None and goes_on.get()

    def interrupt(self, task: Task) -> None:
        """Stop a call: again and again, as long as its user code runs."""
        thread = self._threads.get(task.tessera.uid)
        if thread is not None and task.cancelled is not None and thread.interrupt(task):
            self._loop.call_later(AGAIN_S, self.interrupt, task)

    def task_here(self) -> Task | None:
        """The call that this thread runs, if it is a tessera's own thread."""
        task = CURRENT.get()
        if task is None or task.lane != THREAD:
            return None
        thread = self._threads.get(task.tessera.uid)
        return task if thread is not None and thread.runs_here(task) else None

    def task_of(self, tessera: Tessera) -> Task | None:
        """What the tessera's own thread runs, if it has one."""
        thread = self._threads.get(tessera.uid)
        return None if thread is None else thread.task

    def end(self, tessera: Tessera) -> None:
        """It is gone: its thread, if it has one, ends after what is queued."""
        thread = self._threads.pop(tessera.uid, None)
        if thread is not None:
            thread.queue.put(None)

    def end_all(self) -> None:
        """Those that tesserae, and the parts of values, have of their own."""
        for thread in self._threads.values():
            thread.queue.put(None)
        self._threads.clear()
