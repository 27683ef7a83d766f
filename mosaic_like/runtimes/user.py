"""The runtime as users have it: what it gives them, each in a method with its text.

How that is done is in parts of their own; who is here, in ``choosing``.
"""

from __future__ import annotations

import asyncio
import logging
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from ..comms import messages as wire
from ..proxies.warehouse import drop_in, exec_in, get_in, put_in
from .choosing import Choosing, WorkerInfo
from .leases import Leases, Loop
from .quiescence import Quiescence
from .transforming import Registration, Transforming

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ..comms.messages import Member
    from ..proxies.memory import MemoryReport
    from ..proxies.task import TaskProxy
    from ..proxies.warehouse import Reading, WarehouseObject
    from ..tasks.function import Task
    from ..tasks.serving import ServedTask

R = TypeVar("R")

_PUBLIC = (
    "async_for",
    "barrier",
    "config",
    "drain",
    "drop",
    "exec",
    "get",
    "get_worker",
    "logger",
    "memory",
    "nodes",
    "num_nodes",
    "num_workers",
    "put",
    "register_barrier_task",
    "serve",
    "served",
    "task",
    "transformer",
    "uid",
    "wait_for_workers",
    "workers",
)


class UserRuntime(Choosing):
    """What ``main(runtime)`` is given, and ``mosaic.runtime()`` gives."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.leases = Leases(self._open_workers)
        self._quiescence = Quiescence(self)
        self._transforming = Transforming(self)
        self._barrier_tasks: list[Callable[[], Awaitable[Any]]] = []
        # What the proxies of a tessera share in this runtime, by its uid.
        self.records: WeakValueDictionary[int, Any] = WeakValueDictionary()

    def __dir__(self) -> list[str]:
        """What users are given; all else is for the package."""
        return list(_PUBLIC)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "the runtime belongs to its process and cannot be sent: where a method "
            "runs, mosaic.runtime() is the one of its worker"
        )

    def joined_cluster(self, settings: bytes) -> None:
        super().joined_cluster(settings)
        self.handlers[wire.Quiesce] = self._quiescence.on_quiesce
        self.handlers[wire.Quiet] = self._quiescence.on_quiet
        self.handlers[wire.Transform] = self._transforming.on_transform

    def on_tick(self) -> bool:
        more = super().on_tick()
        return self.worker.archive.look() or more

    def member_joined(self, member: Member) -> None:
        self._transforming.joined(member)  # before anything else goes there
        super().member_joined(member)
        self.leases.changed()

    def leaving_changed(self) -> None:
        self.leases.changed()
        self._membership_changed()

    def member_lost(self, member: Member, cause: str) -> None:
        super().member_lost(member, cause)
        self._quiescence.lost(member)
        self._transforming.lost(member.incarnation)
        self.leases.changed()

    @property
    def logger(self) -> logging.Logger:
        """A logger for the program."""
        return logging.getLogger("mosaic_like")

    # -- waiting -----------------------------------------------------------------------

    async def barrier(self, timeout: float | None = None) -> None:
        """Wait until all tasks of this runtime, and those made inside them, have ended.

        Those made after it began are not waited for. Then what was registered by
        ``register_barrier_task`` runs, and what that has called is waited for.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: some have not ended; they go on.
        """
        try:
            async with asyncio.timeout(timeout) as limit:
                await self.on_runtime_loop(self._quiescence.reached())
                while self._barrier_tasks:
                    function = self._barrier_tasks.pop(0)
                    made = function()
                    if not isawaitable(made):
                        raise TypeError(
                            f"register_barrier_task({function!r}): it gave {made!r}, "
                            "which cannot be awaited: make it 'async def'"
                        )
                    await made
                    if not self._barrier_tasks:
                        await self.on_runtime_loop(self._quiescence.reached())
        except TimeoutError:
            if not limit.expired():
                raise  # of a registered coroutine
            here = len(self.caller.calls)
            raise TimeoutError(
                f"the barrier was not reached in {timeout:g} s: {here} calls of this "
                "runtime have not ended"
                + ("" if here else ", but some that were made inside them")
            ) from None

    def register_barrier_task(self, function: Callable[[], Awaitable[Any]]) -> None:
        """Run a coroutine function once, at the end of the next barrier.

        What it raises is raised by the barrier.

        Raises:
            TypeError: it cannot be called.
        """
        if not callable(function):
            raise TypeError(
                f"register_barrier_task takes a coroutine function, not {function!r}"
            )
        self._barrier_tasks.append(function)

    async def memory(self) -> MemoryReport:
        """The large values of the cluster, where they are and who holds them.

        Returns:
            What there is at about this moment: ``values``, the largest first, and
            ``hosts``, what they take of what they may; ``print`` shows it as a table.
            A process that does not answer in 3 s is named in ``silent``.

        >>> import mosaic_like as mosaic
        >>> async def main(runtime):
        ...     ref = await mosaic.put(bytes(100_000))
        ...     report = await runtime.memory()
        ...     return [(v.kind.value, v.holders) for v in report.values]
        >>> mosaic.run(main, num_workers=1)
        [('put', ('head',))]
        """
        report: MemoryReport = await self.on_runtime_loop(self.inventory.ask())
        return report

    # -- draining ----------------------------------------------------------------------

    async def drain(
        self, where: WorkerInfo | str, *, timeout: float | None = None
    ) -> None:
        """Take a worker, or a node with all its workers, out of the cluster in order.

        At once nothing new is placed there any more, and calls on its tesserae that are
        made from then on fail with RuntimeDisconnectedError, but for those made inside
        of calls that were made before. When all of these have ended
        its tesserae close, the last made first, what it keeps and somebody holds goes
        to a warehouse that stays, and it ends. It is not replaced. To cancel this call
        does not stop the drain.

        Args:
            where: of ``runtime.workers`` or ``runtime.nodes``, or its uid.
            timeout: seconds that calls there have. Those that have not ended by then
                are cancelled, and the rest goes on as said.

        Raises:
            TimeoutError: it has left, and some calls were cancelled.
            WorkerDied, NodeLost: it died before it was done: make again what you need.
            LookupError: there is no such worker or node.
            ValueError: it is the last one, or the node that has the keys; to end all of
                the cluster call ``mosaic.stop()``.
            RuntimeError: asked from what it would end: do it elsewhere.

        >>> import mosaic_like as mosaic
        >>> async def main(runtime):
        ...     await runtime.drain(runtime.workers[0], timeout=10)
        ...     return runtime.workers
        >>> len(mosaic.run(main, num_workers=2))
        1
        """
        from .draining import drain

        await self.on_runtime_loop(drain(self, where, timeout))

    # -- tasks by name -----------------------------------------------------------------

    async def serve(self, *tasks: Task[..., Any]) -> None:
        """Let other programs of the cluster call tasks by their keys.

        They join by ``mosaic.connect`` and say ``runtime.task("module:name")``. Serving
        one of the same key replaces it. One worker has copies of all that is served;
        when it dies, the programs that serve do so again, as long as they are there.

        Raises:
            TypeError: not a task.
            SerializationError: a function cannot travel.

        >>> import mosaic_like as mosaic
        >>> @mosaic.task
        ... def double(x): return 2 * x
        >>> async def main(runtime):  # here in one program
        ...     await runtime.serve(double)
        ...     return await runtime.task(double.key).submit(21).result()
        >>> mosaic.run(main, num_workers=1)
        42
        """
        from ..tasks.serving import serve

        await serve(tasks)

    async def served(self) -> list[str]:
        """The keys of the tasks that are served in this cluster, in order.

        When the worker that knew them has just died, this waits up to 5 s for one.
        """
        from ..tasks.serving import served

        return await served()

    def task(self, key: str) -> ServedTask:
        """A task that is served in this cluster, by its key.

        Raises:
            TypeError: it is no string.
            ValueError: that is no key of a task. Whether it is served shows when a call
                of it is awaited.
        """
        from ..tasks.serving import ServedTask

        return ServedTask(key)

    # -- values ------------------------------------------------------------------------

    def put(
        self, obj: R, *, key: str | None = None, publish: bool = False
    ) -> WarehouseObject[R]:
        """Keep a value in the warehouse; see ``mosaic.put``."""
        return put_in(self, obj, key, publish)

    def get(self, ref: Any, /) -> Reading[Any]:
        """The value of a reference or key, to be awaited; see ``mosaic.get``."""
        reading: Reading[Any] = get_in(self, ref)
        return reading

    def drop(self, ref: WarehouseObject[Any] | str, /) -> TaskProxy[None]:
        """Forget a value now; see ``mosaic.drop``."""
        return drop_in(self, ref)

    def exec(
        self, key: str, fn: Callable[..., R], /, *args: Any, **kwargs: Any
    ) -> WarehouseObject[R]:
        """Replace the value under a key by what a function makes of it, atomically."""
        return exec_in(self, key, fn, args, kwargs)

    def transformer(
        self,
        encode: Callable[[Any], Any],
        decode: Callable[[Any], Any],
        *,
        where: type | tuple[type, ...] | Callable[[Any], Any],
    ) -> Registration:
        """Let values of some kind travel as something else: smaller, or a reference.

        It is used for arguments, results and values that are put, also inside others,
        in this process and in all workers, until this runtime ends or ``remove()`` of
        what is returned; that is also a context manager. The newest that is concerned
        is used, and what it gives is not encoded again.

        Args:
            encode: gives what travels instead of a value; called where that is sent.
            decode: gives the value again; called where it is read.
            where: a class, several, or a function of a value that says whether it is
                encoded. Numbers, strings, bytes, functions and the builtin containers
                themselves always go as they are.

        Raises:
            TypeError: an argument of another kind; or values of that class cannot be
                encoded.
            SerializationError: one of the functions cannot travel. What encode raises
                is a SerializationError of the call, or of the task it is the result of.

        >>> import mosaic_like as mosaic, pathlib
        >>> @mosaic.task
        ... def length(path): return len(str(path))
        >>> async def main(runtime):
        ...     with runtime.transformer(str, pathlib.Path, where=pathlib.PurePath):
        ...         return await length.submit(pathlib.Path("a.txt")).result()
        >>> mosaic.run(main, num_workers=1)
        5
        """
        return self._transforming.add(encode, decode, where)

    # -- exclusive workers -------------------------------------------------------------

    def async_for(
        self, *iterables: Iterable[Any], safe: bool = True, timeout: float | None = None
    ) -> Callable[[Callable[..., Awaitable[R]]], Awaitable[list[R]]]:
        """Run a coroutine function once for each item, each with a worker of its own.

        No other item of any loop of this runtime has the same worker meanwhile, except
        in loops inside: an inner loop that finds all workers taken runs on the worker
        of the item around it. Results come in input order. When an item fails, no
        further one starts, those that run end, and the failure is raised.

        Args:
            iterables: as for ``zip``: each item is passed after the worker.
            safe: run an item again, on another worker, when its worker was lost, up
                to three times.
            timeout: seconds for the whole loop; None waits for ever.

        Returns:
            A decorator; awaiting what it gives yields the results.

        Raises:
            TimeoutError: by awaiting: the time is over; what ran was cancelled.

        >>> import mosaic_like as mosaic
        >>> async def main(runtime):
        ...     @runtime.async_for(range(3))
        ...     async def squares(worker, x):
        ...         return x * x
        ...     return await squares
        >>> mosaic.run(main, num_workers=2)
        [0, 1, 4]
        """
        items = list(zip(*iterables, strict=False))

        def decorate(body: Callable[..., Awaitable[R]]) -> Awaitable[list[R]]:
            return Loop(self, body, items, safe, timeout)

        return decorate
