"""A helper: a worker for function tasks alone, which leaves when it has none.

When it is started, and who may use it, its node decides (``core.helpers``). Nothing is
placed on it, and nobody counts it among the workers.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ..comms import messages as wire
from ..errors import MonitorLost
from .worker import Worker

if TYPE_CHECKING:
    import asyncio

    from .spec import Spec

IDLE_S = 2.0  # after which it leaves
LOOK_S = 0.25


class Helper(Worker):
    """See the module."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spec: Spec) -> None:
        super().__init__(loop, spec)
        self._busy_s = loop.time()  # the last time that it was seen to have anything

    async def start(self) -> None:
        await super().start()
        self._look_for_work()

    def _look_for_work(self) -> None:
        if self.stopping or self.departing is not None:
            return
        now_s = self.loop.time()
        if self._has_work():
            self._busy_s = now_s
        elif now_s - self._busy_s >= IDLE_S:
            with contextlib.suppress(MonitorLost):  # then the node ends all of it
                self.monitor.send(wire.Drain(self.incarnation, None))
        self.loop.call_later(LOOK_S, self._look_for_work, context=self.context)

    def _has_work(self) -> bool:
        """Also what a task has left here: a tessera that somebody holds, calls."""
        worker = self.worker
        return (
            bool(self.executor.main.stack or self.caller.calls)
            or any(not task.settled for task in worker.tasks.values())
            or any(not t.options.stateless for t in worker.tesserae.values())
        )
