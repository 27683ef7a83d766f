"""What can be done to proxies and with the current runtime, as functions.

On a proxy the names of the user's class win, so everything of ours is a function that
always works. ``get_attr`` and ``set_attr`` are in ``attributes``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    NamedTuple,
    ParamSpec,
    TypeVar,
    overload,
)

from .. import session
from ..comms.messages import CLOSE, KILL, Extra
from ..core.task import DONE, FAILED
from ..errors import TaskCancelledError
from ..ids import task_name
from .array import ArrayProxy, TaskArrayProxy
from .handles import SupervisedHandle
from .methods import NOTHING, RemoteMethod
from .settling import future_of
from .task import TaskProxy
from .tessera import TesseraProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from ..core.call import Stream

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

_CLOSE_METHOD = "__close__"


class TesseraInfo(NamedTuple):
    """What this process knows of a tessera; nobody is asked."""

    uid: str
    name: str  # for people, such as Counter#1
    cls: type
    runtime_id: str  # where it lives; empty while that is not known
    state: str  # starting, listening, restarting, failed or lost
    pending: int  # calls of this process on it that have not ended


@overload
def info(proxy: ArrayProxy[Any]) -> list[TesseraInfo]: ...
@overload
def info(proxy: TesseraProxy[Any]) -> TesseraInfo: ...
def info(
    proxy: TesseraProxy[Any] | ArrayProxy[Any],
) -> TesseraInfo | list[TesseraInfo]:
    """What is known here of a tessera, or of each one of an array.

    Nobody is asked: ``await proxy`` first where its place is wanted.

    Args:
        proxy: of a tessera or an array.

    Returns:
        ``uid``, ``name``, ``cls``, ``runtime_id``, ``state`` and ``pending``, the
        number of calls of this process that have not ended; a list of these for an
        array.

    Raises:
        TypeError: it is no proxy.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Store:
    ...     pass
    >>> async def main():
    ...     store = await Store.remote()
    ...     found = mosaic.info(store)
    ...     return found.name, found.runtime_id, found.state
    >>> mosaic.run(main, num_workers=1)
    ('Store#1', 'worker:0:0', 'listening')
    """
    if isinstance(proxy, ArrayProxy):
        return [info(member) for member in proxy]
    _expect(proxy, "info")
    handle = proxy._mosaic_handle
    stream, call = handle.stream, handle.call
    if stream.error is None and type(handle) is SupervisedHandle and handle.restarting:
        state = "restarting"
    elif call is not None and call.state < DONE:
        state = "starting"
    elif call is not None and call.state >= FAILED:
        state = "failed"
    else:
        state = "listening" if stream.error is None else "lost"
    runtime: Any = handle.runtime
    calls = list(runtime.caller.calls.values())
    return TesseraInfo(
        task_name(handle.uid),
        stream.label,
        proxy._mosaic_schema.cls,
        runtime.uid_of(stream.owner) if stream.owner else "",
        state,
        sum(1 for call in calls if call.stream is stream),
    )


def close(proxy: Any, timeout: float | None = None) -> Any:
    """Close a tessera, or all of an array: a task, or tasks, to be awaited.

    It takes no new calls from now on, those that are queued end, then its ``__close__``
    runs. Later calls raise LookupError.

    Args:
        proxy: of a tessera or an array.
        timeout: seconds that awaiting takes at most; None waits for ever.

    Raises:
        TimeoutError: by awaiting: it has not closed in time; it goes on.
        Exception: by awaiting: what its ``__close__`` raised.
        LookupError: by awaiting: it was closed before.
        TypeError: it is no proxy.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Log:
    ...     def write(self, line): return len(line)
    ...     def __close__(self): print("closed")
    >>> async def main():
    ...     log = Log.remote()
    ...     written = log.write("last")
    ...     await mosaic.close(log, timeout=10)
    ...     return await written.result()
    >>> mosaic.run(main, num_workers=1)
    w0:0 Log#1 | closed
    4
    """
    return _end(proxy, CLOSE, "close", timeout)


def kill(proxy: Any) -> Any:
    """Close a tessera, or all of an array, at once: its calls are cancelled first.

    Those that are queued never run, those that run are interrupted; then its
    ``__close__`` runs. Gives a task, or tasks, that may be awaited.

    Args:
        proxy: of a tessera or an array.

    Raises:
        TypeError: it is no proxy.
        Exception: by awaiting: what its ``__close__`` raised. That it was closed
            before is no failure.

    >>> import asyncio, mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Endless:
    ...     async def run(self): await asyncio.sleep(3600)
    >>> async def main():
    ...     endless = Endless.remote()
    ...     task = endless.run()
    ...     await mosaic.kill(endless)
    ...     return type(await task.exception()).__name__
    >>> mosaic.run(main, num_workers=1)
    'TaskCancelledError'
    """
    return _end(proxy, KILL, "kill", None)


def _end(proxy: Any, kind: int, what: str, timeout: float | None) -> Any:
    if isinstance(proxy, ArrayProxy):
        tasks = [_end(member, kind, what, timeout) for member in proxy]
        return TaskArrayProxy(tasks)
    _expect(proxy, what)
    handle = proxy._mosaic_handle
    runtime = handle.runtime
    call = runtime.submit(handle, _CLOSE_METHOD, NOTHING, Extra(kind=kind), 3)
    task: TaskProxy[None] = TaskProxy(runtime, call)
    if kind == KILL:
        return _Killing(task)
    return task if timeout is None else _InTime(task, timeout)


class _Killing:
    """The task of a kill: that there was nothing to close any more is no failure."""

    __slots__ = ("_task",)

    def __init__(self, task: TaskProxy[None]) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, None, TaskProxy[None]]:
        return self._wait().__await__()

    async def _wait(self) -> TaskProxy[None]:
        with contextlib.suppress(TaskCancelledError, LookupError):
            await self._task
        return self._task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


class _InTime:
    """A task whose awaiting has a limit."""

    __slots__ = ("_task", "_timeout")

    def __init__(self, task: TaskProxy[None], timeout: float) -> None:
        self._task = task
        self._timeout = timeout

    def __await__(self) -> Generator[Any, None, TaskProxy[None]]:
        return self._wait().__await__()

    async def _wait(self) -> TaskProxy[None]:
        task = self._task
        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await task
        except TimeoutError:
            if not limit.expired():
                raise  # by its __close__
            raise TimeoutError(
                f"{task.name} has not ended in {self._timeout:g} s; it goes on"
            ) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


class _Ready:
    """Awaitable: the stream to a tessera has credit."""

    __slots__ = ("_proxies",)

    def __init__(self, proxies: list[TesseraProxy[Any]]) -> None:
        self._proxies = proxies

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        for proxy in self._proxies:
            handle = proxy._mosaic_handle
            runtime: Any = handle.runtime
            stream: Stream = handle.stream

            def watch(
                then: Callable[[], Any], runtime: Any = runtime, stream: Any = stream
            ) -> None:
                if runtime.on_loop:
                    _watch_credit(stream, then)
                else:
                    runtime.post(_watch_credit, stream, then)

            await future_of(runtime, watch)


def _watch_credit(stream: Stream, then: Callable[[], Any]) -> None:
    """On the loop's thread: call it when a call would go out at once."""
    if stream.error is not None or (stream.credit > 0 and not stream.held):
        then()
    else:
        stream.watchers = (*stream.watchers, then)


def ready(proxy: TesseraProxy[Any] | ArrayProxy[Any]) -> _Ready:
    """To be awaited by who makes many calls: until fewer than 10,000 are under way.

    Without it calls are held here, with their arguments, and memory grows. For an array
    it waits for all of it.

    Args:
        proxy: of a tessera or an array.

    Raises:
        TypeError: it is no proxy.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Counter:
    ...     n = 0
    ...     def add(self, k): self.n += k
    >>> async def main():
    ...     counter = Counter.remote()
    ...     for k in range(100):
    ...         await mosaic.ready(counter)
    ...         counter.add(k)
    ...     return await counter.n
    >>> mosaic.run(main, num_workers=1)
    4950
    """
    if isinstance(proxy, ArrayProxy):
        return _Ready(list(proxy))
    _expect(proxy, "ready")
    return _Ready([proxy])


@overload
def call(
    proxy: TesseraProxy[T],
    method: Callable[Concatenate[T, P], Coroutine[Any, Any, R]],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> TaskProxy[R]: ...
@overload
def call(
    proxy: TesseraProxy[T],
    method: Callable[Concatenate[T, P], R],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> TaskProxy[R]: ...
def call(proxy: Any, method: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call a method with its types checked: ``call(proxy, Klass.method, *args)``.

    The same as ``proxy.method(*args)``, and so ``Klass`` may be a base of the object's
    class.

    Args:
        proxy: of a tessera.
        method: a function of its class.
        args, kwargs: of the call; all of them are the method's.

    Raises:
        AttributeError: the class of the object has no such method.
        TypeError: it is no proxy, or the arguments do not fit the method.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Counter:
    ...     def add(self, k: int) -> int: return k + 1
    >>> async def main():
    ...     task = mosaic.call(Counter.remote(), Counter.add, 5)  # TaskProxy[int]
    ...     return await task.result()
    >>> mosaic.run(main, num_workers=1)
    6
    """
    _expect(proxy, "call")
    name = getattr(method, "__name__", None)
    schema = proxy._mosaic_schema
    found = schema.methods.get(name)
    if found is None:
        raise AttributeError(f"{schema.name} has no method {name or method!r}")
    return RemoteMethod(proxy._mosaic_handle, schema, found)(*args, **kwargs)


def _expect(proxy: Any, what: str) -> None:
    if not isinstance(proxy, TesseraProxy):
        raise TypeError(f"{what}() takes the proxy of a tessera, not {proxy!r}")


# -- the current runtime ---------------------------------------------------------------


async def barrier(timeout: float | None = None) -> None:
    """Wait until all calls of this program, and those made inside them, have ended.

    Args:
        timeout: seconds; None waits for ever.

    Raises:
        TimeoutError: some have not ended; they go on.
        RuntimeError: there is no runtime.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Store:
    ...     seen = ()
    ...     def put(self, x): self.seen += (x,)
    >>> @mosaic.tessera
    ... class Producer:
    ...     def produce(self, store): store.put(1)  # its end is not awaited
    >>> async def main():
    ...     store = Store.remote()
    ...     Producer.remote().produce(store)
    ...     await mosaic.barrier()
    ...     return await store.seen
    >>> mosaic.run(main, num_workers=2)
    (1,)
    """
    await session.current().barrier(timeout)


def logger() -> logging.Logger:
    """A logger for programs and methods; there need be no runtime.

    What a method logs appears at the head. At the head itself nothing is configured:
    ``logging.basicConfig(level="INFO")`` shows more than warnings.

    >>> logger().name
    'mosaic_like'
    """
    return logging.getLogger("mosaic_like")
