"""Parts of a task's value, and the token that only orders."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn

from ..comms.gathering import OUTPUT, carries_key
from ..comms.messages import ERROR, REASONS
from ..comms.serialization import Referent

if TYPE_CHECKING:
    from collections.abc import Generator

    from .task import TaskHandle, TaskProxy


class _After:
    """Stands for an argument that only orders; it is taken out before the call."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "AFTER"


AFTER = _After()
_NAMED = 10  # keys that an error lists


class NoSuchOutput(KeyError, IndexError):
    """``outputs[key]`` of a value that has no such part; the text says what it has."""

    def __str__(self) -> str:  # KeyError would put it in quotes
        return str(self.args[0])


def _missing(value: tuple[Any, ...] | dict[Any, Any], key: Any) -> str:
    if isinstance(value, tuple):
        return f"outputs[{key!r}]: the value is a tuple of {len(value)}"
    names = ", ".join(repr(name) for name in list(value)[:_NAMED])
    more = f" and {len(value) - _NAMED} more" if len(value) > _NAMED else ""
    return f"outputs[{key!r}]: the value is a dict with {names or 'nothing'}{more}"


class Outputs:
    """``task.outputs``: indexing gives a part, ``done`` the token.

    A tuple has ``outputs[i]``, a dict ``outputs["key"]`` and ``outputs.key``; any other
    value has only ``outputs[0]``, the value itself.
    """

    __slots__ = ("_task",)

    def __init__(self, task: TaskProxy[Any]) -> None:
        self._task = task

    @property
    def done(self) -> TaskDone:
        """A token that orders. A dict's own key of this name is ``outputs["done"]``."""
        return TaskDone(self._task)

    def __getitem__(self, key: Any) -> TaskOutput:
        return TaskOutput(self._task, key)

    def __getattr__(self, name: str) -> TaskOutput:
        if name.startswith("_"):
            raise AttributeError(name)
        return TaskOutput(self._task, name)

    def __iter__(self) -> Any:
        raise TypeError("how many outputs there are is known when the task has ended")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"these are the parts of a task ({self._task.name}), of which one is sent "
            "as t.outputs[i] or t.outputs['key']; t itself stands for the whole value"
        )

    def __repr__(self) -> str:
        return f"<Outputs of {self._task.name}>"


class TaskOutput(Referent):
    """One part of a task's value: an argument of other calls, or awaited."""

    __slots__ = ("_key", "_task")

    def __init__(self, task: TaskProxy[Any], key: Any) -> None:
        self._task = task
        self._key = key

    def __reference__(self) -> tuple[TaskHandle, tuple[Any, ...]]:
        handle, _ = self._task.__reference__()
        return handle, (OUTPUT, self._key)

    def __await__(self) -> Generator[Any, None, TaskOutput]:
        task = self._task
        yield from task.__await__()
        return self

    async def result(self) -> Any:
        """The part; of a large value it alone is brought here.

        Raises:
            IndexError, KeyError: the value has no such part; the text has those it has.
            Exception: what the method raised.

        >>> import mosaic_like as mosaic
        >>> @mosaic.tessera
        ... class Solver:
        ...     def both(self): return 1, list(range(1_000_000))
        >>> async def main():
        ...     return await Solver.remote().both().outputs[0].result()
        >>> mosaic.run(main, num_workers=1)
        1
        """
        task = self._task
        await task
        part = self._alone()
        if part is not None:
            try:
                return await part.result()
            except Exception:
                if part.reason == REASONS[ERROR]:
                    raise
                # Its owner could not: what is wrong with the whole says why.
        return self.pick(await task.result(), self._key)

    def get(self, timeout: float | None = None) -> Any:
        """The part, blocking; for threads and plain methods.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: it is not here in time.
            IndexError, KeyError: the value has no such part; the text has those it has.
            RuntimeError: this is the loop's thread: write ``await part.result()``.
            Exception: what the method raised.

        >>> import mosaic_like as mosaic
        >>> @mosaic.tessera
        ... class Solver:
        ...     def both(self): return 1, 2
        ...     def second(self, solver): return solver.both().outputs[1].get()
        >>> async def main():
        ...     return await Solver.remote().second(Solver.remote()).result()
        >>> mosaic.run(main, num_workers=2)
        2
        """
        until_s = None if timeout is None else time.monotonic() + timeout

        def left_s() -> float | None:
            return None if until_s is None else max(until_s - time.monotonic(), 0.0)

        task = self._task.wait(timeout)
        part = self._alone()
        if part is not None:
            try:
                return part.get(left_s())
            except Exception:
                if not part.done() or part.reason == REASONS[ERROR]:
                    raise
        return self.pick(task.get(left_s()), self._key)

    def _alone(self) -> TaskProxy[Any] | None:
        """The part as a task of its own, if the value of the task is elsewhere."""
        if not carries_key(self._key):
            return None
        task: TaskProxy[Any] = self._task
        alone: TaskProxy[Any] | None = task._runtime.part_of(task, self._key)
        return alone

    @staticmethod
    def pick(value: Any, key: Any) -> Any:
        """The part of a value that ``outputs[key]`` means."""
        if isinstance(value, tuple | dict):
            try:
                return value[key]
            except (LookupError, TypeError):
                raise NoSuchOutput(_missing(value, key)) from None
        if key == 0 and type(key) is int:
            return value
        raise NoSuchOutput(
            f"outputs[{key!r}]: a {type(value).__name__} has only outputs[0]"
        )

    @staticmethod
    def rebuild(task: TaskProxy[Any], args: tuple[Any, ...]) -> Any:
        """What a reference in a result stands for."""
        return TaskOutput(task, args[1]) if args[0] == OUTPUT else TaskDone(task)

    def __repr__(self) -> str:
        return f"<{self._task.name} outputs[{self._key!r}]>"


class TaskDone(Referent):
    """That a task has ended well: as an argument it only orders, and is left out."""

    __slots__ = ("_task",)

    def __init__(self, task: TaskProxy[Any]) -> None:
        self._task = task

    def __reference__(self) -> tuple[TaskHandle, tuple[Any, ...]]:
        handle, _ = self._task.__reference__()
        return handle, ("done",)

    def __call__(self) -> bool:
        """Whether the task has ended."""
        return self._task._call.settled

    def __bool__(self) -> bool:
        raise TypeError("the token is always there; write p.done() to ask")

    def __await__(self) -> Generator[Any, None, None]:
        yield from self._task.__await__()

    def __repr__(self) -> str:
        return f"<{self._task.name} done>"


class After(Referent):
    """A TaskDone that stood among the arguments themselves."""

    __slots__ = ("_token",)

    def __init__(self, token: TaskDone) -> None:
        self._token = token

    def __reference__(self) -> tuple[TaskHandle, tuple[Any, ...]]:
        handle, _ = self._token.__reference__()
        return handle, ("after",)
