"""What tasks wait for, as their user says and asks it: the verbs of graphs.

``tasks/connections`` does it, and ``core/dependencies`` decides; awaiting a task and
all else that it can do stands in ``task``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, cast

from ..comms.frames import UNSEEN

if TYPE_CHECKING:
    from ..core.call import Call
    from .task import TaskProxy


class Connected:
    """A task among others that it waits for, or that wait for it."""

    __slots__ = ()

    if TYPE_CHECKING:
        _runtime: Any
        _call: Call

    def submit(self, *, wait: bool = True) -> Self:
        """Send a task that ``f.task(...)`` has prepared, with all that it waits for.

        Awaiting it, or passing it to a call that is sent, does the same.

        Args:
            wait: False: only if nothing is left that it has to wait for.

        Raises:
            InvalidTransitionError: it is not in state prepare.
            BlockedError: it was not to wait and has to; ``blockers()`` are the tasks.

        >>> import mosaic_like as mosaic
        >>> @mosaic.task
        ... def double(x): return 2 * x
        >>> async def main():
        ...     first = double.task(1)
        ...     second = double.task(first).submit()
        ...     return await second.result()
        >>> mosaic.run(main, num_workers=1)
        4
        """
        with UNSEEN:
            self._runtime.at_once(self._runtime.connections.submit, self._call, wait)
        return self

    def require(self, *others: Connected) -> Self:
        """Let it wait until others have ended well, without their values.

        Raises:
            InvalidTransitionError: it was given to the workers, or has ended.
            CycleError: one of the others waits for this one; the text names the path.
            TypeError: not a task.
        """
        _check_tasks("require", others)
        with UNSEEN:
            self._runtime.at_once(self._runtime.connections.require, self._call, others)
        return self

    def block(self, *others: Connected) -> Self:
        """Let others wait until this one has ended well; see ``require``."""
        _check_tasks("block", others)
        with UNSEEN:
            for other in others:
                other.require(self)
        return self

    def then(self, fn: Any, /, *args: Any, **kwargs: Any) -> TaskProxy[Any]:
        """What comes after it: a task that is prepared, and sent when it is wanted.

        Args:
            fn: a task or function, called with the value of this one and the other
                arguments; or a task that was prepared, which then only waits for it.
            args, kwargs: further arguments.

        Returns:
            The task that comes after; hold it, or nobody can ask for it.

        >>> import mosaic_like as mosaic
        >>> @mosaic.task
        ... def double(x): return 2 * x
        >>> async def main():
        ...     return await double.task(1).then(double).then(pow, 3).result()
        >>> mosaic.run(main, num_workers=1)
        64
        """
        if isinstance(fn, Connected):
            if args or kwargs:
                raise TypeError("then: a task that was prepared has its arguments")
            return cast("TaskProxy[Any]", fn).require(self)
        with UNSEEN:
            after: TaskProxy[Any]
            after = self._runtime.connections.then(self, fn, args, kwargs)
            return after

    @property
    def required(self) -> frozenset[TaskProxy[Any]]:
        """What it waits for, or has waited for, as far as somebody holds that."""
        connections = self._runtime.connections
        return frozenset(self._runtime.at_once(connections.required, self._call))

    @property
    def blocking(self) -> frozenset[TaskProxy[Any]]:
        """What waits for it, as far as somebody holds that."""
        connections = self._runtime.connections
        return frozenset(self._runtime.at_once(connections.blocking, self._call))

    def blockers(self) -> list[TaskProxy[Any]]:
        """What it still waits for: all that has not ended well."""
        connections = self._runtime.connections
        found: list[TaskProxy[Any]]
        found = self._runtime.at_once(connections.blockers, self._call)
        return found

    def retry(self) -> Self:
        """Run a function task again that has failed or was cancelled.

        The tasks that ended only because of it are pending again too, and run when
        they can: repair what was wrong, retry the one that failed, await the last.

        Raises:
            InvalidTransitionError: it has not ended, or is done.
            TypeError: it is no function task that this runtime has submitted.
        """
        with UNSEEN:
            self._runtime.at_once(self._runtime.connections.retry, self._call)
        return self

    def abort(self) -> None:
        """Give it up for good, and with it all tasks that wait for it.

        Raises:
            InvalidTransitionError: it runs (cancel it first), or is done.
        """
        with UNSEEN:
            self._runtime.at_once(self._runtime.connections.abort, self._call)


def _check_tasks(what: str, tasks: tuple[Any, ...]) -> None:
    for task in tasks:
        if not isinstance(task, Connected):
            raise TypeError(
                f"{what}() takes tasks, such as f.task(...) gives, not {task!r}"
            )
