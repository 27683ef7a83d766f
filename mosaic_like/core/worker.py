"""The tesserae and tasks that live in this runtime: what arrives, runs and ends.

Nothing here knows of sockets or threads. User code is run by the ``Runner``, which
tells the end by ``finished``; messages go to the outbox of their peer. The calls of
this runtime on others are in ``caller``; it is used here to get arguments that other
runtimes have.

Here is what all of it has in common, how plain calls come in and how what nobody holds
goes. Their ends are in ``completion``, a base since it is as hot; the rest are parts:

    arguments     what a call needs before it can start
    lifecycle     tesserae from their construction to their end
    stopping      calls that are to end before they would
    telling       who hears of an end, and who asks
    given         tasks that have an end without having run here
    elsewhere     calls that come for what is no tessera here
    strays        what comes before what it is for
    recalls       function tasks that their submitter wants back
    archive       calls that have ended, where there are many
    producers     streams of items
    holders       who holds what
"""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.messages import Submit
from ..ids import maker
from .alone import Alone
from .archive import Archive
from .arguments import Arguments
from .completion import Completion
from .elsewhere import ENDED_WITH_MAKER, Elsewhere
from .given import Given
from .holders import HolderTable
from .lifecycle import Lifecycle
from .recalls import Recalls
from .stopping import Stopping
from .strays import Strays
from .streams import Producers
from .task import DONE, PENDING, QUEUED, Task
from .telling import Telling
from .tessera import INLINE, MAIN, NONE_NUMBERED, Runner, Tessera, TesseraState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .caller import CallerState
    from .outbox import Outbox
    from .owner import Owner
    from .shelf import Shelf

_LISTENING = TesseraState.LISTENING


class WorkerState(Completion):
    """All that this runtime owns."""

    def __init__(
        self,
        port: Owner,
        runner: Runner,
        caller: CallerState,
        outboxes: Mapping[int, Outbox],
    ) -> None:
        self._outboxes = outboxes  # of the living, by incarnation
        self.port = port
        self._runner = runner
        self._caller = caller
        self.tesserae: dict[int, Tessera] = {}
        self.tasks: dict[int, Task] = {}
        # What else is counted here, in a warehouse: segments. They have ``shared``.
        self.kept: dict[int, Any] = {}
        self.kept_freed: Callable[[int], None] = self.kept.__delitem__
        self.keeping = _uncounted
        self.archive = Archive(self.tasks)
        alone = Alone(self.tesserae, self.tasks, self.kept, self.archive)
        self.holders = HolderTable(port.incarnation, self, alone)
        self._shared = self.holders.shared
        self.shelf: Shelf | None = None  # of a warehouse
        self.lost_makers: set[int] = set()
        # Whether nothing more will come of who made a uid: the runtime may know more.
        self.never: Callable[[int], bool] = self.lost_makers.__contains__
        self.telling = Telling(self)
        self.elsewhere = Elsewhere(self, runner)
        self.given = Given(self, self.elsewhere.results)
        self.arguments = Arguments(self, caller)
        self.lifecycle = Lifecycle(self, runner)
        self.stopping = Stopping(self, runner)
        self.producers = Producers(self.stopping)
        self.recalls = Recalls(self)
        self.strays = Strays()
        # Of these parts, what each plain call looks at.
        self._dependents = self.telling.dependents
        self._subscribers = self.telling.subscribers
        self._early_cancels = self.strays.cancels

    # -- calls come in -----------------------------------------------------------------

    def submit(self, message: wire.Submit, buffers: Any, sender: int) -> None:
        """A call has come: the hot path."""
        tessera = self.tesserae.get(message.tessera)
        if tessera is None:
            self.elsewhere.submit(message, buffers, sender)
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
            self.fail(task, wire.ERROR, why)
            return
        numbers[sender] = number + 1
        if extra is not None:
            if extra.kind >= wire.CLOSE:
                self.lifecycle.close(tessera, task)
                return
            if extra.kind == wire.STREAM:
                self.producers.add(task)
            self.arguments.gather(task, message, sender)
            if self._early_cancels:
                self.cancel_early(task)
            if extra.remaining_s is not None or extra.timeout_s is not None:
                self.stopping.watch(task)
            if task.state >= DONE:
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
        going = lane if at_once and lane is not None else 0
        handed = at_once and lane == MAIN
        tasks = self.tasks
        run: list[Task] = []
        end = len(batch)
        while True:
            uid = message.uid
            # fmt: off
            task = Task(
                uid, sender, tessera, name, message.data, None, None, QUEUED,
                going, None, handed,
            )
            # fmt: on
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
            tessera.lane = going
            tessera.active += len(run)
            self._runner.start_run(run)
        else:
            tessera.extend(run)
        return index

    def look_for_strays(self) -> None:
        """Look at each call that comes while some were cancelled before they came."""
        if self._early_cancels:
            self.submit_run = self._submit_one  # type: ignore[method-assign]
        else:
            vars(self).pop("submit_run", None)

    def _submit_one(self, batch: list[Any], index: int, sender: int) -> int:
        """``submit_run`` while some calls were cancelled before they came."""
        message = batch[index]
        if message.uid in self._early_cancels:
            message.extra = wire.Extra()  # so that `submit` looks at it
        self.submit(message, (), sender)
        return index + 1

    def not_taken(self, uid: int, error: Exception) -> None:
        """A call could not be taken in, for want of something here: so it fails."""
        task = self.tasks.get(uid)
        if task is not None and task.state <= QUEUED:
            self.refuse(task, error)

    def cancel_early(self, task: Task) -> None:
        """A call has come: end it if somebody asked for that before."""
        why = self.strays.come(task.uid)
        self.look_for_strays()
        if why is not None and not task.settled:
            self.stopping.stopped(task, why)

    def _refused(self, task: Task) -> bool:
        tessera = task.tessera
        if tessera.state is TesseraState.PENDING:
            return False
        if tessera.state is TesseraState.FAILED:
            self.never_runs(task)
        elif (
            tessera.error is None
            and tessera.options.supervised is not None
            and maker(tessera.uid) in self.lost_makers
        ):
            self.fail(task, wire.GONE, ENDED_WITH_MAKER)
        else:
            self.fail(task, wire.GONE, tessera.error or "it was closed")
        return True

    def never_runs(self, task: Task) -> None:
        """Fail a call on what was not built: for what ended it, or its constructor."""
        error = task.tessera.error
        self.fail(task, wire.GONE if isinstance(error, str) else wire.ERROR, error)

    # -- what is held goes ------------------------------------------------------------

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
            elif task is not None or not self.archive.drop(uid):
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
                self.stopping.released(task)
        # No return above: who sends nonsense may have given one number to both.
        tessera = self.tesserae.get(uid)
        if tessera is not None:
            self.lifecycle.close(tessera, None)
        elif task is None and uid in self.kept:
            self.kept_freed(uid)

    def find(self, uid: int) -> Task | None:
        """A task that lives here, to be read."""
        return self.tasks.get(uid) or self.archive.get(uid)

    def cannot_come(self, uid: int) -> bool:
        """A task that is not here, whose Submit is not on its way either."""
        by = maker(uid)
        if by == self.port.incarnation:
            return uid not in self._caller.calls
        return self.never(by)

    # -- loss --------------------------------------------------------------------------

    def lost(self, incarnation: int) -> None:
        """A runtime is gone: nothing that only it could send will come."""
        self.producers.lost(incarnation)
        self.lost_makers.add(incarnation)
        self.lifecycle.lost_home(incarnation)
        self.strays.lost(incarnation, self.never)
        self.look_for_strays()
        for call in self.strays.stranded(self.never):
            self.elsewhere.submit(call.message, call.buffers, call.sender)
        self.telling.lost(incarnation)
        # What it sent under numbers of others, none of whom would ever release it.
        for uid, task in list(self.tasks.items()):
            if task.caller == incarnation != maker(uid):
                self.freed(uid)


def _uncounted(task: Task) -> None:
    """Where nobody counts the memory that values take."""
