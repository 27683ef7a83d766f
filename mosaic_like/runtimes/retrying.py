"""Calls that failed and may run again: whether, and the waiting in between.

What is asked of the user's functions is asked where the method ran. Waiting is done by
the loop alone: a call that waits holds no thread, and a coroutine ``retry_if`` is
awaited here too. How an attempt runs is the executor's.
"""

from __future__ import annotations

import inspect
import logging
import random
from typing import TYPE_CHECKING, Any, Protocol

from .. import ids
from ..core.limits import Late
from ..core.retries import FailedAttempt, RetryPolicy
from ..errors import TaskTimeoutError, Verdict
from ..proxies.retries import load_retries

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..core.task import Task

logger = logging.getLogger(__name__)

_SAID_CHARACTERS = 200
_POLICIES = 256  # kept unpickled


class Later:
    """No outcome yet: another attempt begins after a while, if it does."""

    __slots__ = (
        "asking",
        "attempt",
        "delay_s",
        "error",
        "policy",
        "question",
        "said",
        "stopped",
        "then",
        "timer",
    )

    def __init__(self, attempt: int, policy: RetryPolicy, error: BaseException) -> None:
        self.attempt = attempt  # the one that begins
        self.said = _summary(error)  # of the one before; for people
        self.policy = policy
        self.delay_s = 0.0
        self.question: Any = None  # what a coroutine retry_if gave, to be awaited
        self.error: BaseException | None = None  # until that has been answered
        self.stopped = False  # the call was asked to end
        self.asking: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        # Who goes on with the call, if it is not its lane: told whether it does.
        self.then: Callable[[bool], None] | None = None


class Runs(Protocol):
    """What the executor does for the calls that wait."""

    def enter(self, task: Task, /) -> None:
        """From here on what this asyncio task runs is the call's."""

    def hand_back(self, task: Task, later: Later, /) -> bool:
        """Its submitter is to wait, and to choose where it runs next; False: not."""

    def put_off(self, task: Task, attempt: int, delay_s: float, /) -> bool:
        """The next attempt waits; False: the call is to end."""

    def resume(self, task: Task, later: Later, /) -> None:
        """The next attempt begins."""

    def give_up(self, task: Task, later: Later, error: BaseException | None, /) -> None:
        """There is none: it ends with this error, or as it was asked to."""


class Retries:
    """Of one runtime.

    Args:
        loop: of the runtime; ``begin``, ``stop`` and ``close`` are for its thread.
        runs: goes on with the calls.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, runs: Runs) -> None:
        self._loop = loop
        self._runs = runs
        self._waiting: dict[int, Later] = {}
        self._policies: dict[tuple[bytes, bytes], RetryPolicy] = {}

    # -- where the method ran ----------------------------------------------------------

    def decide(
        self, task: Task, error: BaseException, attempt: int, retries: int
    ) -> bool | Later:
        """Whether to run a call again that has retries left.

        Args:
            task: which.
            error: what its attempt has raised.
            attempt: which one that was.
            retries: how many there may be.

        Returns:
            True: at once. False: not.
        """
        # A function of the user may raise anything; the call's own error counts.
        try:
            policy = self._policy(task)
            if type(task.cancelled) is Late:
                error = _as_late(task, attempt)  # as its caller would see it
            if not policy.concerns(error):
                return False
            later = Later(attempt + 1, policy, error)
            if policy.condition is not None:
                uid = ids.task_name(task.first_uid)
                failed = FailedAttempt(uid, task.name, attempt, retries)
                answer = policy.condition(error, failed)
                if inspect.isawaitable(answer):
                    later.question, later.error = answer, error
                    return later
                if not answer:
                    return False
            later.delay_s = policy.delay_s(attempt, random.uniform)
        except BaseException as own:
            _tell(task, error, own)
            return False
        return later if later.delay_s > 0 else True

    def _policy(self, task: Task) -> RetryPolicy:
        extra = task.extra
        data = task.tessera.options.retry, b"" if extra is None else extra.retry
        policy = self._policies.get(data)
        if policy is None:
            policy = RetryPolicy(load_retries(data[0]), load_retries(data[1]))
            if len(self._policies) >= _POLICIES:
                self._policies.clear()
            self._policies[data] = policy
        return policy

    # -- the loop ----------------------------------------------------------------------

    def begin(self, task: Task, later: Later) -> None:
        """An attempt has ended so; from now on the call waits."""
        self._waiting[task.uid] = later
        task.tessera.pause()
        why = task.cancelled
        if later.question is None:
            self._wait(task, later)
        elif task.outcome is not None or (
            # Asked to end when the attempt just had.
            why is not None and (type(why) is not Late or why.final)
        ):
            _forget(later.question)
            self._end(task, later, None)
        else:
            later.asking = self._loop.create_task(self._ask(task, later))

    async def _ask(self, task: Task, later: Later) -> None:
        """Await what ``retry_if`` gave."""
        assert later.error is not None, "kept with the question"
        self._runs.enter(task)
        error, later.error = later.error, None
        goes_on = False
        try:
            if await later.question:
                retry = later.attempt - 1
                later.delay_s = later.policy.delay_s(retry, random.uniform)
                goes_on = True
        except BaseException as own:
            if not later.stopped:
                _tell(task, error, own)
        if later.stopped:
            return
        if goes_on:
            self._wait(task, later)
        else:
            self._end(task, later, error)

    def _wait(self, task: Task, later: Later) -> None:
        if task.tessera.options.stateless and task.cancelled is None:
            del self._waiting[task.uid]
            task.tessera.unpause(task)
            if self._runs.hand_back(task, later):
                return
            self._waiting[task.uid] = later
            task.tessera.pause()
        if not self._runs.put_off(task, later.attempt, later.delay_s):
            self._end(task, later, None)
            return
        later.timer = self._loop.call_later(later.delay_s, self._resume, task, later)

    def _resume(self, task: Task, later: Later) -> None:
        if self._waiting.pop(task.uid, None) is later:
            self._runs.resume(task, later)

    def stop(self, task: Task) -> bool:
        """A call was asked to end; False: it does not wait."""
        later = self._waiting.get(task.uid)
        if later is None:
            return False
        later.stopped = True
        if later.asking is not None:
            later.asking.cancel()
            _forget(later.question)
        if later.timer is not None:
            later.timer.cancel()
        # Not here, in the middle of who asks.
        self._loop.call_soon(self._end, task, later, None)
        return True

    def _end(self, task: Task, later: Later, error: BaseException | None) -> None:
        if self._waiting.get(task.uid) is not later:
            return
        del self._waiting[task.uid]
        task.tessera.unpause(task)
        if task.cancelled is not None:
            task.cancelled = _with(task.cancelled, later)
        self._runs.give_up(task, later, error)

    def close(self) -> None:
        """Nothing runs any more; threads that wait for a call are let go."""
        for later in self._waiting.values():
            if later.timer is not None:
                later.timer.cancel()
            if later.then is not None:
                later.then(False)
        self._waiting.clear()


def _summary(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:_SAID_CHARACTERS]
    except Exception:
        return type(error).__name__


def _with(why: str, later: Later) -> str:
    """Why it ends, and what had happened before."""
    text = f"{why}; " if why else ""
    text += f"attempt {later.attempt - 1} had raised {later.said}"
    return Late(text, final=why.final) if type(why) is Late else type(why)(text)


def _forget(question: Any) -> None:
    """If it is a coroutine that has not begun, nobody will await it."""
    if inspect.iscoroutine(question):
        state = inspect.getcoroutinestate(question)
        if state == inspect.CORO_CREATED:
            question.close()


def _as_late(task: Task, attempt: int) -> TaskTimeoutError:
    name, uid = task.tessera.options.name, ids.task_name(task.first_uid)
    return TaskTimeoutError(
        f"attempt {attempt + task.earlier} of {name}.{task.method} did not end in time "
        f"({task.cancelled})",
        uid,
        Verdict.MAYBE_RAN,
    )


def _tell(task: Task, error: BaseException, own: BaseException) -> None:
    """The user's functions have raised: the call's own error says so, too."""
    what = (
        f"its retry options raised {type(own).__name__}: {own}; it was not tried again"
    )
    error.add_note(f"  {what}")
    logger.error(
        "%s.%s: %s",
        task.tessera.options.name,
        task.method,
        what,
        exc_info=(type(own), own, own.__traceback__),
    )
