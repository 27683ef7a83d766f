"""Remote streams at their generators: the steps that these take.

``run_step`` and ``run_step_on_loop`` run user code for the executor; ``Producing`` does
on the loop's thread what their outcomes ask for. What is decided is decided in
``core/streams.py``; the streams that this process consumes are in ``intakes``.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol

from ..comms import messages as wire
from ..core.completion import NONE
from ..core.streams import (
    STEP_ITEMS,
    Producer,
    Producers,
    ProducerState,
    item_message,
)
from ..core.task import CANCEL_EVENT, ERROR_EVENT, Task
from ..core.tessera import LOOP

if TYPE_CHECKING:
    from collections.abc import Callable

    from .actor import ActorRuntime


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
