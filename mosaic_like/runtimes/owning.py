"""A runtime that runs calls: what comes of them is told, on its loop's thread.

That is what ``core.worker`` and the executor ask for. How a call is run is not for here
but the executor's; who hears of its end is decided in ``core.worker``.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.serialization import Payload
from ..core.call import RELEASED, Call
from ..core.task import CANCEL_EVENT, ERROR_EVENT, Task
from .calling import Calling
from .port import Built, Handed, Outcome, Raised, Retrying
from .retrying import Later

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from ..config import Config
    from ..core.references import Grants
    from ..core.streams import Producer
    from ..core.tessera import Tessera
    from .departing import Departing
    from .executor import Executor
    from .linking import Linking
    from .names import Names
    from .restarting import Restarts
    from .streams import Producing

get_ident = threading.get_ident  # looked up for each call
# Where the loop was not woken for so long, the next call may take as long too.
_LONG_S = 0.01
# Until the loop has been there, mostly after the first; seconds.
_PAUSES_S = (0.00005, 0.0001, 0.0002, 0.0006, 0.002, 0.002)
_TOGETHER = 256  # ends of plain calls: their callers wait for the first of them


class Owning(Calling):
    """See the module.

    Attributes:
        talk: what is printed and not sent, in containers; only workers capture it.
        copied: published values of others that it has: its incarnation.
        departing: while this runtime itself leaves.
    """

    executor: Executor
    grants: Grants
    names: Names
    restarts: Restarts
    linking: Linking
    departing: Departing | None
    _producing: Producing

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config) -> None:
        super().__init__(loop, config)
        self.talk: tuple[Any, Any, Any] = (), (), ()
        self.copied: dict[int, int] = {}
        self._completions: deque[tuple[Task, Outcome]] = deque()
        self._woken_s = 0.0  # the loop, for ends
        self._hooks: set[asyncio.Task[None]] = set()

    # -- ends --------------------------------------------------------------------------

    def completed(self, task: Task, outcome: Outcome) -> None:
        lines, out, err = self.talk
        if lines or out or err:
            self.finish_lines(task, outcome)
        if get_ident() == self._ident:
            if type(outcome) is bytes and task.tessera.closing is None:
                self.worker.finished(task, outcome)
            else:
                self._ended(task, outcome)
            return
        self._completions.append((task, outcome))
        if not self._awake:
            self._awake = True
            self.loop.call_soon_threadsafe(self._drain, context=self.context)
            now_s = monotonic()
            if now_s - self._woken_s > _LONG_S:
                self._let_tell()
            self._woken_s = now_s

    def _let_tell(self) -> None:
        """Calls take long: let the loop tell the end of this one before the next.

        It may be C code that keeps the interpreter: nothing would be told until it has
        ended, or, of a queue of such calls, until all have.
        """
        if self.executor.main.has_more:
            for pause_s in _PAUSES_S:
                sleep(pause_s)
                if not self._awake:
                    break

    def completed_run(self, run: list[Task]) -> None:
        self.worker.finished_run(run)

    def _drain(self) -> None:
        self._awake = False  # first: what comes from now on wakes again
        self.peers.gathering += 1
        completions = self._completions
        printed = self.talk[0]
        while completions:
            count = len(completions)  # those that come now may print before
            if printed:  # before they ended, so this goes first
                self.send_printed()
            self.worker.finished_alike(completions, min(count, _TOGETHER))
            if not completions:
                break
            task, outcome = completions.popleft()
            if printed:
                self.send_printed()
            if type(outcome) is bytes and task.tessera.closing is None:
                self.worker.finished(task, outcome)
            else:
                self._ended(task, outcome)
        self._drain_inbox()
        self.peers.gathered()

    def _ended(self, task: Task, outcome: Outcome) -> None:
        worker = self.worker
        kind: Any = type(outcome)
        if kind is bytes or kind is Payload:
            if kind is Payload and not self.placed(outcome):
                # Its end is told after those of later calls.
                self.executor.journal.irregular(task)
                self.placing.later(lambda: self._ended_later(task, outcome))
                return
            worker.finished(task, outcome)
            if task is task.tessera.closing:
                worker.lifecycle.closed(task.tessera)
        elif kind is Built:
            worker.lifecycle.built(task, outcome.instance)  # type: ignore[union-attr]
        elif kind is Handed:
            self.executor.coroutines.hand_over(task, outcome.coroutine)  # type: ignore[union-attr]
        elif kind is Later:
            self.executor.retries.begin(task, outcome)  # type: ignore[arg-type]  # the kind says it
        elif kind is Retrying:
            self.limiting.retrying(task, outcome.attempt)  # type: ignore[union-attr]
        elif worker.producers.by_uid and self._producing.took(task, outcome):
            pass  # a call that asks for a stream
        else:
            assert isinstance(outcome, Raised)
            tessera = task.tessera
            if task.method == "__init__" and tessera.instance is None:
                worker.lifecycle.not_built(task, outcome.error)
                return
            event = CANCEL_EVENT if outcome.reason == wire.CANCELLED else ERROR_EVENT
            worker.failed(task, event, outcome.reason, outcome.error)
            if task is tessera.closing:
                worker.lifecycle.closed(tessera)

    def _ended_later(self, task: Task, outcome: Any) -> bool:
        if not all(handle.owner for handle in outcome.handles):
            return False
        self._ended(task, outcome)
        return True

    def placed(self, payload: Any) -> bool:
        """All that a value mentions has its place: some was made only just before."""
        if all(handle.owner for handle in payload.handles):
            return True
        self._drain_inbox()
        return all(handle.owner for handle in payload.handles)

    # -- printed lines -----------------------------------------------------------------

    def send_printed(self) -> None:
        """Only workers capture what is printed."""

    def finish_lines(self, task: Task, outcome: Outcome) -> None:
        """The same: what is left of its last lines goes before its end is told."""

    def finish_prints(self, task: Task) -> None:
        """The last line that a call has printed ends here; where that is captured."""

    # -- executor.Port: the rest -------------------------------------------------------

    def tell(self, task: Task, message: Any) -> None:
        """Tell the caller of a task that runs here something; from any thread."""
        if task.caller == self.incarnation:  # only such have tasks at a head
            self.handlers[type(message)](message, (), task.caller)

    def retry_later(self, task: Task, attempt: int, delay_s: float) -> bool:
        return self.limiting.retry_later(task, attempt, delay_s)

    def retry_now(self, task: Task, attempt: int) -> bool:
        return self.limiting.retry_now(task, attempt)

    def producer(self, task: Task) -> Producer:
        return self.worker.producers.by_uid[task.uid]

    def checkpoint(self, task: Task) -> None:
        raise ValueError("what lives here is not built again: nobody would read it")

    def restore(self, task: Task, instance: Any) -> None:
        """Nothing is built again but in workers."""

    def start_hook(self, hook: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine function of the user that nobody waits for; on the loop."""
        running = self.loop.create_task(hook)
        self._hooks.add(running)
        running.add_done_callback(self._hooks.discard)

    # -- Owner: what WorkerState asks for ----------------------------------------------

    def awaited_call(self, reference: wire.Reference) -> Call:
        uid = reference.uid
        owner = self.grants.owner_now(reference.owner)
        stream = self.placing.foreign(self.copied.get(uid, owner))
        call = Call(uid, stream, "", None, 0, 0.0)
        call.hold = RELEASED  # its grant is in the payload
        return call

    def cancel_running(self, task: Task) -> None:
        self.executor.cancel(task)

    def stopping_call(self, task: Task) -> None:
        self.limiting.stopping(task)

    def limited(self, task: Task) -> bool:
        return self.limiting.limited(task)

    def recycle(self, why: str) -> None:
        """Only a worker can be ended for a call that does not stop."""

    def put_off_no_more(self, task: Task) -> None:
        self.executor.main.wake_stalled()

    def untold(self, task: Task) -> Any:
        self.executor.journal.untold(task)
        self.restarts.untold = True
        return self.grants.moved_on(task.uid)

    def tessera_fails(self, tessera: Tessera) -> None:
        self.linking.gone(tessera)

    def tessera_gone(self, tessera: Tessera) -> None:
        if tessera.options.supervised is not None:
            self.restarts.gone(tessera)
        self.executor.tessera_gone(tessera)
        self.linking.gone(tessera)
        if tessera.options.unique:
            self.names.gone(tessera)
