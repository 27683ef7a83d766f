"""How the end of a task reaches who waits: a loop, another loop, or a thread.

Each gives a future, of asyncio or of ``concurrent.futures``. What is waited for, and
what its value is, is in ``task``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..comms.gathering import Referent
from ..core.task import CANCELLED, DONE, PREPARE
from .lending import Waiters, check_blocking
from .runtime import check_open

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.call import Call
    from .runtime import Runtime
    from .task import TaskProxy

R_co = TypeVar("R_co", covariant=True)


def ended(runtime: Runtime, call: Call) -> asyncio.Future[None]:
    """A future of the running loop, done when the call has ended."""
    loop = asyncio.get_running_loop()
    item = call.rare
    if loop is not runtime.loop or (
        item is not None and (item.grant or call.state == PREPARE)
    ):
        if call.state == PREPARE:
            runtime.want(call)
        return future_of(runtime, lambda then: runtime.when_settled(call, then))
    # A call that was made here, awaited here: the hot path.
    future: asyncio.Future[None] = loop.create_future()
    waiters = call.waiters
    if waiters is None:
        call.waiters = [partial(_settle, future)]
    else:
        waiters.append(partial(_settle, future))
    return future


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def fetched(runtime: Runtime, call: Call) -> None:
    """Wait until the value is here."""
    if runtime.is_away(call):
        await future_of(runtime, lambda then: _fetch(runtime, call, then))


def _fetch(runtime: Runtime, call: Call, then: Callable[[], Any]) -> None:
    if runtime.on_loop:
        runtime.fetch(call, then)
    else:
        runtime.post(runtime.fetch, call, then)


def fetch_soon(runtime: Runtime, call: Call) -> None:
    """Ask for a value that stayed where it was made; who waits for it comes later."""
    if call.state == DONE and runtime.is_away(call):
        check_open(runtime, "this task")
        _fetch(runtime, call, lambda: None)


def future_of(
    runtime: Runtime, watch: Callable[[Callable[[], Any]], Any]
) -> asyncio.Future[None]:
    """A future of the running loop, done when ``watch`` calls what it is given."""
    check_open(runtime, "this task")
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    settle = partial(_settle, future)
    if loop is runtime.loop:
        watch(settle)
    else:
        # Another loop of this process: the runtime's thread hands it over.
        watch(lambda: runtime.on_other_loop(loop, settle))
    return future


class BlockingFuture(Referent, concurrent.futures.Future[Any]):
    """Lets the waiting of a plain method go through ``get``.

    As an argument, at any depth, it stands for the value of its task, as that does.
    """

    def __init__(self, task: TaskProxy[Any]) -> None:
        super().__init__()
        self._task = task
        self._waiters: list[Any] = Waiters(task)

    def __reference__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._task.__reference__()

    def result(self, timeout: float | None = None) -> Any:
        self._block(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._block(timeout)
        return super().exception(timeout)

    def _block(self, timeout: float | None) -> None:
        if self.done():
            return
        runtime = self._task._runtime
        if runtime.waits_on_main():
            runtime.block(self._task._call, timeout, value=True)
        else:
            check_blocking(self._task, timeout)


def settle_future(
    task: TaskProxy[R_co], future: concurrent.futures.Future[R_co]
) -> None:
    """The future ends as the task does, on the runtime's loop."""
    runtime, call = task._runtime, task._call
    proxy = [task]  # alive until the future is settled

    def settle() -> None:
        if call.state == DONE and runtime.is_away(call):
            runtime.fetch(call, settle)
            return
        proxy.clear()
        if not future.set_running_or_notify_cancel():
            return
        if call.state == DONE:
            try:
                future.set_result(runtime.value_of(call))
            except BaseException as error:
                future.set_exception(error)
        elif call.state == CANCELLED:
            future.set_exception(concurrent.futures.CancelledError())
        else:
            future.set_exception(runtime.error_of(call))

    runtime.when_settled(call, settle)
