"""The runtime as users have it: who is here, waiting, exclusive workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ..comms.messages import Member
from ..core.placement import STRATEGIES
from ..errors import ConnectError, WorkerDied
from ..proxies.array import ArrayProxy
from ..proxies.tessera import TesseraProxy
from .actor import ActorRuntime


class WorkerInfo:
    """A worker or node: accepted wherever ``runtime=`` is."""

    __slots__ = ("_member",)

    def __init__(self, member: Member) -> None:
        self._member = member

    @property
    def uid(self) -> str:
        """Such as ``worker:0:1``."""
        return self._member.uid

    @property
    def indices(self) -> tuple[int, ...]:
        """Of the node, and of the worker on it."""
        return tuple(int(index) for index in self._member.uid.split(":")[1:])

    @property
    def address(self) -> str:
        return self._member.address

    @property
    def host(self) -> str:
        return self._member.host

    @property
    def pid(self) -> int:
        return self._member.pid

    def __eq__(self, other: object) -> bool:
        if isinstance(other, WorkerInfo):
            return self._member.incarnation == other._member.incarnation
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._member.incarnation)

    def __repr__(self) -> str:
        return f"<{self.uid} on {self.host}, pid {self.pid}>"


class UserRuntime(ActorRuntime):
    """What ``main(runtime)`` is given, and ``mosaic.runtime()`` gives."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._leases = Leases(self)

    @property
    def workers(self) -> list[WorkerInfo]:
        """All workers, by their indices."""
        return [WorkerInfo(m) for m in self.of_kind("worker")]

    @property
    def nodes(self) -> list[WorkerInfo]:
        """All nodes, by their indices."""
        return [WorkerInfo(m) for m in self.of_kind("node")]

    @property
    def num_workers(self) -> int:
        return len(self.of_kind("worker"))

    @property
    def num_nodes(self) -> int:
        return len(self.of_kind("node"))

    @property
    def logger(self) -> logging.Logger:
        """A logger for the program."""
        return logging.getLogger("mosaic_like")

    def get_worker(self, uid: str) -> WorkerInfo:
        """The worker of this uid.

        Raises:
            LookupError: there is none.
        """
        return WorkerInfo(self._worker(uid))

    def _worker(self, uid: str) -> Member:
        workers = self.of_kind("worker")
        for member in workers:
            if member.uid == uid:
                return member
        known = ", ".join(m.uid for m in workers) or "none"
        raise LookupError(f"there is no worker {uid!r}; there are: {known}")

    def resolve_worker(self, where: Any) -> Any:
        """What ``runtime=`` means: a member, or None for the strategy's choice.

        Raises:
            LookupError: there is no such worker.
            RuntimeDisconnectedError: it is lost.
            TypeError: it is nothing that has a place.
        """
        if where is None:
            return None
        if isinstance(where, WorkerInfo):
            if where._member.incarnation not in self.members:
                _, cause = self._causes.get(where._member.incarnation, (None, "gone"))
                raise WorkerDied(f"{where.uid} is lost: {cause}", where.uid)
            return where._member
        if isinstance(where, str):
            if where in STRATEGIES:
                return self._by_strategy(where)
            return self._worker(where)
        if isinstance(where, TesseraProxy):
            return self.members.get(where._mosaic_handle.owner)
        if isinstance(where, ArrayProxy):
            raise TypeError("runtime= takes one place, not an array of tesserae")
        raise TypeError(
            f"runtime={where!r}: expected a worker, its uid, a proxy or the name of a "
            f"strategy ({', '.join(STRATEGIES)})"
        )

    def _by_strategy(self, name: str) -> Member | None:
        workers = self.of_kind("worker")
        if not workers or name == self.config.monitor_strategy:
            return None
        return STRATEGIES[name]().choose(workers, self._load)  # type: ignore[return-value]

    def deal(self, count: int) -> list[Any]:
        """Workers for so many tesserae, one after the other; None where there is none."""
        workers = self.of_kind("worker")
        if not workers:
            return [None] * count
        return [workers[i % len(workers)] for i in range(count)]

    # -- waiting -----------------------------------------------------------------------

    async def on_runtime_loop(self, coroutine: Any) -> Any:
        """Await it on the runtime's loop, from any loop of this process."""
        if asyncio.get_running_loop() is self.loop:
            return await coroutine
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return await asyncio.wrap_future(future)

    async def wait_for_workers(self, n: int, timeout: float | None = 180.0) -> None:
        """Wait until there are at least so many workers.

        Args:
            n: how many.
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: there are fewer after that time.
        """
        await self.on_runtime_loop(self._wait_for_workers(n, timeout))

    async def _wait_for_workers(self, n: int, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                while self.num_workers < n:
                    if self.stopping:
                        raise ConnectError("the cluster has stopped")
                    await self.membership()
        except TimeoutError:
            raise TimeoutError(
                f"{self.num_workers} of {n} workers are here after {timeout:g} s"
            ) from None

    async def barrier(self, timeout: float | None = None) -> None:
        """Wait until all tasks of this head, and those made inside them, have ended.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: some have not ended; they go on.
        """
        await self.on_runtime_loop(self._barrier(timeout))

    async def _barrier(self, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._all_ended()
        except TimeoutError:
            raise TimeoutError(
                f"{len(self.caller.calls)} tasks have not ended after {timeout:g} s"
            ) from None

    async def _all_ended(self) -> None:
        while self.caller.calls:
            future: asyncio.Future[None] = self.loop.create_future()
            call = next(reversed(self.caller.calls.values()))
            self._watch(call, lambda: future.done() or future.set_result(None))
            await future

    # -- exclusive workers -------------------------------------------------------------

    def async_for(
        self, *iterables: Iterable[Any], safe: bool = True, timeout: float | None = None
    ) -> Callable[[Callable[..., Awaitable[Any]]], Awaitable[list[Any]]]:
        """Run a coroutine function once for each item, each with a worker of its own.

        Args:
            iterables: as for ``zip``: each item is passed after the worker.
            safe: run an item again, on another worker, when its worker was lost.
            timeout: seconds for the whole loop; None waits for ever.

        Returns:
            A decorator; awaiting what it gives yields the results, in input order.

        An inner loop that finds all workers taken runs on the outer item's worker.
        """

        def decorate(body: Callable[..., Awaitable[Any]]) -> Awaitable[list[Any]]:
            return _Loop(self, body, list(zip(*iterables, strict=False)), safe, timeout)

        return decorate


class Leases:
    """Workers that loops have for themselves."""

    def __init__(self, runtime: UserRuntime) -> None:
        self._runtime = runtime
        self.taken: set[int] = set()
        self._waiting: list[asyncio.Future[None]] = []

    def free(self) -> Member | None:
        """A worker that no loop has."""
        for member in self._runtime.of_kind("worker"):
            if member.incarnation not in self.taken:
                return member
        return None

    async def take(self) -> Member:
        """Wait for a free worker and take it."""
        while True:
            member = self.free()
            if member is not None:
                self.taken.add(member.incarnation)
                return member
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    def give_back(self, member: Member) -> None:
        self.taken.discard(member.incarnation)
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


class _Loop:
    """What ``async_for`` gives: awaiting it runs it."""

    def __init__(
        self,
        runtime: UserRuntime,
        body: Callable[..., Awaitable[Any]],
        items: list[tuple[Any, ...]],
        safe: bool,
        timeout: float | None,
    ) -> None:
        self._runtime = runtime
        self._body = body
        self._items = items
        self._safe = safe
        self._timeout = timeout

    def __await__(self) -> Any:
        return self._run().__await__()

    async def _run(self) -> list[Any]:
        raise NotImplementedError
