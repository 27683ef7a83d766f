"""The calls of a task: checked, pickled, planned, and then sent or kept prepared.

All of it is done in the thread that makes the call, since the arguments may change as
soon as that has returned. The verbs for users stand in ``function``, with the short way
of a call that needs nothing of this; where a call runs is decided in
``core/dispatch.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from .. import session
from ..comms.messages import Extra
from ..core.call import rare
from ..core.retries import OPTIONS as RETRY_OPTIONS
from ..proxies.limits import put_limits
from ..proxies.outputs import TaskDone
from ..proxies.records import About, parents_of
from ..proxies.retries import dump_retries
from ..proxies.task import PREPARING, TaskProxy
from .concurrency import current_tags
from .picture import note_parents
from .planning import Planner
from .prepared import Prepared
from .submission import functions_of
from .tracing import DRAWING

if TYPE_CHECKING:
    from .function import Task
    from .options import TaskOptions
    from .submission import Functions


def submitted(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], depth: int
) -> TaskProxy[Any]:
    """A call that runs as soon as it can.

    Args:
        task: whose call it is.
        args, kwargs: of the call.
        depth: of the frame of who asks, where the call is said to be made.

    Raises:
        TypeError: the arguments do not fit the signature.
        SerializationError: an argument, or the function, cannot travel.
    """
    drawing = DRAWING.get()
    if drawing is not None:
        return drawing.call(task, args, kwargs)  # type: ignore[no-any-return]  # in place of a task
    if task.is_plain and not current_tags():
        runtime = session.current()
        functions: Functions = runtime.functions or functions_of(runtime)
        task._method.check("", args, kwargs)
        target = functions.target(task._code)
        payload = runtime.dump_call(task, args, kwargs)
        extra = _unordered(payload, None)
        call = runtime.submit(target, task._code.method, payload, extra, depth + 1)
        if extra is not None:  # it takes tasks: pictures show that
            functions.on_loop(note_parents, call, payload)
        return TaskProxy(runtime, call)
    prepared = _prepared(task, args, kwargs, depth + 1)
    proxy = prepared.proxy()
    prepared.functions.on_loop(prepared.submit, proxy)
    return proxy


def held_back(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], depth: int
) -> TaskProxy[Any]:
    """A call that waits until somebody wants it; all else is as for ``submitted``."""
    drawing = DRAWING.get()
    if drawing is not None:
        return drawing.call(task, args, kwargs)  # type: ignore[no-any-return]  # in place of a task
    token = PREPARING.set(True)
    try:
        prepared = _prepared(task, args, kwargs, depth + 1)
    finally:
        PREPARING.reset(token)
    functions = prepared.functions
    proxy = prepared.proxy()
    functions.on_loop(functions.connections.add, prepared)
    return proxy


def extra_of(options: TaskOptions, name: str) -> Extra | None:
    """What goes with each call of a task that has retries or a time."""
    extra: Extra | None = None
    if options.max_retries:
        extra = Extra(max_retries=options.max_retries)
    given = {n: v for n, v in options.given().items() if n in RETRY_OPTIONS}
    if given:
        extra = extra or Extra()
        extra.retry = dump_retries(given, name)
    limits = {"timeout": options.timeout, "interrupt": options.interrupt}
    return put_limits(limits, extra)


def _prepared(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], depth: int
) -> Prepared:
    """A call that is made and not sent, for graphs and policies."""
    runtime = session.current()
    functions: Functions = runtime.functions or functions_of(runtime)
    task._method.check("", args, kwargs)
    options = task._options
    where = runtime.resolve_worker(options.runtime)
    # Of a tessera that has no place yet it is the stream to it.
    owner = 0 if where is None else getattr(where, "incarnation", 0) or where.owner
    target = functions.target(task._code)
    after = tuple(_token(other) for other in options.after)
    plan, sent = None, kwargs
    planner = task._planner
    if planner is None and current_tags():
        planner = Planner(options)
    if planner is not None:
        plan = planner.plan(task, args, kwargs, runtime.uid)
        sent = plan.with_hidden(kwargs)
    payload = runtime.dump_call(task, (*args, *after), sent)
    # This call may change it.
    extra = None if task._extra is None else msgspec.structs.replace(task._extra)
    extra = _unordered(payload, extra)
    call, extra = runtime.prepare(target, task._code.method, extra, depth + 1)
    if plan is None and task.is_renamed:
        rare(call).about = About(task.name, (), parents_of(payload))
    if plan is not None and plan.stored is not None:
        rare(call).stored = plan.stored
    prepared = Prepared(functions, task, args, kwargs, call, payload, extra, plan)
    prepared.owner = owner
    return prepared


def _token(task: Any) -> TaskDone:
    """What only waits for a task, among the arguments."""
    if isinstance(task, TaskProxy):
        return task.done
    return task if isinstance(task, TaskDone) else task._task.done


def _unordered(payload: Any, extra: Extra | None) -> Extra | None:
    """A call that takes tasks may be overtaken while these are fetched."""
    if type(payload) is bytes or not payload.handles:
        return extra
    extra = extra or Extra()
    extra.ordered = False
    return extra
