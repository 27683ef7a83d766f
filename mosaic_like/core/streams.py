"""What a generator yields, between the runtime that runs it and the one that takes it.

Here is the side of the generator; that of the consumer is in ``intake``. The consumer
gives credit as it takes; the generator runs only as far as there is credit, in *steps*:
each is a small call of its own in the mailbox of its tessera, so that the tessera is
free for other calls between two of them. ``Producers`` are those of one runtime.

Neither user code nor sockets are here. Messages and what changes:

    consumer                         producer
    Submit(kind=STREAM)         ->   the first step
    item to take                <-   Item
    Credit(items)               ->   a step, if it waited for credit
    Credit(0), lost, cancelled  ->   the last step, which closes the generator
    the end, after all items    <-   Done, Failed
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from ..comms import messages as wire
from ..errors import InvalidTransitionError, ProtocolError
from .payloads import references
from .task import CANCEL_EVENT, QUEUED, READY, RUNNING, Task
from .tessera import LOOP

if TYPE_CHECKING:
    from .tessera import Tessera

WINDOW_ITEMS = 16  # on their way or not yet taken
# The same in bytes; an item that is larger goes alone.
WINDOW_BYTES = 16 << 20
STEP_ITEMS = 64  # after so many others may go, although there is credit
CONSUMER_GONE = -1  # beside the reasons of messages: why a stream is closed


class ProducerState(enum.StrEnum):
    """A stream at the runtime where its generator is."""

    STEPPING = "stepping"  # a step of it is queued or runs
    WAITING = "waiting"  # for credit
    CLOSING = "closing"  # nobody wants more: the next step closes the generator
    ENDED = "ended"


PRODUCER_TRANSITIONS: dict[ProducerState, dict[str, ProducerState]] = {
    ProducerState.STEPPING: {
        "pause": ProducerState.WAITING,
        "stop": ProducerState.CLOSING,
        "end": ProducerState.ENDED,
    },
    ProducerState.WAITING: {
        "step": ProducerState.STEPPING,
        "stop": ProducerState.CLOSING,
        "end": ProducerState.ENDED,
    },
    ProducerState.CLOSING: {
        "pause": ProducerState.CLOSING,
        "stop": ProducerState.CLOSING,
        "end": ProducerState.ENDED,
    },
    ProducerState.ENDED: {},
}


class Producer:
    """A generator and the credit that it has."""

    __slots__ = (
        "_credited",
        "_credited_bytes",
        "_made",
        "_made_bytes",
        "_sizes",
        "begun",
        "extra",
        "iterator",
        "number",
        "outcome",
        "reason",
        "state",
        "step",
        "task",
    )

    def __init__(self, task: Task) -> None:
        self.task = task
        self.state = ProducerState.STEPPING
        self.step: Task | None = task  # that is queued or runs
        self.iterator: Any = None  # None again when it has ended
        self.begun = False
        self.number = 0  # of the next item
        # A step runs on while credit comes: the first two are written by its thread,
        # the others by the loop's, and none ever falls.
        self._made = 0
        self._made_bytes = 0
        self._credited = 0
        self._credited_bytes = 0
        self._sizes: deque[int] = deque()  # of the items that are not credited
        self.reason = CONSUMER_GONE  # why it is closed, if it is: CANCELLED, GONE
        self.outcome: Any = None  # to be told when the generator has been closed
        # Steps go past the calls of their caller that wait for arguments: the stream
        # was started before those, and they may need what it yields.
        self.extra = wire.Extra(kind=wire.STREAM, ordered=False)

    @property
    def may_yield(self) -> bool:
        """There is credit, and somebody wants it; asked on any thread."""
        return (
            self._made - self._credited < WINDOW_ITEMS
            and self._made_bytes - self._credited_bytes < WINDOW_BYTES
            and self.state is not ProducerState.CLOSING
        )

    @property
    def stopping(self) -> bool:
        """Nobody wants more of it; may be asked from any thread."""
        return self.state is ProducerState.CLOSING

    def made(self, size: int) -> None:
        """The generator has yielded; on its thread."""
        self._made += 1
        self._made_bytes += size

    def sent(self, size: int) -> int:
        """An item goes out; its number."""
        self._sizes.append(size)
        number = self.number
        self.number = number + 1
        return number

    def credit(self, items: int) -> bool:
        """The consumer has taken so many; whether a step is due."""
        if items > len(self._sizes):
            raise ProtocolError(
                f"credit for {items} items of a stream with {len(self._sizes)} out"
            )
        for _ in range(items):
            self._credited_bytes += self._sizes.popleft()
        self._credited += items
        if self.state is ProducerState.WAITING and self.may_yield:
            self._move("step")
            return True
        return False

    def paused(self) -> bool:
        """A step has ended, the generator has not; whether another is due."""
        self.step = None
        self._move("pause")
        if self.state is ProducerState.CLOSING:
            return True
        if self.may_yield:
            self._move("step")
            return True
        return False

    def stop(self, reason: int) -> bool:
        """Nobody wants more; whether a step is due, that closes it."""
        before = self.state
        self._move("stop")
        if before is not ProducerState.CLOSING:
            self.reason = reason
        return before is ProducerState.WAITING

    def ended(self) -> None:
        """The generator has ended, or is closed."""
        self.step = None
        self._move("end")

    def _move(self, event: str) -> None:
        new = PRODUCER_TRANSITIONS[self.state].get(event)
        if new is None:
            raise InvalidTransitionError(self.state, event)
        self.state = new


class Starter(Protocol):
    """What the owner of tesserae does for Producers."""

    def cancel(self, uid: int, reason: str) -> None:
        """End a call that has not begun."""

    def start_now(self, task: Task) -> None:
        """Run a task that does not go through a mailbox."""

    def interrupt(self, task: Task) -> None:
        """Stop the user code of a task that runs."""


class Producers:
    """All streams whose generators live in this runtime, by the uid of the call."""

    def __init__(self, port: Starter) -> None:
        self._port = port
        self.by_uid: dict[int, Producer] = {}

    def __len__(self) -> int:
        return len(self.by_uid)

    def add(self, task: Task) -> None:
        """A call has come that asks for a stream."""
        self.by_uid[task.uid] = Producer(task)

    def forget(self, uid: int) -> None:
        """Its call has ended."""
        self.by_uid.pop(uid, None)

    def credit(self, uid: int, items: int) -> None:
        """The consumer has taken items; none: it has gone."""
        producer = self.by_uid.get(uid)
        if producer is None:
            return  # it has ended meanwhile
        if items <= 0:
            self.stop(uid, CONSUMER_GONE, "its consumer has gone")
        elif producer.credit(items):
            self._step(producer)

    def stop(self, uid: int, reason: int, why: str) -> bool:
        """Close a stream: on the lane of its generator; False: there is none.

        Args:
            uid: of the call.
            reason: CANCELLED, TIMEOUT, LOST, GONE or CONSUMER_GONE.
            why: for people.
        """
        producer = self.by_uid.get(uid)
        if producer is None or producer.state is ProducerState.ENDED:
            return False
        task = producer.task
        asked = reason in (wire.CANCELLED, wire.TIMEOUT, wire.LOST)
        if task.state != RUNNING:
            if asked:
                return False  # the usual way of a call that has not started
            self._port.cancel(uid, why)
            return True
        if asked:
            task.cancelled = why
        step = producer.step
        if producer.stop(reason):
            self._step(producer)
        elif step is not None and step.state == RUNNING:
            # A coroutine may wait for what never comes; a plain generator is only
            # interrupted when somebody asks for it, and else closed at its next yield.
            if asked:
                step.cancelled = why
            if asked or step.lane == LOOP:
                self._port.interrupt(step)
        return True

    def paused(self, producer: Producer) -> None:
        """A step has ended for want of credit, or to let others go."""
        tessera = producer.task.tessera
        if tessera.closing is not None and not producer.stopping:
            producer.stop(wire.GONE)  # it started after the tessera was closed
        tessera.finished()
        if producer.paused():
            self._step(producer)

    def taken_out(self, step: Task) -> bool:
        """A mailbox is emptied; whether this was no call but a step.

        It is not left out: the generator is still to be closed.
        """
        producer = self.by_uid.get(step.uid)
        if producer is None or producer.task is step:
            return False
        if producer.step is step and step.state == QUEUED:
            step.move(CANCEL_EVENT)
            producer.stop(wire.GONE)
            self._start_now(producer)
        return True

    def close(self, tessera: Tessera) -> None:
        """The tessera takes no new calls: its streams end."""
        for uid, producer in list(self.by_uid.items()):
            if producer.task.tessera is tessera and producer.task.state == RUNNING:
                self.stop(uid, wire.GONE, "it was closed")

    def lost(self, incarnation: int) -> None:
        """A runtime is gone, and so are its consumers."""
        for uid, producer in list(self.by_uid.items()):
            if producer.task.caller == incarnation:
                self.stop(uid, CONSUMER_GONE, "its caller is lost")

    def _step(self, producer: Producer) -> None:
        tessera = producer.task.tessera
        if tessera.closing is None:
            tessera.enqueue(self._new_step(producer))
        else:
            self._start_now(producer)

    def _start_now(self, producer: Producer) -> None:
        """Past the mailbox: after ``__close__`` nothing is started from it."""
        tessera = producer.task.tessera
        step = self._new_step(producer)
        step.move(READY)
        step.lane = tessera.lanes.get(producer.task.method, producer.task.lane)
        tessera.active += 1
        self._port.start_now(step)

    def _new_step(self, producer: Producer) -> Task:
        task = producer.task
        producer.step = step = Task(
            task.uid,
            task.caller,
            task.tessera,
            task.method,
            b"",
            producer.extra,
        )
        step.inside = task.inside
        return step


def item_message(uid: int, number: int, payload: Any) -> wire.Item:
    """The message for a payload that was yielded."""
    if type(payload) is bytes:
        return wire.Item(uid, number, payload)
    extra = wire.Extra(
        references=references(payload),
        definitions=list(payload.definitions),
        buffers=len(payload.buffers),
        shared=None if payload.shared is None else payload.shared.wire,
    )
    return wire.Item(uid, number, payload.data, extra)
