"""What is done around an attempt in the worker: ``persist``, ``cancel_if``, prints.

An Attempt stands for the function where it runs. What differs from call to call comes
as a hidden keyword. Retries, timeouts and the rest are not known here.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from typing import TYPE_CHECKING, Any

from .. import session
from ..core.task import DONE, Withdrawn
from ..errors import TaskCancelledError, Verdict
from .code import Located, located

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .options import TaskOptions
    from .storage import Kept

HIDDEN = "__mosaic_kept__"  # the keyword of what goes with one call, a KeptHere
MISSING = object()  # there is no value


class KeptHere:
    """Where the value of one call is kept, and whether one that is there will do.

    Args:
        kept: where.
        expiration_s: how old it may be; None: any age.
        may_read: a value that is there already is the call's.
    """

    __slots__ = ("expiration_s", "kept", "may_read")

    def __init__(self, kept: Kept, expiration_s: float | None, may_read: bool) -> None:
        self.kept = kept
        self.expiration_s = expiration_s
        self.may_read = may_read

    def read(self) -> Any:
        """The value that is there; what cannot be read is none.

        Raises:
            ValueError: the key leads out of the store.
        """
        if not (self.may_read and self.kept.is_there(time.time(), self.expiration_s)):
            return MISSING
        try:
            return self.kept.read()
        except Exception:
            return MISSING


class Attempt:
    """A plain function, and what is done around it.

    Args:
        fn: the function.
        cancel_if: of the value: whether the call is cancelled.
        log_prints: what becomes of what it prints.
    """

    __slots__ = ("cancel_if", "fn", "log_prints")

    def __init__(
        self, fn: Any, cancel_if: Callable[[Any], Any] | None, log_prints: bool | None
    ) -> None:
        self.fn = fn.load() if type(fn) is Located else fn
        self.cancel_if = cancel_if
        self.log_prints = log_prints

    def __reduce__(self) -> tuple[Any, ...]:
        found = located(self.fn)
        fn = self.fn if found is None else Located(*found)
        return type(self), (fn, self.cancel_if, self.log_prints)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        here: KeptHere | None = kwargs.pop(HIDDEN, None)
        value = _read(here)
        if value is not MISSING:
            return value
        with _printing(self.log_prints):
            value = self.fn(*args, **kwargs)
        if self.cancel_if is not None and self.cancel_if(value):
            raise _withdrawn(value)
        _write(here, value)
        return value


class CoroutineAttempt(Attempt):
    """The same of a coroutine function."""

    __slots__ = ()

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        here: KeptHere | None = kwargs.pop(HIDDEN, None)
        value = _read(here)
        if value is not MISSING:
            return value
        with _printing(self.log_prints):
            value = await self.fn(*args, **kwargs)
        if self.cancel_if is not None:
            stop = self.cancel_if(value)
            if inspect.isawaitable(stop):
                stop = await stop
            if stop:
                raise _withdrawn(value)
        _write(here, value)
        return value


# A call that runs in it can be stopped: see runtimes.interrupts.
PASSING = (Attempt.__call__.__code__,)


def wrapped(fn: Any, options: TaskOptions, keeps: bool) -> Any:
    """What is sent for a function; itself, if nothing is done around it.

    Args:
        fn: the function.
        options: of the task.
        keeps: its values are written to a store.
    """
    if options.cancel_if is None and options.log_prints is None and not keeps:
        return fn
    is_async = inspect.iscoroutinefunction(fn)
    kind = CoroutineAttempt if is_async else Attempt
    return kind(fn, options.cancel_if, options.log_prints)


def _read(here: KeptHere | None) -> Any:
    if here is None:
        return MISSING
    if here.kept.key is None:
        here.kept.key = session.current().around.uid
    value = here.read()
    if value is not MISSING:
        session.current().around.end_as(DONE, "cached")
    return value


def _write(here: KeptHere | None, value: Any) -> None:
    if here is not None:
        here.kept.write(value, session.current().around.name)


def _withdrawn(value: Any) -> Withdrawn:
    around = session.current().around
    error = TaskCancelledError(
        f"{around.name}: cancel_if said so of its value, which is "
        "task.info.value; repair what it takes and task.retry(), or leave it",
        around.uid,
        Verdict.MAYBE_RAN,
    )
    error.value = value  # type: ignore[attr-defined]  # read by TaskInfo
    return Withdrawn(error, "cancel_if")


@contextlib.contextmanager
def _printing(log_prints: bool | None) -> Iterator[None]:
    if log_prints is None:
        yield
        return
    undo = session.current().around.printing(log_prints)
    try:
        yield
    finally:
        undo()
