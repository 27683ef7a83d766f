"""The end of what lives in a worker: calls are cancelled, tesserae closed.

When that is, and what comes before and after it, is in ``worker``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.task import RUNNING
from ..core.tessera import Tessera, TesseraState
from ..ids import short
from .executor import CLOSE_TIMEOUT_S

if TYPE_CHECKING:
    from .worker import Worker


class Closing:
    """Of one worker; on its loop."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.running_s = worker.config.stop_timeout_s  # that running calls have
        self.why = "the cluster is stopping"  # calls end

    async def all(self) -> list[str]:
        """End all there is, in order; gives what could not be, for people."""
        tesserae = list(self._worker.worker.tesserae.values())
        busy = await self.end_calls(tesserae)
        return await self.close(tesserae, busy)

    async def end_calls(self, tesserae: list[Tessera]) -> dict[int, str]:
        """Cancel what waits and runs; those that go on, by uid, and lines about it."""
        worker, state = self._worker, self._worker.worker
        # Backwards, since the thread of plain methods goes on taking the first.
        for task in reversed(list(state.tasks.values())):
            if not task.settled and task.tessera.closing is not task:
                state.stopping.cancel(task.uid, self.why)
        busy = {}
        deadline_s = worker.loop.time() + self.running_s
        for tessera in tesserae:
            if not await worker.until(lambda t=tessera: not t.active, deadline_s):
                calls = [t for t in state.tasks.values() if t.state == RUNNING]
                calls += state.stopping.abandoned.values()
                running = next((t for t in calls if t.tessera is tessera), None)
                name = "" if running is None else f".{running.method}"
                busy[tessera.uid] = (
                    f"{tessera.options.name}{name} on {short(worker.uid)} did not end "
                    f"in {self.running_s:g} s: it was not closed"
                )
        return busy

    async def close(self, tesserae: list[Tessera], busy: dict[int, str]) -> list[str]:
        """Run ``__close__`` of all others, in reverse order of making."""
        lines = list(busy.values())
        for tessera in reversed(tesserae):
            # Not whether it is active now: its last holder may have gone meanwhile, and
            # then it is closing already.
            if tessera.uid not in busy and tessera.state in (
                TesseraState.LISTENING,
                TesseraState.CLOSING,
            ):
                await self._close_one(tessera, lines)
        return lines

    async def _close_one(self, tessera: Tessera, lines: list[str]) -> None:
        if hasattr(tessera.instance, "__close__"):
            worker = self._worker
            worker.worker.freed(tessera.uid)
            deadline_s = worker.loop.time() + CLOSE_TIMEOUT_S
            closed = await worker.until(
                lambda: tessera.state is TesseraState.STOPPED, deadline_s
            )
            if not closed:
                lines.append(
                    f"__close__ of {tessera.options.name} on {short(worker.uid)} did "
                    f"not end in {CLOSE_TIMEOUT_S:g} s"
                )
