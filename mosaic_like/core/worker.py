"""The tesserae and tasks that live in this runtime: what arrives, runs and ends.

Nothing here knows of sockets or threads. User code is run by the ``Runner``, which
tells the end by ``finished``; messages go to the outbox of their peer. The calls of
this runtime on others are in ``caller``; it is used here to get arguments that other
runtimes have.
"""

from __future__ import annotations

from collections import deque
from sys import intern
from typing import TYPE_CHECKING, Any, Protocol

from ..comms import messages as wire
from ..comms.messages import Done
from ..ids import maker
from .caller import Arrived, Call, CallerState, Outbox, references
from .holders import HolderTable
from .streams import Producers
from .task import (
    CANCEL_EVENT,
    CANCELLED,
    DONE,
    ERROR_EVENT,
    FINISH,
    FINISHED,
    PENDING,
    QUEUED,
    READY,
    RUNNING,
    UPSTREAM_EVENT,
    Task,
    received,
)
from .tessera import MAIN, Runner, Tessera, TesseraState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Results up to this many bytes travel with Done; larger ones wait until they are asked
# for.
TRAVELLING_BYTES = 64 << 10

_NO_OPTIONS = wire.Options(name="result")
_LISTENING = TesseraState.LISTENING
NONE = b"N"  # None, as the serializer has it
CLOSE_METHOD = "__close__"
CONSTRUCTOR = "__init__"


class Owner(Protocol):
    """What the runtime does for WorkerState."""

    incarnation: int

    def outbox(self, incarnation: int) -> Outbox | None:
        """To send to a runtime; None if it is lost."""

    def arrived(self, message: Any, buffers: Any, sender: int) -> Any: ...

    def awaited_call(self, reference: wire.Reference) -> Call:
        """A call of another runtime, to subscribe to."""

    def failure(self, task: Task, reason: int, why: Any) -> bytes:
        """An error that this runtime makes, as bytes."""

    def cancel_running(self, task: Task) -> None: ...

    def tessera_gone(self, tessera: Tessera) -> None: ...


class Alone:
    """The objects that only their makers hold, as ``HolderTable`` has them.

    It is the objects themselves that know it: a set of a hundred thousand uids would
    be half as large as the tasks.
    """

    def __init__(self, tesserae: dict[int, Tessera], tasks: dict[int, Task]) -> None:
        self._tesserae = tesserae
        self._tasks = tasks

    def _find(self, uid: int) -> Task | Tessera | None:
        return self._tasks.get(uid) or self._tesserae.get(uid)

    def __contains__(self, uid: int) -> bool:
        thing = self._find(uid)
        return thing is not None and not thing.shared

    def __iter__(self) -> Iterator[int]:
        for things in (self._tasks, self._tesserae):
            yield from (uid for uid, thing in things.items() if not thing.shared)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def add(self, uid: int) -> None:
        thing = self._find(uid)
        if thing is not None:
            thing.shared = False

    def discard(self, uid: int) -> None:
        thing = self._find(uid)
        if thing is not None:
            thing.shared = True


class WorkerState:
    """All that this runtime owns."""

    def __init__(
        self,
        port: Owner,
        runner: Runner,
        caller: CallerState,
        outboxes: Mapping[int, Outbox],
    ) -> None:
        self._outboxes = outboxes  # of the living, by incarnation
        self._port = port
        self._runner = runner
        self._caller = caller
        self.tesserae: dict[int, Tessera] = {}
        self.tasks: dict[int, Task] = {}
        alone = Alone(self.tesserae, self.tasks)
        self.holders = HolderTable(port.incarnation, self, alone)
        self._shared = self.holders.shared
        self._lanes: dict[tuple[Any, ...], dict[str, int]] = {}  # of tesserae alike
        self._parked: dict[int, list[tuple[int, Any, Any]]] = {}
        self._parked_cancels: dict[int, str] = {}
        self._dependents: dict[int, list[tuple[Task, int]]] = {}
        self._subscribers: dict[int, list[int]] = {}
        self._results = Tessera(0, 0, _NO_OPTIONS, runner)
        self._results.instance = self._results
        self._results.move("built")
        self._closing: set[int] = set()  # tesserae to forget when closed
        self._ended: deque[Task] = deque()  # of which others are still to be told
        self._telling = False
        self.lost_makers: set[int] = set()
        self.producers = Producers(self)

    # -- calls come in -----------------------------------------------------------------

    def create(self, message: wire.Create, buffers: Any, sender: int) -> None:
        """Make a tessera: its constructor is its first task."""
        tessera = Tessera(message.tessera, sender, message.options, self._runner)
        self.tesserae[message.tessera] = tessera
        self.holders.add(message.tessera)
        self.holders.add(message.uid)
        submit = wire.Submit(
            message.uid, message.tessera, 0, CONSTRUCTOR, message.data, message.extra
        )
        task = received(submit, sender, tessera, buffers)
        task.rare = message.cls
        self.tasks[message.uid] = task
        self._gather(task, submit, sender)
        # First, so that none has started when it is found to be cancelled.
        for parked in self._parked.pop(message.tessera, ()):
            self.submit(parked[1], parked[2], parked[0])
            why = self._parked_cancels.pop(parked[1].uid, None)
            if why is not None:
                self.cancel(parked[1].uid, why)
        if not task.missing and not task.settled:
            self._construct(task)

    def _construct(self, task: Task) -> None:
        task.move(READY)
        task.tessera.active += 1
        self._runner.construct(task)

    def submit(self, message: wire.Submit, buffers: Any, sender: int) -> None:
        """A call has come: the hot path."""
        tessera = self.tesserae.get(message.tessera)
        if tessera is None:
            self._submit_elsewhere(message, buffers, sender)
            return
        uid = message.uid
        extra = message.extra
        state = QUEUED if extra is None else PENDING
        method = intern(message.method)
        task = Task(uid, sender, tessera, method, message.data, extra, buffers, state)
        self.tasks[uid] = task
        if self._shared:
            self.holders.add(uid)
        number = message.number
        numbers = tessera.numbers
        if number != numbers.get(sender, 0) and number:
            due = numbers.get(sender, 0)
            why = f"call {number} of its stream came where {due} was due"
            self._fail(task, wire.ERROR, why)
            return
        numbers[sender] = number + 1
        if extra is not None:
            if extra.kind >= wire.CLOSE:
                self._close(tessera, task)
                return
            if extra.kind == wire.STREAM:
                self.producers.add(task)
            self._gather(task, message, sender)
            if task.settled:
                return
        elif tessera.state is _LISTENING and not tessera.queue and not tessera.blocked:
            # What `enqueue` comes to where nothing is before the call: the hot path.
            lane = tessera.lanes.get(method)
            if lane is not None and (
                not tessera.active or lane == MAIN == tessera.lane
            ):
                task.lane = tessera.lane = lane
                tessera.active += 1
                self._runner.start(task)
                return
        if tessera.state is not _LISTENING and self._refused(task):
            return
        tessera.enqueue(task)

    def _submit_elsewhere(
        self, message: wire.Submit, buffers: Any, sender: int
    ) -> None:
        """A method of a result, or a tessera that is not here yet, or never was."""
        extra = message.extra
        if extra is not None and extra.kind == wire.RESULT_CALL:
            task = received(message, sender, self._results, buffers)
            self.tasks[message.uid] = task
            self.holders.add(message.uid)
            self._gather(task, message, sender)
            if not task.settled:
                self._results.enqueue(task)
            return
        made_by = maker(message.tessera)
        if made_by in self.lost_makers or made_by == sender:
            ghost = Tessera(message.tessera, made_by, _NO_OPTIONS, self._runner)
            task = received(message, sender, ghost, buffers)
            self.tasks[message.uid] = task
            self.holders.add(message.uid)
            self._fail(task, wire.GONE, "it is gone: it was closed or never made")
            return
        self._parked.setdefault(message.tessera, []).append((sender, message, buffers))

    def _refused(self, task: Task) -> bool:
        tessera = task.tessera
        if tessera.state is TesseraState.PENDING:
            return False
        if tessera.state is TesseraState.FAILED:
            self._fail(task, wire.ERROR, tessera.error)
        else:
            self._fail(task, wire.GONE, "it was closed")
        return True

    # -- arguments ---------------------------------------------------------------------

    def _gather(self, task: Task, message: wire.Submit, sender: int) -> None:
        """Take the grants of the arguments and get those that are tasks."""
        extra = task.extra
        if extra is None:
            return
        if extra.references or extra.definitions or extra.buffers:
            arrived = self._port.arrived(message, task.buffers, sender)
            task.buffers = arrived
        if not extra.references:
            return
        task.arguments = [None] * len(extra.references)
        for index, reference in enumerate(extra.references):
            if reference.kind == wire.TASK and not task.settled:
                self._await_argument(task, index, reference)

    def _await_argument(
        self, task: Task, index: int, reference: wire.Reference
    ) -> None:
        if reference.owner == self._port.incarnation:
            local = self.tasks.get(reference.uid)
            if local is None and maker(reference.uid) in self.lost_makers:
                local = self._never(reference.uid)
            if local is not None and local.settled:
                task.arguments[index] = local
                if local.state != DONE:
                    self._upstream(task, local)
                return
            if local is not None and local.handed and self._on_main(task):
                # It will have ended when the same thread gets to this call: to wait
                # for the loop to see that would cost two hand-overs for each call of
                # a chain.
                task.arguments[index] = local
                return
            task.missing += 1
            self._dependents.setdefault(reference.uid, []).append((task, index))
            return
        call = self._port.awaited_call(reference)
        task.missing += 1
        call.waiters = [lambda: self._remote_argument(task, index, call)]
        self._caller.subscribe(call)

    def _on_main(self, task: Task) -> bool:
        """The call is known to run on the main thread."""
        tessera = task.tessera
        if tessera.instance is None:
            return False
        return tessera.lanes.get(task.method) == MAIN

    def _remote_argument(self, task: Task, index: int, call: Call) -> None:
        """A task of another runtime that this one takes has ended."""
        if task.settled:
            return
        result = call.result
        if call.state == DONE and type(result) is Arrived and result.size:
            call.waiters = [lambda: self._remote_argument(task, index, call)]
            self._caller.fetch(call)
            return
        self._argument_here(task, index, call)

    def _argument_here(self, task: Task, index: int, argument: Task | Call) -> None:
        if task.settled:
            return
        task.arguments[index] = argument
        task.missing -= 1
        if argument.state != DONE:
            self._upstream(task, argument)
        elif not task.missing:
            if task.method == CONSTRUCTOR and task.tessera.instance is None:
                self._construct(task)
            else:
                task.tessera.arguments_here(task)

    def _upstream(self, task: Task, argument: Task | Call) -> None:
        task.tessera.remove(task)
        if argument.state == CANCELLED:
            self._settle(task, CANCEL_EVENT, wire.CANCELLED, argument)
        else:
            self._settle(task, UPSTREAM_EVENT, wire.UPSTREAM, argument)

    # -- calls end ---------------------------------------------------------------------

    def finished(self, task: Task, value: Any) -> None:
        """User code has returned a value, bytes or a payload: the hot path."""
        tessera = task.tessera
        tessera.active -= 1
        state = FINISHED[task.state]
        if state < 0:
            task.move(FINISH)  # raises
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
                outbox.send(outcome)
        elif task.released:
            # Nobody but calls that wait here for it wants the value; the caller counts
            # what has ended.
            if task.uid in self._dependents:
                self._keep(task, value)
            else:
                task.outcome = Done(task.uid, b"")
            self._tell(task.caller, Done(task.uid, b""), None)
            self.tasks.pop(task.uid, None)
        else:
            self._keep(task, value)
            self._tell_end(task.caller, task)
        if task.buffers is not None:
            task.buffers = task.arguments = None
        if self._dependents or self._subscribers:
            self._tell_others(task)

    def _keep(self, task: Task, value: Any) -> None:
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
        )
        task.outcome = wire.Done(task.uid, value.data, extra)

    def failed(self, task: Task, event: int, reason: int, error: Any) -> None:
        """User code has raised, or was stopped."""
        task.tessera.active -= 1
        if task.tessera.queue:
            task.tessera.dispatch()
        self._settle(task, event, reason, error)

    def built(self, task: Task, instance: Any) -> None:
        """The constructor has returned."""
        tessera = task.tessera
        tessera.instance = instance
        options = tessera.options
        alike = type(instance), options.is_async, options.inline, options.thread
        tessera.lanes = self._lanes.setdefault(alike, {})
        tessera.move("built")
        self.finished(task, NONE)
        tessera.dispatch()

    def not_built(self, task: Task, error: bytes) -> None:
        """The constructor has raised: so does every call."""
        tessera = task.tessera
        tessera.error = error
        tessera.move("error")
        self.failed(task, ERROR_EVENT, wire.ERROR, error)
        self._end_tessera(tessera, wire.ERROR, error)

    def _end_tessera(self, tessera: Tessera, reason: int, why: Any) -> None:
        waiting = tessera.waiting()
        tessera.closing = None
        tessera.clear()
        for task in waiting:
            self._fail(task, reason, why)
        if tessera.uid in self._closing:
            self._closing.discard(tessera.uid)
            self.tesserae.pop(tessera.uid, None)
        self._port.tessera_gone(tessera)

    def _fail(self, task: Task, reason: int, why: Any) -> None:
        if not task.settled:
            self._settle(task, ERROR_EVENT, reason, why)

    def _settle(self, task: Task, event: int, reason: int, why: Any) -> None:
        if task.settled:
            return
        if self.producers.by_uid and self.producers.taken_out(task):
            return
        error = why if type(why) is bytes else self._port.failure(task, reason, why)
        if event == UPSTREAM_EVENT and task.state != PENDING:
            event = ERROR_EVENT
        task.move(event)
        if self.producers.by_uid:
            self.producers.forget(task.uid)
        outcome = wire.Failed(task.uid, reason, error)
        task.outcome = outcome
        task.buffers = task.arguments = None
        self._tell(task.caller, outcome, None)
        if self._dependents or self._subscribers:
            self._tell_others(task)
        if task.released:
            self.tasks.pop(task.uid, None)
        if task.method == CONSTRUCTOR and task.tessera.instance is None:
            tessera = task.tessera
            if tessera.state in (TesseraState.PENDING, TesseraState.CLOSING):
                tessera.error = error
                tessera.move("error")
                self._end_tessera(tessera, wire.ERROR, error)

    def _tell(self, to: int, message: Any, payload: Any) -> None:
        outbox = self._port.outbox(to)
        if outbox is not None:
            outbox.send(message, payload)

    def _tell_others(self, task: Task) -> None:
        """Go on with those that wait for it: a loop, since chains of them are long."""
        ended = self._ended
        ended.append(task)
        if self._telling:
            return
        self._telling = True
        try:
            while ended:
                task = ended.popleft()
                for other, index in self._dependents.pop(task.uid, ()):
                    self._argument_here(other, index, task)
                for holder in self._subscribers.pop(task.uid, ()):
                    self._tell_end(holder, task)
        finally:
            self._telling = False

    def _tell_end(self, to: int, task: Task) -> None:
        if task.size > TRAVELLING_BYTES:
            self._tell(to, wire.Done(task.uid, b"", wire.Extra(size=task.size)), None)
        else:
            self._tell(to, task.outcome, task.result)

    # -- those who ask -----------------------------------------------------------------

    def subscribe(self, uid: int, sender: int) -> None:
        """A holder wants to learn the end of a task."""
        task = self.tasks.get(uid)
        if task is None and maker(uid) in self.lost_makers:
            task = self._never(uid)
        if task is not None and task.settled:
            self._tell_end(sender, task)
        else:
            self._subscribers.setdefault(uid, []).append(sender)

    def fetch(self, uid: int, sender: int) -> None:
        """A holder wants the value that stayed here."""
        task = self.tasks.get(uid)
        if task is None or not isinstance(task.outcome, wire.Done):
            # Only a peer that released it can ask so.
            self._tell(sender, wire.Failed(uid, wire.GONE, b""), None)
            return
        outcome = task.outcome
        message = wire.Value(uid, outcome.data, outcome.extra)
        self._tell(sender, message, task.result)

    def release(self, message: wire.Release, buffers: Any, sender: int) -> None:
        """Their maker has dropped these: the hot path.

        Tasks that have ended and that nobody else has heard of go at once; `holders`
        decides about the others.
        """
        if self.holders.is_silent(sender):
            return
        tasks = self.tasks
        others = []
        for uid in message.uids:
            task = tasks.get(uid)
            if task is not None and task.state >= DONE and not task.shared:
                del tasks[uid]
            else:
                others.append(uid)
        if others:
            self.holders.release(sender, others)

    def freed(self, uid: int) -> None:
        """Nobody holds it any more."""
        task = self.tasks.get(uid)
        if task is not None:
            if task.settled:
                del self.tasks[uid]
            else:
                task.released = True
            return
        tessera = self.tesserae.get(uid)
        if tessera is not None:
            self._close(tessera, None)

    # -- ends of tesserae --------------------------------------------------------------

    def _close(self, tessera: Tessera, task: Task | None) -> None:
        """No new calls; what is queued ends, then ``__close__`` runs."""
        self.producers.close(tessera)
        if task is not None and _kind(task) == wire.KILL:
            self._kill(tessera, task)
        if tessera.state in (TesseraState.STOPPED, TesseraState.FAILED):
            if task is None:
                self.tesserae.pop(tessera.uid, None)
            elif tessera.state is TesseraState.FAILED:
                self._fail(task, wire.ERROR, tessera.error)
            else:
                self._fail(task, wire.GONE, "it was closed before")
            return
        if tessera.state is TesseraState.CLOSING:
            if task is not None:
                self._fail(task, wire.GONE, "it is being closed")
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

    def _kill(self, tessera: Tessera, killer: Task) -> None:
        for waiting in tessera.clear():
            self._settle(waiting, CANCEL_EVENT, wire.CANCELLED, "it was killed")
        for task in [t for t in self.tasks.values() if t.tessera is tessera]:
            if task.settled or task is killer or task is tessera.closing:
                continue
            why = "its tessera was killed"
            if task.state == PENDING:  # the construction, which lacks an argument
                self._settle(task, CANCEL_EVENT, wire.CANCELLED, why)
            else:
                self._cancel_started(task, why)

    def closed(self, tessera: Tessera) -> None:
        """Its ``__close__`` has ended."""
        tessera.move("closed")
        tessera.instance = None
        if tessera.uid in self._closing:
            self._closing.discard(tessera.uid)
            self.tesserae.pop(tessera.uid, None)
        self._port.tessera_gone(tessera)

    # -- cancel and loss ---------------------------------------------------------------

    def cancel(self, uid: int, reason: str, sender: int = 0) -> None:
        """Somebody wants that a call ends."""
        task = self.tasks.get(uid)
        if task is None:
            self._cancel_unknown(uid, reason, sender)
            return
        if task.settled or (task is task.tessera.closing and task.state != RUNNING):
            return  # that it is to be closed is not taken back
        if task.state == PENDING or (
            task.state == QUEUED and task in task.tessera.queue
        ):
            task.tessera.remove(task)
            self._settle(task, CANCEL_EVENT, wire.CANCELLED, reason)
        else:
            self._cancel_started(task, reason)

    def _cancel_unknown(self, uid: int, reason: str, sender: int) -> None:
        for parked in self._parked.values():
            if any(message.uid == uid for _, message, _ in parked):
                self._parked_cancels[uid] = reason
                return
        if sender and maker(uid) == sender:
            # Its caller held it back and will never send it: it ends here, since
            # others may have heard of it and ask.
            task = self.tasks[uid] = self._ghost(uid, sender)
            self.holders.add(uid)
            self._settle(task, CANCEL_EVENT, wire.CANCELLED, reason)

    def _ghost(self, uid: int, caller: int) -> Task:
        submit = wire.Submit(uid, 0, 0, "call", b"")
        return received(submit, caller, self._results)

    def _never(self, uid: int) -> Task:
        """A task that will never come, since its caller is lost: it has failed."""
        task = self._ghost(uid, maker(uid))
        self._fail(task, wire.LOST, "its caller was lost before it was sent")
        return task

    def _cancel_started(self, task: Task, reason: str) -> None:
        """It is in the queue of a thread, or it runs."""
        if self.producers.stop(task.uid, wire.CANCELLED, reason):
            return
        task.cancelled = reason
        if task.state == RUNNING:
            self._port.cancel_running(task)

    def start_now(self, task: Task) -> None:
        self._runner.start(task)

    def interrupt(self, task: Task) -> None:
        self._port.cancel_running(task)

    def lost(self, incarnation: int) -> None:
        """A runtime is gone: nothing that only it could send will come."""
        self.producers.lost(incarnation)
        self.lost_makers.add(incarnation)
        for uid in [u for u in self._parked if maker(u) == incarnation]:
            for sender, message, buffers in self._parked.pop(uid):
                self._parked_cancels.pop(message.uid, None)
                self._submit_elsewhere(message, buffers, sender)
        for uid, subscribers in list(self._subscribers.items()):
            self._subscribers[uid] = [s for s in subscribers if s != incarnation]
            if not self._subscribers[uid]:
                del self._subscribers[uid]
        for uid in [*self._dependents, *self._subscribers]:
            if maker(uid) == incarnation and uid not in self.tasks:
                self._never(uid)


def _kind(task: Task) -> int:
    extra = task.extra
    return wire.CALL if extra is None else extra.kind
