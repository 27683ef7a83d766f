"""The own thread of a tessera, for ``thread=True``, and how its calls are stopped.

Signals reach only the main thread, so here an exception is left for the thread to
raise when it next comes to the interpreter: a sleep or a wait ends first. That may be
anywhere, so it is left only between ``enter`` and ``leave``, around user code, and
``leave`` waits out one that is on its way.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from .interrupts import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.task import Task


class OwnThread:
    """Runs what it is given, one after the other.

    Args:
        run: runs a task from its start to the news of its end.
        name: of the thread, for people.
    """

    def __init__(self, run: Callable[[Task, OwnThread], None], name: str) -> None:
        self.queue: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._run = run
        # Held by the thread itself for moments, and never inside user code.
        self._lock = threading.Lock()
        self._task: Task | None = None  # whose user code runs
        self._thread = threading.Thread(target=self._forever, name=name, daemon=True)
        self._thread.start()

    def _forever(self) -> None:
        while (task := self.queue.get()) is not None:
            self._run(task, self)
            task = None

    @property
    def task(self) -> Task | None:
        """The call whose user code runs."""
        return self._task

    def runs_here(self, task: Task) -> bool:
        """This is the thread, and it runs the user code of this call."""
        return self._task is task and threading.get_ident() == self._thread.ident

    def enter(self, task: Task) -> None:
        """From here on it is user code, and may be interrupted; on the thread."""
        self._task = task

    def leave(self) -> None:
        """The user code has ended: when this returns, nothing is raised here."""
        while True:
            try:
                with self._lock:
                    self._task = None
                self._leave_exception(None)
                return
            except Interrupted:
                pass  # it came a moment too late

    def interrupt(self, task: Task) -> bool:
        """Interrupt this call; False if its user code does not run."""
        with self._lock:
            if self._task is not task:
                return False
            self._leave_exception(Interrupted)
            return True

    def _leave_exception(self, kind: type[BaseException] | None) -> None:
        import ctypes  # few tesserae have a thread, and few of their calls are stopped

        left = None if kind is None else ctypes.py_object(kind)
        ident = ctypes.c_ulong(self._thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, left)
