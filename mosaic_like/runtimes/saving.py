"""Checkpoints at the deadline of a job: the head asks for them, each worker takes them.

What is built again when its worker is lost is not when its whole cluster ends. So all
of it that has the methods is written down then, and stays in the directory that the
user has named. Calls that wait are cancelled for it, as they are a moment later in any
case; those that run have ``drain_timeout_s`` to end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.task import DONE, RUNNING
from ..ids import short
from ..text import printable

if TYPE_CHECKING:
    from ..core.tessera import Tessera
    from .head import Head
    from .worker import Worker

ANSWER_S = 10.0  # that an answer may take longer: to cancel many calls takes a while


class Saving:
    """Asks all workers; on the head's loop."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._answers: dict[int, asyncio.Future[list[str]]] = {}
        head.handlers[wire.Saved] = self._on_saved

    def _on_saved(self, message: wire.Saved, buffers: Any, sender: int) -> None:
        answer = self._answers.get(sender)
        if answer is not None and not answer.done():
            answer.set_result([printable(line) for line in message.lines])

    async def all(self) -> list[str]:
        """Have all written down; what there is to say of each, for people."""
        head = self._head
        for member in head.of_kind("worker"):
            outbox = head.outbox(member.incarnation)
            if outbox is not None:
                self._answers[member.incarnation] = head.loop.create_future()
                outbox.send(wire.Save())
        if not self._answers:
            return []
        limit_s = head.config.drain_timeout_s + ANSWER_S
        await asyncio.wait(self._answers.values(), timeout=limit_s)
        lines = []
        for incarnation, answer in self._answers.items():
            if answer.done():
                lines += answer.result()
            else:
                name = short(head.uid_of(incarnation))
                lines.append(f"{name} has not said what it has written down")
        return lines


async def answer(worker: Worker, sender: int) -> None:
    """Take them, and tell the head that has asked."""
    checkpoints, tesserae = worker.checkpoints, list(worker.worker.tesserae.values())
    struck = _cancel_waiting(worker)
    tasks = checkpoints.take_all([t for t in tesserae if t not in struck])
    checkpoints.keep()
    limit_s = worker.config.drain_timeout_s
    deadline_s = worker.loop.time() + limit_s
    await worker.until(lambda: all(task.settled for task in tasks), deadline_s)
    why = dict.fromkeys(
        filter(checkpoints.is_taken_of, struck), "a call was interrupted"
    )
    for task in tasks:
        why[task.tessera] = ""
        if task.state != DONE:
            why[task.tessera] = f"a call on it went on for {limit_s:g} s"
        elif task.tessera.uid in checkpoints.failed:
            why[task.tessera] = "that could not be written down"
    lines = []
    for tessera, reason in why.items():
        label, path = tessera.options.name, checkpoints.kept(tessera)
        line = f"{label}: mosaic.read_checkpoint({path!r}) gives its state"
        if reason:
            line = f"{line} of an earlier time" if path else f"{label}: no checkpoint"
            line += f", since {reason}"
        lines.append(line)
    outbox = worker.outbox(sender)
    if outbox is not None:
        outbox.send(wire.Saved(lines))


def _cancel_waiting(worker: Worker) -> set[Tessera]:
    """Cancel all calls that do not run: they end in any case, and stand in the way.

    Gives the tesserae of those that began at that moment, and so were interrupted:
    their state may be half of something.
    """
    struck = set()
    # Backwards, since the thread of plain methods goes on taking the first.
    for task in reversed(list(worker.worker.tasks.values())):
        if (
            not task.settled
            and task.state != RUNNING
            and task is not task.tessera.closing
        ):
            worker.worker.stopping.cancel(task.uid, "its job is to end")
            if task.state == RUNNING:
                struck.add(task.tessera)
    return struck
