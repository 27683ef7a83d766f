"""How calls end at the runtime where they run, and what is done about it there.

    finished, ..._alike, ..._run  user code has returned: the hot path
    failed                        user code has raised, or was stopped
    settle, fail, refuse          it ends without that: cancelled, late, lost ...

In this order: its tessera goes on, the end is told (``telling``), and what nobody holds
any more is forgotten. A call that was asked to end may have been told of before its
code returns; then the return is only noted. The base of ``WorkerState``, not one of its
parts, since each plain call comes through here. How calls come in is in ``worker``,
what has an end without any run is in ``given``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.messages import Done
from .payloads import references
from .task import (
    CANCELLED,
    CONSTRUCTOR,
    DONE,
    ERROR_EVENT,
    FAILED,
    FINISH,
    FINISHED,
    PENDING,
    RUNNING,
    UPSTREAM_EVENT,
    Task,
)
from .telling import TRAVELLING_BYTES
from .tessera import LOOP

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Mapping

    from .arguments import Arguments
    from .lifecycle import Lifecycle
    from .outbox import Outbox
    from .owner import Owner
    from .recalls import Recalls
    from .stopping import Stopping
    from .streams import Producers
    from .telling import Telling
    from .tessera import Tessera

NONE = b"N"  # None, as the serializer has it


class BuiltAgain(str):
    """Why a life ends that another one follows; text for people.

    The home, while it lives, tells the callers which of their calls had started. Those
    that had not move over: of the ends here that have no value they are not told.
    """

    __slots__ = ()


class Completion:
    """The ends of the calls on one runtime; ``WorkerState`` makes what it refers to."""

    port: Owner
    tasks: dict[int, Task]
    arguments: Arguments
    lifecycle: Lifecycle
    producers: Producers
    recalls: Recalls
    stopping: Stopping
    telling: Telling
    # Called with a task whose value, a large one, is kept here until it is asked for.
    keeping: Callable[[Task], None]
    _outboxes: Mapping[int, Outbox]
    _dependents: dict[int, list[tuple[Task, int]]]
    _subscribers: dict[int, list[int]]

    # -- user code has ended -----------------------------------------------------------

    def finished(self, task: Task, value: Any) -> None:
        """User code has returned a value, bytes or a payload: the hot path."""
        tessera = task.tessera
        tessera.active -= 1
        state = FINISHED[task.state]
        if state < 0:
            self._returned_late(task)
            return
        task.state = state
        if tessera.queue:
            tessera.dispatch()
        if (
            type(value) is bytes
            and len(value) <= TRAVELLING_BYTES
            and not task.released
        ):
            task.outcome = outcome = Done(task.uid, value)
            outbox = self._outboxes.get(task.caller)
            if outbox is not None:
                outbox.send_ends([outcome])
        elif task.released:
            # Nobody but calls that wait here for it wants the value; the caller counts
            # what has ended.
            if task.uid in self._dependents:
                set_outcome(task, value)
            else:
                task.outcome = Done(task.uid, b"")
            outbox = self._outboxes.get(task.caller)
            if outbox is not None:
                outbox.send_ends([Done(task.uid, b"")])
            self.tasks.pop(task.uid, None)
        else:
            self.keep(task, value)
            self.telling.tell_end(task.caller, task)
        task.data = b""  # whoever holds the task holds its value alone
        if task.buffers is not None:
            task.buffers = task.arguments = None
        if self._dependents or self._subscribers:
            self.telling.tell_others(task)

    def finished_alike(self, ended: deque[tuple[Task, Any]], most: int) -> None:
        """``finished`` for the first ones, as far as they are common: the hot path.

        Args:
            ended: in their order, with what user code has returned; emptied so far.
            most: this many at most.
        """
        if self.stopping.asked:
            return
        tessera: Tessera | None = None
        caller = 0
        run: list[Task] = []
        for _ in range(most):
            task, value = ended[0]
            if (
                type(value) is not bytes
                or task.state != RUNNING
                or task.released
                or task.extra is not None
                or task.buffers
                or len(value) > TRAVELLING_BYTES
            ):
                break
            if task.tessera is not tessera or task.caller != caller:
                if run:
                    self.finished_run(run)
                    run = []
                tessera, caller = task.tessera, task.caller
                if tessera.closing is not None:
                    break
            ended.popleft()
            task.outcome = Done(task.uid, value)
            task.state = DONE
            run.append(task)
        if run:
            self.finished_run(run)

    def keep(self, task: Task, value: Any) -> None:
        """A value, bytes or a payload, that others may ask for later."""
        set_outcome(task, value)
        if task.size > TRAVELLING_BYTES:
            self.keeping(task)

    def finished_run(self, run: list[Task]) -> None:
        """Calls of one caller have ended; their outcomes are set, small and plain."""
        task = run[0]
        tessera = task.tessera
        tessera.active -= len(run)
        outbox = self._outboxes.get(task.caller)
        if outbox is not None:
            outbox.send_ends([task.outcome for task in run])
        for task in run:
            task.data = b""  # as in `finished`
        if self._dependents or self._subscribers:
            for task in run:
                self.telling.tell_others(task)
        if tessera.queue:
            tessera.dispatch()

    def look_for_asked(self) -> None:
        """Calls were asked to end, or none is any more.

        ``finished`` is looked up anew for each call that ends, so that a plain one need
        not ask.
        """
        if self.stopping.asked:
            self.finished = self._finished_asked  # type: ignore[method-assign]
        else:
            vars(self).pop("finished", None)

    def _finished_asked(self, task: Task, value: Any) -> None:
        """``finished`` while some calls were asked to end.

        Whoever cancelled a plain method was told that it would end so; a coroutine
        that catches its CancelledError decides for itself, as in asyncio.
        """
        why = self.stopping.asked.get(task.uid)
        if why is None or task.lane == LOOP or task.outcome is not None:
            Completion.finished(self, task, value)
            return
        task.tessera.active -= 1
        if task.tessera.queue:
            task.tessera.dispatch()
        self.stopping.stopped(task, why)

    def _returned_late(self, task: Task) -> None:
        """User code has returned, but the end of the call was told before."""
        if task.outcome is None:
            task.move(FINISH)  # raises
        if task.tessera.queue:
            task.tessera.dispatch()
        self._ended_before(task)

    def failed(self, task: Task, event: int, reason: int, error: Any) -> None:
        """User code has raised, or was stopped."""
        task.tessera.active -= 1
        task.data = b""
        if task.tessera.queue:
            task.tessera.dispatch()
        if task.outcome is not None:
            self._ended_before(task)
        elif self.recalls.left_alone(task):
            task.move(event)
            message = wire.Recalled([task.uid], [task.uid])
            self.telling.tell(task.caller, message, None)
        elif reason == wire.AGAIN:
            task.outcome = wire.Failed(task.uid, wire.ERROR, b"")
            task.move(event)
            self.tasks.pop(task.uid, None)
            self.stopping.unasked(task.uid)
            self.telling.tell(task.caller, wire.Again(task.uid, *error), None)
        else:
            self.settle(task, event, reason, error)

    def _ended_before(self, task: Task) -> None:
        self.stopping.abandoned.pop(task.uid, None)
        if not task.settled:
            # Its thread took it at the moment in which it was settled, and has left it
            # alone; but it looked as if it ran to those who asked since then.
            cancelled = task.outcome.reason in (wire.CANCELLED, wire.MOVED)
            task.state = CANCELLED if cancelled else FAILED
            self.telling.tell_others(task)
        if task.released:
            self.tasks.pop(task.uid, None)

    # -- it ends otherwise -------------------------------------------------------------

    def refuse(self, task: Task, error: Exception, reason: int = wire.ERROR) -> None:
        """A task fails without having run."""
        self.fail(task, reason, error)

    def fail(self, task: Task, reason: int, why: Any) -> None:
        """It fails, unless it has ended."""
        if not task.settled:
            self.settle(task, ERROR_EVENT, reason, why)

    def settle(self, task: Task, event: int, reason: int, why: Any) -> None:
        """It ends without a value.

        Args:
            task: which; nothing is done if it has ended.
            event: of its table: an error, a cancel, or an argument that failed.
            reason: as of Failed.
            why: an error as bytes; or what the runtime makes one of.
        """
        if task.settled:
            return
        if self.producers.by_uid and self.producers.taken_out(task):
            return
        error = why if type(why) is bytes else self.port.failure(task, reason, why)
        if event == UPSTREAM_EVENT and task.state != PENDING:
            event = ERROR_EVENT
        if self.stopping.asked:
            self.stopping.unasked(task.uid)
        outcome = wire.Failed(task.uid, reason, error)
        # In this order: a thread that finds it ended looks at how.
        task.outcome = outcome
        task.move(event)
        if self.producers.by_uid and task.uid not in self.stopping.abandoned:
            self.producers.forget(task.uid)
        self.arguments.unlocate(task)
        task.buffers = task.arguments = None
        if self.lifecycle.is_told_by_home(task, why):
            outcome.reason = wire.MOVED
            task.buffers = self.port.untold(task)
        else:
            self.telling.tell(task.caller, outcome, None)
        if self._dependents or self._subscribers:
            self.telling.tell_others(task)
        if task.handed:
            self.port.put_off_no_more(task)
        if task.released:
            self.tasks.pop(task.uid, None)
        if task.method == CONSTRUCTOR and task.tessera.instance is None:
            self.lifecycle.never_built(task.tessera, error)


def set_outcome(task: Task, value: Any) -> None:
    """An outcome that is large, or more than bytes."""
    if type(value) is bytes:
        task.size = len(value)
        task.outcome = wire.Done(task.uid, value)
        return
    task.result = value
    task.size = value.nbytes
    extra = wire.Extra(
        references=references(value),
        definitions=list(value.definitions),
        buffers=len(value.buffers),
        shared=None if value.shared is None else value.shared.wire,
    )
    task.outcome = wire.Done(task.uid, value.data, extra)
