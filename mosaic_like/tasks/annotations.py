"""How an argument is to be taken: ``unmapped``, ``allow_failure`` and ``quote``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms.messages import ALLOWED, QUOTED
from ..comms.serialization import Referent
from ..proxies.task import TaskHandle, TaskProxy

if TYPE_CHECKING:
    from ..core.call import Call


class Unmapped:
    """One value for all calls of a ``map``; see ``unmapped``."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        raise TypeError("unmapped(...) is for arguments of map: pass the value itself")


def unmapped(value: Any, /) -> Any:
    """An argument of ``map`` that goes to each call as it is.

    >>> import mosaic_like as mosaic
    >>> @mosaic.task
    ... def among(x, values): return x in values
    >>> async def main():
    ...     return await among.map([1, 5], mosaic.unmapped([1, 2])).result()
    >>> mosaic.run(main, num_workers=1)
    [True, False]
    """
    return Unmapped(value)


class _Quoted(TaskHandle):
    __slots__ = ()
    kind = QUOTED


class _Allowed(TaskHandle):
    __slots__ = ()
    kind = ALLOWED


class Marked(Referent):
    """A task as an argument that does not simply stand for its value."""

    __slots__ = ("_task",)

    def __init__(self, task: TaskProxy[Any]) -> None:
        self._task = task


class Quote(Marked):
    """See ``quote``."""

    __slots__ = ()

    def __reference__(self) -> tuple[TaskHandle, tuple[Any, ...]]:
        handle, _ = self._task.__reference__()
        return _Quoted(handle.proxy), ("quoted",)


class AllowFailure(Marked):
    """See ``allow_failure``."""

    __slots__ = ()

    def __reference__(self) -> tuple[TaskHandle, tuple[Any, ...]]:
        handle, _ = self._task.__reference__()
        proxy = handle.proxy
        call = proxy._call
        # Somebody asks for it: nothing is to be logged of its failure.
        proxy._runtime.when_settled(call, lambda: _heard(call))
        return _Allowed(proxy), ("allowed",)


def _heard(call: Call) -> None:
    if call.rare is not None:
        call.rare.unheard = False


def quote(task: TaskProxy[Any], /) -> Any:
    """The task itself as an argument, at any depth: nobody waits for its value.

    Raises:
        TypeError: it is no task.

    >>> import mosaic_like as mosaic
    >>> @mosaic.task
    ... def one(): return 1
    >>> @mosaic.task
    ... def name_of(task): return task.get(), type(task).__name__
    >>> async def main():
    ...     return await name_of.submit(mosaic.quote(one.submit())).result()
    >>> mosaic.run(main, num_workers=2)
    (1, 'TaskProxy')
    """
    return Quote(_checked("quote", task))


def allow_failure(task: TaskProxy[Any], /) -> Any:
    """A task as an argument, at any depth, that may fail: then it is the exception.

    Raises:
        TypeError: it is no task.

    >>> import mosaic_like as mosaic
    >>> @mosaic.task
    ... def broken(): raise ValueError("no")
    >>> @mosaic.task
    ... def seen(found): return repr(found)
    >>> async def main():
    ...     return await seen.submit(mosaic.allow_failure(broken.submit())).result()
    >>> mosaic.run(main, num_workers=1)
    "ValueError('no')"
    """
    return AllowFailure(_checked("allow_failure", task))


def _checked(name: str, task: Any) -> TaskProxy[Any]:
    # What stands for a task while a function is drawn is as good.
    drawn = getattr(type(task), "__mosaic_drawn__", False)
    if not isinstance(task, TaskProxy) and not drawn:
        raise TypeError(f"{name}() takes a task, not {task!r}")
    found: TaskProxy[Any] = task
    return found
