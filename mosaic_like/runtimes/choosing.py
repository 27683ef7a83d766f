"""The workers and nodes as users have them: who is here, and which one is meant.

How tesserae are sent to them is in ``placing``; exclusive use of workers in ``leases``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..core.placement import STRATEGIES
from ..errors import MonitorLost, WorkerDied
from ..proxies.array import ArrayProxy
from ..proxies.tessera import TesseraProxy
from .actor import ActorRuntime

if TYPE_CHECKING:
    from ..comms.messages import Member


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


class Choosing(ActorRuntime):
    """See the module."""

    def info_of(self, member: Member) -> WorkerInfo:
        """A member as users have it."""
        return WorkerInfo(member)

    @property
    def workers(self) -> list[WorkerInfo]:
        """All workers, by their indices, but those that are being drained."""
        return [WorkerInfo(m) for m in self._open_workers()]

    def _open_workers(self) -> list[Member]:
        return self.leavers.open(self.of_kind("worker"))

    @property
    def nodes(self) -> list[WorkerInfo]:
        """All nodes, by their indices."""
        return [WorkerInfo(m) for m in self.of_kind("node")]

    @property
    def num_workers(self) -> int:
        return len(self._open_workers())

    @property
    def num_nodes(self) -> int:
        return len(self.of_kind("node"))

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
                return self._open(member)
        for member, cause in self.causes.values():
            if member.uid == uid:
                raise WorkerDied(f"{uid} is lost: {cause}; choose another", uid)
        known = ", ".join(m.uid for m in workers) or "none"
        raise LookupError(f"there is no worker {uid!r}; there are: {known}")

    def resolve_worker(self, where: Any) -> Any:
        """What ``runtime=`` means: a member, or None for the strategy's choice.

        For a tessera whose own place is not known yet it is the stream to it.

        Raises:
            LookupError: there is no such worker.
            RuntimeDisconnectedError: it is lost.
            TypeError: it is nothing that has a place.
        """
        if where is None:
            return None
        if isinstance(where, WorkerInfo):
            return self._living(where._member.incarnation, where.uid)
        if isinstance(where, str):
            if where in STRATEGIES:
                return self._by_strategy(where)
            return self._worker(where)
        if isinstance(where, TesseraProxy):
            stream = where._mosaic_handle.stream
            if not stream.owner and stream.error is None:
                return stream
            return self._living(stream.owner, stream.label)
        if isinstance(where, ArrayProxy):
            raise TypeError("runtime= takes one place, not an array of tesserae")
        raise TypeError(
            f"runtime={where!r}: expected a worker, its uid, a proxy or the name of a "
            f"strategy ({', '.join(STRATEGIES)})"
        )

    def _living(self, incarnation: int, name: str) -> Member:
        member = self.members.get(incarnation)
        if member is None and incarnation == self.incarnation:
            return self.me
        if member is None:
            lost, cause = self.causes.get(incarnation, (None, "it is gone"))
            uid = name if lost is None else lost.uid
            raise WorkerDied(f"{uid} is lost: {cause}; choose another", uid)
        return self._open(member)

    def _open(self, member: Member) -> Member:
        refusal = self.leavers.refusal(member.incarnation, "the tessera")
        if refusal is not None:
            raise refusal
        return member

    def _by_strategy(self, name: str) -> Member | None:
        workers = self._open_workers()
        if not workers or name == self.config.monitor_strategy:
            return None
        return STRATEGIES[name]().choose(workers, self.placing.load_at)  # type: ignore[return-value]  # one of those it was given

    def deal(self, count: int) -> list[Any]:
        """Workers for so many tesserae, in turn; None where there is none."""
        workers = self._open_workers()
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

    async def membership(self) -> None:
        """Wait until somebody joins or is lost.

        Raises:
            MonitorLost: the cluster has ended, and nobody will: end the program.
        """
        await self.on_runtime_loop(self._next_membership())

    async def _next_membership(self) -> None:
        self._check_cluster()
        await super().membership()

    def _check_cluster(self) -> None:
        if self.stopping or self.cluster_lost:
            why = self.cluster_lost or "the cluster has stopped"
            why = f"nobody joins any more: {why}; end the program"
            raise MonitorLost(why, "monitor")

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
                    await self._next_membership()
        except TimeoutError:
            raise TimeoutError(
                f"{self.num_workers} of {n} workers are here after {timeout:g} s"
            ) from None
