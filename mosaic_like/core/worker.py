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
from ..comms.messages import Done, Submit
from ..errors import ProtocolError
from ..ids import maker
from .caller import Arrived, Call, CallerState, Outbox, references
from .holders import HolderTable
from .limits import Late, Limit, Limits, reason_of
from .parts import Parts, keys_of
from .recalls import Recalls
from .streams import Producers
from .task import (
    CANCEL_EVENT,
    CANCELLED,
    DONE,
    ERROR_EVENT,
    FAILED,
    FINISH,
    FINISHED,
    PENDING,
    QUEUED,
    READY,
    RETRY,
    RUNNING,
    UPSTREAM_EVENT,
    Task,
    received,
)
from .tessera import (
    INLINE,
    LOOP,
    MAIN,
    NONE_NUMBERED,
    THREAD,
    Runner,
    Tessera,
    TesseraState,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .shelf import Shelf

# Results up to this many bytes travel with Done; larger ones wait until they are asked
# for.
TRAVELLING_BYTES = 64 << 10

# What others make wait here, for what may never come.
_PARKED = 100_000  # tesserae
_PARKED_CALLS = 100_000  # of each: ten callers with all their credit
_EARLY_CANCELS = 10_000

_NO_OPTIONS = wire.Options(name="result")
# Parts are picked on a thread of their own: a method that runs must not delay them.
_PICKING = wire.Options(name="task", thread=True)
_OF_NO_TESSERA = (wire.RESULT_CALL, wire.APPLY, wire.PART)
_AWAITED = (wire.TASK, wire.ALLOWED)
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

    def parts(self, call: Call, grant: Any, keys: list[int | str]) -> Parts | None:
        """For a call, to be sent, that brings parts; None: the whole is to come."""

    def failure(self, task: Task, reason: int, why: Any) -> bytes:
        """An error that this runtime makes, as bytes."""

    def locate(self, arrived: Arrived, then: Callable[[], None]) -> None:
        """Have the rest of a payload: unopened segments, chunks that have not come."""

    def unwanted(self, arrived: Arrived) -> None:
        """The rest is not needed any more."""

    def cancel_running(self, task: Task) -> None:
        """Stop its user code."""

    def stopping_call(self, task: Task) -> None:
        """It was asked to end, and so are the calls made inside it.

        Some time later ask to ``abandon`` it.
        """

    def limited(self, task: Task) -> bool:
        """Watch the time that a call has; False: it is over already."""

    def tessera_gone(self, tessera: Tessera) -> None: ...


class Alone:
    """The objects that only their makers hold, as ``HolderTable`` has them.

    It is the objects themselves that know it: a set of a hundred thousand uids would
    be half as large as the tasks.
    """

    def __init__(
        self,
        tesserae: dict[int, Tessera],
        tasks: dict[int, Task],
        kept: dict[int, Any],
    ) -> None:
        self._tesserae = tesserae
        self._tasks = tasks
        self._kept = kept

    def _find(self, uid: int) -> Any:
        tasks, tesserae = self._tasks, self._tesserae
        return tasks.get(uid) or tesserae.get(uid) or self._kept.get(uid)

    def __contains__(self, uid: int) -> bool:
        thing = self._find(uid)
        return thing is not None and not thing.shared

    def __iter__(self) -> Iterator[int]:
        for things in (self._tasks, self._tesserae, self._kept):
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
        # What else is counted here, in a warehouse: segments. They have ``shared``.
        self.kept: dict[int, Any] = {}
        self.kept_freed: Callable[[int], None] = self.kept.__delitem__
        alone = Alone(self.tesserae, self.tasks, self.kept)
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
        self._picking = Tessera(0, 0, _PICKING, runner)
        self._picking.instance = self._picking
        self._picking.move("built")
        self._closing: set[int] = set()  # tesserae to forget when closed
        self._ended: deque[Task] = deque()  # of which others are still to be told
        self._telling = False
        self.lost_makers: set[int] = set()
        self._lost_heads: set[int] = set()  # of these, the programs
        self.shelf: Shelf | None = None  # of a warehouse
        self.copies: dict[int, Task] = {}  # of tasks that another warehouse owns
        self.producers = Producers(self)
        self.limits = Limits(self._is_open)  # of calls that have a time
        self._recalls = Recalls(self)
        self._stops: dict[int, str] = {}  # why those that run were asked to end
        # Whose ends were told before they ended, and that still run.
        self.abandoned: dict[int, Task] = {}
        # Asked by others for calls that their makers' messages have not brought yet.
        self._early_cancels: dict[int, str] = {}
        self._cancellers: dict[int, int] = {}  # who asked
        # Whether nothing more will come of who made a uid: the runtime may know more.
        self.never: Callable[[int], bool] = self.lost_makers.__contains__
        # Brings an argument when there is memory for it; see runtimes/admitting.py.
        self.admit: Callable[[Task, Call, Callable[[], None]], None]
        self.admit = lambda task, argument, go: go()
        # Begins a construction when there is the memory that it reserves.
        self.reserve: Callable[[Task, Callable[[], None]], None]
        self.reserve = lambda task, go: go()

    # -- calls come in -----------------------------------------------------------------

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
        made = (self.tesserae, self.tasks)
        if message.tessera == message.uid or any(
            uid in things for things in made for uid in (message.tessera, message.uid)
        ):
            raise ProtocolError("it makes what was made before")

    def create(self, message: wire.Create, buffers: Any, sender: int) -> None:
        """Make a tessera: its constructor is its first task."""
        tessera = Tessera(message.tessera, sender, message.options, self._runner)
        self.tesserae[message.tessera] = tessera
        self.holders.add(message.tessera)
        self.holders.add(message.uid)
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
        self.tasks[message.uid] = task
        self.gather(task, submit, sender)
        # First, so that none has started when it is found to be cancelled.
        for parked in self._parked.pop(message.tessera, ()):
            self.submit(parked[1], parked[2], parked[0])
            why = self._parked_cancels.pop(parked[1].uid, None)
            if why is not None:
                self.cancel(parked[1].uid, why)
        if message.options.memory and not task.settled:
            task.missing += 1
            self.reserve(task, lambda: self._reserved(task))
        elif not task.missing and not task.settled:
            self._construct(task)

    def _reserved(self, task: Task) -> None:
        task.missing -= 1
        if task.state == PENDING and task.tessera.uid in self.tesserae:
            self._arguments_here(task)

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
        task.inside = message.inside
        self.tasks[uid] = task
        if self._shared:
            self.holders.add(uid)
        number = message.number
        numbers = tessera.numbers
        if not number:
            if numbers is NONE_NUMBERED:
                numbers = tessera.numbers = {}
        elif number != numbers.get(sender, 0):
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
            self.gather(task, message, sender)
            if self._early_cancels:
                self._cancel_early(task)
            if extra.remaining_s is not None or extra.timeout_s is not None:
                self._limit(task)
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

    def submit_run(self, batch: list[Any], index: int, sender: int) -> int:
        """Take calls that came together, as far as they are alike; the hot path.

        Calls without an ``extra`` on one tessera and lane, on which nothing is before
        them, are started together: what is the same for all is asked once.

        Args:
            batch: messages; the one at ``index`` is a Submit without an ``extra``.
            index: of the first.
            sender: incarnation of the caller.

        Returns:
            The index of the first message that was not taken.
        """
        message = batch[index]
        target = message.tessera
        tessera = self.tesserae.get(target)
        number = 0 if tessera is None else tessera.numbers.get(sender, 0)
        if (
            tessera is None
            or tessera.state is not _LISTENING
            or tessera.blocked
            or message.number != number
        ):
            self.submit(message, (), sender)
            return index + 1
        lanes = tessera.lanes
        name = intern(message.method)
        lane = lanes.get(name)
        # Else they go into the mailbox.
        at_once = not tessera.queue and (
            lane == MAIN == tessera.lane
            or (not tessera.active and lane in (MAIN, INLINE))
        )
        tasks = self.tasks
        run: list[Task] = []
        end = len(batch)
        while True:
            uid = message.uid
            task = Task(uid, sender, tessera, name, message.data, None, None, QUEUED)
            task.inside = message.inside
            tasks[uid] = task
            run.append(task)
            number += 1
            index += 1
            if index == end:
                break
            message = batch[index]
            if (
                type(message) is not Submit
                or message.tessera != target
                or message.extra is not None
                or message.number != number
            ):
                break
            if message.method != name:
                if at_once and lanes.get(message.method) != lane:
                    break
                name = intern(message.method)
        if tessera.numbers is NONE_NUMBERED:
            tessera.numbers = {}
        tessera.numbers[sender] = number
        if self._shared:
            for task in run:
                self.holders.add(task.uid)
        if at_once:
            assert lane is not None, "asked for"
            for task in run:
                task.lane = lane
            tessera.lane = lane
            tessera.active += len(run)
            self._runner.start_run(run)
        else:
            tessera.extend(run)
        return index

    def _submit_elsewhere(
        self, message: wire.Submit, buffers: Any, sender: int
    ) -> None:
        """A method of a result, or a tessera that is not here yet, or never was."""
        extra = message.extra
        if extra is not None and extra.kind >= wire.PUT and self.shelf is not None:
            self.shelf.request(message, buffers, sender)
            return
        if extra is not None and extra.kind in _OF_NO_TESSERA:
            on = self._picking if extra.kind == wire.PART else self._results
            task = received(message, sender, on, buffers)
            self.tasks[message.uid] = task
            self.holders.add(message.uid)
            if self.shelf is not None:
                why = "its value has gone to a warehouse, where nothing runs: await "
                self._fail(task, wire.GONE, why + "its result() and call it there")
                return
            self.gather(task, message, sender)
            if self._early_cancels:
                self._cancel_early(task)
            if extra.remaining_s is not None or extra.timeout_s is not None:
                self._limit(task)
            if not task.settled:
                on.enqueue(task)
            return
        made_by = maker(message.tessera)
        full = len(self._parked) >= _PARKED
        if full or made_by == sender or self.never(made_by):
            ghost = Tessera(message.tessera, made_by, _NO_OPTIONS, self._runner)
            task = received(message, sender, ghost, buffers)
            self.tasks[message.uid] = task
            self.holders.add(message.uid)
            self._fail(task, wire.GONE, "it is gone: it was closed or never made")
            return
        line = self._parked.setdefault(message.tessera, [])
        if len(line) >= _PARKED_CALLS:
            raise ProtocolError(
                f"{len(line)} calls wait already for a tessera that has not come"
            )
        line.append((sender, message, buffers))

    def turn_away(
        self, message: wire.Submit, sender: int, why: str | None, options: wire.Options
    ) -> None:
        """A call on a tessera does not run; ``why`` None: its caller is not told."""
        tessera = self.tesserae.get(message.tessera)
        if tessera is None:  # it has been closed
            by = maker(message.tessera)
            tessera = Tessera(message.tessera, by, options, self._runner)
        if message.number == tessera.numbers.get(sender, 0):
            # The next ones may run: those made inside of others.
            if tessera.numbers is NONE_NUMBERED:
                tessera.numbers = {}
            tessera.numbers[sender] = message.number + 1
        if why is not None:
            task = received(message, sender, tessera)
            self.tasks[message.uid] = task
            self.holders.add(message.uid)
            self._fail(task, wire.LOST, why)

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

    def gather(self, task: Task, message: wire.Submit, sender: int) -> None:
        """Take the grants of the arguments and get those that are tasks."""
        extra = task.extra
        if extra is None:
            return
        if extra.references or extra.definitions or extra.buffers or extra.parts:
            try:
                arrived = self._port.arrived(message, task.buffers, sender)
            except ProtocolError as error:
                self._fail(task, wire.ERROR, f"what came cannot be read: {error}")
                return
            task.buffers = arrived
            if type(arrived) is Arrived and arrived.size and arrived.shared is not None:
                task.missing += 1
                self._port.locate(arrived, lambda: self._located(task, arrived))
        if not extra.references:
            return
        task.arguments = [None] * len(extra.references)
        for index, reference in enumerate(extra.references):
            if reference.kind in _AWAITED and not task.settled:
                self._await_argument(task, index, reference)

    def _await_argument(
        self, task: Task, index: int, reference: wire.Reference
    ) -> None:
        if reference.owner == self._port.incarnation:
            local = self.tasks.get(reference.uid)
            if local is None and self._cannot_come(reference.uid):
                local = self._never(reference.uid)
            if local is not None and local.settled:
                task.arguments[index] = local
                if local.state != DONE and reference.kind == wire.TASK:
                    self._upstream(task, local)
                return
            if local is not None and local.handed and self._on_main(task):
                # It will have ended when the same thread gets to this call: to wait
                # for the loop to see that would cost two hand-overs for each call of
                # a chain.
                task.arguments[index] = local
                if local.tessera.options.stateless:
                    self._recalls.taken_up(local.uid)
                return
            task.missing += 1
            self._dependents.setdefault(reference.uid, []).append((task, index))
            return
        call = self._port.awaited_call(reference)
        task.missing += 1
        call.waiters = [lambda: self._remote_argument(task, index, call)]
        self._caller.subscribe(call)

    def _cannot_come(self, uid: int) -> bool:
        """A task that is not here, whose Submit is not on its way either."""
        by = maker(uid)
        if by == self._port.incarnation:
            return uid not in self._caller.calls
        return self.never(by)

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
            if not self._ask_for_parts(task, index, call):
                again = lambda: self._remote_argument(task, index, call)  # noqa: E731
                self._fetch(task, call, again)
            return
        self._argument_here(task, index, call)

    def _fetch(self, task: Task, call: Call, then: Callable[[], None]) -> None:
        """Bring what an argument's call has given."""
        call.waiters = [then]
        if call.result.shared is None:
            self.admit(task, call, lambda: self._caller.fetch(call))
        else:  # it is mapped, not copied
            self._caller.fetch(call)

    def _ask_for_parts(self, task: Task, index: int, call: Call) -> bool:
        """Have the owner send only what the call takes; False: it takes the whole."""
        extra = task.extra
        keys = keys_of(extra, index) if extra is not None else []
        if not keys or call.result.shared is not None or task.tessera is self.shelf:
            return False
        parts = self._port.parts(call, task.buffers.grants[index], keys)
        if parts is None:
            return False
        part = parts.call
        task.arguments[index] = parts
        part.waiters = [lambda: self._part(task, index, call, part)]
        self._caller.submit(part, parts.payload, wire.Extra(kind=wire.PART), None)
        return True

    def _part(self, task: Task, index: int, whole: Call, part: Call) -> None:
        """The owner has picked the parts, or could not."""
        item = part.rare
        if item is not None:
            item.unheard = False
        if task.settled:
            return
        if part.state == DONE:
            result = part.result
            if type(result) is Arrived and result.size:
                self._fetch(task, part, lambda: self._part(task, index, whole, part))
                return
        elif item.reason != wire.REASONS[wire.ERROR]:
            # What is wrong with the whole, if anything, says it better.
            task.arguments[index] = None
            self._fetch(task, whole, lambda: self._remote_argument(task, index, whole))
            return
        # Also where there is no such part: who loads the arguments raises that.
        task.missing -= 1
        self._arguments_here(task)

    def _argument_here(self, task: Task, index: int, argument: Task | Call) -> None:
        if task.settled:
            return
        task.arguments[index] = argument
        task.missing -= 1
        extra = task.extra
        if argument.state != DONE and (
            extra is None or extra.references[index].kind == wire.TASK
        ):
            self._upstream(task, argument)
        else:
            self._arguments_here(task)

    def _arguments_here(self, task: Task) -> None:
        if not task.missing:
            if task.method == CONSTRUCTOR and task.tessera.instance is None:
                self._construct(task)
            else:
                task.tessera.arguments_here(task)

    def _located(self, task: Task, arrived: Arrived) -> None:
        """The rest of its arguments is here, or lost."""
        if task.settled:
            return
        if arrived.size:
            task.tessera.remove(task)
            self._fail(task, wire.LOST, f"an argument is lost: {arrived.shared.why}")
            return
        task.missing -= 1
        self._arguments_here(task)

    def _upstream(self, task: Task, argument: Task | Call) -> None:
        task.tessera.remove(task)
        if argument.state == CANCELLED:
            self._settle(task, CANCEL_EVENT, wire.CANCELLED, argument)
        else:
            # What was to be kept failed: that is the failure itself, to be told.
            kept = task.tessera is self.shelf
            reason = wire.ERROR if kept else wire.UPSTREAM
            self._settle(task, UPSTREAM_EVENT, reason, argument)

    # -- calls end ---------------------------------------------------------------------

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
            shared=None if value.shared is None else value.shared.wire,
        )
        task.outcome = wire.Done(task.uid, value.data, extra)

    def keep(self, task: Task, value: Any, *, send: bool = False) -> None:
        """A task that was not run has a value that came from elsewhere.

        Args:
            task: pending.
            value: bytes or a payload.
            send: its caller wants the value, not only the news.
        """
        task.move(FINISH)
        self._keep(task, value)
        task.buffers = task.arguments = task.raw = None
        if send:
            self._tell_end(task.caller, task)
        else:
            there = wire.Extra(size=max(task.size, 1))
            self._tell(task.caller, wire.Done(task.uid, b"", there), None)
        if task.released:
            self.tasks.pop(task.uid, None)
        if self._dependents or self._subscribers:
            self._tell_others(task)

    def give_here(self, uid: int, value: Any) -> None:
        """A task of this runtime's own that was never sent has a value: it is here."""
        task = self._own_ghost(uid)
        task.move(FINISH)
        self._keep(task, value)
        self._tell_end(task.caller, task)

    def refuse_here(self, uid: int, reason: int, error: bytes) -> None:
        """The same, without a value; its caller knows."""
        task = self._own_ghost(uid)
        task.outcome = wire.Failed(uid, reason, error)
        task.move(CANCEL_EVENT if reason == wire.CANCELLED else ERROR_EVENT)

    def _own_ghost(self, uid: int) -> Task:
        task = self.tasks[uid] = self._ghost(uid, self._port.incarnation)
        self.holders.add(uid)
        return task

    def keep_copy(self, task: Task, value: Any) -> None:
        """The value of a task that lives elsewhere, for those who ask here."""
        self._keep(task, value)
        self.copies[task.uid] = task
        self._tell_others(task)

    def inherit(self, task: Task, value: Any, reason: int = wire.NO_FAILURE) -> None:
        """A task that has ended at a runtime that leaves is to be found here.

        Args:
            task: pending.
            value: bytes or a payload; of one that failed its error as bytes.
            reason: of the failure.
        """
        if reason == wire.NO_FAILURE:
            task.move(FINISH)
            self._keep(task, value)
        else:
            event = CANCEL_EVENT if reason == wire.CANCELLED else ERROR_EVENT
            task.outcome = wire.Failed(task.uid, reason, value)
            task.move(event)
        if self._dependents or self._subscribers:
            self._tell_others(task)
        if task.released:  # while its value was on its way
            self.tasks.pop(task.uid, None)

    def discard(self, task: Task, error: Exception) -> None:
        """The value of a task that is done goes, whoever holds it."""
        why = self._port.failure(task, wire.GONE, error)
        task.outcome = wire.Failed(task.uid, wire.GONE, why)
        task.result = None
        task.size = 0

    def refuse(self, task: Task, error: Exception, reason: int = wire.ERROR) -> None:
        """A task fails without having run."""
        self._fail(task, reason, error)

    def finished_run(self, run: list[Task]) -> None:
        """Calls of one caller have ended; their outcomes are set, small and plain."""
        task = run[0]
        tessera = task.tessera
        tessera.active -= len(run)
        if tessera.queue:
            tessera.dispatch()
        outbox = self._outboxes.get(task.caller)
        if outbox is not None:
            outbox.send_ends([task.outcome for task in run])
        if self._dependents or self._subscribers:
            for task in run:
                self._tell_others(task)

    def failed(self, task: Task, event: int, reason: int, error: Any) -> None:
        """User code has raised, or was stopped."""
        task.tessera.active -= 1
        if task.tessera.queue:
            task.tessera.dispatch()
        if task.outcome is not None:
            self._ended_before(task)
        elif self._recalls.left_alone(task):
            task.move(event)
            self._tell(task.caller, wire.Recalled([task.uid], [task.uid]), None)
        elif reason == wire.AGAIN:
            task.outcome = wire.Failed(task.uid, wire.ERROR, b"")
            task.move(event)
            self.tasks.pop(task.uid, None)
            self._unasked(task.uid)
            self._tell(task.caller, wire.Again(task.uid, *error), None)
        else:
            self._settle(task, event, reason, error)

    def may_hand_back(self, task: Task) -> bool:
        """Nobody but the submitter of a function task has heard that it is here."""
        return (
            task.tessera.options.stateless
            and task.outcome is None
            and not task.shared
            and not self.is_awaited(task.uid)
        )

    def recall(self, uids: list[int], sender: int) -> None:
        """The submitter of function tasks wants back what has not started."""
        taken = self._recalls.asked(uids, sender)
        self._tell(sender, wire.Recalled(uids, taken), None)

    def is_awaited(self, uid: int) -> bool:
        """Somebody waits for its end, beside its caller."""
        return uid in self._dependents or uid in self._subscribers

    def forget_arguments(self, task: Task) -> None:
        """A call that ends without having run needs them no longer."""
        if task.missing and type(task.buffers) is Arrived and task.buffers.size:
            self._port.unwanted(task.buffers)
        for uid in [r.uid for r in task.extra.references] if task.extra else ():
            self._recalls.let_go(uid)
            line = self._dependents.get(uid)
            if line is not None:
                line[:] = [one for one in line if one[0] is not task]
                if not line:
                    del self._dependents[uid]
        task.buffers = task.arguments = None

    def _returned_late(self, task: Task) -> None:
        """User code has returned, but the end of the call was told before."""
        if task.outcome is None:
            task.move(FINISH)  # raises
        if task.tessera.queue:
            task.tessera.dispatch()
        self._ended_before(task)

    def _finished_asked(self, task: Task, value: Any) -> None:
        """``finished`` while some calls were asked to end.

        Whoever cancelled a plain method was told that it would end so; a coroutine
        that catches its CancelledError decides for itself, as in asyncio.
        """
        why = self._stops.get(task.uid)
        if why is None or task.lane == LOOP or task.outcome is not None:
            WorkerState.finished(self, task, value)
            return
        task.tessera.active -= 1
        if task.tessera.queue:
            task.tessera.dispatch()
        self._stopped(task, why)

    def _asked(self, uid: int, why: str) -> None:
        self._stops[uid] = why
        # Looked up anew for each call that ends, so that a plain one need not ask.
        self.finished = self._finished_asked  # type: ignore[method-assign]

    def _unasked(self, uid: int) -> str | None:
        why = self._stops.pop(uid, None)
        if not self._stops:
            vars(self).pop("finished", None)
        return why

    def _ended_before(self, task: Task) -> None:
        self.abandoned.pop(task.uid, None)
        if not task.settled:
            # Its thread took it at the moment in which it was settled, and has left it
            # alone; but it looked as if it ran to those who asked since then.
            cancelled = task.outcome.reason == wire.CANCELLED
            task.state = CANCELLED if cancelled else FAILED
            self._tell_others(task)
        if task.released:
            self.tasks.pop(task.uid, None)

    def built(self, task: Task, instance: Any) -> None:
        """The constructor has returned."""
        tessera = task.tessera
        if task.outcome is not None:  # it was given up
            self.finished(task, NONE)
            return
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
        if task.outcome is not None:
            self.failed(task, ERROR_EVENT, wire.ERROR, error)
            return
        tessera.error = error
        tessera.move("error")
        self.failed(task, ERROR_EVENT, wire.ERROR, error)
        self._end_tessera(tessera, wire.ERROR, error)

    def _end_tessera(self, tessera: Tessera, reason: int, why: Any) -> None:
        waiting = tessera.waiting()
        tessera.closing = tessera.reserved = None
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
        if self._stops:
            self._unasked(task.uid)
        outcome = wire.Failed(task.uid, reason, error)
        # In this order: a thread that finds it ended looks at how.
        task.outcome = outcome
        task.move(event)
        if self.producers.by_uid and task.uid not in self.abandoned:
            self.producers.forget(task.uid)
        if task.missing and type(task.buffers) is Arrived and task.buffers.size:
            self._port.unwanted(task.buffers)
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
        if task.size > TRAVELLING_BYTES and not self._travels(to, task):
            self._tell(to, wire.Done(task.uid, b"", wire.Extra(size=task.size)), None)
        else:
            self._tell(to, task.outcome, task.result)

    def _travels(self, to: int, task: Task) -> bool:
        """What is large of it stands in shared memory that this runtime can open."""
        if task.result is None or task.result.shared is None:
            return False
        outbox = self._port.outbox(to)
        return (
            outbox is not None
            and outbox.shares_memory
            and len(task.result.data) <= TRAVELLING_BYTES
        )

    # -- those who ask -----------------------------------------------------------------

    def subscribe(self, uid: int, sender: int) -> None:
        """A holder wants to learn the end of a task."""
        task = self.tasks.get(uid) or self.copies.get(uid)
        if task is None and self._cannot_come(uid):
            task = self._never(uid)
        if task is not None and task.settled:
            self._tell_end(sender, task)
        else:
            subscribers = self._subscribers.setdefault(uid, [])
            if sender not in subscribers:
                subscribers.append(sender)

    def fetch(self, uid: int, sender: int) -> None:
        """A holder wants the value that stayed here."""
        task = self.tasks.get(uid) or self.copies.get(uid)
        if task is None or not isinstance(task.outcome, wire.Done):
            # Only a peer that released it can ask so, or whose value was dropped.
            gone = task is not None and isinstance(task.outcome, wire.Failed)
            why = task.outcome.data if task is not None and gone else b""
            self._tell(sender, wire.Failed(uid, wire.GONE, why), None)
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
                if maker(uid) in self._lost_heads:
                    self._orphan(task)
        # No return above: who sends nonsense may have given one number to both.
        tessera = self.tesserae.get(uid)
        if tessera is not None:
            self._close(tessera, None)
        elif task is None and uid in self.kept:
            self.kept_freed(uid)

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
        tessera.instance = tessera.reserved = None
        if tessera.uid in self._closing:
            self._closing.discard(tessera.uid)
            self.tesserae.pop(tessera.uid, None)
        self._port.tessera_gone(tessera)

    # -- cancel and loss ---------------------------------------------------------------

    def on_cancel(self, message: wire.Cancel, attempt: int, sender: int) -> None:
        """The handler of Cancel; ``attempt``: the one that runs."""
        reason = message.reason
        if message.kind == wire.TIMEOUT:
            if message.attempt not in (0, attempt):
                return  # that one has been over for a while
            reason = Late(reason, final=not message.attempt)
        self.cancel(message.uid, reason, sender)

    def cancel(self, uid: int, reason: str, sender: int = 0) -> None:
        """Somebody wants that a call ends; a ``Late``: its time is over."""
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
            self._stopped(task, reason)
        else:
            self._cancel_started(task, reason)

    def _stopped(self, task: Task, why: str) -> None:
        """It is cancelled, or late: that is its end."""
        reason = reason_of(why)
        event = CANCEL_EVENT if reason == wire.CANCELLED else ERROR_EVENT
        self._settle(task, event, reason, why)

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
            self._stopped(task, reason)
        elif (
            sender
            and not self._cannot_come(uid)
            and len(self._early_cancels) < _EARLY_CANCELS
        ):
            self._cancellers[uid] = sender
            # Another holder of it was faster than its maker: it is on its way.
            self._early_cancels[uid] = reason
            # Until it comes, look at each call.
            self.submit_run = self._submit_one  # type: ignore[method-assign]

    def _submit_one(self, batch: list[Any], index: int, sender: int) -> int:
        """``submit_run`` while some calls were cancelled before they came."""
        message = batch[index]
        if message.uid in self._early_cancels:
            message.extra = wire.Extra()  # so that `submit` looks at it
        self.submit(message, (), sender)
        return index + 1

    def _cancel_early(self, task: Task) -> None:
        why = self._early_cancels.pop(task.uid, None)
        self._cancellers.pop(task.uid, None)
        if not self._early_cancels:
            vars(self).pop("submit_run", None)
        if why is not None and not task.settled:
            self._stopped(task, why)

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
        before = self._stops.get(task.uid)
        if before is not None and (type(before) is not Late or type(reason) is Late):
            return  # it is being stopped
        self._asked(task.uid, reason)
        if self.producers.stop(task.uid, reason_of(reason), reason):
            if before is None:
                self._port.stopping_call(task)
            return
        if task.extra is None:
            task.extra = wire.Extra()  # no call of the common kind any more
        task.cancelled = reason
        if task.state == RUNNING:
            if before is None:
                self._port.cancel_running(task)
                self._port.stopping_call(task)
        elif task.handed or task.lane == THREAD:
            # Its thread will find it so: it has not taken it up, or it would run.
            self._stopped(task, reason)

    # -- time --------------------------------------------------------------------------

    def _is_open(self, uid: int) -> bool:
        task = self.tasks.get(uid)
        return task is not None and not task.settled

    def _limit(self, task: Task) -> None:
        if not task.settled and not self._port.limited(task):
            self._stopped(task, Late("the time of the call that made it is over"))

    def limit(self, task: Task, now_s: float) -> Limit | None:
        """Begin to watch a call that has come with a time; None: it is over."""
        extra = task.extra
        assert extra is not None
        final_s = None if extra.remaining_s is None else now_s + extra.remaining_s
        limit = Limit(task.uid, extra.timeout_s, final_s, now_s)
        if limit.deadline_s <= now_s:
            return None
        self.limits.add(limit)
        return limit

    def late(self, now_s: float) -> None:
        """End those whose time is over."""
        for limit in self.limits.due(now_s):
            self.cancel(limit.uid, limit.why(now_s))

    def retrying(self, task: Task, attempt: int, now_s: float) -> None:
        """Another attempt has begun, which has a time of its own."""
        why = self._stops.get(task.uid)
        if why is not None and (type(why) is not Late or why.final):
            # It was cancelled when the last one had just ended.
            task.cancelled = why
            self._port.cancel_running(task)
            self._port.stopping_call(task)
        else:
            self._unasked(task.uid)
            self.limits.again(task.uid, now_s)
        self._tell(task.caller, wire.Running(task.uid, 0.0, attempt), None)

    def retry_later(self, task: Task, attempt: int, delay_s: float) -> bool:
        """An attempt has failed and the next one waits; False: it is to end instead."""
        why = self._stops.get(task.uid)
        if task.outcome is not None:
            return False
        if why is not None and (type(why) is not Late or why.final):
            task.cancelled = why  # when the attempt had just ended
            return False
        self._unasked(task.uid)
        self.limits.pause(task.uid)
        self._tell(task.caller, wire.Running(task.uid, 0.0, attempt, delay_s), None)
        return True

    def retry_now(self, task: Task, attempt: int, now_s: float) -> bool:
        """It has waited long enough; True: run it. Else its tessera starts it."""
        self.limits.again(task.uid, now_s)
        task.move(RETRY)
        task.move(READY)
        self._tell(task.caller, wire.Running(task.uid, 0.0, attempt), None)
        return task.tessera.resume(task)

    def abandon(self, uid: int) -> Task | None:
        """It was to end a while ago: tell its end although it runs; None: it does not.

        Its tessera stays taken until the call returns.
        """
        why = self._unasked(uid)
        task = self.tasks.get(uid)
        if why is None or task is None or task.settled or task.state != RUNNING:
            return None
        self.abandoned[uid] = task
        self._stopped(task, why)
        return task

    def start_now(self, task: Task) -> None:
        self._runner.start(task)

    def interrupt(self, task: Task) -> None:
        self._port.cancel_running(task)

    def lost_head(self, incarnation: int) -> None:
        """The lost one was a program: what it has called ends with it.

        Not what somebody else asks for, nor what runs on a detached tessera. What is
        held by the lost one is told by ``freed``, when that is settled.
        """
        self._lost_heads.add(incarnation)
        for task in list(self.tasks.values()):
            if task.released and maker(task.uid) == incarnation:
                self._orphan(task)

    def _orphan(self, task: Task) -> None:
        closes = task is task.tessera.closing or _kind(task) >= wire.CLOSE
        is_wanted = task.uid in self._dependents or task.uid in self._subscribers
        if not (task.settled or closes or is_wanted or task.tessera.options.detached):
            self.cancel(task.uid, "the program that called it has ended")

    def lost(self, incarnation: int) -> None:
        """A runtime is gone: nothing that only it could send will come."""
        self.producers.lost(incarnation)
        self.lost_makers.add(incarnation)
        for uid, canceller in list(self._cancellers.items()):
            if canceller == incarnation or self.never(maker(uid)):
                self._early_cancels.pop(uid, None)
                del self._cancellers[uid]
        if not self._early_cancels:
            vars(self).pop("submit_run", None)
        for uid, line in list(self._parked.items()):
            for _, message, _ in [one for one in line if one[0] == incarnation]:
                self._parked_cancels.pop(message.uid, None)
            self._parked[uid] = [one for one in line if one[0] != incarnation]
            if not self._parked[uid]:
                del self._parked[uid]
        for uid in [u for u in self._parked if self.never(maker(u))]:
            for sender, message, buffers in self._parked.pop(uid):
                self._parked_cancels.pop(message.uid, None)
                self._submit_elsewhere(message, buffers, sender)
        for uid, subscribers in list(self._subscribers.items()):
            self._subscribers[uid] = [s for s in subscribers if s != incarnation]
            if not self._subscribers[uid]:
                del self._subscribers[uid]
        for uid in [*self._dependents, *self._subscribers]:
            if uid not in self.tasks and self.never(maker(uid)):
                self._never(uid)
        # What it sent under numbers of others, none of whom would ever release it.
        for uid, task in list(self.tasks.items()):
            if task.caller == incarnation != maker(uid):
                self.freed(uid)


def _kind(task: Task) -> int:
    extra = task.extra
    return wire.CALL if extra is None else extra.kind
