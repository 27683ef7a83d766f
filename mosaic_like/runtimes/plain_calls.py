"""Plain methods: a call from its start to the news of its end, on whichever thread.

Values are unpickled and pickled here, because that is user code too. Which thread runs
a call, and when, is not for here.
"""

from __future__ import annotations

import inspect
import marshal
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.arguments import cancelled_upstream
from ..core.limits import Late
from ..core.task import CLOSE_METHOD, CONSTRUCTOR, START, STARTED, Task
from ..core.tessera import MAIN
from ..proxies.outputs import TaskOutput
from ..proxies.restarts import CHECKPOINT
from ..proxies.tessera import READY
from . import timing
from .coroutine_calls import begin
from .interrupts import Interrupted
from .port import (
    FORWARDED,
    SCALARS,
    UNFINISHED,
    ArgumentFailed,
    Built,
    Handed,
    Outcome,
    Port,
    Raised,
    cancelled,
    cannot_travel,
    failed,
    is_stop,
    set_current,
)
from .streams import run_step

if TYPE_CHECKING:
    from .attempts import Attempts
    from .journal import Journal
    from .main_thread import Stalled
    from .retrying import Later

# Of a call that was cancelled while it waited: nobody reads this, its end is told.
_TOLD = Raised(wire.CANCELLED, b"")


class PlainCalls:
    """Runs them.

    Args:
        port: to the runtime.
        journal: of what starts and finishes.
        attempts: counts them.
        stalled: what the main thread waits for; None: no plain method runs on it.
    """

    def __init__(
        self, port: Port, journal: Journal, attempts: Attempts, stalled: Stalled | None
    ) -> None:
        self.journal = journal
        self._port = port
        self._attempts = attempts
        self._stalled = stalled
        self._begin = partial(begin, port)

    def run(self, task: Task) -> None:
        """Run a plain call from its start to the news of its end; on its thread."""
        state = STARTED[task.state]
        if state < 0:
            self.settled_before(task)
            return
        task.state = state
        if task.cancelled is not None:
            self._port.completed(task, self.never_started(task))
            return
        tessera = task.tessera
        journal = self.journal
        # As `Journal.start` does it.
        mark = tessera.mark if tessera.marked == task.caller else journal.mark(task)
        view = journal.view
        if task.uid > view[mark]:
            view[mark] = task.uid
        else:
            journal.behind(task, mark)
        set_current(task)
        try:
            outcome = self.run_user(task)
        except BaseException as error:
            outcome = self.failure(task, error)
        if type(outcome) not in UNFINISHED:
            self.journal.view[mark + 1] = task.uid
        set_current(None)
        task.raw = outcome
        self._port.completed(task, outcome)

    def settled_before(self, task: Task) -> None:
        """It was cancelled, and its end told, while it waited for its thread."""
        if task.outcome is None:
            task.move(START)  # raises
        self._attempts.forget(task)
        outcome = _TOLD
        if task.method == CONSTRUCTOR:  # whose error all calls on its tessera get
            outcome = self.never_started(task)
        else:
            self.journal.irregular(task)
        self._port.completed(task, outcome)

    def never_started(self, task: Task) -> Raised:
        """What comes of a call that was cancelled before it could start."""
        self.journal.irregular(task)
        return cancelled(self._port, task, started=False)

    def failure(self, task: Task, error: BaseException) -> Outcome:
        """What comes of a plain call that has raised."""
        if is_stop(task, error):
            return self._raised(task, error)
        if isinstance(error, ArgumentFailed):
            if error.reason == wire.CANCELLED:
                self._port.tell(task, cancelled_upstream(task))
            failure = self._port.failure(task, error.reason, error.argument)
            return Raised(error.reason, failure)
        return cannot_travel(self._port, task, error) or self._raised(task, error)

    def _raised(self, task: Task, error: BaseException) -> Outcome:
        """A plain method has raised: what its next attempts give, or its error."""
        again: bool | Later = False
        try:
            while again := self._attempts.again(task, error):
                if again is not True:
                    self._stall(task)
                    return again
                try:
                    return self.run_user(task)
                except BaseException as another:
                    error = another
            return failed(self._port, task, error)
        finally:
            if type(again) is bool:
                self._attempts.forget(task)
            del error, again  # its traceback holds this frame

    def _stall(self, task: Task) -> None:
        """It goes on elsewhere: what is in the main thread's queue waits for it."""
        if task.lane == MAIN and self._stalled is not None:
            self._stalled.put(task)

    # -- calls that came together, on the loop: inline.Inline --------------------------

    def one(self, task: Task) -> None:
        self.run(task)

    def returned(self, task: Task, value: Any) -> None:
        outcome: Outcome
        try:
            is_coroutine = inspect.iscoroutine(value)
            outcome = Handed(value) if is_coroutine else self._port.dump_result(value)
        except BaseException as error:
            outcome = self.failure(task, error)
        if type(outcome) not in UNFINISHED:
            self.journal.finish(task)
        task.raw = outcome
        self._port.completed(task, outcome)

    def raised(self, task: Task, error: BaseException) -> None:
        task.raw = outcome = self.failure(task, error)
        if type(outcome) not in UNFINISHED:
            self.journal.finish(task)
        self._port.completed(task, outcome)

    def ended(self, run: list[Task]) -> None:
        self._port.completed_run(run)

    def put_back(self, run: list[Task]) -> None:
        for task in run:
            task.tessera.active -= 1
        for task in run:
            task.tessera.enqueue(task)

    # -- user code ---------------------------------------------------------------------

    def run_user(self, task: Task) -> Outcome:
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
        if kind in SCALARS:
            return marshal.dumps(value, 2)
        if kind is CoroutineType:
            return self._handed(task, value)
        return self._port.dump_result(value)

    def _handed(self, task: Task, coroutine: Any) -> Handed:
        """A plain method has returned a coroutine."""
        if task.cancelled is not None:
            coroutine.close()
            raise Interrupted
        self.journal.irregular(task)  # calls behind it may run while it goes on
        # Nobody could know: calls of it are in this thread's queue, behind it.
        self._stall(task)
        return Handed(coroutine)

    def _run_uncommon(self, task: Task) -> Outcome:
        name = task.method
        extra = task.extra
        if extra is not None:
            kind = extra.kind
            is_plain = kind == wire.CALL and extra.ordered and not extra.told
            if is_plain and name[0] != "_":
                arguments, keywords = self._port.load_call(task)  # tasks, most likely
                value = getattr(task.tessera.instance, name)(*arguments, **keywords)
                return self._value(task, value)
            if wire.CALL < kind < wire.CLOSE:
                return self._special(task, kind)
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
                return self._port.dump_result(None)
            if name == READY:
                return self._port.dump_result(None)
            if name == CHECKPOINT:
                self._port.checkpoint(task)
                return self._port.dump_result(None)
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
        clock = self._attempts.tell_begun(task)
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
                self._attempts.tell_ended(task, clock)

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
            return run_step(task, port.producer(task), self._begin, port)
        name = task.method
        if kind == wire.APPLY:
            (function, *arguments), keywords = port.load_call(task)
            value = function(*arguments, **keywords)
            return self._value(task, value)
        if kind == wire.PART:
            (whole, *keys), _ = port.load_call(task)
            parts = [TaskOutput.pick(whole, key) for key in keys]
            return port.dump_result(parts[0] if len(parts) == 1 else parts)
        if kind == wire.RESULT_CALL:
            (target, *arguments), keywords = port.load_call(task)
            value = getattr(target, name)(*arguments, **keywords)
            return self._value(task, value)
        if name[0] == "_":
            raise AttributeError(f"{name!r} is private: it is never remote")
        if kind == wire.SET_ATTRIBUTE:
            (value,), _ = port.load_call(task)
            setattr(task.tessera.instance, name, value)
            return port.dump_result(None)
        if kind == wire.GET_ATTRIBUTE:
            return port.dump_result(getattr(task.tessera.instance, name))
        raise AssertionError(f"kind {kind} is not run here")

    def _value(self, task: Task, value: Any) -> Outcome:
        if type(task.cancelled) is Late:
            raise Interrupted  # a value that comes too late is none
        if inspect.iscoroutine(value):
            return self._handed(task, value)
        return self._port.dump_result(value)


# Of the frames above which there is only user code.
CODES = tuple(
    runner.__code__
    for runner in (
        PlainCalls.run_user,
        PlainCalls._run_uncommon,
        PlainCalls._run_told,
        PlainCalls._special,
        PlainCalls._build,
        run_step,
    )
)
