"""What a call needs before it can start: its arguments, wherever they are.

    a task of this runtime      waited for; taken as it is, if the same thread runs it
    a task of another           subscribed to, and fetched if its value stayed there;
                                taken at once, if the caller has sent what it is
    parts of one of those       picked by its owner, so that only they come
    segments, chunks            located by the runtime

``Task.missing`` counts what is not here; at none the call goes on. An argument that has
no value ends the call. Which values may be brought when memory is short is decided
behind ``admit``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..comms import messages as wire
from ..errors import ProtocolError
from .parts import keys_of
from .payloads import Arrived
from .task import CANCEL_EVENT, CANCELLED, CONSTRUCTOR, DONE, UPSTREAM_EVENT, Task
from .tessera import MAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from .call import Call
    from .caller import CallerState
    from .worker import WorkerState

_AWAITED = (wire.TASK, wire.ALLOWED)


class Arguments:
    """Those of the calls on one runtime.

    Args:
        worker: whose calls they are.
        caller: gets what other runtimes have.
    """

    def __init__(self, worker: WorkerState, caller: CallerState) -> None:
        self._worker = worker
        self._port = worker.port
        self._tasks = worker.tasks
        self._archive = worker.archive
        self._caller = caller
        # Brings an argument when there is memory for it; see runtimes/admitting.py.
        self.admit: Callable[[Task, Call, Callable[[], None]], None]
        self.admit = lambda task, argument, go: go()

    def gather(self, task: Task, message: wire.Submit, sender: int) -> None:
        """Take the grants of the arguments and get those that are tasks."""
        extra = task.extra
        if extra is None:
            return
        if extra.references or extra.definitions or extra.buffers or extra.parts:
            try:
                arrived = self._port.arrived(message, task.buffers, sender)
            except ProtocolError as error:
                why = f"what came cannot be read: {error}"
                self._worker.fail(task, wire.ERROR, why)
                return
            task.buffers = arrived
            if type(arrived) is Arrived and arrived.size and arrived.shared is not None:
                task.missing += 1
                self._port.locate(arrived, lambda: self._located(task, arrived))
        if not extra.references:
            return
        task.arguments = [None] * len(extra.references)
        known = self._known(task, extra.known, sender) if extra.known else ()
        for index, reference in enumerate(extra.references):
            if reference.kind in _AWAITED and task.state < DONE and index not in known:
                self._await(task, index, reference)

    def forget(self, task: Task) -> None:
        """A call that ends without having run needs them no longer."""
        self.unlocate(task)
        for uid in [r.uid for r in task.extra.references] if task.extra else ():
            self._worker.recalls.let_go(uid)
            self._worker.telling.forget(uid, task)
        task.buffers = task.arguments = None

    def unlocate(self, task: Task) -> None:
        """It has ended: the rest of its payload is not needed, if that is to come."""
        if task.missing and type(task.buffers) is Arrived and task.buffers.size:
            self._port.unwanted(task.buffers)

    # -- one by one --------------------------------------------------------------------

    def _known(self, task: Task, known: list[wire.Known], sender: int) -> set[int]:
        """Take the values that came with the call; returns the indices of these."""
        assert task.extra is not None, "it has references"
        for item in known:
            call = self._port.awaited_call(task.extra.references[item.index])
            call.state = DONE
            call.result = item.data
            if item.shared is not None:
                extra = wire.Extra(references=item.references, shared=item.shared)
                value = wire.Value(call.uid, item.data, extra)
                call.result = self._port.arrived(value, (), sender)
                if call.result.size:  # a segment cannot be opened: it is looked for
                    task.missing += 1
                    self._remote(task, item.index, call)
                    continue
            task.arguments[item.index] = call
        return {item.index for item in known}

    def _await(self, task: Task, index: int, reference: wire.Reference) -> None:
        if reference.owner == self._port.incarnation:
            local = self._tasks.get(reference.uid) or self._archive.get(reference.uid)
            if local is None and self._worker.cannot_come(reference.uid):
                local = self._worker.given.never(reference.uid)
            if local is not None and local.state >= DONE:
                if _went_on(local):
                    task.missing += 1
                    self._follow(task, index, local)
                    return
                task.arguments[index] = local
                if local.state != DONE and reference.kind == wire.TASK:
                    self._upstream(task, local)
                return
            if local is not None and local.handed and _on_main(task):
                # It will have ended when the same thread gets to this call: to wait
                # for the loop to see that would cost two hand-overs for each call of
                # a chain.
                task.arguments[index] = local
                if local.tessera.options.stateless:
                    self._worker.recalls.taken_up(local.uid)
                return
            task.missing += 1
            self._worker.telling.depend(reference.uid, task, index)
            return
        task.missing += 1
        self._caller.asking.subscribe(self._awaited(task, index, reference))

    def _awaited(self, task: Task, index: int, reference: wire.Reference) -> Call:
        call = self._port.awaited_call(reference)
        call.waiters = [lambda: self._remote(task, index, call)]
        return call

    def _follow(self, task: Task, index: int, gone: Task) -> None:
        """A task of this runtime, which a call lacks, goes on elsewhere."""
        assert task.extra is not None, "it has references"
        call = self._awaited(task, index, task.extra.references[index])
        self._caller.asking.follow(call, gone.outcome.data)

    def _remote(self, task: Task, index: int, call: Call) -> None:
        """A task of another runtime that this one takes has ended."""
        if task.settled:
            return
        result = call.result
        if call.state == DONE and type(result) is Arrived:
            if result.size:
                if not self._ask_for_parts(task, index, call):
                    self._fetch(task, call, lambda: self._remote(task, index, call))
                return
            if result.nbytes_copied and (call.rare is None or call.rare.copy is None):
                self.admit(task, call, lambda: self.here(task, index, call))
                return
        self.here(task, index, call)

    def _fetch(self, task: Task, call: Call, then: Callable[[], None]) -> None:
        """Bring what an argument's call has given."""
        call.waiters = [then]
        if call.result.shared is None:
            self.admit(task, call, lambda: self._caller.asking.fetch(call))
        else:  # it is mapped, not copied
            self._caller.asking.fetch(call)

    def _ask_for_parts(self, task: Task, index: int, call: Call) -> bool:
        """Have the owner send only what the call takes; False: it takes the whole."""
        extra = task.extra
        keys = keys_of(extra, index) if extra is not None else []
        is_kept = task.tessera is self._worker.shelf
        if not keys or call.result.shared is not None or is_kept:
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
            self._fetch(task, whole, lambda: self._remote(task, index, whole))
            return
        # Also where there is no such part: who loads the arguments raises that.
        task.missing -= 1
        self.all_here(task)

    # -- they come ---------------------------------------------------------------------

    def here(self, task: Task, index: int, argument: Task | Call) -> None:
        """An argument that a call waits for has ended."""
        if task.settled:
            return
        if type(argument) is Task and _went_on(argument):
            self._follow(task, index, argument)
            return
        task.arguments[index] = argument
        task.missing -= 1
        extra = task.extra
        if argument.state != DONE and (
            extra is None or extra.references[index].kind == wire.TASK
        ):
            self._upstream(task, argument)
        else:
            self.all_here(task)

    def all_here(self, task: Task) -> None:
        """Go on with a call, if nothing is missing any more."""
        if not task.missing:
            if task.method == CONSTRUCTOR and task.tessera.instance is None:
                self._worker.lifecycle.construct(task)
            else:
                task.tessera.arguments_here(task)

    def _located(self, task: Task, arrived: Arrived) -> None:
        """The rest of its arguments is here, or lost."""
        if task.settled:
            return
        if arrived.size:
            task.tessera.remove(task)
            why = f"an argument is lost: {arrived.shared.why}"
            self._worker.fail(task, wire.LOST, why)
            return
        task.missing -= 1
        self.all_here(task)

    def _upstream(self, task: Task, argument: Task | Call) -> None:
        task.tessera.remove(task)
        if argument.state == CANCELLED:
            self._worker.telling.tell(task.caller, cancelled_upstream(task), None)
            self._worker.settle(task, CANCEL_EVENT, wire.CANCELLED, argument)
        else:
            # What was to be kept failed: that is the failure itself, to be told.
            kept = task.tessera is self._worker.shelf
            reason = wire.ERROR if kept else wire.UPSTREAM
            self._worker.settle(task, UPSTREAM_EVENT, reason, argument)


def cancelled_upstream(task: Task) -> wire.Ending:
    """What its caller is told before a call is cancelled as an argument of it was."""
    return wire.Ending(task.uid, CANCELLED, wire.REASONS[wire.UPSTREAM])


def _went_on(task: Task) -> bool:
    """It has ended here, and nowhere else."""
    outcome = task.outcome
    return type(outcome) is wire.Failed and outcome.reason == wire.MOVED


def _on_main(task: Task) -> bool:
    """The call is known to run on the main thread."""
    tessera = task.tessera
    if tessera.instance is None:
        return False
    return tessera.lanes.get(task.method) == MAIN
