"""Calls of coroutine methods: one from its start to its outcome, on the worker's loop.

The counterpart of ``plain_calls.py``. Which asyncio task runs a call, and who hears of
its end, is not for here: see ``coroutines.py``.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.limits import Late
from ..core.task import CLOSE_METHOD, START, Task
from . import timing
from .port import (
    FORWARDED,
    Outcome,
    Port,
    Raised,
    cancelled,
    cannot_travel,
    failed,
    is_stop,
    set_current,
)
from .streams import run_step_on_loop

if TYPE_CHECKING:
    from .attempts import Attempts
    from .journal import Journal
    from .retrying import Later

_ATTRIBUTES = (wire.GET_ATTRIBUTE, wire.SET_ATTRIBUTE)


def begin(port: Port, task: Task) -> Any:
    """Call a method that gives a coroutine or a generator; nothing of it runs yet."""
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
        raise TypeError(f"{name!r} is a coroutine method: call it and await the task")
    arguments, keywords = port.load_call(task)
    return getattr(task.tessera.instance, name)(*arguments, **keywords)


class CoroutineCalls:
    """Runs them; all on the loop's thread.

    Args:
        port: to the runtime.
        journal: of what starts and finishes.
        attempts: counts them.
    """

    def __init__(self, port: Port, journal: Journal, attempts: Attempts) -> None:
        self._port = port
        self._journal = journal
        self._attempts = attempts
        self._begin = partial(begin, port)

    async def run(self, task: Task, coroutine: Any = None) -> Outcome:
        """Run a call to its end, or go on with what its plain method gave."""
        outcome: Outcome
        place = 0
        if coroutine is not None:
            place = self._journal.enter(task)
        else:
            task.move(START)
            if task.cancelled is not None:
                return self.never_started(task)
            self._journal.start(task)
        set_current(task)
        try:
            if coroutine is None:
                extra = task.extra
                if extra is not None and not extra.ordered:
                    self._journal.irregular(task)
                if extra is not None and extra.kind == wire.STREAM:
                    self._journal.irregular(task)
                    return await run_step_on_loop(
                        task, self._port.producer(task), self._begin, self._port
                    )
                if extra is not None and extra.told:
                    outcome = await self._run_told(task)
                    self._journal.finish(task)
                    return outcome
                coroutine = begin(self._port, task)
            if task is task.tessera.closing:
                await self._close(coroutine)
                value = None
            else:
                value = await coroutine
            if type(task.cancelled) is Late:
                raise asyncio.CancelledError  # a value that comes too late is none
            outcome = self._port.dump_result(value)
            self._journal.finish(task)
            return outcome
        except BaseException as error:
            return await self.failure(task, error)
        finally:
            self._journal.leave(place)
            set_current(None)

    async def _run_told(self, task: Task) -> Outcome:
        """For a caller who wants to know when, and how long it takes."""
        clock = self._attempts.tell_begun(task)
        try:
            clock.mark(timing.INPUT)
            coroutine = begin(self._port, task)
            clock.mark(timing.INPUT_END, timing.TASK)
            value = await coroutine
            clock.mark(timing.TASK_END, timing.RESULT)
            if type(task.cancelled) is Late:
                raise asyncio.CancelledError  # a value that comes too late is none
            outcome = self._port.dump_result(value)
            clock.mark(timing.RESULT_END)
            return outcome
        finally:
            self._attempts.tell_ended(task, clock)

    async def _close(self, coroutine: Any) -> None:
        self._journal.closing(1)
        try:
            await coroutine
        finally:
            self._journal.closing(-1)

    def never_started(self, task: Task) -> Raised:
        """What comes of a call that was cancelled before it could start."""
        self._journal.irregular(task)
        return cancelled(self._port, task, started=False)

    async def failure(self, task: Task, error: BaseException) -> Outcome:
        """What comes of a coroutine that has raised."""
        if not is_stop(task, error):
            unsent = cannot_travel(self._port, task, error)
            if unsent is not None:
                return unsent
        return await self.raised(task, error)

    async def raised(self, task: Task, error: BaseException) -> Outcome:
        """What its next attempts give, or its error."""
        again: bool | Later = False
        try:
            _uncancel(task, error)
            while again := self._attempts.again(task, error):
                if again is not True:
                    return again
                try:
                    if task.extra is not None and task.extra.told:
                        return await self._run_told(task)
                    value = await begin(self._port, task)
                    if type(task.cancelled) is Late:
                        raise asyncio.CancelledError
                    return self._port.dump_result(value)
                except BaseException as another:
                    error = another
                    _uncancel(task, error)
            return failed(self._port, task, error)
        finally:
            if type(again) is bool:
                self._attempts.forget(task)
            del error, again  # its traceback holds this frame


def _uncancel(task: Task, error: BaseException) -> None:
    """Cancelled once or often: it has been seen."""
    if task.cancelled is None and not isinstance(error, asyncio.CancelledError):
        return  # in a child that the method has forked there is no loop to ask
    running = asyncio.current_task()
    while running is not None and running.uncancel() > 0:
        pass


# Of the frames above which there is only user code.
CODES = tuple(
    runner.__code__
    for runner in (
        CoroutineCalls.run,
        CoroutineCalls._run_told,
        CoroutineCalls.raised,
        run_step_on_loop,
    )
)
