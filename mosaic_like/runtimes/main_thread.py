"""The main thread of a worker: plain methods, one after the other, in order.

A method that waits for another call has this thread look after what it waits for:
meanwhile it runs only what the wait depends on. What lacks an argument that goes on
elsewhere is put among the *stalled*, until that has ended. How a call is run is not for
here: see ``plain_calls.py``.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.limits import interrupt_of
from ..core.task import QUEUED, Task
from ..errors import CycleError
from .interrupts import Interrupted, Interrupts
from .port import GOING_ON, set_current

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.call import Call
    from .journal import Journal
    from .plain_calls import PlainCalls
    from .waits import Wait, Waits

MAX_DEPTH = 64  # of calls run inside each other by a thread that waits


class Wake:
    """Put into a thread's queue to make it look again."""


_WAKE = Wake()


class Stalled(list[Task]):
    """What the main thread has begun or put off, until something else ends."""

    def put(self, task: Task) -> None:
        """It goes on elsewhere: calls in the thread's queue are to wait for it.

        Before those of its tessera that wait already: they are behind it.
        """
        for index, other in enumerate(self):
            if other.tessera is task.tessera:
                self.insert(index, task)
                return
        self.append(task)


class MainThread:
    """See the module; in a runtime without one nothing is ever queued here.

    Args:
        plain: runs the calls.
        stalled: of this thread.
        journal: of what runs.
        interrupts: of methods on this thread.
        waits: of all threads of the runtime.

    Attributes:
        queue: what it is to run: calls, runs of them, None to end.
        stack: what it runs, outermost first.
        stalled: of this thread.
    """

    def __init__(
        self,
        plain: PlainCalls,
        stalled: Stalled,
        journal: Journal,
        interrupts: Interrupts,
        waits: Waits,
    ) -> None:
        self._plain = plain
        self._journal = journal
        self._interrupts = interrupts
        self._waits = waits
        self.queue: queue.SimpleQueue[Task | list[Task] | Wake | None]
        self.queue = queue.SimpleQueue()
        self._deferred: deque[Task | Wake] = deque()
        self.stalled = stalled
        self.stack: list[Task] = []
        self._ident: int | None = None

    def step(self, taken: queue.SimpleQueue[Any], interrupts: Interrupts) -> None:
        """Take what is to be run from another queue."""
        self.queue = taken
        self._interrupts = interrupts

    def run_forever(self) -> None:
        """Run plain methods until None comes; on the main thread."""
        self._ident = threading.get_ident()
        self._interrupts.install()
        get = self.queue.get
        run_plain = self._plain.run
        deferred = self._deferred
        stack = self.stack
        stalled = self.stalled
        while True:
            item = deferred.popleft() if deferred else get()
            if item is None:
                return
            if type(item) is Task:
                if stalled or item.arguments is not None:
                    self.run(item)
                else:  # what `run` comes to where nothing is below it: the hot path
                    stack.append(item)
                    run_plain(item)
                    stack.pop()
            elif type(item) is list:
                deferred.extend(item)
            else:
                self._interrupts.install()
            if stalled and not self._has_only_stalled(item):
                self._run_stalled()
            item = None  # do not keep the last one until the next comes

    @property
    def has_more(self) -> bool:
        """It goes on at once with the next call."""
        return bool(self._deferred) or not self.queue.empty()

    def look_after_signal(self) -> None:
        """On the loop's thread, now and then: user code may have taken the signal."""
        if not self._interrupts.installed and self._ident is not None:
            # Only the main thread can put it back: when it has ended what it runs.
            self._interrupts.installed_soon = True
            self._deferred.append(_WAKE)
            self.wake()

    def wake(self) -> None:
        """Make a waiting main thread look again; from any thread."""
        self.queue.put(_WAKE)

    def wake_stalled(self) -> None:
        """Something has ended that what is put off may wait for; from any thread."""
        if self.stalled:
            self.wake()

    def waits_here(self) -> Task | None:
        """The call that this thread runs, if it is the main thread."""
        if threading.get_ident() == self._ident and self.stack:
            return self.stack[-1]
        return None

    # -- calls, where a waiting one may be below ---------------------------------------

    def run(self, task: Task) -> None:
        """Run a call to the news of its end; one that waits may be below it."""
        if (task.arguments is not None or self.stalled) and self._stalls(task):
            return
        stack = self.stack
        if stack and task.tessera.options.stateless:
            self._journal.irregular(task)  # it goes ahead of others
        stack.append(task)
        try:
            self._plain.run(task)
        finally:
            stack.pop()
            if stack:
                set_current(stack[-1])

    # -- arguments that end on this thread ---------------------------------------------

    def _stalls(self, task: Task) -> bool:
        """Whether it must wait here, because an argument of it has not ended.

        That is so only where the argument's plain method gave a coroutine, or was put
        off by a call that waits. What comes after it on its tessera waits behind it.
        """
        stalled = self.stalled
        if task in stalled:
            if _lacks(task):
                return True
            stalled.remove(task)
            return False
        for other in self._lacking(task):
            if other in self._deferred:
                self._deferred.remove(other)
                self.run(other)
        if _lacks(task) or any(other.tessera is task.tessera for other in stalled):
            stalled.append(task)
            if task.settled:  # meanwhile: its end may have come before it stood here
                self.wake()
            return True
        return False

    def _lacking(self, task: Task) -> list[Task]:
        return [a for a in task.arguments or () if type(a) is Task and _unknown(a)]

    def _run_stalled(self) -> None:
        """Some may have got what they lacked."""
        stalled = self.stalled
        for task in list(stalled):
            if task.raw is not None:
                # It is not to run, but the others of its tessera wait for its end.
                if type(task.raw) not in GOING_ON:
                    stalled.remove(task)
                continue
            first = next((t for t in stalled if t.tessera is task.tessera), None)
            below = [t.tessera for t in self.stack]
            if first is task and task.tessera not in below:
                self.run(task)

    def _has_only_stalled(self, item: Task | list[Task] | Wake) -> bool:
        """The call was put among the stalled and did not run: nothing is changed."""
        return type(item) is Task and item.state == QUEUED and item is self.stalled[-1]

    # -- waiting -----------------------------------------------------------------------

    def wait(
        self,
        waiter: Task,
        ended: Callable[[], bool],
        call: Call,
        timeout: float | None,
        *,
        certain: bool = False,
    ) -> bool:
        """Wait inside a plain method; meanwhile run only what the wait depends on.

        That is the awaited task and what is ahead of it in its tessera's queue, the
        calls that were made inside the waiting one, and what these depend on, as far
        as ``run_under`` tells. Running others would turn the stack around and
        dead-lock correct programs.

        Args:
            waiter: the call that this thread runs.
            ended: the wait is over.
            call: what it waits for.
            timeout: seconds.
            certain: only the end of the call, or the timeout, ends the wait.
        """
        if len(self.stack) >= MAX_DEPTH:
            raise RecursionError(f"{MAX_DEPTH} plain methods wait inside each other")
        target = call.stream.tessera  # none of what a warehouse or a worker is asked
        if target and any(
            t.tessera.uid == target and not t.tessera.options.stateless
            for t in self.stack
        ):
            raise CycleError(
                f"{call.name} can only start when "
                f"{waiter.tessera.options.name}.{waiter.method}, which waits "
                "for it, has ended: call the method directly, or do not wait",
                str(call.uid),
            )
        deadline_s = None if timeout is None else time.monotonic() + timeout
        certain = certain and timeout is None
        wait = self._waits.blocked(waiter, call, certain, self.wake)
        try:
            return self._wait(wait, ended, deadline_s)
        finally:
            self._waits.unblocked(wait)

    def _wait(
        self, wait: Wait, ended: Callable[[], bool], deadline_s: float | None
    ) -> bool:
        waiter = wait.task
        self._run_needed(wait, ended)
        while not ended():
            if waiter.cancelled is not None and interrupt_of(waiter) != wire.FLAG:
                raise Interrupted
            if wait.error is not None:
                wait.refuse()
            left_s = None
            if deadline_s is not None:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return False
            try:
                item = self.queue.get(timeout=left_s)
            except queue.Empty:
                continue
            if type(item) is Wake:
                self._run_needed(wait, ended)
            if item is None:
                self.queue.put(None)
                raise Interrupted
            if type(item) is Task:
                if self._is_needed(item, wait):
                    self.run(item)
                else:
                    self._deferred.append(item)
            elif type(item) is list:
                self._deferred.extend(item)
                self._run_needed(wait, ended)
        return True

    def _run_needed(self, wait: Wait, ended: Callable[[], bool]) -> None:
        """Run what was put off and is needed by now."""
        for task in [t for t in self._deferred if type(t) is Task]:
            if not self._is_needed(task, wait):
                continue
            if ended():
                return
            if task in self._deferred:
                self._deferred.remove(task)
                self.run(task)
        if self.stalled and any(self._is_needed(t, wait) for t in self.stalled):
            self._run_stalled()

    def _is_needed(self, task: Task, wait: Wait) -> bool:
        tessera = task.tessera
        call = wait.call
        if tessera.options.stateless:
            # What is ahead of it in the queue need not end before it.
            return task.uid == call.uid or wait.task.uid in (task.inside or ())
        # What is no object's has no state that two calls could spoil.
        if tessera.uid and any(tessera is running.tessera for running in self.stack):
            return False
        target = call.stream.tessera
        if tessera.uid == target and (target or task.uid == call.uid):
            return True
        if tessera.options.unique and tessera.options.name == call.stream.label:
            return True  # it has the name that the call asks for, or must lose it first
        if wait.task.uid in (task.inside or ()):
            return True
        if task.extra is not None and task.extra.kind == wire.APPLY:
            # A function of a value: others wait for it in the line for its key, among
            # them perhaps this very call, and it is no object's.
            return True
        # That call, or what is ahead of it in its tessera's queue.
        return any(t.tessera is tessera and t.state == QUEUED for t in wait.wanted)

    def run_under(self, task: Task, top: int) -> None:
        """The wait of the call that blocks the main thread depends on this task."""
        wait = self._waits.by_uid.get(top)
        if wait is not None and task not in wait.wanted:
            wait.wanted.append(task)
            self.wake()

    def deferred_tasks(self) -> list[Task]:
        """What the main thread has put off while it is blocked."""
        return [task for task in list(self._deferred) if type(task) is Task]


def _unknown(argument: Task) -> bool:
    """How it ended is not known on the main thread."""
    going_on = argument.raw is None or type(argument.raw) in GOING_ON
    return not argument.settled and going_on


def _lacks(task: Task) -> bool:
    return any(type(a) is Task and _unknown(a) for a in task.arguments or ())
