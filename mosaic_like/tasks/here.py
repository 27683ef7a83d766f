"""``Task.run``: a call in this very process, with what its task says of calls.

Retries, timeouts, caching, ``persist``, ``cancel_if`` and hooks are as for calls that
are submitted; what the cluster decides is not: places, limits and concurrency. Nothing
here needs a runtime, and nothing is sent.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import dataclasses
import inspect
import logging
import random
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

from ..core.retries import FailedAttempt, RetryPolicy
from ..core.task import TaskState
from ..errors import TaskCancelledError, TaskTimeoutError, Verdict
from ..proxies.history import Transition
from ..proxies.records import TaskInfo, exception_info
from ..proxies.retries import check_retries
from .attempt import MISSING
from .caching import Cache, Hit
from .hooks import call_hooks
from .planning import namespace

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .attempt import KeptHere
    from .function import Task

logger = logging.getLogger(__name__)

# The calls inside which this code runs, which cannot wait for one of them.
_AROUND: contextvars.ContextVar[tuple[Here, ...]]
_AROUND = contextvars.ContextVar("_AROUND", default=())
GRACE_S = 1.0  # that a plain function has to end when it was interrupted


class ValuesHere:
    """The values that ``run`` has made of one function, by task; any thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.unique = secrets.token_hex(8)  # of the function, and of no other ever
        self._caches: dict[str, Cache] = {}

    def of(self, task: Task[..., Any]) -> Cache:
        """Those of a task; to be used under the lock."""
        return self._caches.setdefault(namespace(task), Cache())


class _TimeOver(BaseException):
    """Raised into the thread of a plain function; no Exception, so few catch it."""


class Here:
    """One call.

    Args:
        task: whose function is called.
        args, kwargs: of the call, which fit its signature.

    Raises:
        TypeError: the task waits for others, which only submitted calls can.
    """

    def __init__(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        options = self._options = task._options
        if options.after:
            raise TypeError(
                f"{task.name}.run: it runs now, and cannot wait as after= says; await "
                "the others first, or submit it"
            )
        self._task = task
        self._args, self._kwargs = args, kwargs
        self._policy = RetryPolicy(check_retries(options.given()))
        planner = task._planner
        self._plan = None if planner is None else planner.plan(task, args, kwargs, "")
        run_name = None if self._plan is None else self._plan.run_name
        self._info = TaskInfo(
            f"here-{secrets.token_hex(8)}",
            run_name or task.name,
            [],
            time.time(),
            tags=sorted(task.tags if self._plan is None else self._plan.tags),
        )
        # What others with the same key wait for: MISSING if it was cancelled. Theirs
        # to await, not to cancel.
        self._value: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._value.set_running_or_notify_cancel()
        self._found = ""  # how another had its value
        self._cache: Cache | None = None  # that has it under its key
        self._hooks: set[asyncio.Task[None]] = set()

    # -- both kinds --------------------------------------------------------------------

    def plain(self) -> Any:
        """Of a plain function.

        Raises:
            Exception: what its last attempt has raised.
        """
        self._move(TaskState.PENDING, "delay" if self._options.delay else None)
        time.sleep(self._options.delay or 0.0)
        try:
            while (other := self._begin()) is not None:
                value = other._value.result()
                if value is not MISSING:
                    return self._done(value, self._found)
            value = self._stored()
            if value is not MISSING:
                return self._done(value, "cached")
            while True:
                try:
                    self._move(TaskState.RUNNING)
                    value = self._call()
                    break
                except Exception as error:
                    delay_s = self._delay_before_next(error, self._is_wanted(error))
                time.sleep(delay_s)
            if self._options.cancel_if is not None and self._options.cancel_if(value):
                raise self._withdrawn(value)
            return self._done(self._keep(value))
        except BaseException as error:
            self._failed(error)
            raise

    async def coroutine(self) -> Any:
        """The same of a coroutine function."""
        self._move(TaskState.PENDING, "delay" if self._options.delay else None)
        await asyncio.sleep(self._options.delay or 0.0)
        try:
            while (other := self._begin()) is not None:
                value = await asyncio.wrap_future(other._value)
                if value is not MISSING:
                    return self._done(value, self._found)
            value = self._stored()
            if value is not MISSING:
                return self._done(value, "cached")
            while True:
                try:
                    self._move(TaskState.RUNNING)
                    value = await self._await()
                    break
                except Exception as error:
                    wanted = self._is_wanted(error)
                    if inspect.isawaitable(wanted):
                        wanted = await self._asked(wanted, error)
                    delay_s = self._delay_before_next(error, wanted)
                await asyncio.sleep(delay_s)
            if self._options.cancel_if is not None:
                stop = self._options.cancel_if(value)
                if await stop if inspect.isawaitable(stop) else stop:
                    raise self._withdrawn(value)
            return self._done(self._keep(value))
        except BaseException as error:
            self._failed(error)
            raise

    # -- one attempt -------------------------------------------------------------------

    def _call(self) -> Any:
        inside = _AROUND.set((*_AROUND.get(), self))
        try:
            return self._call_inside()
        finally:
            _AROUND.reset(inside)

    def _call_inside(self) -> Any:
        if self._options.timeout is None:
            return self._task.fn(*self._args, **self._kwargs)
        # On a thread of its own: this one must go on even if it does not stop.
        ended: concurrent.futures.Future[Any] = concurrent.futures.Future()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                value = context.run(self._task.fn, *self._args, **self._kwargs)
                ended.set_result(value)
            except BaseException as error:
                ended.set_exception(error)

        thread = threading.Thread(target=work, name=self._info.name, daemon=True)
        thread.start()
        thread.join(self._options.timeout)
        if thread.is_alive() and not ended.done():
            _raise_in(thread)
            thread.join(GRACE_S)
        if not ended.done() or isinstance(ended.exception(), _TimeOver):
            raise self._too_late(thread.is_alive())
        return ended.result()

    async def _await(self) -> Any:
        inside = _AROUND.set((*_AROUND.get(), self))
        try:
            async with asyncio.timeout(self._options.timeout) as limit:
                return await self._task.fn(*self._args, **self._kwargs)
        except TimeoutError:
            if limit.expired():
                raise self._too_late(False) from None
            raise
        finally:
            _AROUND.reset(inside)

    def _too_late(self, goes_on: bool) -> TaskTimeoutError:
        rest = ", and goes on in its thread" if goes_on else ""
        return TaskTimeoutError(
            f"{self._info.name} did not end in its timeout={self._options.timeout:g} s"
            f"{rest}",
            self._info.task_id,
            Verdict.MAYBE_RAN,
        )

    # -- what is there already ---------------------------------------------------------

    def _begin(self) -> Here | None:
        """Whose value is its own, too; None: it is to run.

        Raises:
            Exception: what a function among its options has raised.
        """
        plan, task = self._plan, self._task
        if plan is None:
            return None
        if plan.error is not None:
            raise plan.error
        if plan.key is None:
            return None
        values = task._values_here
        with values.lock:
            cache = values.of(task)
            hit, other = cache.begin(
                plan.key, self, time.monotonic(), refresh=plan.is_refreshed
            )
        if hit is Hit.RUN:
            self._cache = cache
            return None
        if hit is Hit.REUSED and other in _AROUND.get():
            return None  # that very call waits for this one
        self._found = "reused" if hit is Hit.REUSED else "cached"
        found: Here = other
        return found

    @property
    def _kept(self) -> KeptHere | None:
        here = None if self._plan is None else self._plan.here
        if here is not None and here.kept.key is None:
            here.kept.key = self._info.task_id
        return here

    def _stored(self) -> Any:
        kept = self._kept
        return MISSING if kept is None else kept.read()

    def _keep(self, value: Any) -> Any:
        kept = self._kept
        if kept is not None:
            kept.kept.write(value, self._info.name)
        return value

    # -- after an attempt --------------------------------------------------------------

    def _is_wanted(self, error: Exception) -> Any:
        """Another attempt is wanted; or what is to be awaited to know that."""
        attempt = self._info.attempt
        most = self._options.max_retries
        if attempt > most or not self._policy.concerns(error):
            return False
        if self._policy.condition is None:
            return True
        about = FailedAttempt(self._info.task_id, self._info.name, attempt, most)
        try:
            wanted = self._policy.condition(error, about)
            if inspect.iscoroutine(wanted) and not self._task.is_async:
                wanted.close()
                raise TypeError(
                    "retry_if is a coroutine function: a plain function that runs "
                    "here needs a plain one"
                )
            return wanted
        except Exception as another:
            return self._no_answer(another, error)

    async def _asked(self, wanted: Any, error: Exception) -> Any:
        try:
            return await wanted
        except Exception as another:
            return self._no_answer(another, error)

    def _no_answer(self, another: Exception, error: Exception) -> bool:
        text = f"{type(another).__name__}: {another}"
        logger.error("%s: its retry_if raised %s; no retry", self._info.name, text)
        error.add_note(f"  it was not tried again: its retry_if raised {text}")
        return False

    def _delay_before_next(self, error: Exception, is_wanted: Any) -> float:
        """Seconds; raises the error if there is no next attempt."""
        attempt = self._info.attempt
        if not is_wanted:
            raise error
        delay_s = self._policy.delay_s(attempt, random.uniform)
        self._info = dataclasses.replace(self._info, attempt=attempt + 1)
        self._move(TaskState.PENDING, "retry")
        return delay_s

    # -- the end -----------------------------------------------------------------------

    def _withdrawn(self, value: Any) -> TaskCancelledError:
        error = TaskCancelledError(
            f"{self._info.name}: cancel_if said so of its value, which is error.value",
            self._info.task_id,
            Verdict.MAYBE_RAN,
        )
        error.value = value  # type: ignore[attr-defined]  # as of a submitted one
        return error

    def _done(self, value: Any, reason: str | None = None) -> Any:
        self._leave(has_value=True)
        self._value.set_result(value)
        self._move(TaskState.DONE, reason)
        self._call_hooks("on_done", self._options.on_done, value)
        return value

    def _failed(self, error: BaseException) -> None:
        if self._value.done():
            return  # it was done, and what has failed is after that
        self._leave(has_value=False)
        is_stopped = isinstance(error, TaskCancelledError | asyncio.CancelledError)
        if is_stopped:
            self._value.set_result(MISSING)
        else:
            self._value.set_exception(error)
        state = TaskState.CANCELLED if is_stopped else TaskState.FAILED
        reason = "timeout" if isinstance(error, TaskTimeoutError) else "error"
        info = exception_info(error)
        self._info = dataclasses.replace(self._info, exception=info)
        self._move(state, None if is_stopped else reason)
        self._call_hooks("on_failed", self._options.on_failed, error)

    def _leave(self, *, has_value: bool) -> None:
        self._args, self._kwargs = (), {}  # its value may be kept for long
        plan = self._plan
        if self._cache is not None and plan is not None and plan.key is not None:
            with self._task._values_here.lock:
                self._cache.end(
                    plan.key,
                    self,
                    time.monotonic(),
                    has_value=has_value,
                    expiration_s=plan.expiration_s,
                )
            plan.parameters = {}

    # -- hooks -------------------------------------------------------------------------

    def _move(self, state: TaskState, reason: str | None = None) -> None:
        moment = time.time()
        is_end = state not in (TaskState.PENDING, TaskState.RUNNING)
        self._info = dataclasses.replace(
            self._info,
            state=state,
            reason=reason,
            received_time=moment if is_end else None,
            success=state is TaskState.DONE if is_end else None,
        )
        transition = Transition(moment, state, reason)
        self._call_hooks("on_state", self._options.on_state, transition)

    def _call_hooks(self, which: str, hooks: Any, what: Any) -> None:
        if hooks:
            about = f"{which} of {self._info.name}"
            call_hooks(self, hooks, about, self._info, what)

    def start_hook(self, hook: Coroutine[Any, Any, None]) -> None:
        """Run a hook that is a coroutine function: see ``call_hooks``."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(hook)
            return
        running = loop.create_task(hook)
        self._hooks.add(running)
        running.add_done_callback(self._hooks.discard)


def _raise_in(thread: threading.Thread) -> None:
    """Let a thread raise when it next comes to the interpreter."""
    import ctypes  # only calls whose time is over need it

    ident = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(_TimeOver))


# A call that runs in them, inside another, can be stopped: see runtimes.interrupts.
PASSING = (Here.plain.__code__, Here._call.__code__, Here._call_inside.__code__)
