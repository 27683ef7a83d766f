"""The user's functions that are called when a task ends or moves.

They run on the loop of the runtime that submitted the task, before anybody who awaits
it goes on; coroutine functions are started then. What one raises is logged, and told to
nobody else: a hook never changes what becomes of a task.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from ..core.task import DONE
from ..proxies.records import info_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..core.call import Call
    from .options import TaskOptions

logger = logging.getLogger(__name__)


def call_hooks(
    runtime: Any, hooks: Iterable[Callable[..., Any]], what: str, *args: Any
) -> None:
    """Call each; on the runtime's loop.

    Args:
        runtime: whose loop it is.
        hooks: of the user.
        what: which hooks of which task these are, for the log.
        args: for each.
    """
    for hook in hooks:
        try:
            found = hook(*args)
            if inspect.isawaitable(found):
                runtime.start_hook(_awaited(found, what, hook))
        except Exception:
            _tell(what, hook)


async def _awaited(found: Any, what: str, hook: Any) -> None:
    try:
        await found
    except Exception:
        _tell(what, hook)


def _tell(what: str, hook: Any) -> None:
    name = getattr(hook, "__qualname__", hook)
    logger.exception("%s: the hook %s raised; the task stays as it is", what, name)


def end_hooks(runtime: Any, call: Call, options: TaskOptions) -> None:
    """A task has ended: its ``on_done``, or its ``on_failed``.

    A value that stayed at its worker is fetched first, for there are hooks that want
    it.
    """
    if call.state == DONE:
        if options.on_done:
            _with_value(runtime, call, options)
    elif options.on_failed:
        error = runtime.error_of(call)
        what = f"on_failed of {call.name}"
        call_hooks(runtime, options.on_failed, what, info_of(runtime, call), error)


def _with_value(runtime: Any, call: Call, options: TaskOptions) -> None:
    what = f"on_done of {call.name}"

    def fetched() -> None:
        try:
            if call.state != DONE:
                raise runtime.error_of(call)
            value = runtime.value_of(call)
        except Exception:
            logger.exception("%s: its value is lost, so no hook was called", what)
            return
        call_hooks(runtime, options.on_done, what, info_of(runtime, call), value)

    if runtime.is_away(call):
        runtime.fetch(call, fetched)
    else:
        fetched()
