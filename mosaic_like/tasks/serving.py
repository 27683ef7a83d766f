"""Tasks that other programs of a cluster call by name: ``serve`` and ``runtime.task``.

One tessera of the cluster knows the tasks that are served. Who calls one by its name
needs no code of it: the call is made where that tessera is, and runs in any worker.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..proxies.decorator import remote
from .function import Task

if TYPE_CHECKING:
    from ..proxies.task import TaskProxy
    from ..proxies.tessera import TesseraProxy

_NAME = "mosaic.served"
_LISTED = 20  # names that an error gives


class Registry:
    """The tasks that are served in a cluster, by key."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}

    def register(self, tasks: list[Task[..., Any]]) -> None:
        """Serve these; a later one of the same key replaces the former."""
        self._tasks.update((task.key, task) for task in tasks)

    def keys(self) -> list[str]:
        return sorted(self._tasks)

    async def run(self, key: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value of a call of one.

        Raises:
            LookupError: it is not served.
        """
        task = self._tasks.get(key)
        if task is None:
            raise LookupError(self._unknown(key))
        proxy = task.submit(*args, **kwargs)
        try:
            return await proxy.result()
        except asyncio.CancelledError:
            proxy.cancel("the call of it by name was cancelled")
            raise

    def _unknown(self, key: str) -> str:
        keys = self.keys()
        listed = ", ".join(map(repr, keys[:_LISTED])) or "none"
        more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
        return (
            f"no task {key!r} is served in this cluster; there are: {listed}{more}; "
            "the program that has it says 'await runtime.serve(...)'"
        )


def _registry() -> TesseraProxy[Registry]:
    """That of the cluster, made when it is first asked for."""
    return remote(Registry, name=_NAME, detached=True, is_async=True)()


async def serve(tasks: tuple[Any, ...]) -> None:
    """See ``runtime.serve``."""
    for task in tasks:
        if not isinstance(task, Task):
            raise TypeError(f"serve() takes tasks, made by @task, not {task!r}")
    await _registry().register(list(tasks))


async def served() -> list[str]:
    """See ``runtime.served``."""
    keys: list[str] = await _registry().keys().result()
    return keys


class ServedTask:
    """A task of another program, by its name; ``runtime.task(key)`` gives it.

    Args:
        key: as the task's own ``key`` has it: ``module:name``.

    Raises:
        ValueError: the key has not this form.
    """

    def __init__(self, key: str) -> None:
        module, _, name = key.partition(":")
        if not module or not name:
            raise ValueError(
                f"the name of a task is like 'module:function', its key; found {key!r}"
            )
        self.key = key
        self._registry = _registry()

    def submit(self, *args: Any, **kwargs: Any) -> TaskProxy[Any]:
        """Run it in some worker of the cluster; returns at once.

        Raises:
            LookupError: by awaiting: no such task is served; the text lists those that
                are.
            TypeError: by awaiting: the arguments do not fit its signature.
            SerializationError: an argument cannot travel.
        """
        made: TaskProxy[Any] = self._registry.run(self.key, args, kwargs)
        return made

    def __repr__(self) -> str:
        return f"<served task {self.key}>"
