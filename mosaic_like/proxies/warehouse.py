"""Values that are kept in the warehouse: ``put``, ``get``, ``drop``, ``exec``.

A value is put once and read by many: arguments that mention it carry only where it is,
and each process takes it from the warehouse of its host, whoever computes meanwhile.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeVar,
    overload,
)

from .. import session
from ..core.names import KEY_CHARACTERS
from ..text import is_utf8
from .runtime import check_open
from .task import TaskHandle, TaskProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
V = TypeVar("V")
P = ParamSpec("P")

_DEPTH = 3  # of the program's frame, from who asks the runtime below
_FORGOT = (
    "this is a reference to a value in the warehouse, not the value; write "
    "'await mosaic.get(ref)'{}"
)


class WarehouseObject(TaskProxy[R_co], gc=False, eq=False):
    """A reference to a value in the warehouse; what ``mosaic.put`` gives.

    As an argument, at any depth, it stands for its value; inside a result, or a value
    that is put, it stays a reference. The value is kept as long as any process holds a
    reference to it, or it is under a key. It is a task that was put rather than called,
    and can what tasks can: ``result()``, ``get()``, ``size()``, ``outputs``.
    """

    def __reference__(self) -> tuple[TaskHandle, tuple[Any, ...]]:
        check_open(self._runtime, "this reference")
        return TaskHandle(self), ("task", "put")

    if TYPE_CHECKING:  # it gives itself, as any task does

        def __await__(self) -> Generator[Any, None, WarehouseObject[R_co]]: ...

    async def value(self) -> R_co:
        """The value; the same as ``await mosaic.get(ref)``."""
        return await self.result()

    @overload
    def apply(
        self: WarehouseObject[V],
        fn: Callable[Concatenate[V, P], Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> TaskProxy[T]: ...
    @overload
    def apply(
        self: WarehouseObject[V],
        fn: Callable[Concatenate[V, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> TaskProxy[T]: ...
    def apply(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call ``fn(value, *args, **kwargs)`` in a worker; a task.

        Raises:
            TypeError: ``fn`` cannot be called.
            SerializationError: ``fn`` or an argument cannot travel.
        """
        _check_callable("apply", fn)
        runtime = self._runtime
        return TaskProxy(runtime, runtime.storing.apply(fn, (self, *args), kwargs, 2))

    def drop(self) -> TaskProxy[None]:
        """Forget the value now, whoever holds it; see ``mosaic.drop``."""
        runtime = self._runtime
        return TaskProxy(runtime, runtime.storing.drop(self, 2))

    def __repr__(self) -> str:
        task = TaskProxy.__repr__(self)
        return task.replace("<Task ", "<WarehouseObject ").replace(
            "await t.result()", "await mosaic.get(ref)"
        )

    def _forgot(self, hint: str = "") -> TypeError:
        return TypeError(_FORGOT.format(hint))


class Reading(Generic[R_co]):
    """What ``mosaic.get`` gives: awaiting it gives the value."""

    __slots__ = ("_task",)

    def __init__(self, task: TaskProxy[R_co]) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, None, R_co]:
        return self._task.result().__await__()

    def get(self, timeout: float | None = None) -> R_co:
        """The value, blocking; for threads and plain methods.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: it has not come in time.
        """
        return self._task.get(timeout)

    def __bool__(self) -> bool:
        raise TypeError("the value has not been awaited: write 'await mosaic.get(…)'")

    def __repr__(self) -> str:
        return f"<reading {self._task.name}: await it>"


def put(obj: T, *, key: str | None = None, publish: bool = False) -> WarehouseObject[T]:
    """Keep a value, as it is now, in the warehouse; the reference, at once.

    It may be used at once, too: awaiting it only tells that the value is kept. It is
    written once: to change the source later changes nothing, and arrays that are read
    are read-only. Without a key it is kept as long as somebody holds a reference; a key
    keeps it until ``mosaic.drop(key)``.

    Args:
        obj: anything that can be an argument. Tasks and references inside stay such.
        key: a name under which ``mosaic.get`` finds it, in every process.
        publish: put a copy into the warehouse of every host.

    Raises:
        SerializationError: it cannot travel; nothing is put.
        TypeError: it is a task, whose value has a place already: use the task itself.
        ValueError: by awaiting: there is a value under this key, and values are written
            once; drop it first, or use ``mosaic.exec``.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Solver:
    ...     def solve(self, model, k): return sum(model) * k
    >>> async def main(runtime):
    ...     model = mosaic.put([1, 2, 3])
    ...     solvers = [Solver.remote() for _ in range(2)]
    ...     return await mosaic.gather(s.solve(model, k) for k, s in enumerate(solvers))
    >>> mosaic.run(main, num_workers=2)
    [0, 6]
    """
    return put_in(session.current(), obj, key, publish)


def put_in(runtime: Any, obj: T, key: str | None, publish: bool) -> WarehouseObject[T]:
    """See ``put``."""
    if isinstance(obj, TaskProxy):
        raise TypeError(
            f"put({obj!r}): its value has a place already; pass the task itself on, or "
            "put(await task.result())"
        )
    if key is not None:
        _check_key("put", key)
    return WarehouseObject(runtime, runtime.storing.put(obj, key, publish, _DEPTH))


@overload
def get(ref: TaskProxy[T], /) -> Reading[T]: ...
@overload
def get(ref: str, /) -> Reading[Any]: ...
def get(ref: Any, /) -> Any:
    """The value of a reference or key: ``await mosaic.get(ref)``.

    In a plain method, which cannot await: ``mosaic.get(ref).get()``.

    Args:
        ref: what ``put`` gave, any other task, or a key.

    Raises:
        LookupError: by awaiting: there is no value under this key, or it was dropped.
        RuntimeDisconnectedError: by awaiting: the warehouse that had it is lost; put
            it again.
    """
    return get_in(session.current(), ref)


def get_in(runtime: Any, ref: Any) -> Any:
    """See ``get``."""
    if isinstance(ref, TaskProxy):
        return Reading(ref)
    _check_key("get", ref)
    return Reading(TaskProxy(runtime, runtime.storing.look(ref, _DEPTH)))


def drop(ref: WarehouseObject[Any] | str, /) -> TaskProxy[None]:
    """Forget a value now; may be awaited.

    A value that nobody holds a reference to is forgotten anyway. By its reference it
    goes whoever holds others: who reads it then gets a LookupError; copies of a
    published one go a moment later. By its key only the key goes, and the value is
    kept for those who hold references to it.

    Args:
        ref: what ``put`` gave, or a key.

    Raises:
        TypeError: it is neither: a task's value goes with the task.
        LookupError: by awaiting: there is no such value or key.
    """
    return drop_in(session.current(), ref)


def drop_in(runtime: Any, ref: Any) -> TaskProxy[None]:
    """See ``drop``."""
    if isinstance(ref, WarehouseObject):
        return TaskProxy(runtime, runtime.storing.drop(ref, _DEPTH))
    _check_key("drop", ref)
    return TaskProxy(runtime, runtime.storing.drop_key(ref, _DEPTH))


@overload
def exec(
    key: str, fn: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any
) -> WarehouseObject[T]: ...
@overload
def exec(
    key: str, fn: Callable[..., T], /, *args: Any, **kwargs: Any
) -> WarehouseObject[T]: ...
def exec(key: str, fn: Any, /, *args: Any, **kwargs: Any) -> WarehouseObject[Any]:
    """Replace the value under a key by ``fn(value, *args, **kwargs)``, atomically.

    Nobody else replaces or drops it meanwhile: they wait for their turn. The function
    runs in a worker. Where there is no value it is called with None, and makes the
    first one. When it raises, the value stays what it was.

    Args:
        key: of the value.
        fn: a plain or coroutine function; the value that it is given is read-only, or
            its own copy.
        args, kwargs: its further arguments.

    Returns:
        A reference to the new value; awaiting it tells that it is in its place.

    Raises:
        TypeError: ``fn`` cannot be called.
        SerializationError: ``fn`` or an argument cannot travel.
        Exception: by awaiting: what ``fn`` raised.

    >>> import mosaic_like as mosaic
    >>> async def main():
    ...     for i in range(3):
    ...         longest = mosaic.exec("words", lambda words, w: [*(words or ()), w], i)
    ...     return await mosaic.get(longest)
    >>> mosaic.run(main, num_workers=2)
    [0, 1, 2]
    """
    return exec_in(session.current(), key, fn, args, kwargs)


def exec_in(
    runtime: Any,
    key: str,
    fn: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> WarehouseObject[Any]:
    """See ``exec``."""
    _check_key("exec", key)
    _check_callable("exec", fn)
    return WarehouseObject(runtime, runtime.storing.exec(key, fn, args, kwargs, _DEPTH))


def _check_key(what: str, key: Any) -> None:
    if not isinstance(key, str):
        expected = "a key (a str)"
        if what in ("get", "drop"):
            expected += " or what put() gave"
        hint = ""
        if what == "exec" and isinstance(key, WarehouseObject):
            hint = "; ref.apply(fn, ...) makes a new value of that of a reference"
        raise TypeError(f"{what}() takes {expected}, not {key!r}{hint}")
    if not key:
        raise ValueError(f"{what}(): a key may not be empty")
    if not is_utf8(key):
        raise ValueError(
            f"{what}(): found the key {key!r}, expected text that can be UTF-8; "
            "os.fsencode(name).hex() makes a key of any file's name"
        )
    if len(key) > KEY_CHARACTERS:
        raise ValueError(
            f"{what}(): found a key of {len(key):,} characters, expected at most "
            f"{KEY_CHARACTERS:,}: put what it says into the value"
        )


def _check_callable(what: str, fn: Any) -> None:
    if not callable(fn):
        raise TypeError(f"{what}() takes a function to call with the value, not {fn!r}")
