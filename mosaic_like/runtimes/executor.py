"""Runs user code: plain methods on the worker's main thread, coroutines on its loop.

The loop's thread hands tasks over by ``start`` and gets their ends back by
``Port.completed``. Here values are unpickled and pickled, because that is user code
too. Nothing here sends messages or changes who holds what.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import logging
import marshal
import queue
import threading
import time
from collections import deque
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol

from ..comms import messages as wire
from ..comms.serialization import PLAIN, Payload
from ..core.limits import Late, interrupt_of, reason_of
from ..core.task import (
    CANCELLED,
    DONE,
    QUEUED,
    RUNNING,
    START,
    STARTED,
    Task,
    Withdrawn,
)
from ..core.tessera import INLINE, LOOP, MAIN, THREAD, Tessera
from ..core.worker import CLOSE_METHOD, CONSTRUCTOR, TRAVELLING_BYTES
from ..errors import (
    CycleError,
    MemoryOverflowError,
    SerializationError,
    TaskCancelledError,
)
from ..proxies.outputs import TaskOutput
from ..proxies.restarts import CHECKPOINT
from . import timing
from .inline import run_inline
from .interrupts import Interrupted, Interrupts
from .journal import Journal
from .own_thread import OwnThread
from .retrying import Later, Retries
from .streams import Paused, Yielded, run_step, run_step_on_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..core.caller import Call
    from ..core.streams import Producer

logger = logging.getLogger(__name__)

CURRENT: contextvars.ContextVar[Task | None] = contextvars.ContextVar(
    "mosaic_like.task", default=None
)

# Of the names that begin with an underscore, those that proxies forward.
FORWARDED = frozenset(
    (
        "__call__",
        "__getitem__",
        "__setitem__",
        "__delitem__",
        "__contains__",
        "__aiter__",
        "__aenter__",
        "__aexit__",
    )
)

READY = "__ready__"  # asked of a tessera: it is built
_SCALARS = PLAIN - {bytes}
set_current = CURRENT.set
_ATTRIBUTES = (wire.GET_ATTRIBUTE, wire.SET_ATTRIBUTE)
MAX_DEPTH = 64  # of calls run inside each other by a thread that waits
_BURST = 256  # coroutine calls that run without giving the loop to others
CLOSE_TIMEOUT_S = 10.0
_AGAIN_S = 0.1  # between two interrupts of one call


class Port(Protocol):
    """What the runtime does for the executor."""

    talk: tuple[Any, Any, Any]  # containers of what is printed and not yet sent

    def load_call(self, task: Task) -> tuple[Sequence[Any], dict[str, Any]]: ...

    def load_class(self, task: Task) -> type: ...

    def dump_result(self, value: Any) -> Any: ...

    def dump_error(self, error: BaseException, task: Task) -> bytes: ...

    def cancelled(self, task: Task, *, started: bool) -> bytes: ...

    def tell(self, task: Task, message: wire.Message) -> None:
        """Tell its caller something, before its end; from any thread."""

    def failure(self, task: Task, reason: int, why: Any) -> bytes: ...

    def completed(self, task: Task, outcome: Outcome) -> None:
        """From any thread: the task has ended."""

    def completed_run(self, run: list[Task]) -> None:
        """From the loop's: these have ended; their outcomes are set."""

    def may_hand_back(self, task: Task) -> bool:
        """Its submitter may run it elsewhere: nobody else has heard where it is."""

    def retry_later(self, task: Task, attempt: int, delay_s: float) -> bool:
        """The next attempt of a call waits; False: it is to end."""

    def retry_now(self, task: Task, attempt: int) -> bool:
        """It begins; True: at once."""

    def producer(self, task: Task) -> Producer:
        """Of a call that asks for a stream; from any thread."""

    def checkpoint(self, task: Task) -> None:
        """Write down the state of its tessera; on the thread that runs it."""

    def restore(self, task: Task, instance: Any) -> None:
        """Give what was built again the state that was written down last."""


class Built:
    """The constructor returned."""

    __slots__ = ("instance",)

    def __init__(self, instance: Any) -> None:
        self.instance = instance


class Raised:
    """The task ended without a value."""

    __slots__ = ("error", "reason")

    def __init__(self, reason: int, error: Any) -> None:
        self.reason = reason
        self.error = error  # as bytes; of AGAIN: which attempt, and seconds until then


class Handed:
    """The plain method returned a coroutine: the loop goes on with it."""

    __slots__ = ("coroutine", "ended")

    def __init__(self, coroutine: Any) -> None:
        self.coroutine = coroutine
        self.ended: threading.Event | None = None  # set then, if a thread waits for it


class Retrying:
    """No outcome yet: the next attempt begins."""

    __slots__ = ("attempt",)

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt


Outcome = (
    bytes | Payload | Built | Raised | Handed | Retrying | Later | Paused | Yielded
)
_GOING_ON = (Handed, Later)  # on the loop, for a thread that has got this far
# With these the call goes on.
_UNFINISHED = frozenset((Handed, Retrying, Later, Paused, Yielded))


class Wake:
    """Put into a thread's queue to make it look again."""


_WAKE = Wake()


class Wait:
    """A thread is blocked inside a call until another call has ended.

    Args:
        task: the one that waits.
        call: the one that it waits for.
        certain: nothing else ends the wait: it has no time limit.
        stamp: no other wait here has it.
        signal: makes the thread look again.
    """

    __slots__ = (
        *("call", "certain", "error", "outer", "signal", "stamp", "task", "wanted"),
    )

    def __init__(
        self,
        task: Task,
        call: Call,
        certain: bool,
        stamp: int,
        signal: Callable[[], Any],
    ) -> None:
        self.task = task
        self.call = call
        self.certain = certain
        self.stamp = stamp
        self.signal = signal
        self.error: CycleError | None = None  # with which it is to end
        # What the awaited call depends on and only this thread can run.
        self.wanted: list[Task] = []
        self.outer: Wait | None = None  # of the same call, which looks meanwhile

    def refuse(self) -> None:
        """Raise what it is to end with; its traceback must not lead back to here."""
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error


class Executor:
    """The threads and the loop that run the methods of one runtime's tesserae."""

    def __init__(
        self, port: Port, loop: asyncio.AbstractEventLoop, *, main_thread: bool
    ) -> None:
        self._port = port
        self._loop = loop
        self._has_main = main_thread
        self.journal = Journal()  # of what it starts and finishes; a worker has a file
        self._queue: queue.SimpleQueue[Task | list[Task] | Wake | None]
        self._queue = queue.SimpleQueue()
        self._deferred: deque[Task | Wake] = deque()
        self._stalled: list[Task] = []
        self.waits: dict[int, Wait] = {}  # of blocked threads, by uid of the call
        self.new_stamp = itertools.count(1).__next__  # of a wait
        self._attempts: dict[int, int] = {}  # of calls that run again, by uid
        self.retries = Retries(loop, self)
        self._begun: set[asyncio.Task[None]] = set()  # of plain methods, handed over
        self._stack: list[Task] = []  # what the main thread runs, outermost first
        # The frames above which there is only user code.
        runners = (
            self._run_user,
            self._run_uncommon,
            self._run_told,
            self._special,
            self._build,
        )
        codes = [m.__func__.__code__ for m in runners]  # type: ignore[union-attr]
        self.interrupts = Interrupts([*codes, run_step.__code__])
        # The same on the loop, for its watchdog.
        on_loop = (
            Executor._run_common,
            Executor._consume,
            Executor._run_coroutine,
            Executor._run_told_coroutine,
            Executor._coroutine_raised,
            run_inline,
            run_step_on_loop,
        )
        self.codes = [*codes, *(function.__code__ for function in on_loop)]
        self._consumers: dict[int, _Consumer] = {}
        self._overlapping: set[_Consumer] = set()  # of asynchronous tesserae
        self._threads: dict[int, OwnThread] = {}
        self._main_ident: int | None = None

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
        elif lane == INLINE:
            self._run_plain(task)
        elif lane == THREAD:
            self._thread_of(task.tessera).queue.put(task)
        else:
            self._start_coroutine(task)

    def start_run(self, run: list[Task]) -> None:
        """Run tasks of one caller, tessera and lane, in order."""
        if run[0].lane == MAIN:
            for task in run:
                task.handed = True
            self._queue.put(run if len(run) > 1 else run[0])
        else:
            run_inline(run, CURRENT, self._port.talk, self)

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

    def cancel(self, task: Task) -> None:
        """Stop a task that runs; its end is told as always."""
        if self.retries.stop(task):
            pass  # it waits for its next attempt
        elif task.lane == LOOP:
            running = task.rare
            if isinstance(running, asyncio.Task):
                running.cancel()
        elif interrupt_of(task) == wire.FLAG:
            self.wake()  # one that waits looks again at what it waits for
        elif task.lane == MAIN and self._has_main:
            self._interrupt(task, 0)
        elif task.lane == THREAD:
            self._interrupt_thread(task)

    def _interrupt(self, task: Task, tries: int) -> None:
        if task not in self._stack or task.cancelled is None:
            return
        if tries and not self.interrupts.pending:
            # It was raised, and what it lands in may catch it: Python swallows it in
            # __del__. Not at once, for the method may have something to put in order.
            self._loop.call_later(_AGAIN_S, self._interrupt, task, 0)
            return
        self.interrupts.send(task)
        if self._queue.empty():
            self.wake()  # if it waits for another call it is not interrupted but woken
        # Tried soon again, in case the thread was where it may not be interrupted.
        delay_s = 0.001 if tries < 20 else _AGAIN_S
        self._loop.call_later(delay_s, self._interrupt, task, tries + 1)

    def _interrupt_thread(self, task: Task) -> None:
        thread = self._threads.get(task.tessera.uid)
        if thread is not None and task.cancelled is not None and thread.interrupt(task):
            self._loop.call_later(_AGAIN_S, self._interrupt_thread, task)

    def look_after_signal(self) -> None:
        """On the loop's thread, now and then: user code may have taken the signal."""
        if not self.interrupts.installed and self._main_ident is not None:
            # Only the main thread can put it back: when it has ended what it runs.
            self.interrupts.installed_soon = True
            self._deferred.append(_WAKE)
            self.wake()

    def running(self) -> list[Task]:
        """What runs at this moment, as far as it can be seen from the loop's thread."""
        consumers = (*self._consumers.values(), *self._overlapping)
        found = [*self._stack, *(consumer.task for consumer in consumers)]
        return [t for t in found if t is not None and t.state == RUNNING]

    def tessera_gone(self, tessera: Tessera) -> None:
        """Its own thread, if it has one, ends."""
        self.journal.gone(tessera)
        thread = self._threads.pop(tessera.uid, None)
        if thread is not None:
            thread.queue.put(None)

    # -- the main thread ---------------------------------------------------------------

    def run_forever(self) -> None:
        """Run plain methods until ``stop``; on the main thread."""
        self._main_ident = threading.get_ident()
        self.interrupts.install()
        get = self._queue.get
        run = self._run_on_main
        deferred = self._deferred
        while True:
            item = deferred.popleft() if deferred else get()
            if item is None:
                return
            if type(item) is Task:
                run(item)
            elif type(item) is list:
                deferred.extend(item)
            else:
                self.interrupts.install()
            if self._stalled and not self._only_stalled(item):
                self._run_stalled()
            item = None  # do not keep the last one until the next comes

    def stop(self) -> None:
        """Let ``run_forever`` return after what is queued."""
        self.retries.close()
        self._queue.put(None)
        self.end_threads()

    def end_threads(self) -> None:
        """Those that tesserae, and the parts of values, have of their own."""
        for thread in self._threads.values():
            thread.queue.put(None)
        self._threads.clear()

    def _thread_of(self, tessera: Tessera) -> OwnThread:
        thread = self._threads.get(tessera.uid)
        if thread is None:
            name = f"mosaic {tessera.options.name}"
            thread = self._threads[tessera.uid] = OwnThread(self._run_on_thread, name)
        return thread

    def _run_on_thread(self, task: Task, thread: OwnThread) -> None:
        while self._run_once_on_thread(task, thread):
            pass  # it was put off, on its own thread, and now runs again

    def _run_once_on_thread(self, task: Task, thread: OwnThread) -> bool:
        """As ``_run_plain``, where the thread is the tessera's; True: once more."""
        state = STARTED[task.state]
        if state < 0:
            self._settled_before(task)
            return False
        task.state = state
        if task.cancelled is not None:
            self._port.completed(task, self._cancelled(task, started=False))
            return False
        self.journal.start(task)
        set_current(task)
        try:
            try:
                thread.enter(task)
                outcome = self._run_user(task)
            finally:
                thread.leave()
        except BaseException as error:
            outcome = self._failure(task, error)
        if type(outcome) not in _UNFINISHED:
            self.journal.finish(task)
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

    def _run_plain(self, task: Task) -> None:
        """Run a plain call from its start to the news of its end; on its thread."""
        state = STARTED[task.state]
        if state < 0:
            self._settled_before(task)
            return
        task.state = state
        if task.cancelled is not None:
            self._port.completed(task, self._cancelled(task, started=False))
            return
        tessera = task.tessera
        journal = self.journal
        # As `Journal.start` does it.
        mark = tessera.mark if tessera.marked == task.caller else journal.mark(task)
        view = journal.view
        if task.uid > view[mark]:
            view[mark] = task.uid
        set_current(task)
        try:
            outcome = self._run_user(task)
        except BaseException as error:
            outcome = self._failure(task, error)
        if type(outcome) not in _UNFINISHED:
            self.journal.view[mark + 1] = task.uid
        set_current(None)
        task.raw = outcome
        self._port.completed(task, outcome)

    def _settled_before(self, task: Task) -> None:
        """It was cancelled, and its end told, while it waited for its thread."""
        if task.outcome is None:
            task.move(START)  # raises
        self._attempts.pop(task.uid, None)
        self._port.completed(task, self._cancelled(task, started=False))

    def _failure(self, task: Task, error: BaseException) -> Outcome:
        """What comes of a plain call that has raised."""
        if _is_stop(task, error):
            return self._raised(task, error)
        if isinstance(error, SerializationError | MemoryOverflowError):
            # The value that it returned cannot travel: to try again is of no use.
            is_memory = isinstance(error, MemoryOverflowError)
            reason = wire.MEMORY if is_memory else wire.SERIALIZE
            return Raised(reason, self._port.dump_error(error, task))
        if isinstance(error, ArgumentFailed):
            failure = self._port.failure(task, error.reason, error.argument)
            return Raised(error.reason, failure)
        return self._raised(task, error)

    def _withdrawn(self, task: Task, error: Withdrawn) -> Raised:
        self._port.tell(task, wire.Ending(task.uid, CANCELLED, error.reason))
        return Raised(wire.CANCELLED, self._port.dump_error(error.error, task))

    # -- calls that came together, on the loop: inline.Inline --------------------------

    def one(self, task: Task) -> None:
        self._run_plain(task)

    def returned(self, task: Task, value: Any) -> None:
        outcome: Outcome
        try:
            is_coroutine = inspect.iscoroutine(value)
            outcome = Handed(value) if is_coroutine else _dump(self._port, value)
        except BaseException as error:
            outcome = self._failure(task, error)
        if type(outcome) not in _UNFINISHED:
            self.journal.finish(task)
        task.raw = outcome
        self._port.completed(task, outcome)

    def raised(self, task: Task, error: BaseException) -> None:
        task.raw = outcome = self._failure(task, error)
        if type(outcome) not in _UNFINISHED:
            self.journal.finish(task)
        self._port.completed(task, outcome)

    def ended(self, run: list[Task]) -> None:
        self._port.completed_run(run)

    def put_back(self, run: list[Task]) -> None:
        for task in run:
            task.tessera.active -= 1
        for task in run:
            task.tessera.enqueue(task)

    # -- the main thread, where a waiting call may be below ----------------------------

    def _run_on_main(self, task: Task) -> None:
        """The same on the main thread, where a waiting call may be below it."""
        if (task.arguments is not None or self._stalled) and self._stalls(task):
            return
        stack = self._stack
        if stack and task.tessera.options.stateless:
            self.journal.irregular(task)  # it goes ahead of others
        stack.append(task)
        try:
            self._run_plain(task)
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
        stalled = self._stalled
        if task in stalled:
            if _lacks(task):
                return True
            stalled.remove(task)
            return False
        for other in self._lacking(task):
            if other in self._deferred:
                self._deferred.remove(other)
                self._run_on_main(other)
        if _lacks(task) or any(other.tessera is task.tessera for other in stalled):
            stalled.append(task)
            return True
        return False

    def _lacking(self, task: Task) -> list[Task]:
        return [a for a in task.arguments or () if type(a) is Task and _unknown(a)]

    def _run_stalled(self) -> None:
        """Some may have got what they lacked."""
        stalled = self._stalled
        for task in list(stalled):
            if task.raw is not None:
                # It is not to run, but the others of its tessera wait for its end.
                if type(task.raw) not in _GOING_ON:
                    stalled.remove(task)
                continue
            first = next((t for t in stalled if t.tessera is task.tessera), None)
            below = [t.tessera for t in self._stack]
            if first is task and task.tessera not in below:
                self._run_on_main(task)

    def _stall(self, task: Task) -> None:
        """It goes on elsewhere: calls in this thread's queue are to wait for it.

        Before those of its tessera that wait already: they are behind it.
        """
        stalled = self._stalled
        for index, other in enumerate(stalled):
            if other.tessera is task.tessera:
                stalled.insert(index, task)
                return
        stalled.append(task)

    def _only_stalled(self, item: Task | list[Task] | Wake) -> bool:
        """The call was put among the stalled and did not run: nothing is changed."""
        return type(item) is Task and item.state == QUEUED and item is self._stalled[-1]

    # -- another attempt ---------------------------------------------------------------

    def attempt(self, task: Task | None) -> int:
        """Which run of a call this is, from 1."""
        if task is None:
            return 1
        first = 1 if task.extra is None else max(task.extra.attempt, 1)
        return self._attempts.get(task.uid, first)

    def _again(self, task: Task, error: BaseException) -> bool | Later:
        """Whether to run it again, which is counted: at once, or later."""
        again: bool | Later = False
        extra = task.extra
        retries = task.tessera.options.max_retries
        if extra is not None:
            if extra.kind != wire.CALL:
                return False
            if extra.max_retries is not None:
                retries = extra.max_retries
        attempt = self.attempt(task)
        why = task.cancelled
        if (
            attempt > retries
            or not (isinstance(error, Exception) or type(why) is Late)
            or (why is not None and (type(why) is not Late or why.final))
            or task.outcome is not None  # given up meanwhile
            or task.method in (CONSTRUCTOR, CLOSE_METHOD)
        ):
            return False
        again = True
        if task.tessera.options.retry or (extra is not None and extra.retry):
            again = self.retries.decide(task, error, attempt, retries)
            if again is False or (again is not True and again.question is not None):
                return again
        self._attempts[task.uid] = attempt + 1
        # If it is cancelled at this moment, the loop sees it when it hears of this.
        task.cancelled = None
        if again is True:
            self._port.completed(task, Retrying(attempt + 1))
        return again

    # -- Runs: calls that wait for their next attempt ----------------------------------

    def enter(self, task: Task) -> None:
        set_current(task)

    def put_off(self, task: Task, attempt: int, delay_s: float) -> bool:
        if not self._port.retry_later(task, attempt, delay_s):
            return False
        self._attempts[task.uid] = attempt
        task.cancelled = None
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
            self.wake()
        elif at_once:
            task.raw = None
            self.start(task)

    def give_up(self, task: Task, later: Later, error: BaseException | None) -> None:
        if error is None or task.cancelled is not None:
            outcome = self._cancelled(task, started=True)
        else:
            outcome = Raised(wire.ERROR, self._port.dump_error(error, task))
        self._end_waiting(task, later, outcome)

    def _end_waiting(self, task: Task, later: Later, outcome: Raised) -> None:
        self._attempts.pop(task.uid, None)
        self.journal.finish(task)
        task.raw = outcome
        self._port.completed(task, outcome)
        if later.then is not None:
            later.then(False)
        if self._stalled:
            self.wake()

    def _raised(self, task: Task, error: BaseException) -> Outcome:
        """A plain method has raised: what its next attempts give, or its error."""
        again: bool | Later = False
        try:
            while again := self._again(task, error):
                if again is not True:
                    if task.lane == MAIN and self._has_main:
                        self._stall(task)
                    return again
                try:
                    return self._run_user(task)
                except BaseException as another:
                    error = another
            if _is_stop(task, error):
                return self._cancelled(task, started=True)
            if isinstance(error, Withdrawn):
                return self._withdrawn(task, error)
            return Raised(wire.ERROR, self._port.dump_error(error, task))
        finally:
            if type(again) is bool:
                self._attempts.pop(task.uid, None)
            del error, again  # its traceback holds this frame

    # -- user code ---------------------------------------------------------------------

    def _run_user(self, task: Task) -> Outcome:
        """All that may be interrupted: `interrupts` knows this frame by its code."""
        name = task.method
        if task.extra is not None or name[0] == "_":
            return self._run_uncommon(task)
        # Plain arguments and values, as the serializer does it.
        data = task.data
        method = getattr(task.tessera.instance, name)
        if data[0] != wire.PICKLED:
            value = method(*marshal.loads(data))
        else:
            arguments, keywords = self._port.load_call(task)
            value = method(*arguments, **keywords)
        kind = type(value)
        if kind in _SCALARS:
            return marshal.dumps(value, 2)
        if kind is CoroutineType:
            return self._handed(task, value)
        return _dump(self._port, value)

    def _handed(self, task: Task, coroutine: Any) -> Handed:
        """A plain method has returned a coroutine."""
        if task.cancelled is not None:
            coroutine.close()
            raise Interrupted
        self.journal.irregular(task)  # calls behind it may run while it goes on
        if task.lane == MAIN and self._has_main:
            # Nobody could know: calls of it are in this thread's queue, behind it.
            self._stall(task)
        return Handed(coroutine)

    def _run_uncommon(self, task: Task) -> Outcome:
        name = task.method
        extra = task.extra
        if extra is not None:
            if wire.CALL < extra.kind < wire.CLOSE:
                return self._special(task, extra.kind)
            if not extra.ordered:
                self.journal.irregular(task)
        instance = task.tessera.instance
        if name[0] == "_":
            if name == CONSTRUCTOR and instance is None:
                return self._build(task)
            if name == CLOSE_METHOD and task is task.tessera.closing:
                close = getattr(instance, CLOSE_METHOD, None)
                self.journal.closing(1)
                try:
                    value = None if close is None else close()
                finally:
                    self.journal.closing(-1)
                if inspect.iscoroutine(value):
                    return self._handed(task, value)
                return _dump(self._port, None)
            if name == READY:
                return _dump(self._port, None)
            if name == CHECKPOINT:
                self._port.checkpoint(task)
                return _dump(self._port, None)
            if name not in FORWARDED and name not in task.tessera.options.expose:
                raise AttributeError(
                    f"{name!r} is private: names that begin with _ are never remote"
                )
        if extra is not None and extra.told:
            return self._run_told(task)
        arguments, keywords = self._port.load_call(task)
        value = getattr(instance, name)(*arguments, **keywords)
        return self._value(task, value)

    def _run_told(self, task: Task) -> Outcome:
        """The same for a caller who wants to know when, and how long it takes."""
        clock = self._begun_told(task)
        port = self._port
        outcome: Outcome | None = None
        try:
            clock.mark(timing.INPUT)
            arguments, keywords = port.load_call(task)
            clock.mark(timing.INPUT_END, timing.TASK)
            value = getattr(task.tessera.instance, task.method)(*arguments, **keywords)
            clock.mark(timing.TASK_END, timing.RESULT)
            outcome = self._value(task, value)
            if type(outcome) is not Handed:
                clock.mark(timing.RESULT_END)
            return outcome
        finally:
            if type(outcome) is not Handed:
                self._ended_told(task, clock)

    def _begun_told(self, task: Task) -> timing.Clock:
        clock = timing.Clock()
        self._port.tell(task, wire.Running(task.uid, 0.0, self.attempt(task)))
        return clock

    def _ended_told(self, task: Task, clock: timing.Clock) -> None:
        message = timing.ran(task.uid, self.attempt(task), clock.end())
        self._port.tell(task, message)

    def _build(self, task: Task) -> Outcome:
        cls = self._port.load_class(task)
        arguments, keywords = self._port.load_call(task)
        instance = cls(*arguments, **keywords)
        supervised = task.tessera.options.supervised
        if supervised is not None and supervised.life:
            self._port.restore(task, instance)
        return Built(instance)

    def _special(self, task: Task, kind: int) -> Outcome:
        port = self._port
        if kind == wire.STREAM:
            self.journal.irregular(task)
            return run_step(task, port.producer(task), self._coroutine, port)
        name = task.method
        if kind == wire.APPLY:
            (function, *arguments), keywords = port.load_call(task)
            value = function(*arguments, **keywords)
            return self._value(task, value)
        if kind == wire.PART:
            (whole, *keys), _ = port.load_call(task)
            parts = [TaskOutput.pick(whole, key) for key in keys]
            return _dump(port, parts[0] if len(parts) == 1 else parts)
        if kind == wire.RESULT_CALL:
            (target, *arguments), keywords = port.load_call(task)
            value = getattr(target, name)(*arguments, **keywords)
            return self._value(task, value)
        if name[0] == "_":
            raise AttributeError(f"{name!r} is private: it is never remote")
        if kind == wire.SET_ATTRIBUTE:
            (value,), _ = port.load_call(task)
            setattr(task.tessera.instance, name, value)
            return _dump(port, None)
        if kind == wire.GET_ATTRIBUTE:
            return _dump(port, getattr(task.tessera.instance, name))
        raise AssertionError(f"kind {kind} is not run here")

    def _value(self, task: Task, value: Any) -> Outcome:
        if type(task.cancelled) is Late:
            raise Interrupted  # a value that comes too late is none
        if inspect.iscoroutine(value):
            return self._handed(task, value)
        return _dump(self._port, value)

    def _cancelled(self, task: Task, *, started: bool) -> Raised:
        if not started:
            self.journal.irregular(task)
        reason = reason_of(task.cancelled)
        return Raised(reason, self._port.cancelled(task, started=started))

    # -- waiting in a plain method -----------------------------------------------------

    def waits_here(self) -> Task | None:
        """The call that this thread runs, if it is the main thread."""
        if threading.get_ident() == self._main_ident and self._stack:
            return self._stack[-1]
        return None

    def wake(self) -> None:
        """Make a waiting main thread look again; from any thread."""
        self._queue.put(_WAKE)

    def thread_task(self) -> Task | None:
        """The call that this thread runs, if it is a tessera's own thread."""
        task = CURRENT.get()
        if task is None or task.lane != THREAD:
            return None
        thread = self._threads.get(task.tessera.uid)
        return task if thread is not None and thread.runs_here(task) else None

    def blocked(
        self, task: Task, call: Call, certain: bool, signal: Callable[[], Any]
    ) -> Wait:
        """Its thread is about to block; ``unblocked`` follows, whatever happens."""
        wait = Wait(task, call, certain, self.new_stamp(), signal)
        wait.outer = self.waits.get(task.uid)
        self.waits[task.uid] = wait
        return wait

    def unblocked(self, wait: Wait) -> None:
        """Its thread goes on."""
        if wait.outer is None:
            del self.waits[wait.task.uid]
        else:
            self.waits[wait.task.uid] = wait.outer

    def wait_on_main(
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
        if len(self._stack) >= MAX_DEPTH:
            raise RecursionError(f"{MAX_DEPTH} plain methods wait inside each other")
        target = call.stream.tessera  # none of what a warehouse or a worker is asked
        if target and any(
            t.tessera.uid == target and not t.tessera.options.stateless
            for t in self._stack
        ):
            raise CycleError(
                f"{call.name} can only start when "
                f"{waiter.tessera.options.name}.{waiter.method}, which waits "
                "for it, has ended: call the method directly, or do not wait",
                str(call.uid),
            )
        deadline_s = None if timeout is None else time.monotonic() + timeout
        certain = certain and timeout is None
        wait = self.blocked(waiter, call, certain, self.wake)
        try:
            return self._wait(wait, ended, deadline_s)
        finally:
            self.unblocked(wait)

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
                item = self._queue.get(timeout=left_s)
            except queue.Empty:
                continue
            if type(item) is Wake:
                self._run_needed(wait, ended)
            if item is None:
                self._queue.put(None)
                raise Interrupted
            if type(item) is Task:
                if self._needed(item, wait):
                    self._run_on_main(item)
                else:
                    self._deferred.append(item)
            elif type(item) is list:
                self._deferred.extend(item)
                self._run_needed(wait, ended)
        return True

    def _run_needed(self, wait: Wait, ended: Callable[[], bool]) -> None:
        """Run what was put off and is needed by now."""
        for task in [t for t in self._deferred if type(t) is Task]:
            if not self._needed(task, wait):
                continue
            if ended():
                return
            if task in self._deferred:
                self._deferred.remove(task)
                self._run_on_main(task)
        if self._stalled and any(self._needed(t, wait) for t in self._stalled):
            self._run_stalled()

    def _needed(self, task: Task, wait: Wait) -> bool:
        tessera = task.tessera
        call = wait.call
        if tessera.options.stateless:
            # What is ahead of it in the queue need not end before it.
            return task.uid == call.uid or wait.task.uid in (task.inside or ())
        # What is no object's has no state that two calls could spoil.
        if tessera.uid and any(tessera is running.tessera for running in self._stack):
            return False
        target = call.stream.tessera
        if tessera.uid == target and (target or task.uid == call.uid):
            return True
        if wait.task.uid in (task.inside or ()):
            return True
        if task.extra is not None and task.extra.kind == wire.APPLY:
            # A function of a value: others wait for it in the line for its key, among
            # them perhaps this very call, and it is no object's.
            return True
        # That call, or what is ahead of it in its tessera's queue.
        return any(t.tessera is tessera and t.state == QUEUED for t in wait.wanted)

    # -- what others see of it: see Cycles ---------------------------------------------

    @property
    def stack(self) -> list[Task]:
        """What the main thread runs, outermost first."""
        return self._stack

    @property
    def stalled(self) -> list[Task]:
        """What the main thread has begun or put off, until something else ends."""
        return self._stalled

    @property
    def consumers(self) -> dict[int, _Consumer]:
        """Where coroutine calls run one after the other, by tessera."""
        return self._consumers

    def deferred_tasks(self) -> list[Task]:
        """What the main thread has put off while it is blocked."""
        return [task for task in list(self._deferred) if type(task) is Task]

    def on_thread_of(self, tessera: Tessera) -> Task | None:
        """What the tessera's own thread runs, if it has one."""
        thread = self._threads.get(tessera.uid)
        return None if thread is None else thread.task

    def run_under(self, task: Task, top: int) -> None:
        """The wait of the call that blocks the main thread depends on this task."""
        wait = self.waits.get(top)
        if wait is not None and task not in wait.wanted:
            wait.wanted.append(task)
            self.wake()

    def refuse(self, uid: int, stamp: int, error: CycleError) -> bool:
        """A wait of a thread ends with an error; False: there is no such wait."""
        wait = self.waits.get(uid)
        if wait is None or wait.stamp != stamp:
            return False
        wait.error = error
        wait.signal()
        return True

    # -- the loop ----------------------------------------------------------------------

    def _start_coroutine(self, task: Task) -> None:
        tessera = task.tessera
        if tessera.options.is_async:
            consumer = _Consumer()
            self._overlapping.add(consumer)
            task.rare = self._loop.create_task(self._consume(consumer, task))
            return
        running = self._consumers.get(tessera.uid)
        if running is not None and running.between:
            running.next = task
            return
        consumer = self._consumers[tessera.uid] = _Consumer()
        consumer.runner = self._loop.create_task(self._consume(consumer, task))
        task.rare = consumer.runner

    async def _consume(self, consumer: _Consumer, task: Task) -> None:
        """Run coroutine calls; a fault of ours ends the call, and is heard of."""
        try:
            await self._consume_all(consumer, task)
        except Exception as error:
            consumer.between = False
            ours = consumer.task
            logger.exception("%r ended by a fault of the runtime", ours)
            if ours is not None and not ours.settled:
                failure = Raised(wire.ERROR, self._port.dump_error(error, ours))
                self._port.completed(ours, failure)

    async def _consume_all(self, consumer: _Consumer, task: Task | None) -> None:
        """Run coroutine calls of a tessera one after the other.

        One asyncio task for a burst of calls: to make one costs more than the call.
        """
        count = 0
        ended: list[Task] = []  # of one caller, still to be told
        while task is not None:
            consumer.between = False
            consumer.task = task
            is_async = task.tessera.options.is_async
            if consumer.runner is not None:
                task.rare = consumer.runner
            outcome: Outcome | None
            # The name first: what closes a tessera that nobody holds has no data.
            plain = task.extra is None and task.method[0] != "_"
            if plain and task.data[0] != wire.PICKLED:
                task, outcome = await self._run_common(consumer, task, ended)
                set_current(None)
            else:
                outcome = await self._run_coroutine(task)
            if outcome is not None and (type(outcome) is Built or is_async):
                self._overlapping.discard(consumer)
                self._port.completed(task, outcome)
                return
            consumer.between = True
            self._tell_ended(ended)
            if outcome is not None:
                self._port.completed(task, outcome)
            task, consumer.next = consumer.next, None
            count += 1
            if count % _BURST == 0 and task is not None:
                consumer.between = False
                await asyncio.sleep(0)
        consumer.between = False
        for uid, other in list(self._consumers.items()):
            if other is consumer:
                del self._consumers[uid]

    async def _run_common(
        self, consumer: _Consumer, task: Task, ended: list[Task]
    ) -> tuple[Task, Outcome | None]:
        """Run plain coroutine calls as long as one follows the other: the hot path.

        Returns:
            The last one, and how it ended if that is not in ``ended``.
        """
        tessera = task.tessera
        instance = tessera.instance
        lines, out, err = self._port.talk
        runner = consumer.runner
        loads, dumps = marshal.loads, marshal.dumps
        task.move(START)
        journal = self.journal
        mark = tessera.mark if tessera.marked == task.caller else journal.mark(task)
        while True:
            view = journal.view
            if task.uid > view[mark]:
                view[mark] = task.uid
            set_current(task)
            try:
                value = await getattr(instance, task.method)(*loads(task.data))
                if type(value) not in _SCALARS:
                    return task, _dump(self._port, value)
            except BaseException as error:
                return task, await self._coroutine_failure(task, error)
            outcome = dumps(value, 2)
            journal.view[mark + 1] = task.uid
            if (
                runner is None
                or len(outcome) > TRAVELLING_BYTES
                or task.outcome is not None  # it was told that it had to end
                or task.released
                or lines
                or out
                or err
            ):
                return task, outcome
            task.state = DONE
            task.outcome = wire.Done(task.uid, outcome)
            if not ended:
                # If the next one waits for something, this is not told late.
                self._loop.call_soon(self._tell_ended, ended)
            ended.append(task)
            if len(ended) >= _BURST:
                return task, None
            following = tessera.next_coroutine(task.caller)
            if following is None:
                return task, None
            task = following
            task.state = RUNNING
            task.rare = runner
            consumer.task = task

    def _tell_ended(self, ended: list[Task]) -> None:
        """Coroutine calls have ended; empties the list."""
        if ended:
            run = ended[:]
            ended.clear()
            self._port.completed_run(run)

    async def _run_told_coroutine(self, task: Task) -> Outcome:
        """As ``_run_told``, of a coroutine method."""
        clock = self._begun_told(task)
        try:
            clock.mark(timing.INPUT)
            coroutine = self._coroutine(task)
            clock.mark(timing.INPUT_END, timing.TASK)
            value = await coroutine
            clock.mark(timing.TASK_END, timing.RESULT)
            if type(task.cancelled) is Late:
                raise asyncio.CancelledError  # a value that comes too late is none
            outcome = _dump(self._port, value)
            clock.mark(timing.RESULT_END)
            return outcome
        finally:
            self._ended_told(task, clock)

    async def _run_coroutine(self, task: Task, coroutine: Any = None) -> Outcome:
        outcome: Outcome
        if coroutine is None:
            task.move(START)
        if task.cancelled is not None and coroutine is None:
            return self._cancelled(task, started=False)
        if coroutine is None:
            self.journal.start(task)
        CURRENT.set(task)
        try:
            if coroutine is None:
                extra = task.extra
                if extra is not None and extra.kind == wire.STREAM:
                    self.journal.irregular(task)
                    return await run_step_on_loop(
                        task, self._port.producer(task), self._coroutine, self._port
                    )
                if extra is not None and extra.told:
                    outcome = await self._run_told_coroutine(task)
                    self.journal.finish(task)
                    return outcome
                coroutine = self._coroutine(task)
            if task is task.tessera.closing:
                await self._close(coroutine)
                value = None
            else:
                value = await coroutine
            if type(task.cancelled) is Late:
                raise asyncio.CancelledError  # a value that comes too late is none
            outcome = self._port.dump_result(value)
            self.journal.finish(task)
            return outcome
        except BaseException as error:
            return await self._coroutine_failure(task, error)
        finally:
            CURRENT.set(None)

    async def _close(self, coroutine: Any) -> None:
        self.journal.closing(1)
        try:
            await coroutine
        finally:
            self.journal.closing(-1)

    async def _coroutine_failure(self, task: Task, error: BaseException) -> Outcome:
        """What comes of a coroutine that has raised."""
        if _is_stop(task, error):
            return await self._coroutine_raised(task, error)
        if isinstance(error, SerializationError | MemoryOverflowError):
            # The value that it returned cannot travel: to try again is of no use.
            is_memory = isinstance(error, MemoryOverflowError)
            reason = wire.MEMORY if is_memory else wire.SERIALIZE
            return Raised(reason, self._port.dump_error(error, task))
        return await self._coroutine_raised(task, error)

    async def _coroutine_raised(self, task: Task, error: BaseException) -> Outcome:
        """As ``_raised``, for coroutine methods."""
        again: bool | Later = False
        try:
            _uncancel(task, error)
            while again := self._again(task, error):
                if again is not True:
                    return again
                try:
                    if task.extra is not None and task.extra.told:
                        return await self._run_told_coroutine(task)
                    value = await self._coroutine(task)
                    if type(task.cancelled) is Late:
                        raise asyncio.CancelledError
                    return self._port.dump_result(value)  # type: ignore[no-any-return]
                except BaseException as another:
                    error = another
                    _uncancel(task, error)
            if _is_stop(task, error):
                return self._cancelled(task, started=True)
            if isinstance(error, Withdrawn):
                return self._withdrawn(task, error)
            return Raised(wire.ERROR, self._port.dump_error(error, task))
        finally:
            if type(again) is bool:
                self._attempts.pop(task.uid, None)
            del error, again  # its traceback holds this frame

    def _coroutine(self, task: Task) -> Any:
        name = task.method
        if task is task.tessera.closing:
            return getattr(task.tessera.instance, CLOSE_METHOD)()
        if (
            name[0] == "_"
            and name not in FORWARDED
            and name not in task.tessera.options.expose
        ):
            raise AttributeError(f"{name!r} is private: it is never remote")
        if task.extra is not None and task.extra.kind in _ATTRIBUTES:
            raise TypeError(
                f"{name!r} is a coroutine method: call it and await the task"
            )
        arguments, keywords = self._port.load_call(task)
        return getattr(task.tessera.instance, name)(*arguments, **keywords)

    def hand_over(self, task: Task, coroutine: Any) -> None:
        """Go on with a coroutine that a plain method returned; on the loop."""

        async def run() -> None:
            # Not before: one that was cancelled before it began would never run.
            task.rare = asyncio.current_task()
            handed = task.raw
            outcome: Outcome
            if task.cancelled is None:
                outcome = await self._run_coroutine(task, coroutine)
            else:
                coroutine.close()
                set_current(task)
                outcome = await self._coroutine_raised(task, asyncio.CancelledError())
            while type(outcome) is Later:
                goes_on = self._loop.create_future()
                outcome.then = lambda at_once, future=goes_on: (
                    None if future.done() else future.set_result(at_once)
                )
                self._port.completed(task, outcome)
                if not await goes_on:
                    break  # it has ended, or starts again with others
                if task.settled:  # cancelled at this moment
                    outcome = self._cancelled(task, started=False)
                else:
                    outcome = await self._run_coroutine(task)
            else:
                task.raw = outcome
                self._port.completed(task, outcome)
            if type(handed) is Handed and handed.ended is not None:
                handed.ended.set()
            if self._stalled:
                self.wake()

        task.lane = LOOP
        task.tessera.lane = LOOP
        self._begun.add(begun := self._loop.create_task(run()))
        begun.add_done_callback(self._begun.discard)


class ArgumentFailed(Exception):
    """An argument turned out to have failed when the call was about to start."""

    def __init__(self, argument: Any, reason: int) -> None:
        super().__init__(reason)
        self.argument = argument
        self.reason = reason


def _unknown(argument: Task) -> bool:
    """How it ended is not known on the main thread."""
    going_on = argument.raw is None or type(argument.raw) in _GOING_ON
    return not argument.settled and going_on


def _lacks(task: Task) -> bool:
    return any(type(a) is Task and _unknown(a) for a in task.arguments or ())


class _Consumer:
    """One asyncio task that runs the coroutine calls of a tessera."""

    __slots__ = ("between", "next", "runner", "task")

    def __init__(self) -> None:
        self.between = False  # one call has ended, the next may be handed over
        self.task: Task | None = None  # that runs
        self.next: Task | None = None
        self.runner: asyncio.Task[None] | None = None


def _is_stop(task: Task, error: BaseException) -> bool:
    """What was raised says only that the call was to end."""
    if isinstance(error, (Interrupted, asyncio.CancelledError)):
        return True
    why = task.cancelled
    return why is not None and (
        type(why) is Late or isinstance(error, TaskCancelledError)
    )


def _uncancel(task: Task, error: BaseException) -> None:
    """Cancelled once or often: it has been seen."""
    if task.cancelled is None and not isinstance(error, asyncio.CancelledError):
        return  # in a child that the method has forked there is no loop to ask
    running = asyncio.current_task()
    while running is not None and running.uncancel() > 0:
        pass


def _dump(port: Port, value: Any) -> Outcome:
    return port.dump_result(value)  # type: ignore[no-any-return]
