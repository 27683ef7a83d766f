"""What a method can learn of itself: the task that it runs, and its own tessera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import ids, session
from ..core.references import Grant
from ..proxies.handles import TesseraHandle
from ..proxies.limits import limits_of
from ..proxies.tessera import proxy_of
from .port import CURRENT

if TYPE_CHECKING:
    from ..core.task import Task
    from ..proxies.tessera import TesseraProxy
    from ..tasks.function import Task as AnyTask


class CurrentTask:
    """The call that runs here."""

    __slots__ = ("_task",)

    def __init__(self, task: Task) -> None:
        self._task = task

    @property
    def uid(self) -> str:
        """Unique in the cluster; the caller's ``task.uid`` is the same."""
        return ids.task_name(self._task.first_uid)

    @property
    def name(self) -> str:
        """Tessera and method, or function."""
        return self._task.name

    @property
    def runtime_id(self) -> str:
        """Of the worker where it runs, such as ``worker:0:1``."""
        return str(session.current().uid)

    @property
    def cancelled(self) -> bool:
        """Somebody has asked that it ends."""
        return self._task.cancelled is not None

    @property
    def attempt(self) -> int:
        """1 at the first try."""
        runtime: Any = session.current()
        attempt: int = runtime.executor.attempts.shown(self._task)
        return attempt

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments by name, with defaults: read again, so they are copies.

        Raises:
            RuntimeError: it is a constructor, or no function or method.
        """
        from ..tasks.current import parameters

        return parameters(self._task)

    @property
    def task(self) -> AnyTask[..., Any] | None:
        """The function that runs, as a task; None: a method, or a call of an Executor.

        With its options where it stands in a module, else without.
        """
        from ..tasks.current import task

        return task(self._task)

    @property
    def info(self) -> dict[str, str]:
        """``name``, ``key`` and ``version``, as a ``cache_key`` function has them."""
        from ..tasks.current import info

        return info(self._task)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "the current task cannot leave its method; send mosaic.current_task().uid, "
            "or mosaic.current_tessera()"
        )

    def __repr__(self) -> str:
        return f"<current task {self.name} {self.uid}>"


def current_task() -> CurrentTask:
    """The task that this method runs as.

    Raises:
        RuntimeError: this code does not run as a remote call; the caller has the task.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Solver:
    ...     def solve(self): return mosaic.current_task().name
    >>> async def main():
    ...     return await Solver.remote().solve().result()
    >>> mosaic.run(main, num_workers=1)
    'Solver#1.solve'
    """
    return CurrentTask(_task("current_task"))


def current_tessera() -> TesseraProxy[Any]:
    """A proxy of the tessera whose method this is, to be given to others.

    As long as anybody holds it the tessera lives: one that keeps it in itself is freed
    when the program ends.

    Raises:
        RuntimeError: this code does not run as a remote call, or is a constructor,
            whose object is not there yet.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Worker:
    ...     def register(self, office): office.note(mosaic.current_tessera())
    ...     def greet(self): return "hello"
    >>> @mosaic.tessera
    ... class Office:
    ...     def note(self, worker): self.worker = worker
    ...     async def ask(self): return await self.worker.greet().result()
    >>> async def main():
    ...     worker, office = Worker.remote(), Office.remote()
    ...     await worker.register(office)
    ...     await mosaic.barrier()
    ...     return await office.ask().result()
    >>> mosaic.run(main, num_workers=2)
    'hello'
    """
    tessera = _task("current_tessera").tessera
    if tessera.instance is None or not tessera.uid:
        raise RuntimeError(
            "current_tessera(): the constructor has not ended, so there is no tessera "
            "yet; call it in a method"
        )
    runtime: Any = session.current()
    if tessera.options.supervised is not None:
        return proxy_of(type(tessera.instance), runtime.restarts.current(tessera))
    me = runtime.incarnation
    table = runtime.worker.holders
    # Counted before it can be dropped: both are done on the loop, in this order.
    if runtime.on_loop:
        table.grant(tessera.uid, me, me)
    else:
        runtime.post(table.grant, tessera.uid, me, me)
    grant = Grant(tessera.uid, me, me, runtime.grants)
    stream = runtime.placing.met(tessera.uid, me, tessera.options.name)
    stream.options = limits_of(tessera.options)
    handle = TesseraHandle(runtime, tessera.uid, stream, None, grant)
    return proxy_of(type(tessera.instance), handle)


def _task(what: str) -> Task:
    task = CURRENT.get()
    if task is None:
        raise RuntimeError(f"{what}() is for methods of tesserae; nothing runs here")
    return task
