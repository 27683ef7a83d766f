"""Workers that loops have for themselves, and the loop: ``runtime.async_for``.

A lease is the right of one item to one worker. Items of an inner loop take a free
worker if there is one, else they borrow the one of the item around them, which only
waits for them: so loops nest to any depth without waiting for each other in a circle.
Exclusive means among the loops of this runtime: other calls go where they go.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

from ..errors import RuntimeDisconnectedError

if TYPE_CHECKING:
    from ..comms.messages import Member
    from .user import UserRuntime

Body = Callable[..., Awaitable[Any]]

# An item that was lost with so many workers has most likely killed them.
MAX_LOSSES = 3

_OUTER: contextvars.ContextVar[Lease | None] = contextvars.ContextVar(
    "mosaic_like.lease", default=None
)


class Lease:
    """The right of one item to one worker, or to the one of the item around it."""

    __slots__ = ("lender", "lent", "member")

    def __init__(self) -> None:
        self.member: Member | None = None  # None: not taken yet, or given back
        self.lender: Lease | None = None  # the lease of the item around this one
        self.lent = False


class Leases:
    """Which workers are taken; everything here runs on the runtime's loop."""

    def __init__(self, workers: Callable[[], list[Member]]) -> None:
        self._workers = workers
        self._taken: set[int] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()

    def try_take(
        self, lease: Lease, outer: Lease | None, first: frozenset[int]
    ) -> bool:
        """Fill the lease; False if all workers are taken.

        Args:
            lease: to be filled.
            outer: of the item around, to borrow from.
            first: incarnations that are taken before others.
        """
        free = [m for m in self._workers() if m.incarnation not in self._taken]
        free.sort(key=lambda m: m.incarnation not in first)
        if free and (free[0].incarnation in first or self._only_newcomers(first)):
            lease.member = free[0]
            self._taken.add(free[0].incarnation)
            return True
        if outer is not None and outer.member is not None and not outer.lent:
            outer.lent = True
            lease.lender = outer
            lease.member = outer.member
            return True
        return False

    def _only_newcomers(self, first: frozenset[int]) -> bool:
        return not any(m.incarnation in first for m in self._workers())

    async def take(
        self, lease: Lease, outer: Lease | None, first: frozenset[int]
    ) -> None:
        """Wait for a worker and fill the lease with it."""
        while not self.try_take(lease, outer, first):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    def give_back(self, lease: Lease) -> None:
        """Let others have it; nothing if it was never filled."""
        member, lease.member = lease.member, None
        if member is None:
            return
        if lease.lender is not None:
            lease.lender.lent = False
            lease.lender = None
        else:
            self._taken.discard(member.incarnation)
        self.changed()

    def changed(self) -> None:
        """A worker has come, gone or been given back: those who wait look again."""
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_result(None)


class Loop:
    """What ``async_for`` gives: awaiting it runs it."""

    def __init__(
        self,
        runtime: UserRuntime,
        body: Body,
        items: list[tuple[Any, ...]],
        safe: bool,
        timeout: float | None,
    ) -> None:
        self._runtime = runtime
        self._body = body
        self._items = items
        self._safe = safe
        self._timeout = timeout

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self._run().__await__()

    async def _run(self) -> list[Any]:
        run = _Run(self._runtime, self._body, self._items, self._safe)
        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await run.all()
        except TimeoutError:
            if not limit.expired():
                raise  # of a body
            raise TimeoutError(
                f"async_for: {run.ended} of {len(self._items)} items have ended after "
                f"{self._timeout:g} s; the others were cancelled"
            ) from None


class _Run:
    """One run of a loop over its items."""

    def __init__(
        self,
        runtime: UserRuntime,
        body: Body,
        items: list[tuple[Any, ...]],
        safe: bool,
    ) -> None:
        self._runtime = runtime
        self._body = body
        self._items = items
        self._safe = safe
        self._outer = _OUTER.get()
        # A worker that joins later lacks what the program has put on the others: it is
        # used when none of those is left.
        self._first = frozenset(m.incarnation for m in runtime.of_kind("worker"))
        self._results: list[Any] = [None] * len(items)
        self._waiting = deque(range(len(items)))
        self._losses: dict[int, int] = {}
        self._failure: BaseException | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.ended = 0

    async def all(self) -> list[Any]:
        """The results in input order.

        After a failure no further item starts, those that run end, then it is raised.
        """
        try:
            while self._failure is None and (self._waiting or self._running):
                if self._waiting:
                    await self._start(self._waiting.popleft())
                else:
                    await self._one_ended()
            while self._running:
                await self._one_ended()
        finally:
            await self._cancel_all()
        if self._failure is not None:
            try:
                raise self._failure
            finally:
                self._failure = None  # its traceback holds this frame
        return self._results

    async def _start(self, index: int) -> None:
        """Get a worker and start the item on it; not if one fails meanwhile."""
        runtime = self._runtime
        lease = Lease()
        taking = asyncio.ensure_future(
            runtime.on_runtime_loop(
                runtime.leases.take(lease, self._outer, self._first)
            )
        )
        try:
            while not taking.done() and self._failure is None:
                await asyncio.wait(
                    (taking, *self._running), return_when="FIRST_COMPLETED"
                )
                self._collect()
            if taking.done():
                taking.result()
        except BaseException:
            await self._abandon(taking, lease)
            raise
        if self._failure is not None:
            await self._abandon(taking, lease)
            return
        item = asyncio.ensure_future(self._item(index, lease))
        self._running.add(item)

    async def _abandon(self, taking: asyncio.Future[None], lease: Lease) -> None:
        taking.cancel()
        self._runtime.post(self._runtime.leases.give_back, lease)

    async def _item(self, index: int, lease: Lease) -> None:
        runtime = self._runtime
        member = lease.member
        assert member is not None, "the lease is filled"
        _OUTER.set(lease)  # of this asyncio task alone
        try:
            given = self._body(runtime.info_of(member), *self._items[index])
            if not inspect.isawaitable(given):
                raise TypeError(
                    f"async_for: the body gave {given!r:.80}, which cannot be awaited; "
                    "write it as async def"
                )
            self._results[index] = await given
        except RuntimeDisconnectedError as error:
            losses = self._losses[index] = self._losses.get(index, 0) + 1
            lost = member.incarnation not in runtime.members
            if not (self._safe and lost) or losses >= MAX_LOSSES:
                raise
            runtime.logger.warning(
                "async_for: item %d runs again, its worker is lost: %s", index, error
            )
            self._waiting.appendleft(index)
        else:
            self.ended += 1
        finally:
            runtime.post(runtime.leases.give_back, lease)

    async def _one_ended(self) -> None:
        await asyncio.wait(self._running, return_when="FIRST_COMPLETED")
        self._collect()

    def _collect(self) -> None:
        for item in [i for i in self._running if i.done()]:
            self._running.discard(item)
            if item.cancelled():
                failure: BaseException | None = asyncio.CancelledError()
            else:
                failure = item.exception()
            if failure is not None and self._failure is None:
                self._failure = failure

    async def _cancel_all(self) -> None:
        """The loop itself was cancelled, or its time is over."""
        for item in self._running:
            item.cancel()
        if self._running:
            await asyncio.wait(self._running)
        for item in self._running:
            if not item.cancelled():
                item.exception()  # it was asked for
        self._running.clear()
