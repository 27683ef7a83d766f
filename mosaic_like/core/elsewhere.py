"""Calls that come here for what is no tessera here.

    methods of results, parts of them    run here, on no tessera of a user's
    requests to a warehouse              its shelf has them
    on a tessera that may come           parked with the ``strays``
    on one that is gone, or never was    they fail
    on one that does not answer now      turned away, and its callers' order goes on

Calls on tesserae that are here come in by ``worker``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..ids import maker
from .task import Task, received
from .tessera import NONE_NUMBERED, Runner, Tessera

if TYPE_CHECKING:
    from .worker import WorkerState

_NO_OPTIONS = wire.Options(name="result")
_GHOST = wire.Options(name="tessera")  # what it was called is not known any more
# Parts are picked on a thread of their own: a method that runs must not delay them.
_PICKING = wire.Options(name="task", thread=True)
_OF_NO_TESSERA = (wire.RESULT_CALL, wire.APPLY, wire.PART)
# Why calls on a tessera fail that only its maker could have built again.
ENDED_WITH_MAKER = (
    "it is gone: it was closed, or it ended with the runtime that made it and is lost; "
    "make it again"
)


class Elsewhere:
    """Those of one runtime."""

    def __init__(self, worker: WorkerState, runner: Runner) -> None:
        self._worker = worker
        self._runner = runner
        self.results = self._of_no_user(_NO_OPTIONS)
        self._picking = self._of_no_user(_PICKING)

    def _of_no_user(self, options: wire.Options) -> Tessera:
        tessera = Tessera(0, 0, options, self._runner)
        tessera.instance = tessera
        tessera.move("built")
        return tessera

    def submit(self, message: wire.Submit, buffers: Any, sender: int) -> None:
        """A method of a result, or a tessera that is not here yet, or never was."""
        worker = self._worker
        extra = message.extra
        if extra is not None and extra.kind >= wire.PUT and worker.shelf is not None:
            worker.shelf.request(message, buffers, sender)
            return
        if extra is not None and extra.kind in _OF_NO_TESSERA:
            on = self._picking if extra.kind == wire.PART else self.results
            task = self._receive(message, buffers, sender, on)
            if worker.shelf is not None:
                why = "its value has gone to a warehouse, where nothing runs: await "
                worker.fail(task, wire.GONE, why + "its result() and call it there")
                return
            worker.arguments.gather(task, message, sender)
            if worker.strays.cancels:
                worker.cancel_early(task)
            if extra.remaining_s is not None or extra.timeout_s is not None:
                worker.stopping.watch(task)
            if not task.settled:
                on.enqueue(task)
            return
        made_by = maker(message.tessera)
        if worker.strays.is_full or made_by == sender or worker.never(made_by):
            ghost = Tessera(message.tessera, made_by, _GHOST, self._runner)
            task = self._receive(message, buffers, sender, ghost)
            known = made_by in worker.lost_makers
            why = (
                ENDED_WITH_MAKER if known else "it is gone: it was closed or never made"
            )
            worker.fail(task, wire.GONE, why)
            return
        worker.strays.park(message, buffers, sender)

    def turn_away(
        self, message: wire.Submit, sender: int, why: str | None, options: wire.Options
    ) -> None:
        """A call on a tessera does not run; ``why`` None: its caller is not told."""
        worker = self._worker
        tessera = worker.tesserae.get(message.tessera)
        if tessera is None:  # it has been closed
            by = maker(message.tessera)
            tessera = Tessera(message.tessera, by, options, self._runner)
        if message.number == tessera.numbers.get(sender, 0):
            # The next ones may run: those made inside of others.
            if tessera.numbers is NONE_NUMBERED:
                tessera.numbers = {}
            tessera.numbers[sender] = message.number + 1
        if why is not None:
            task = self._receive(message, None, sender, tessera)
            worker.fail(task, wire.LOST, why)

    def _receive(
        self, message: wire.Submit, buffers: Any, sender: int, tessera: Tessera
    ) -> Task:
        worker = self._worker
        task = received(message, sender, tessera, buffers)
        worker.tasks[message.uid] = task
        worker.holders.add(message.uid)
        return task
