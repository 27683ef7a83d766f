"""A task as its caller holds it.

The proxy is light: what is known of the call stands in ``core.call.Call``, which the
runtime keeps until the task has ended. When the last proxy goes, the owner is told,
with the next batch that goes there. What stands here is the task as its user has it:
waiting, its value, what is known of it. What tasks wait for stands in ``connecting``,
how one is shown in ``showing``.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from ..comms.frames import UNSEEN, hide_own
from ..comms.messages import RESULT_CALL, TASK, Extra
from ..comms.serialization import Referent
from ..core.call import OUT_OF_LINE
from ..core.payloads import Arrived
from ..core.task import CANCELLED, DONE, PREPARE, STATES
from ..ids import task_name
from .connecting import Connected
from .history import Transition, moves_of, reason_of
from .outputs import Outputs, TaskDone
from .refusing import NotAValue, check_remote
from .runtime import check_open
from .settling import BlockingFuture, ended, fetched, settle_future
from .showing import forgotten, line_of

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import AsyncIterator, Callable, Generator

    from ..core.call import Call
    from ..core.task import TaskState
    from .records import TaskInfo

R_co = TypeVar("R_co", covariant=True)
# While the arguments of a task that is only prepared are pickled: what they mention is
# not wanted yet.
PREPARING: contextvars.ContextVar[bool]
PREPARING = contextvars.ContextVar("PREPARING", default=False)


class TaskHandle:
    """What a payload keeps of a task that it mentions."""

    __slots__ = ("proxy",)
    kind = TASK

    def __init__(self, proxy: TaskProxy[Any]) -> None:
        self.proxy = proxy
        call = proxy._call
        call.mentioned = True
        if call.line == OUT_OF_LINE:
            runtime = proxy._runtime
            if runtime.on_loop:
                runtime.caller.mentioned(call)
            else:  # it runs before what mentions it goes
                runtime.post(runtime.caller.mentioned, call)

    @property
    def uid(self) -> int:
        return self.proxy._call.uid

    @property
    def owner(self) -> int:
        return self.proxy._call.stream.owner


class TaskProxy(
    Connected,
    NotAValue,
    Referent,
    msgspec.Struct,
    Generic[R_co],
    gc=False,
    eq=False,
):
    """A task that was submitted; gives its value to those who ask.

    ``await task`` waits until it has ended and gives the task itself, because the value
    may be large and stays where it was made; ``await task.result()`` gives the value.
    Both raise what the method raised, with the remote frames in the traceback. As an
    argument of another call, at any depth, it stands for its value, which goes from
    worker to worker.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Counter:
    ...     def add(self, k): return k + 1
    >>> async def main(runtime):
    ...     counter = Counter.remote()
    ...     return await counter.add(counter.add(5)).result()
    >>> mosaic.run(main, num_workers=1)
    7
    """

    # A Struct that the garbage collector does not know, as core.call.Call is.
    _runtime: Any
    _call: Call

    def __del__(self) -> None:
        runtime = self._runtime
        runtime.dropped.append(self._call)
        if not runtime.peers.ticking:
            runtime._wake_tick()

    def __reference__(self) -> tuple[TaskHandle, tuple[Any, ...]]:
        call = self._call
        check_open(self._runtime, "this task")
        if call.state == DONE and call.stream.owner in self._runtime.causes:
            heir = self._runtime.storing.heir(call)
            if heir is not None:
                return TaskHandle(heir), ("task",)
        if call.state == PREPARE and not PREPARING.get():
            self._runtime.want(call)
        return TaskHandle(self), ("task",)

    # -- waiting -----------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, TaskProxy[R_co]]:
        # A generator of its own: its frame holds the proxy, which is often a temporary
        # that would be released at once. A failure must not leave the proxy in the
        # frame, which the traceback keeps.
        try:
            call = self._call
            if call.state < DONE:
                yield from ended(self._runtime, call).__await__()
            if call.state != DONE:
                if call.state < DONE:  # retried, before this went on
                    return (yield from self.__await__())
                raise self._runtime.error_of(call)
            return self
        except BaseException as error:
            hide_own(error)
            raise
        finally:
            del self

    async def result(self) -> R_co:
        """The value.

        Raises:
            Exception: what the method raised, as its own type.
            TaskError: it was cancelled, timed out, or an argument of it failed.
            RuntimeDisconnectedError: the worker that had it is gone.
        """
        try:
            call = self._call
            runtime = self._runtime
            if call.state < DONE:
                await ended(runtime, call)
            if call.state == DONE and type(call.result) is Arrived:
                await fetched(runtime, call)
            if call.state != DONE:
                if call.state < DONE:  # retried, before this went on
                    return await self.result()
                raise runtime.error_of(call)
            value: R_co = runtime.value_of(call)
            return value
        except BaseException as error:
            hide_own(error)
            raise
        finally:
            del self

    async def exception(self) -> BaseException | None:
        """The error that it ended with; None if it has a value."""
        call = self._call
        while call.state < DONE:  # it may be retried, before this goes on
            await ended(self._runtime, call)
        return None if call.state == DONE else self._runtime.error_of(call)

    def wait(self, timeout: float | None = None) -> TaskProxy[R_co]:
        """Block until it has ended; for threads and plain methods.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: it has not ended in time; it goes on.
            RuntimeError: this is the loop's thread: write ``await task``.
        """
        call = self._call
        with UNSEEN:
            if call.state == PREPARE:
                self._runtime.want(call)
            self._runtime.block(call, timeout)
            if call.state != DONE:
                if call.state < DONE:  # retried, before this went on
                    return self.wait(timeout)
                raise self._runtime.error_of(call)
        return self

    def get(self, timeout: float | None = None) -> R_co:
        """The value, blocking; for threads and plain methods.

        While a plain method waits, its worker's main thread runs only the calls that
        this wait depends on.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: it has not ended in time; it goes on.
            RuntimeError: this is the loop's thread: write ``await task.result()``.
        """
        call = self._call
        runtime = self._runtime
        with UNSEEN:
            if call.state == PREPARE:
                runtime.want(call)
            runtime.block(call, timeout, value=True)
            if call.state != DONE:
                if call.state < DONE:  # retried, before this went on
                    return self.get(timeout)
                raise runtime.error_of(call)
            value: R_co = runtime.value_of(call)
            return value

    def as_future(self) -> concurrent.futures.Future[R_co]:
        """A future of ``concurrent.futures`` that ends as the task does."""
        if self._call.state == PREPARE:
            self._runtime.want(self._call)
        future: concurrent.futures.Future[R_co] = BlockingFuture(self)
        settle_future(self, future)
        return future

    def add_done_callback(self, fn: Callable[[TaskProxy[R_co]], Any]) -> None:
        """Call ``fn(task)`` once on the runtime's loop, when it has ended."""
        self._runtime.when_settled(self._call, lambda: fn(self))

    @property
    def done_future(self) -> asyncio.Future[TaskProxy[R_co]]:
        """A future of the running loop: the task when it has ended, or its error."""
        return asyncio.ensure_future(_give(self))

    @property
    def init_future(self) -> asyncio.Future[TaskProxy[R_co]]:
        """A future of the running loop: done at once, since a call is sent at once."""
        future: asyncio.Future[TaskProxy[R_co]]
        future = asyncio.get_running_loop().create_future()
        future.set_result(self)
        return future

    async def size(self, pending: bool = False) -> int:
        """Bytes of the pickled value; with ``pending`` those that are not here yet."""
        call = self._call
        if call.state < DONE:
            await ended(self._runtime, call)
        if call.state != DONE:
            raise self._runtime.error_of(call)
        result = call.result
        if type(result) is not Arrived:
            return 0 if pending else len(result)
        if result.size:
            return result.size
        held = len(result.data) + sum(memoryview(b).nbytes for b in result.buffers)
        return 0 if pending else held

    def cancel(self, reason: str | None = None) -> bool:
        """Ask that it ends: not started, it never runs; a coroutine is cancelled.

        Returns:
            False if it has ended already.
        """
        return bool(self._runtime.cancel(self._call, reason or ""))

    def cancelled(self) -> bool:
        """It has ended by being cancelled."""
        return self._call.state == CANCELLED

    # -- what is known -----------------------------------------------------------------

    @property
    def outputs(self) -> Outputs:
        """Parts of the value: ``outputs[0]``, ``outputs["key"]``, ``outputs.done``."""
        return Outputs(self)

    @property
    def done(self) -> TaskDone:
        """A token that orders: an argument that only waits. ``done()`` is the bool."""
        return TaskDone(self)

    @property
    def remote(self) -> RemoteResult:
        """``task.remote.method(...)``: a method of the value, run where that is."""
        return RemoteResult(self)

    @property
    def uid(self) -> str:
        """Unique in the cluster."""
        return task_name(self._call.first_uid)

    @property
    def name(self) -> str:
        """Tessera and method."""
        return self._call.name

    @property
    def method(self) -> str:
        return self._call.method

    @property
    def tessera_id(self) -> str:
        return task_name(self._call.stream.tessera)

    @property
    def runtime_id(self) -> str:
        """Uid of the runtime where it is; empty while that is not known."""
        return str(self._runtime.uid_of(self._call.stream.owner))

    @property
    def state(self) -> TaskState:
        """As far as it is known here: prepare, pending, running and the ends."""
        return STATES[self._call.shown_state]

    @property
    def reason(self) -> str | None:
        """Why it is in its state."""
        return reason_of(self._runtime, self._call)

    @property
    def attempt(self) -> int:
        """1 at the first try, as far as its worker has told."""
        rare = self._call.rare
        return 1 if rare is None else rare.earlier + rare.attempt

    @property
    def history(self) -> tuple[Transition, ...]:
        """What is known of its moves, oldest first."""
        call = self._call
        if call.rare is not None and call.rare.watched is not None:
            return tuple(call.rare.watched.transitions)
        return tuple(moves_of(call))

    @property
    def info(self) -> TaskInfo:
        """All that is known of it here, as TaPS has it; see ``TaskInfo``."""
        info: TaskInfo = self._runtime.observing.info(self._call)
        return info

    def on_state(self, fn: Callable[[TaskInfo, Transition], Any]) -> None:
        """Call ``fn(info, transition)`` for each further move, on the runtime's loop.

        That an attempt has begun is heard of calls that take more than about 0.05 s,
        and of all where tasks are recorded or the task has ``on_state``. What ``fn``
        raises is logged.
        """
        self._runtime.observing.watch(self._call, fn)

    def __repr__(self) -> str:
        return line_of(self)

    # -- mistakes ----------------------------------------------------------------------

    def _forgot(self, hint: str = "") -> TypeError:
        return TypeError(forgotten(self, hint))

    def __format__(self, spec: str) -> str:
        if spec:  # such as .2f: of a value
            raise self._forgot()
        return repr(self)

    def __aiter__(self) -> AsyncIterator[Any]:
        raise self._forgot("; it is no stream: the method is no generator")

    def __getitem__(self, key: Any) -> Any:
        raise self._forgot(f"; one part of it is t.outputs[{key!r}]")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"a task has no attribute {name!r}")
        hint = f"; t.remote.{name} runs it there"
        raise AttributeError(f"{name!r}: {forgotten(self, hint)}")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TaskProxy):
            return self._call.first_uid == other._call.first_uid
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._call.first_uid)


class RemoteResult:
    """The value of a task, where it is."""

    __slots__ = ("_task",)

    def __init__(self, task: TaskProxy[Any]) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Callable[..., TaskProxy[Any]]:
        check_remote(name)
        task = self._task

        def method(*args: Any, **kwargs: Any) -> TaskProxy[Any]:
            runtime = task._runtime
            return TaskProxy(
                runtime,
                runtime.submit_to_result(
                    TaskHandle(task), name, args, kwargs, Extra(kind=RESULT_CALL)
                ),
            )

        method.__name__ = name
        return method


async def _give(proxy: TaskProxy[R_co]) -> TaskProxy[R_co]:
    return await proxy
