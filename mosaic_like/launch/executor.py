"""``mosaic.Executor``: the contract of ``concurrent.futures`` for function tasks.

For synchronous programs and for libraries that take an executor. It uses the runtime
that is there, in the program or in a worker, else one on a thread that stays until the
program ends. What runs in the workers is in ``tasks/calling.py``.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import functools
import itertools
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.task import RUNNING, STATES
from ..proxies.settling import BlockingFuture, settle_future
from ..tasks.calling import Caller, call_chunk
from ..tasks.calls import submitted
from ..tasks.marking import task
from .hosting import on_a_thread
from .threaded_map import InOrder, Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..proxies.task import TaskProxy

T = TypeVar("T")

_SHUT = "cannot schedule new futures after shutdown"


class CallFuture(BlockingFuture):
    """The future of one call; as an argument of another it stands for its value."""

    def cancel(self) -> bool:
        """Cancel the call if it does not run yet, as far as that is known here."""
        if self.running():
            return False
        cancelled = super().cancel()
        if cancelled:
            self._task.cancel()
        return cancelled

    def running(self) -> bool:
        """It has been running for a while."""
        return not self.done() and self._task.state == STATES[RUNNING]


class Executor(concurrent.futures.Executor):
    """Runs functions in the workers of a cluster; see ``concurrent.futures``.

    Futures of it among the arguments, at any depth, stand for their values: the call
    starts when they are there, and values go from worker to worker.

    Args:
        max_workers: of a cluster that this starts; if one runs already it is used as
            it is. None: as ``mosaic.init``.
        initializer: called once in each worker, before the first call there.
        initargs: its arguments.

    Raises:
        ValueError: ``max_workers`` is not positive.
        TypeError: ``max_workers`` is no int, or the initializer cannot be called.
        ConnectError: the cluster did not start.

    >>> import mosaic_like as mosaic
    >>> with mosaic.Executor(2) as executor:
    ...     list(executor.map(pow, [2, 3], [3, 2]))
    [8, 9]
    >>> stopped = mosaic.stop()
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if max_workers is not None:
            if isinstance(max_workers, bool) or not isinstance(max_workers, int):
                raise TypeError(
                    f"Executor(max_workers={max_workers!r}): expected int or None"
                )
            if max_workers <= 0:
                raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        options = {} if max_workers is None else {"num_workers": max_workers}
        self._runtime = on_a_thread(quiet=True, **options)
        self._call = task(Caller(initializer, initargs), name="call")
        self._is_bare = initializer is None  # a call is nothing but that
        self._lock = threading.Lock()
        self._pending: set[CallFuture] = set()
        self._is_shut = False
        self._broken: BaseException | None = None
        # Calls that nobody has waited for end before the program does: this is called
        # before what stops the runtime, which was registered earlier.
        atexit.register(self._wait)

    def submit(
        self, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[T]:
        """Run a call in some worker; returns at once, in any thread.

        Raises:
            RuntimeError: after ``shutdown``; make another executor.
            BrokenExecutor: the initializer has failed.
            SerializationError: the function or an argument cannot travel.
        """
        self._check()
        proxy = submitted(self._call, (fn, *args), kwargs, 2)
        future = CallFuture(proxy)
        with self._lock:
            self._pending.add(future)
        future.add_done_callback(self._ended)
        settle_future(proxy, future)
        return future

    def _check(self) -> None:
        if self._broken is not None:
            raise type(self._broken)(*self._broken.args)
        if self._is_shut or self._runtime.stopping:
            raise RuntimeError(_SHUT)

    def _ended(self, future: concurrent.futures.Future[Any]) -> None:
        with self._lock:
            self._pending.discard(future)
        if not future.cancelled():
            self._see(future.exception(0))

    def _see(self, error: BaseException | None) -> None:
        if isinstance(error, concurrent.futures.BrokenExecutor):
            self._broken = error

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """``fn`` of the items, in order; all calls are submitted now.

        Args:
            fn: of one item of each iterable.
            iterables: as for ``zip``.
            timeout: seconds from now, for all; None waits for ever.
            chunksize: calls that go together, one after the other.

        Raises:
            TimeoutError: by the iterator: the value is not there in time.
            ValueError: ``chunksize`` is less than 1.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        self._check()
        begun_s = time.monotonic()
        rows = zip(*iterables, strict=False)
        proxies: list[TaskProxy[Any]] = []
        call = self._call
        if chunksize == 1 and self._is_bare:
            # The function travels once, and not with each call.
            call = task(functools.partial(call.fn, fn), name="call")
            pace = Pace(self._runtime)
            for row in rows:
                proxies.append(call.submit(*row))
                pace.submitted(len(proxies))
        elif chunksize == 1:
            proxies.extend(submitted(call, (fn, *row), {}, 3) for row in rows)
        else:
            while chunk := tuple(itertools.islice(rows, chunksize)):
                proxies.append(submitted(call, (call_chunk, fn, chunk), {}, 2))
        proxies.reverse()
        order = InOrder(self._runtime, proxies, timeout, begun_s, call)
        values = order.values(self._see)
        return values if chunksize == 1 else itertools.chain.from_iterable(values)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No further calls; the cluster stays for other executors.

        Args:
            wait: until all calls have ended.
            cancel_futures: those that have not started never will.
        """
        self._is_shut = True
        if cancel_futures:
            with self._lock:
                pending = list(self._pending)
            for future in pending:
                future.cancel()
        if wait:
            self._wait()
            atexit.unregister(self._wait)

    def abort(self) -> None:
        """Shut down without waiting, and cancel all calls, also those that run.

        A plain function that runs is stopped as by ``task.cancel()``. Futures of what
        is stopped end as cancelled.
        """
        self._is_shut = True
        with self._lock:
            pending = list(self._pending)
        for future in pending:
            if not future.cancel():
                future._task.cancel()

    def _wait(self) -> None:
        with self._lock:
            pending = list(self._pending)
        if self._runtime.peers.closed:
            return  # what has not ended by now never will
        if pending and not self._runtime.waits_on_main():
            concurrent.futures.wait(pending)
        for future in pending:  # in a worker: its thread runs what this depends on
            if not future.cancelled():
                future.exception()

    @staticmethod
    def register_joblib() -> None:
        """Let joblib run on a mosaic: ``with joblib.parallel_config("mosaic"):``.

        Raises:
            ImportError: joblib is not installed.
        """
        from .joblib_backend import register

        register()
