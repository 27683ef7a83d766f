"""A worker's thread that stands still in a call: its node is told what lies behind it.

Whether it does is decided in ``core.stillness``, and what follows from it at the node,
in ``core.helpers``. Looked at only while a call runs for long, which the runtime's
timer tells: calls that end soon cost nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from ..comms import messages as wire
from ..core.stillness import Stillness
from ..core.task import QUEUED

if TYPE_CHECKING:
    import asyncio

    from .worker import Worker

LOOK_S = 0.1


class Standstill:
    """Of the thread for plain methods of one worker; on its loop."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._state = Stillness()
        self._timer: asyncio.TimerHandle | None = None
        self._told: list[int] | None = None  # what lies behind, if it stands still

    def arm(self) -> None:
        """Something runs: look whether it stands still."""
        if self._timer is None:
            worker = self._worker
            self._timer = worker.loop.call_later(
                LOOK_S, self._look, context=worker.context
            )

    def _look(self) -> None:
        self._timer = None
        worker = self._worker
        running = [task.uid for task in worker.executor.main.stack]
        now_s = worker.loop.time()
        uid = running[-1] if running else 0
        own_s = time.process_time()
        behind = None
        if self._state.look(now_s, uid, own_s, _children_s):
            behind = self._behind(running)
        if behind != self._told:
            self._told = behind
            node = worker.node
            if node is not None and not worker.stopping:
                for_s = None if behind is None else now_s - self._state.began_s
                node.send(wire.Still(for_s, behind or []))
        if running:
            self.arm()

    def _behind(self, running: list[int]) -> list[int]:
        """The submitters of function tasks that this thread is to run."""
        return sorted(
            {
                task.caller
                for task in self._worker.worker.tasks.values()
                if task.state == QUEUED
                and task.tessera.options.stateless
                and not task.tessera.options.is_async
                and task.uid not in running
            }
        )


def _children_s() -> float:
    """Processor time, in seconds, of all that this process has started."""
    ended = os.times()
    total = ended.children_user + ended.children_system
    # Where psutil is not there, or this process can open nothing, those that have ended
    # count alone: who waits behind the call is not to wait for that, too.
    with contextlib.suppress(Exception):
        total += _running_s()
    return total


def _running_s() -> float:
    """The same of those that have not ended."""
    import psutil  # seldom needed

    total = 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            total += sum(child.cpu_times()[:4])  # its own, and its ended children's
        except psutil.Error:
            continue  # it has ended; its parent has its time
    return total
