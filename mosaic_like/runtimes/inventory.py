"""Which large values there are: both sides of the question, of one runtime.

Each runtime tells of the values that it owns, the warehouses also of their segments;
what belongs together is put together in ``memory_report``. All is only read here, never
changed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.messages import SEGMENT, AskMemory, KnownValue, MemoryOf
from ..comms.serialization import Payload
from ..core.store import SPILLED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..proxies.memory import MemoryReport
    from .actor import ActorRuntime

LEAST_BYTES = 64 * 1024
MOST = 10_000  # values that one runtime tells of: the largest
ANSWER_TIMEOUT_S = 3.0
_KINDS = ("head", "worker", "helper", "warehouse")


class Inventory:
    """Asks and answers for one runtime; on its loop."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._asked: dict[int, dict[int, asyncio.Future[MemoryOf]]] = {}
        self._rounds = 0
        runtime.handlers[AskMemory] = self._on_ask
        runtime.handlers[MemoryOf] = self._on_answer

    # -- who answers -------------------------------------------------------------------

    def _on_ask(self, message: AskMemory, buffers: Any, sender: int) -> None:
        outbox = self._runtime.outbox(sender)
        if outbox is not None:
            outbox.send(self._answer(message.round))

    def _answer(self, number: int) -> MemoryOf:
        answer = MemoryOf(number, _largest(self._values()))
        keeper = getattr(self._runtime, "keeper", None)
        if keeper is not None:
            store, table = keeper.store, self._runtime.worker.holders
            answer.segments = _largest(
                KnownValue(
                    uid,
                    size=segment.size,
                    spilled=segment.state == SPILLED,
                    holders=list(table.holders(uid)),
                )
                for uid, segment in store.segments.items()
            )
            ledger = keeper.ledger
            if ledger is not None:
                answer.used = [ledger.memory, ledger.files]
                answer.limits = list(ledger.limits)
        return answer

    def _values(self) -> Iterator[KnownValue]:
        worker = self._runtime.worker
        told = set()
        for task in (*worker.tasks.values(), *worker.given.copies.values()):
            if task.size < LEAST_BYTES or type(task.outcome) is not wire.Done:
                continue
            told.add(id(task.result))
            is_put = task.tessera is worker.shelf
            name = "" if is_put else task.name
            if is_put and task.method != "put":
                name = repr(task.method)  # the key
            yield KnownValue(
                task.uid,
                name,
                task.size,
                is_put,
                segments=_segments(task.result),
                holders=list(worker.holders.holders(task.uid)),
            )
        keys = {} if worker.shelf is None else worker.shelf.keys
        for name, key in keys.items():
            value = key.value
            size = 0
            if value is not None and id(value) not in told:
                size = len(value) if type(value) is bytes else value.nbytes
            if size >= LEAST_BYTES:
                me = [self._runtime.incarnation]
                yield KnownValue(0, repr(name), size, True, False, me, _segments(value))

    # -- who asks ----------------------------------------------------------------------

    def _on_answer(self, message: MemoryOf, buffers: Any, sender: int) -> None:
        answer = self._asked.get(message.round, {}).get(sender)
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def ask(self) -> MemoryReport:
        """Ask everybody, for a while; see ``UserRuntime.memory``."""
        runtime = self._runtime
        self._rounds += 1
        number = self._rounds
        answers = self._asked[number] = {}
        asked = [m for m in runtime.members.values() if m.uid.split(":")[0] in _KINDS]
        try:
            for member in asked:
                outbox = runtime.outbox(member.incarnation)
                if outbox is not None and member.incarnation != runtime.incarnation:
                    answers[member.incarnation] = runtime.loop.create_future()
                    outbox.send(AskMemory(number))
            if answers:
                await asyncio.wait(answers.values(), timeout=ANSWER_TIMEOUT_S)
        finally:
            del self._asked[number]
        found = {i: a.result() for i, a in answers.items() if a.done()}
        found[runtime.incarnation] = self._answer(number)
        members = {m.incarnation: m for m in (*asked, runtime.me)}
        silent = [
            members[i].uid
            for i, answer in answers.items()
            if not answer.done() and i in runtime.members
        ]
        from .memory_report import report_of  # of use to few, and so not with all else

        return report_of(found, members, silent, runtime.uid_of)


def _segments(value: Any) -> list[int]:
    handles = value.handles if type(value) is Payload else ()
    return list({handle.uid for handle in handles if handle.kind == SEGMENT})


def _largest(values: Iterator[KnownValue]) -> list[KnownValue]:
    found = sorted(values, key=lambda value: -value.size)
    return found[:MOST]
