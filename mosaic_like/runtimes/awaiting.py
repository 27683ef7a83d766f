"""What a coroutine that does not go on awaits at last, seen from outside.

Nothing is noted when a coroutine begins to wait: that would be on the path of every
call. Instead the chain of frames of its asyncio task is followed down to what it
awaits. Why somebody wants to know stands in ``cycles``.
"""

from __future__ import annotations

import gc
import types
from typing import TYPE_CHECKING, Any

from ..core.call import Call
from ..proxies.task import TaskProxy
from ..proxies.waiting import _all_or_first_failure

if TYPE_CHECKING:
    import asyncio

# Where a coroutine awaits the end of one call, or of all of several.
_FOR_ONE = frozenset(
    f.__code__ for f in (TaskProxy.__await__, TaskProxy.result, TaskProxy.exception)
)
# What of asyncio's own wakes a task: a type, or the name of a function.
_WAKERS = ("TaskWakeupMethWrapper", "TaskStepMethWrapper", "task_wakeup")
_FOR_ALL = _all_or_first_failure.__code__


def awaited_calls(coroutine: Any) -> list[Call]:
    """The calls whose end a coroutine awaits itself, not by way of other tasks.

    What its frames hold is read without making dicts of their variables, which would
    live as long as the frames.
    """
    last: Any = None
    while coroutine is not None:
        if isinstance(coroutine, types.CoroutineType):
            code, following = coroutine.cr_code, coroutine.cr_await
            frame = coroutine.cr_frame
        elif isinstance(coroutine, types.GeneratorType):
            code, following = coroutine.gi_code, coroutine.gi_yieldfrom
            frame = coroutine.gi_frame
        else:
            break
        if frame is None or frame.f_globals.get("__name__", "").startswith("asyncio"):
            return []  # such as wait_for, which ends at its time
        del frame
        last, coroutine = coroutine, following
    if last is None:
        return []
    if code in _FOR_ONE:
        return [held for held in gc.get_referents(last) if type(held) is Call][:1]
    if code is _FOR_ALL:
        return [
            proxy._call
            for held in gc.get_referents(last)
            if type(held) is types.CellType and type(held.cell_contents) is list
            for proxy in held.cell_contents
            if not proxy._call.settled
        ]
    return []


def held_by_others(running: asyncio.Task[Any]) -> bool:
    """Something that could cancel it knows the asyncio task: a time limit, a group."""
    from .coroutines import Consumer

    own: set[int] = set()
    coroutine: Any = running.get_coro()
    while coroutine is not None:
        own.add(id(coroutine))
        coroutine = getattr(coroutine, "cr_await", None)
    for referrer in gc.get_referrers(running):
        kind = type(referrer)
        if kind in (Consumer, types.FrameType) or id(referrer) in own:
            continue
        is_function = kind is types.BuiltinFunctionType
        if (referrer if is_function else kind).__name__ in _WAKERS:
            continue
        return True
    return False
