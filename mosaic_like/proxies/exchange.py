"""What is on its way between a copy of a parameter and its root.

An ``Exchange`` is a question, which somebody awaits; what was ``Sent`` changes the
root, and its answer is taken in also where nobody awaits it. What is asked, and what an
answer does to the copy, is in ``replica``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..core.task import DONE
from ..errors import RuntimeDisconnectedError, StaleError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from .replica import Replica
    from .task import TaskProxy

T = TypeVar("T")


class Exchange(Generic[T]):
    """A question to the root of a parameter, which is under way.

    ``await`` gives the answer, in a plain method ``get(timeout)`` does. What it brings
    for the copy is taken only then.
    """

    __slots__ = ("_apply", "_lost_from", "_replica", "_tasks", "_value")

    def __init__(
        self,
        replica: Replica,
        tasks: list[TaskProxy[Any]],
        apply: Callable[..., T] | None,
        value: Any = None,
        lost_from: int | None = None,
    ) -> None:
        self._replica = replica
        self._tasks = tasks
        self._apply = apply
        self._value = value
        # From this one on they may be lost with their runtimes.
        self._lost_from = len(tasks) if lost_from is None else lost_from

    def __await__(self) -> Generator[Any, None, T]:
        values = []
        try:
            for index, task in enumerate(self._tasks):
                try:
                    values.append((yield from task.result().__await__()))
                except RuntimeDisconnectedError:
                    if index < self._lost_from:
                        raise
        finally:
            self._replica.collect()
        return self._answered(values)

    def get(self, timeout: float | None = None) -> T:
        """The answer, blocking; for threads and plain methods.

        Args:
            timeout: seconds for each call of the root; None waits for ever.

        Raises:
            TimeoutError: there is none in time; it is still under way.
            RuntimeError: this is the loop's thread: write ``await``.
        """
        values = []
        try:
            for index, task in enumerate(self._tasks):
                try:
                    values.append(task.get(timeout))
                except RuntimeDisconnectedError:
                    if index < self._lost_from:
                        raise
        finally:
            self._replica.collect()
        return self._answered(values)

    def _answered(self, values: list[Any]) -> T:
        if self._apply is not None:
            self._value = self._apply(values)
            self._apply = None  # it may hold the copy
        value: T = self._value
        return value

    def __repr__(self) -> str:
        return f"<exchange with {self._replica.label} · await it for the answer>"


class Sent:
    """A write that is under way; not the copy, so that there is no circle."""

    __slots__ = ("_task", "names")

    def __init__(self, task: TaskProxy[Any], names: Iterable[str] = ()) -> None:
        self._task = task
        self.names = tuple(names)

    def answered(self, replica: Replica) -> bool:
        """Whether its answer is here, which is then taken in."""
        call, runtime = self._task._call, self._task._runtime
        if call.state < DONE:
            return False
        if call.state != DONE:
            # Looked at without asking: if nobody awaits it, it is still complained of.
            rare = call.rare
            unheard = rare is not None and rare.unheard
            error = runtime.error_of(call)
            if rare is not None:
                rare.unheard = unheard
            self._failed(replica, error)
            return True
        if runtime.is_away(call):
            return False  # it is large; who awaits it gets it
        self._ended(replica, runtime.value_of(call))
        return True

    def _ended(self, replica: Replica, value: Any) -> None: ...

    def _failed(self, replica: Replica, error: BaseException) -> None: ...


class Written(Sent):
    __slots__ = ()

    def _ended(self, replica: Replica, value: Any) -> None:
        replica.versions.taken(value)

    def _failed(self, replica: Replica, error: BaseException) -> None:
        replica.refused(self.names)
        if isinstance(error, StaleError):
            replica.learned(error.versions)


class Ran(Sent):
    __slots__ = ()

    def _ended(self, replica: Replica, value: Any) -> None:
        replica.learned(value[2][0])

    def _failed(self, replica: Replica, error: BaseException) -> None:
        replica.unsure()
