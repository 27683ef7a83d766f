"""The life of a tessera at the runtime where it lives: made, built, closed or killed.

    create      PENDING      its constructor waits for its arguments and its memory
    built       LISTENING    what came meanwhile starts
    not_built   FAILED       the constructor has raised: so does every call
    close       CLOSING      no new calls; what is queued ends, then ``__close__`` runs
    closed      STOPPED      ``__close__`` has ended

The table of these moves, and the mailbox, are in ``tessera``. A tessera that nobody
holds is closed and then forgotten; one that somebody closed is kept, so that who calls
it hears why it does not answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..errors import ProtocolError
from ..ids import maker
from .call import KILLED
from .completion import NONE, BuiltAgain
from .task import (
    CANCEL_EVENT,
    CLOSE_METHOD,
    CONSTRUCTOR,
    ERROR_EVENT,
    PENDING,
    READY,
    Task,
    received,
)
from .tessera import Runner, Tessera, TesseraState

if TYPE_CHECKING:
    from collections.abc import Callable

    from .worker import WorkerState


class Lifecycle:
    """Those of one runtime."""

    def __init__(self, worker: WorkerState, runner: Runner) -> None:
        self._worker = worker
        self._port = worker.port
        self._runner = runner
        self._closing: set[int] = set()  # to forget when closed
        self._lanes: dict[tuple[Any, ...], dict[str, int]] = {}  # of tesserae alike
        # Begins a construction when there is the memory that it reserves.
        self.reserve: Callable[[Task, Callable[[], None]], None]
        self.reserve = lambda task, go: go()

    # -- made --------------------------------------------------------------------------

    def check_create(self, message: wire.Create, sender: int) -> None:
        """Refuse a construction that no honest peer asks for.

        Raises:
            ProtocolError: its uids are another's, or there are such things already.
        """
        if maker(message.tessera) != sender or maker(message.uid) != sender:
            raise ProtocolError("it makes what only another may make")
        supervised = message.options.supervised
        if supervised is not None and (
            maker(supervised.uid) != sender
            or min(supervised.life, supervised.checkpoint_calls) < 0
            or not 0 <= supervised.checkpoint_s < float("inf")
        ):
            raise ProtocolError(f"it is built again as {supervised}")
        if message.options.memory < 0:
            raise ProtocolError(f"it reserves {message.options.memory} bytes")
        find, tesserae = self._worker.find, self._worker.tesserae
        tessera, uid = message.tessera, message.uid
        if (
            tessera == uid
            or tessera in tesserae
            or find(uid)
            or find(tessera)
            or uid in tesserae
        ):
            raise ProtocolError("it makes what was made before")

    def create(self, message: wire.Create, buffers: Any, sender: int) -> None:
        """Make a tessera: its constructor is its first task."""
        worker = self._worker
        tessera = Tessera(message.tessera, sender, message.options, self._runner)
        worker.tesserae[message.tessera] = tessera
        if worker.holders.shared:  # else only their maker has heard of them
            worker.holders.add(message.tessera)
            worker.holders.add(message.uid)
        submit = wire.Submit(
            message.uid,
            message.tessera,
            0,
            CONSTRUCTOR,
            message.data,
            message.extra,
            message.inside,
        )
        task = received(submit, sender, tessera, buffers)
        task.rare = message.cls
        worker.tasks[message.uid] = task
        worker.arguments.gather(task, submit, sender)
        # First, so that none has started when it is found to be cancelled.
        for call in worker.strays.take(message.tessera):
            worker.submit(call.message, call.buffers, call.sender)
            if call.why is not None:
                worker.stopping.cancel(call.message.uid, call.why)
        if message.options.memory and not task.settled:
            task.missing += 1
            self.reserve(task, lambda: self._reserved(task))
        elif not task.missing and not task.settled:
            self.construct(task)

    def _reserved(self, task: Task) -> None:
        task.missing -= 1
        if task.state == PENDING and task.tessera.uid in self._worker.tesserae:
            self._worker.arguments.all_here(task)

    def construct(self, task: Task) -> None:
        """Everything that the constructor takes is here."""
        task.move(READY)
        task.tessera.active += 1
        self._runner.construct(task)

    # -- built -------------------------------------------------------------------------

    def built(self, task: Task, instance: Any) -> None:
        """The constructor has returned."""
        tessera = task.tessera
        if task.outcome is not None:  # it was given up
            self._worker.finished(task, NONE)
            return
        tessera.instance = instance
        options = tessera.options
        alike = type(instance), options.is_async, options.inline, options.thread
        tessera.lanes = self._lanes.setdefault(alike, {})
        tessera.move("built")
        self._worker.finished(task, NONE)
        tessera.dispatch()

    def not_built(self, task: Task, error: bytes) -> None:
        """The constructor has raised: so does every call."""
        if task.outcome is not None:
            self._worker.failed(task, ERROR_EVENT, wire.ERROR, error)
            return
        tessera = task.tessera
        tessera.fails(error)
        tessera.move("error")
        self._worker.failed(task, ERROR_EVENT, wire.ERROR, error)
        self._end(tessera, error)

    def never_built(self, tessera: Tessera, error: bytes) -> None:
        """Its construction was cancelled, or lacks an argument that has failed."""
        if tessera.state in (TesseraState.PENDING, TesseraState.CLOSING):
            tessera.fails(error)
            tessera.move("error")
            self._end(tessera, error)

    def _end(self, tessera: Tessera, error: bytes) -> None:
        waiting = tessera.waiting()
        tessera.closing = tessera.reserved = None
        tessera.clear()
        for task in waiting:
            self._worker.fail(task, wire.ERROR, error)
        self._gone(tessera)

    # -- closed ------------------------------------------------------------------------

    def close(self, tessera: Tessera, task: Task | None) -> None:
        """No new calls; what is queued ends, then ``__close__`` runs.

        Args:
            tessera: which.
            task: the call that asks for it, to be told; None: nobody holds it any more.
        """
        worker = self._worker
        worker.producers.close(tessera)
        if task is not None and task.kind == wire.KILL:
            self._kill(tessera, task, KILLED)
        if _is_over(tessera):
            if task is None:
                worker.tesserae.pop(tessera.uid, None)
            elif tessera.state is TesseraState.FAILED:
                worker.never_runs(task)
            else:
                worker.fail(task, wire.GONE, "it was closed before")
            return
        if tessera.state is TesseraState.CLOSING:
            if task is not None:
                worker.fail(task, wire.GONE, "it is being closed")
            else:
                self._closing.add(tessera.uid)
            return
        if task is None:
            self._closing.add(tessera.uid)
            submit = wire.Submit(0, tessera.uid, 0, CLOSE_METHOD, b"")
            task = received(submit, 0, tessera)
            task.released = True
        else:
            task.method = CLOSE_METHOD
            task.data = b""
        tessera.move("close")
        tessera.close(task)

    def end(self, uid: int, why: str) -> None:
        """End a tessera for what has happened elsewhere: now, as a kill does.

        Args:
            uid: of one that is here.
            why: for whoever calls it, or waits.
        """
        tessera = self._worker.tesserae[uid]
        if _is_over(tessera):
            return
        self._worker.producers.close(tessera)
        closing = tessera.closing
        if closing is None:
            submit = wire.Submit(0, uid, 0, CLOSE_METHOD, b"")
            closing = received(submit, 0, tessera)
            closing.released = True
        self._kill(tessera, closing, why)
        # A construction that waited has failed of it.
        if tessera.closing is None and not _is_over(tessera):
            tessera.move("close")
            tessera.close(closing)

    def is_told_by_home(self, task: Task, why: Any) -> bool:
        """The caller of a call that ends without a value is not told: ``BuiltAgain``.

        Args:
            task: of the call.
            why: it ends.
        """
        lost = self._worker.lost_makers
        is_built_again = BuiltAgain in (type(why), type(task.cancelled))
        return is_built_again and maker(task.tessera.uid) not in lost

    def lost_home(self, incarnation: int) -> None:
        """The homes of some are lost: what they had to tell is told here."""
        for task in self._worker.tasks.values():
            end = task.outcome
            untold = type(end) is wire.Failed and end.reason == wire.MOVED
            if untold and maker(task.tessera.uid) == incarnation:
                end = wire.Failed(task.uid, wire.CANCELLED, end.data)
                self._worker.telling.tell(task.caller, end, None)

    def _kill(self, tessera: Tessera, killer: Task, why: str) -> None:
        worker = self._worker
        if tessera.error is None and tessera.state is not TesseraState.STOPPED:
            tessera.error = why
            self._port.tessera_fails(tessera)
        for waiting in tessera.clear():
            worker.settle(waiting, CANCEL_EVENT, wire.CANCELLED, why)
        for task in [t for t in worker.tasks.values() if t.tessera is tessera]:
            if task.settled or task is killer or task is tessera.closing:
                continue
            if task.state == PENDING:  # the construction, which lacks an argument
                worker.settle(task, CANCEL_EVENT, wire.CANCELLED, why)
            else:
                worker.stopping.cancel_started(task, why)

    def closed(self, tessera: Tessera) -> None:
        """Its ``__close__`` has ended."""
        tessera.move("closed")
        # The call that closed it refers to it, too, and the collector of circles does
        # not look at calls: both would stay for ever.
        tessera.instance = tessera.reserved = tessera.closing = None
        self._gone(tessera)

    def _gone(self, tessera: Tessera) -> None:
        if tessera.uid in self._closing:
            self._closing.discard(tessera.uid)
            self._worker.tesserae.pop(tessera.uid, None)
        self._port.tessera_gone(tessera)


def _is_over(tessera: Tessera) -> bool:
    return tessera.state in (TesseraState.STOPPED, TesseraState.FAILED)
