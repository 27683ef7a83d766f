"""Remote streams: the steps of generators, and the items that come from others.

``run_step`` and ``run_step_on_loop`` run user code for the executor; ``Producing`` does
on the loop's thread what their outcomes ask for. ``Intakes`` has the streams that this
process consumes. What is decided is decided in ``core/streams.py``.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from ..comms import messages as wire
from ..core.call import HELD, Call, rare
from ..core.completion import NONE
from ..core.payloads import Arrived
from ..core.streams import (
    STEP_ITEMS,
    WINDOW_ITEMS,
    Intake,
    IntakeState,
    Producer,
    Producers,
    ProducerState,
    item_message,
)
from ..core.task import CANCEL_EVENT, CANCELLED, DONE, ERROR_EVENT, FAILED, Task
from ..core.tessera import LOOP
from ..errors import ProtocolError
from .loops import on_a_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from .actor import ActorRuntime

logger = logging.getLogger(__name__)

_END = -1  # instead of the number of an item


class Yielded:
    """Outcome of a part of a step: an item, bytes or a payload."""

    __slots__ = ("payload",)

    def __init__(self, payload: Any) -> None:
        self.payload = payload


class Paused:
    """Outcome of a step: it goes on later, or has ended."""

    __slots__ = ("ended",)

    def __init__(self, ended: bool = False) -> None:
        self.ended = ended


class Port(Protocol):
    """What the runtime does for a step."""

    def completed(self, task: Task, outcome: Any) -> None: ...

    def dump_result(self, value: Any) -> Any: ...


# -- steps: on the lane of the generator -----------------------------------------------


def run_step(
    task: Task, producer: Producer, begin: Callable[[Task], Any], port: Port
) -> Paused:
    """Go on with a plain generator as far as credit goes; on its thread."""
    if not producer.begun:
        _begin(task, producer, begin)
    iterator = producer.iterator
    if hasattr(iterator, "__anext__"):
        return Paused()  # a plain method that gave an asynchronous one: the loop's
    for _ in range(STEP_ITEMS):
        if not producer.may_yield:
            break
        try:
            value = next(iterator)
        except StopIteration:
            producer.iterator = None
            return Paused(ended=True)
        except BaseException:
            producer.iterator = None
            raise
        payload = port.dump_result(value)
        value = None  # the generator may go on for long: it is not to be kept
        producer.made(size_of(payload))
        port.completed(task, Yielded(payload))
    if producer.stopping:
        producer.iterator = None
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
        return Paused(ended=True)
    return Paused()


async def run_step_on_loop(
    task: Task, producer: Producer, begin: Callable[[Task], Any], port: Port
) -> Paused:
    """The same for an asynchronous generator; on the loop."""
    if not producer.begun:
        _begin(task, producer, begin)
    iterator = producer.iterator
    if not hasattr(iterator, "__anext__"):
        return run_step(task, producer, begin, port)
    for _ in range(STEP_ITEMS):
        if not producer.may_yield:
            break
        try:
            value = await anext(iterator)
        except StopAsyncIteration:
            producer.iterator = None
            return Paused(ended=True)
        except BaseException:
            producer.iterator = None
            raise
        payload = port.dump_result(value)
        value = None
        producer.made(size_of(payload))
        port.completed(task, Yielded(payload))
    if producer.stopping:
        producer.iterator = None
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
        return Paused(ended=True)
    return Paused()


def _begin(task: Task, producer: Producer, begin: Callable[[Task], Any]) -> None:
    producer.begun = True
    value = begin(task)
    if hasattr(value, "__anext__"):
        producer.iterator = value
    elif hasattr(value, "__aiter__"):
        producer.iterator = aiter(value)
    elif inspect.iscoroutine(value) or not hasattr(value, "__iter__"):
        if inspect.iscoroutine(value):
            value.close()
        raise TypeError(
            f"{task.tessera.options.name}.{task.method} gave a "
            f"{type(value).__name__}, expected something to iterate over"
        )
    else:
        producer.iterator = iter(value)


def size_of(payload: Any) -> int:
    """Bytes of an item, as credit counts them."""
    return len(payload) if type(payload) is bytes else payload.nbytes


# -- their outcomes: on the loop's thread ----------------------------------------------


class Producing:
    """What happens after user code has yielded, paused or ended."""

    def __init__(self, runtime: ActorRuntime, producers: Producers) -> None:
        self._runtime = runtime
        self._producers = producers

    def took(self, task: Task, outcome: Any) -> bool:
        """Take the outcome of a call, if it is one of a stream."""
        producer = self._producers.by_uid.get(task.uid)
        if producer is None:
            return False
        if type(outcome) is Yielded:
            self._send(producer, outcome.payload)
        elif type(outcome) is not Paused:
            self._raised(producer, outcome)
        elif outcome.ended:
            self._ended(producer, None)
        else:
            if hasattr(producer.iterator, "__anext__"):
                producer.task.tessera.lanes[task.method] = LOOP
            self._producers.paused(producer)
        return True

    def _send(self, producer: Producer, payload: Any) -> None:
        number = producer.sent(size_of(payload))
        if type(payload) is not bytes:
            self._runtime.placed(payload)
        outbox = self._runtime.outbox(producer.task.caller)
        if outbox is not None:
            message = item_message(producer.task.uid, number, payload)
            outbox.send(message, None if type(payload) is bytes else payload)

    def _raised(self, producer: Producer, outcome: Any) -> None:
        if producer.iterator is None:
            self._ended(producer, outcome)
            return
        # It was not the generator that raised: an item that cannot travel, or an
        # interrupt between two items. The error is told when it has been closed.
        producer.outcome = outcome
        if producer.state is ProducerState.STEPPING:
            producer.stop(outcome.reason)
        self._producers.paused(producer)

    def _ended(self, producer: Producer, raised: Any) -> None:
        worker = self._runtime.worker
        task = producer.task
        stopped = producer.reason if producer.stopping else None
        producer.ended()
        self._producers.forget(task.uid)
        outcome = producer.outcome
        if raised is not None and raised.reason != wire.CANCELLED:
            outcome = raised
        if outcome is None and stopped is None:
            outcome = raised
        if outcome is not None:
            cancelled = outcome.reason == wire.CANCELLED
            event = CANCEL_EVENT if cancelled else ERROR_EVENT
            worker.failed(task, event, outcome.reason, outcome.error)
        elif stopped in (wire.CANCELLED, wire.TIMEOUT, wire.LOST):
            error = self._runtime.cancelled(task, started=True)
            event = CANCEL_EVENT if stopped == wire.CANCELLED else ERROR_EVENT
            worker.failed(task, event, stopped, error)
        elif stopped == wire.GONE:
            worker.failed(task, ERROR_EVENT, wire.GONE, "it was closed")
        else:
            worker.finished(task, NONE)


# -- the consumer ----------------------------------------------------------------------


class Intakes:
    """The streams that this process takes, by the uid of the call."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._by_uid: dict[int, Intake] = {}
        # Items, and at last the end, since one of which not all has come: that first.
        self._late: dict[int, deque[tuple[int, Any]]] = {}

    def __len__(self) -> int:
        return len(self._by_uid)

    def open(self, call: Call) -> Intake:
        """The items of a call; from any thread, once for each."""
        intake = self._of(call)
        intake.opened = True
        self._runtime.when_settled(call, lambda: self._ended(call, intake))
        return intake

    def _of(self, call: Call) -> Intake:
        # From the thread that called or from the loop's, whichever is first.
        return self._by_uid.setdefault(call.uid, Intake())

    def lost(self, incarnation: int) -> None:
        """A runtime is gone: what it sent to calls that are no streams goes too."""
        calls = self._runtime.caller.calls
        for uid, intake in list(self._by_uid.items()):
            if not intake.opened and uid not in calls:
                del self._by_uid[uid]
        for uid in [u for u in self._late if u not in calls and u not in self._by_uid]:
            del self._late[uid]

    def item(self, message: wire.Item, buffers: Any, sender: int) -> None:
        """The handler of Item."""
        item: Any = message.data
        if message.extra is not None:
            item = self._runtime.arrived(message, buffers, sender)
        call = self._runtime.caller.calls.get(message.uid)
        is_away = type(item) is Arrived and item.size and item.shared is not None
        if call is None:
            if is_away:
                self._runtime.unwanted(item)
        elif is_away or call.uid in self._late:
            late = self._late.setdefault(call.uid, deque())
            if len(late) > WINDOW_ITEMS:
                raise ProtocolError("an item more than it had credit for")
            late.append((message.number, item))
            if is_away:
                self._runtime.locate(item, lambda: self._catch_up(call))
        else:
            self._put(call, message.number, item)

    def _put(self, call: Call, number: int, item: Any) -> None:
        intake = self._of(call)
        intake.put(number, item)
        self._wake(intake)

    def _catch_up(self, call: Call) -> None:
        """The rest of an item has come, or never will."""
        late = self._late.get(call.uid, deque())
        while late:
            number, item = late[0]
            if number == _END:
                del self._late[call.uid]
                self._ended(call, item)
                return
            if type(item) is Arrived and item.size and not item.shared.why:
                return
            late.popleft()
            try:
                self._put(call, number, item)
            except ProtocolError as error:
                name = self._runtime.uid_of(call.owner)
                self._runtime.complaints.tell(name, f"{self._runtime.uid}: {error}; it")
        self._late.pop(call.uid, None)

    def _ended(self, call: Call, intake: Intake) -> None:
        if call.uid in self._late:
            if call.state != CANCELLED:
                self._late[call.uid].append((_END, intake))
                return
            self._forget_late(call)
        left = intake.state is IntakeState.LEFT
        intake.ended()
        self._by_uid.pop(call.uid, None)
        if call.state == FAILED:
            if not left:
                rare(call).unheard = call.hold == HELD
            elif call.rare is not None and call.rare.reason == "error":
                self._runtime.unheard_failures.complain(call)
        self._wake(intake)

    def _wake(self, intake: Intake) -> None:
        waiters, intake.waiters = intake.waiters, []
        for then in waiters:
            then()

    def when_ready(self, intake: Intake, then: Callable[[], Any]) -> None:
        """Call it on the loop's thread when there is an item, or the end."""
        if not self._runtime.on_loop:
            self._runtime.post(self.when_ready, intake, then)
        elif intake.ready:
            then()
        else:
            intake.waiters.append(then)

    def take(self, call: Call, intake: Intake) -> Any:
        """The next item; there is one."""
        item, credit = intake.take()
        if credit:
            if self._runtime.on_loop:
                self._credit(call, credit)
            else:
                self._runtime.post(self._credit, call, credit)
        return self._runtime.values.item(item)

    def _credit(self, call: Call, items: int) -> None:
        outbox = call.stream.outbox
        if call.state < DONE and outbox is not None:
            outbox.send(wire.Credit(call.uid, items))

    def leave(self, call: Call, intake: Intake) -> None:
        """Nobody wants more of it; from any thread, also inside a collection."""
        if not self._runtime.peers.closed:
            self._runtime.post(self._leave, call, intake)

    def _leave(self, call: Call, intake: Intake) -> None:
        told = intake.leave()
        self._forget_late(call)
        if not told or call.state >= DONE:
            return
        if any(held[0] is call for held in call.stream.held):
            self._runtime.caller.cancel(call, "its consumer has gone")
        else:
            self._credit(call, 0)

    def _forget_late(self, call: Call) -> None:
        """Nobody wants the items that are still to be completed."""
        for _, item in self._late.get(call.uid, ()):
            if type(item) is Arrived and item.size:
                self._runtime.unwanted(item)
        if call.state == CANCELLED:
            self._late.pop(call.uid, None)

    def block(self, call: Call, intake: Intake, timeout: float | None) -> None:
        """Block this thread until there is an item, or the end."""
        name = call.name
        if self._runtime.on_loop or on_a_loop():
            raise RuntimeError(
                f"{name}: to block here would stop the loop that is to bring the "
                "items; write 'async for item in ...'"
            )
        runtime = self._runtime
        if runtime.waits_on_main():
            self.when_ready(intake, runtime.wake_main)
            in_time = runtime.block_until(lambda: intake.ready, call, timeout)
        else:
            event = threading.Event()
            self.when_ready(intake, event.set)
            in_time = event.wait(timeout)
        if not in_time:
            raise TimeoutError(f"{name} has yielded nothing in {timeout} s")
