"""Coroutine methods on the worker's loop: which asyncio task runs them.

Those of an ordinary tessera run one after the other, in one asyncio task for a burst of
them; those of an asynchronous one overlap, each in its own. Which calls may run at all
is not for here: that is the mailbox's.
"""

from __future__ import annotations

import asyncio
import logging
import marshal
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.task import DONE, RUNNING, START, Task
from ..core.telling import TRAVELLING_BYTES
from ..core.tessera import LOOP
from .port import SCALARS, Built, Handed, Outcome, Port, Raised, set_current
from .retrying import Later

if TYPE_CHECKING:
    from .coroutine_calls import CoroutineCalls
    from .journal import Journal
    from .main_thread import MainThread

logger = logging.getLogger(__name__)

_BURST = 256  # calls that run without giving the loop to others


class Consumer:
    """One asyncio task that runs the coroutine calls of a tessera."""

    __slots__ = ("between", "next", "runner", "task")

    def __init__(self) -> None:
        self.between = False  # one call has ended, the next may be handed over
        self.task: Task | None = None  # that runs
        self.next: Task | None = None
        self.runner: asyncio.Task[None] | None = None


class Coroutines:
    """See the module; all on the loop's thread.

    Args:
        port: to the runtime.
        loop: on which they run.
        journal: of what starts and finishes.
        calls: runs those that are not of the common kind.
        main: the main thread, which may wait for one that a plain method gave.

    Attributes:
        consumers: where calls run one after the other, by tessera.
    """

    def __init__(
        self,
        port: Port,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        calls: CoroutineCalls,
        main: MainThread,
    ) -> None:
        self._port = port
        self._loop = loop
        self._journal = journal
        self._calls = calls
        self._main = main
        self.consumers: dict[int, Consumer] = {}
        self._overlapping: set[Consumer] = set()  # of asynchronous tesserae
        self._begun: set[asyncio.Task[None]] = set()  # of plain methods, handed over

    def running(self) -> list[Task]:
        """What runs at this moment."""
        consumers = (*self.consumers.values(), *self._overlapping)
        return [c.task for c in consumers if c.task is not None]

    def start(self, task: Task) -> None:
        """Run it now, or after the one that has just ended."""
        tessera = task.tessera
        if tessera.options.is_async:
            consumer = Consumer()
            self._overlapping.add(consumer)
            task.rare = self._loop.create_task(self._consume(consumer, task))
            return
        running = self.consumers.get(tessera.uid)
        if running is not None and running.between:
            running.next = task
            return
        consumer = self.consumers[tessera.uid] = Consumer()
        consumer.runner = self._loop.create_task(self._consume(consumer, task))
        task.rare = consumer.runner

    async def _consume(self, consumer: Consumer, task: Task) -> None:
        """Run coroutine calls; a fault of ours ends the call, and is heard of."""
        overlaps = consumer.runner is None
        place = self._journal.enter(task) if overlaps else 0
        try:
            await self._consume_all(consumer, task)
        except Exception as error:
            consumer.between = False
            ours = consumer.task
            logger.exception("%r ended by a fault of the runtime", ours)
            if ours is not None and not ours.settled:
                failure = Raised(wire.ERROR, self._port.dump_error(error, ours))
                self._port.completed(ours, failure)
        finally:
            self._journal.leave(place)

    async def _consume_all(self, consumer: Consumer, task: Task | None) -> None:
        """Run coroutine calls of a tessera one after the other.

        One asyncio task for a burst of calls: to make one costs more than the call.
        """
        count = 0
        ended: list[Task] = []  # of one caller, still to be told
        while task is not None:
            consumer.between = False
            consumer.task = task
            is_async = task.tessera.options.is_async
            if consumer.runner is not None:
                task.rare = consumer.runner
            outcome: Outcome | None
            # The name first: what closes a tessera that nobody holds has no data.
            plain = task.extra is None and task.method[0] != "_"
            if plain and task.data[0] != wire.PICKLED:
                task, outcome = await self._run_common(consumer, task, ended)
                set_current(None)
            else:
                outcome = await self._calls.run(task)
            if outcome is not None and (type(outcome) is Built or is_async):
                self._overlapping.discard(consumer)
                self._port.completed(task, outcome)
                return
            consumer.between = True
            self._tell_ended(ended)
            if outcome is not None:
                self._port.completed(task, outcome)
            task, consumer.next = consumer.next, None
            count += 1
            if count % _BURST == 0 and task is not None:
                consumer.between = False
                await asyncio.sleep(0)
        consumer.between = False
        for uid, other in list(self.consumers.items()):
            if other is consumer:
                del self.consumers[uid]

    async def _run_common(
        self, consumer: Consumer, task: Task, ended: list[Task]
    ) -> tuple[Task, Outcome | None]:
        """Run plain coroutine calls as long as one follows the other: the hot path.

        Returns:
            The last one, and how it ended if that is not in ``ended``.
        """
        tessera = task.tessera
        instance = tessera.instance
        lines, out, err = self._port.talk
        runner = consumer.runner
        loads, dumps = marshal.loads, marshal.dumps
        task.move(START)
        journal = self._journal
        mark = tessera.mark if tessera.marked == task.caller else journal.mark(task)
        while True:
            view = journal.view
            if task.uid > view[mark]:
                view[mark] = task.uid
            else:
                journal.behind(task, mark)
            set_current(task)
            try:
                value = await getattr(instance, task.method)(*loads(task.data))
                if type(value) not in SCALARS:
                    return task, self._port.dump_result(value)
            except BaseException as error:
                return task, await self._calls.failure(task, error)
            outcome = dumps(value, 2)
            journal.view[mark + 1] = task.uid
            if (
                runner is None
                or len(outcome) > TRAVELLING_BYTES
                or task.outcome is not None  # it was told that it had to end
                or task.released
                or lines
                or out
                or err
            ):
                return task, outcome
            task.state = DONE
            task.outcome = wire.Done(task.uid, outcome)
            if not ended:
                # If the next one waits for something, this is not told late.
                self._loop.call_soon(self._tell_ended, ended)
            ended.append(task)
            if len(ended) >= _BURST:
                return task, None
            following = tessera.next_coroutine(task.caller)
            if following is None:
                return task, None
            task = following
            task.state = RUNNING
            task.rare = runner
            consumer.task = task

    def _tell_ended(self, ended: list[Task]) -> None:
        """Coroutine calls have ended; empties the list."""
        if ended:
            run = ended[:]
            ended.clear()
            self._port.completed_run(run)

    def hand_over(self, task: Task, coroutine: Any) -> None:
        """Go on with a coroutine that a plain method returned; on the loop."""

        async def run() -> None:
            # Not before: one that was cancelled before it began would never run.
            task.rare = asyncio.current_task()
            handed = task.raw
            outcome: Outcome
            if task.cancelled is None:
                outcome = await self._calls.run(task, coroutine)
            else:
                coroutine.close()
                set_current(task)
                outcome = await self._calls.raised(task, asyncio.CancelledError())
            while type(outcome) is Later:
                goes_on = self._loop.create_future()
                outcome.then = lambda at_once, future=goes_on: (
                    None if future.done() else future.set_result(at_once)
                )
                self._port.completed(task, outcome)
                if not await goes_on:
                    break  # it has ended, or starts again with others
                if task.settled:  # cancelled at this moment
                    outcome = self._calls.never_started(task)
                else:
                    outcome = await self._calls.run(task)
            else:
                task.raw = outcome
                self._port.completed(task, outcome)
            if type(handed) is Handed and handed.ended is not None:
                handed.ended.set()
            self._main.wake_stalled()

        task.lane = LOOP
        task.tessera.lane = LOOP
        self._begun.add(begun := self._loop.create_task(run()))
        begun.add_done_callback(self._begun.discard)


# Of the frames above which there is only user code.
CODES = (Coroutines._run_common.__code__, Coroutines._consume.__code__)
