"""What the calls of this runtime wait for at this moment, for ``core.cycles``.

Threads tell the executor for what they block. Coroutines tell nothing: a coroutine
that has waited for a while is looked at from outside, down to what it awaits at last.
Only a few calls that wait for long are looked at, so none of this is on the hot path.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.cycles import (
    ARGUMENT,
    AWAITS,
    BELOW,
    BLOCKED,
    QUEUED,
    THREAD,
    UNDER,
    CycleState,
    Edge,
    Vertex,
)
from ..core.shelf import Shelf
from ..core.task import CONSTRUCTOR, PENDING, RUNNING, Task
from ..core.task import QUEUED as IN_QUEUE
from ..core.tessera import MAIN
from ..core.tessera import THREAD as OWN_THREAD
from ..errors import CycleError
from ..ids import task_name
from ..text import printable
from .awaiting import awaited_calls, held_by_others

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..core.call import Call
    from ..core.outbox import Outbox
    from ..core.tessera import Tessera
    from .actor import ActorRuntime
    from .executor import Executor

_LOOK_S = 0.05
_COROUTINES_S = 0.25  # between two looks at what a coroutine awaits
_CALLS = 256  # of those that one wait is for, as many are followed


class _Awaiting:
    """What the coroutine of a call awaits, since it was last looked at."""

    __slots__ = ("due_s", "future", "loose", "stamp")

    def __init__(self) -> None:
        self.due_s = 0.0
        self.future: Any = None  # kept, so that no other takes its address
        self.stamp = 0
        self.loose = False  # something else could end the wait


class Cycles:
    """See the module; all on the loop's thread."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._state = CycleState(self)
        self._awaiting: dict[int, _Awaiting] = {}  # by uid
        self._look_s = 0.0

    @property
    def incarnation(self) -> int:
        return self._runtime.incarnation

    @property
    def _executor(self) -> Executor:
        return self._runtime.executor

    def outbox(self, incarnation: int) -> Outbox | None:
        return self._runtime.outbox(incarnation)

    def on_waiting(self, message: wire.Waiting, buffers: Any, sender: int) -> None:
        self._state.waiting(message)

    def on_circle(self, message: wire.Circle, buffers: Any, sender: int) -> None:
        self._state.circle(message)

    # -- who waits ---------------------------------------------------------------------

    def look(self, now_s: float) -> bool:
        """At each tick; whether there is anything to look at again."""
        executor = self._executor
        consumers = executor.coroutines.consumers
        if not (executor.waits.by_uid or consumers or executor.main.stalled):
            if self._awaiting:
                self._awaiting.clear()
            return False
        if now_s < self._look_s:
            return True
        self._look_s = now_s + _LOOK_S
        top = executor.main.stack[-1:]
        waits = [
            (uid, wait.stamp)
            for uid, wait in list(executor.waits.by_uid.items())
            if wait.task.lane == OWN_THREAD or wait.task in top
        ]
        awaiting = {}
        for task in self._coroutines():
            item = self._awaiting.get(task.uid)
            if item is None:
                item = _Awaiting()
                item.due_s = now_s + _LOOK_S
            elif item.due_s <= now_s:
                item.due_s = now_s + _COROUTINES_S
                self._awaited(task, item)
            awaiting[task.uid] = item
            if item.future is not None:
                waits.append((task.uid, item.stamp))
        self._awaiting = awaiting
        self._state.look(waits, now_s)
        return True

    def _coroutines(self) -> Iterator[Task]:
        """Those that run one at a time in their tessera."""
        executor = self._executor
        for consumer in list(executor.coroutines.consumers.values()):
            task = consumer.task
            if task is not None and task.state == RUNNING:
                yield task
        for task in list(executor.main.stalled):
            if _is_coroutine(task):
                yield task

    def _awaited(self, task: Task, item: _Awaiting) -> list[Call]:
        """For which calls a coroutine waits, and for nothing else besides."""
        running = task.rare
        calls: list[Call] = []
        future = None
        if isinstance(running, asyncio.Task):
            future = getattr(running, "_fut_waiter", None)
        if future is not None:
            calls = awaited_calls(running.get_coro())
        if not calls:
            item.future = None
        elif item.future is not future:
            item.future = future
            item.stamp = self._executor.waits.new_stamp()
            item.loose = False
        return calls

    # -- core.cycles.Port --------------------------------------------------------------

    def vertex(self, uid: int, strict: bool) -> Vertex | None:
        task = self._runtime.worker.tasks.get(uid)
        if task is None or task.settled:
            return None
        state = task.state
        edges: list[Edge] = []
        if state == RUNNING:
            if task.lane == MAIN or task.lane == OWN_THREAD:
                edges = self._of_thread(task)
            if not edges and _is_coroutine(task):
                edges = self._of_coroutine(task, strict)
        elif state == PENDING:
            edges = self._of_pending(task)
        elif state == IN_QUEUE and task.handed:
            edges = self._of_handed(task)
        elif state == IN_QUEUE:
            edges = [self._behind(other) for other in self._before(task)]
        return Vertex(
            task.name,
            task.tessera.uid,
            edges,
            len(task.inside or ()),
            task.cancelled is None and uid not in self._runtime.limits,
        )

    def _of_thread(self, task: Task) -> list[Edge]:
        executor = self._executor
        stack = list(executor.main.stack)
        above = stack[stack.index(task) + 1 :] if task in stack else []
        edges = [Edge(above[0].uid, self.incarnation, UNDER)] if above else []
        wait = executor.waits.by_uid.get(task.uid)
        # One that is refused ends when what its thread runs meanwhile has ended.
        if wait is not None and wait.error is None:
            kind = BELOW if above else BLOCKED
            to, owner = wait.call.uid, wait.call.stream.owner
            edges.append(Edge(to, owner, kind, wait.stamp, wait.certain))
        return edges

    def _of_coroutine(self, task: Task, strict: bool) -> list[Edge]:
        item = self._awaiting.get(task.uid)
        if item is None:
            item = self._awaiting[task.uid] = _Awaiting()
        calls = self._awaited(task, item)
        if strict and calls and not item.loose:
            item.loose = held_by_others(task.rare)
        return [
            Edge(call.uid, call.stream.owner, AWAITS, item.stamp, not item.loose)
            for call in calls[:_CALLS]
        ]

    def _of_pending(self, task: Task) -> list[Edge]:
        """It lacks arguments, or stands behind one that does."""
        edges = self._arguments(task)
        tessera = task.tessera
        if task.method == CONSTRUCTOR and tessera.instance is None:
            return edges
        if isinstance(tessera, Shelf):
            return edges + [self._behind(other) for other in tessera.before(task)]
        line = tessera.blocked.get(task.caller)
        if line and line[0] is not task and task in line:
            edges = [self._behind(line[0])]
        return edges + [self._behind(other) for other in self._before(task)]

    def _arguments(self, task: Task) -> list[Edge]:
        """Those of its arguments that have not ended."""
        extra = task.extra
        known = task.arguments
        if extra is None or known is None:
            return []
        return [
            Edge(reference.uid, reference.owner, ARGUMENT)
            for index, reference in enumerate(extra.references)
            if reference.kind == wire.TASK
            and (known[index] is None or not known[index].settled)
        ][:_CALLS]

    def _of_handed(self, task: Task) -> list[Edge]:
        """It is in the queue of the main thread."""
        executor = self._executor
        stack = list(executor.main.stack)
        tessera = task.tessera
        edges = self._arguments(task)
        for other in list(executor.main.stalled):
            if other.tessera is tessera and other is not task:
                edges.append(self._behind(other))
        # What is no object's has no state that two calls could spoil.
        holders = [t for t in stack if t.tessera is tessera and tessera.uid]
        if holders:
            edges.append(self._behind(holders[-1]))
        elif stack and not edges:
            edges.append(Edge(stack[-1].uid, self.incarnation, THREAD))
        return edges

    def _before(self, task: Task) -> list[Task]:
        """What runs, or is handed to its thread, on a tessera that does not overlap."""
        tessera = task.tessera
        executor = self._executor
        if tessera.instance is None:
            tasks = self._runtime.worker.tasks.values()
            return [t for t in tasks if _makes(t, tessera) and not t.settled]
        if tessera.limit > 1:
            return []
        found: list[Task | None] = [*executor.main.stack, *executor.main.stalled]
        found += executor.main.deferred_tasks()
        consumer = executor.coroutines.consumers.get(tessera.uid)
        if consumer is not None:
            found.append(consumer.task)
        found.append(executor.threads.task_of(tessera))
        return [
            other
            for other in dict.fromkeys(found)
            if other is not None and other.tessera is tessera and other is not task
        ]

    def _behind(self, task: Task) -> Edge:
        return Edge(task.uid, self.incarnation, QUEUED)

    def run_under(self, uid: int, top: int) -> None:
        task = self._runtime.worker.tasks.get(uid)
        if task is not None:
            self._executor.main.run_under(task, top)

    def refuse(self, uid: int, stamp: int, text: str) -> None:
        error = CycleError(printable(text), task_name(uid))
        if self._executor.waits.refuse(uid, stamp, error):
            return
        item = self._awaiting.get(uid)
        task = self._runtime.worker.tasks.get(uid)
        if item is None or task is None or item.stamp != stamp:
            return
        self._awaited(task, item)
        future = item.future
        if item.stamp == stamp and future is not None and not future.done():
            future.set_exception(error)


def _makes(task: Task, tessera: Tessera) -> bool:
    return task.tessera is tessera and task.method == CONSTRUCTOR


def _is_coroutine(task: Task) -> bool:
    """It runs one, and nothing else of its tessera does meanwhile."""
    return task.tessera.limit == 1 and isinstance(task.rare, asyncio.Task)
