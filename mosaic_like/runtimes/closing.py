"""The end of what lives in a worker: calls are cancelled, tesserae closed.

When that is, and what comes before and after it, is in ``worker``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.senders import Kind, kind_of
from ..core.task import RUNNING, Task
from ..core.tessera import Tessera, TesseraState
from ..ids import maker, short
from .executor import CLOSE_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .worker import Worker


class Closing:
    """Of one worker; on its loop."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.running_s = worker.config.stop_timeout_s  # that running calls have
        self.why = "the cluster is stopping"  # calls end

    async def all(self) -> list[str]:
        """End all there is, in order; gives what could not be, for people."""
        worker = self._worker
        worker.handlers[wire.Submit] = self._submit
        worker.peers.deliver = worker.deliver_singly  # since each call is looked at
        tesserae = list(worker.worker.tesserae.values())
        busy = await self.end_calls(tesserae)
        return await self.close(tesserae, busy)

    def _submit(self, message: wire.Submit, buffers: Any, sender: int) -> None:
        """A call has come while the cluster ends: only a ``__close__`` still calls.

        Where many were held by their caller, each that ends would let another come. So
        those of programs are not answered: they end with this runtime.
        """
        worker = self._worker
        if not message.inside:
            return
        root = maker(message.inside[0])
        tessera = worker.worker.tesserae.get(message.tessera)
        if tessera is None or kind_of(worker.uid_of(root)) & Kind.WORKER:
            worker.worker.submit(message, buffers, sender)
        else:
            why = f"{short(worker.uid)} ends: {self.why}"
            worker.worker.elsewhere.turn_away(message, sender, why, tessera.options)

    async def end_calls(self, tesserae: list[Tessera]) -> dict[int, str]:
        """Cancel what waits and runs; those that go on, by uid, and lines about it."""
        worker, state = self._worker, self._worker.worker
        abandoned = state.stopping.abandoned
        self._cancel(state.tasks.values())
        tasks = [task for task in state.tasks.values() if task.state == RUNNING]
        tasks += abandoned.values()
        busy = {}
        deadline_s = worker.loop.time() + self.running_s
        for tessera in tesserae:
            begun = [task for task in tasks if task.tessera is tessera]

            def goes_on(begun: list[Task] = begun) -> Task | None:
                return next(
                    (t for t in begun if t.state == RUNNING or t.uid in abandoned), None
                )

            if not await worker.until(lambda look=goes_on: look() is None, deadline_s):
                running = goes_on()
                name = "" if running is None else f".{running.method}"
                busy[tessera.uid] = (
                    f"{tessera.options.name}{name} on {short(worker.uid)} did not end "
                    f"in {self.running_s:g} s: it was not closed"
                )
        return busy

    def _cancel(self, tasks: Iterable[Task]) -> None:
        # Backwards, since the thread of plain methods goes on taking the first.
        for task in reversed(list(tasks)):
            if not task.settled and task.tessera.closing is not task:
                self._worker.worker.stopping.cancel(task.uid, self.why)

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
