"""Tasks that other programs of a cluster call by name: ``serve`` and ``runtime.task``.

One tessera of the cluster knows the tasks that are served. Who calls one by its name
needs no code of it: the call is made where that tessera is, and runs in any worker.
When its worker is lost, each program that serves makes it again or finds it, and says
again what it serves; who asks in between makes it, too, and waits there a little.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from typing import TYPE_CHECKING, Any

from .. import session
from ..core.task import DONE
from ..errors import RuntimeDisconnectedError
from ..proxies.decorator import remote
from .function import Task
from .submission import functions_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..proxies.task import TaskProxy
    from ..proxies.tessera import TesseraProxy

_NAME = "mosaic.served"
_LISTED = 20  # names that an error gives
# How long a registry that may have taken the place of another waits for what that had.
_GRACE_S = 5.0
_PAUSE_S = 0.1  # before it is tried again to reach one
_LONGEST_S = 30.0  # that this is tried for those who wait


class Registry:
    """The tasks that are served in a cluster, by key.

    Args:
        losses: whoever makes it knows of runtimes that are lost.
    """

    def __init__(self, losses: bool) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}
        self._until_s = 0.0  # by the monotonic clock: what is not here is waited for
        if losses or session.current().causes:  # there may have been another before
            self._until_s = time.monotonic() + _GRACE_S
        self._changed = asyncio.Event()

    def register(self, tasks: list[Task[..., Any]]) -> None:
        """Serve these; a later one of the same key replaces the former."""
        self._tasks.update((task.key, task) for task in tasks)
        self._changed.set()
        self._changed = asyncio.Event()

    async def keys(self) -> list[str]:
        await self._served(lambda: bool(self._tasks))
        return sorted(self._tasks)

    async def run(self, key: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value of a call of one.

        Raises:
            LookupError: it is not served.
        """
        await self._served(lambda: key in self._tasks)
        task = self._tasks.get(key)
        if task is None:
            raise LookupError(self._unknown(key))
        proxy = task.submit(*args, **kwargs)
        try:
            return await proxy.result()
        except asyncio.CancelledError:
            proxy.cancel("the call of it by name was cancelled")
            raise

    async def _served(self, is_there: Callable[[], bool]) -> None:
        """Wait for it, but not after the grace."""
        with contextlib.suppress(TimeoutError):
            while not is_there() and (left_s := self._until_s - time.monotonic()) > 0:
                await asyncio.wait_for(self._changed.wait(), left_s)

    def _unknown(self, key: str) -> str:
        keys = sorted(self._tasks)
        listed = ", ".join(map(repr, keys[:_LISTED])) or "none"
        more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
        return (
            f"no task {key!r} is served in this cluster; there are: {listed}{more}; "
            "the program that has it says 'await runtime.serve(...)'"
        )


def _registry() -> TesseraProxy[Registry]:
    """That of the cluster, made when it is first asked for."""
    losses = bool(session.current().causes)
    return remote(Registry, name=_NAME, detached=True, is_async=True)(losses)


def _is_lost(registry: TesseraProxy[Registry]) -> bool:
    return registry._mosaic_handle.stream.error is not None


class Serving:
    """What this program serves, so that it is served again when the registry is lost.

    Args:
        runtime: a ``runtimes.actor.ActorRuntime``; all but ``keep`` is for its thread.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._tasks: dict[str, Task[..., Any]] = {}
        self._registry: TesseraProxy[Registry] | None = None  # that has them
        self._telling: TaskProxy[Any] | None = None  # a registry of them

    def keep(self, tasks: list[Task[..., Any]], at: TesseraProxy[Registry]) -> None:
        """These are served, by this registry; from any thread."""
        self._tasks.update((task.key, task) for task in tasks)
        self._registry = at
        self._runtime.post(self.look)  # it may be lost since

    def look(self) -> None:
        """Some runtime is lost; if the registry was there, all is served again."""
        registry = self._registry
        if registry is not None and _is_lost(registry) and self._telling is None:
            self._later(0.0)

    def _later(self, pause_s: float) -> None:
        # Not in whatever call the loss was heard, and after all that follows from it.
        self._runtime.loop.call_later(
            pause_s, self._again, context=contextvars.Context()
        )

    def _again(self) -> None:
        runtime = self._runtime
        if self._telling is not None or runtime.stopping or runtime.cluster_lost:
            return
        self._registry = registry = _registry()
        self._telling = registry.register(list(self._tasks.values()))
        self._telling.add_done_callback(self._told)

    def _told(self, telling: TaskProxy[Any]) -> None:
        self._telling = None
        call = telling._call
        if call.state == DONE:
            self.look()  # it may be lost since
        elif isinstance(self._runtime.error_of(call), RuntimeDisconnectedError):
            self._later(_PAUSE_S)


def _serving() -> Serving:
    """Of the current runtime, made when it first serves."""
    functions = functions_of(session.current())
    with functions.runtime.functions_lock:
        if functions.serving is None:
            functions.serving = Serving(functions.runtime)
    return functions.serving  # type: ignore[no-any-return]  # it is one of these


async def _asked(call: Callable[[], TaskProxy[Any]]) -> Any:
    """The value of a call of the registry, made again while that is lost.

    Args:
        call: makes the call, of the registry that there is now; it may be made twice.
    """
    until_s = time.monotonic() + _LONGEST_S
    while True:
        try:
            return await call().result()
        except RuntimeDisconnectedError:
            if session.current().cluster_lost or time.monotonic() > until_s:
                raise
        await asyncio.sleep(_PAUSE_S)


async def serve(tasks: tuple[Any, ...]) -> None:
    """See ``runtime.serve``."""
    for task in tasks:
        if not isinstance(task, Task):
            raise TypeError(f"serve() takes tasks, made by @task, not {task!r}")
    serving, served = _serving(), list(tasks)
    registry: TesseraProxy[Registry]

    def register() -> TaskProxy[Any]:
        nonlocal registry
        registry = _registry()
        telling: TaskProxy[Any] = registry.register(served)
        return telling

    await _asked(register)
    serving.keep(served, registry)


async def served() -> list[str]:
    """See ``runtime.served``."""
    keys: list[str] = await _asked(lambda: _registry().keys())
    return keys


class ServedTask:
    """A task of another program, by its name; ``runtime.task(key)`` gives it.

    Args:
        key: as the task's own ``key`` has it: ``module:name``.

    Raises:
        TypeError: the key is no string.
        ValueError: the key has not this form.
    """

    def __init__(self, key: str) -> None:
        self.key = _key(key)
        self._registry = _registry()

    def submit(self, *args: Any, **kwargs: Any) -> TaskProxy[Any]:
        """Run it in some worker of the cluster; returns at once.

        Raises:
            LookupError: by awaiting: no such task is served; the text lists those that
                are.
            TypeError: by awaiting: the arguments do not fit its signature.
            WorkerDied: by awaiting: the worker through which the call went was lost
                meanwhile, and the call may have run; submit it again if it may run
                twice.
            SerializationError: an argument cannot travel.
        """
        if _is_lost(self._registry):
            self._registry = _registry()
        made: TaskProxy[Any] = self._registry.run(self.key, args, kwargs)
        return made

    def __repr__(self) -> str:
        return f"<served task {self.key}>"


def _key(given: Any) -> str:
    if not isinstance(given, str):
        hint = "; a task that is here is submitted by task.submit(...)"
        raise TypeError(
            "runtime.task() takes the key of a task that is served, a string such as "
            f"'module:function', not {given!r}{hint if callable(given) else ''}; "
            "'await runtime.served()' lists them"
        )
    module, _, name = given.partition(":")
    if not module or not name:
        raise ValueError(
            f"the name of a task is like 'module:function', its key; found {given!r}"
        )
    return given
