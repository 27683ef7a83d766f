"""joblib on a mosaic: a backend for its public interface, registered as ``mosaic``.

Imported only by ``Executor.register_joblib``. Parallel calls inside others run on the
mosaic too, to any depth: who waits for them waits by our futures, and its worker runs
them meanwhile where it has to. In the program joblib itself looks after what has ended,
as with its own backends, so that values can come as they are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import joblib
from joblib.parallel import FallbackToBackend, ParallelBackendBase, ThreadingBackend

from .. import session
from .executor import Executor

if TYPE_CHECKING:
    from collections.abc import Callable


class MosaicBackend(ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """Runs the batches of ``joblib.Parallel`` as function tasks."""

    supports_return_generator = True
    supports_timeout = True
    supports_sharedmem = False
    uses_threads = False

    def __init__(self, nesting_level: int | None = None, **options: Any) -> None:
        super().__init__(nesting_level=nesting_level, **options)
        self._executor: Executor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.nesting_level,)

    @property
    def supports_retrieve_callback(self) -> bool:
        """joblib polls for what has ended: not in a worker, whose thread is needed."""
        return not _in_worker()

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, **options: Any
    ) -> int | None:
        """See joblib: before each ``Parallel``; how many batches are to run at once."""
        if not getattr(parallel, "return_ordered", True) and _in_worker():
            # Only who polls can take them as they come.
            level = (self.nesting_level or 0) + 1
            raise FallbackToBackend(ThreadingBackend(nesting_level=level))
        found: int | None = super().configure(n_jobs, parallel, **options)
        return found

    def _running(self) -> Executor:
        if self._executor is None:
            self._executor = Executor()
        return self._executor

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many batches are to run at once."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        workers: int = self._running()._runtime.num_workers
        if n_jobs is None:
            return 1
        return max(workers + 1 + n_jobs, 1) if n_jobs < 0 else n_jobs

    def submit(self, func: Callable[[], Any], callback: Any = None) -> Any:
        """Run one batch."""
        future = self._running().submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        """The same of one that has ended."""
        return out.result()

    def retrieve_result(self, out: Any, timeout: float | None = None) -> Any:
        """The values of one batch."""
        return out.result(timeout)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """A batch has failed: the others are of no use, also those that run."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.abort()

    def terminate(self) -> None:
        """After each ``Parallel``, or block of them; the cluster stays."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)

    def get_nested_backend(self) -> tuple[MosaicBackend, None]:
        """For calls of ``Parallel`` inside others: this one, too."""
        return MosaicBackend(nesting_level=(self.nesting_level or 0) + 1), None


def _in_worker() -> bool:
    runtime = session.peek()
    return runtime is not None and bool(runtime.main_thread)


def _unpickled(nesting_level: int | None) -> MosaicBackend:
    """Of a call that runs here: what it calls may name the backend, too."""
    register()
    return MosaicBackend(nesting_level)


def register() -> None:
    joblib.register_parallel_backend("mosaic", MosaicBackend)
