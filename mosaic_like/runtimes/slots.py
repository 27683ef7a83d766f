"""Slots as one runtime asks the monitor for them; see ``core.slots``."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..ids import MONITOR_INCARNATION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .actor import ActorRuntime


class Slots:
    """The requests of one runtime that are not over; on its loop but for ``limits``."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._new_number = itertools.count(1).__next__
        self._asked: dict[int, Callable[[bool], Any]] = {}
        self._freed: list[int] = []
        self.limits: dict[str, int] = {}  # of tags, as this process has set them

    def joined(self) -> None:
        """The runtime is a member: messages may come."""
        self._runtime.handlers[wire.TakenSlots] = self._on_taken

    def take(
        self, wants: Sequence[wire.Slot], wait: bool, then: Callable[[bool], Any]
    ) -> int:
        """Ask for slots.

        Args:
            wants: all of them or none.
            wait: until they are free.
            then: told once whether they are taken, unless they are freed before.

        Returns:
            The number by which they are freed; whoever has it must do so.
        """
        number = self._new_number()
        self._asked[number] = then
        self._send(wire.TakeSlots(number, list(wants), wait))
        return number

    def free(self, number: int) -> None:
        """They are not needed any more, whether they were given or not."""
        self._asked.pop(number, None)
        if not self._freed:
            # All calls that end at once are one message.
            loop = self._runtime.loop
            loop.call_soon(self._send_freed, context=self._runtime.context)
        self._freed.append(number)

    def _send_freed(self) -> None:
        freed, self._freed = self._freed, []
        self._send(wire.FreeSlots(freed))

    def set_limit(self, name: str, limit: int | None) -> None:
        """Of a tag, in the whole cluster; from any thread."""
        message = wire.SetLimit(name, limit)
        if self._runtime.on_loop:
            self._send(message)
        else:
            self._runtime.post(self._send, message)

    def _send(self, message: wire.Message) -> None:
        monitor = self._runtime.outbox(MONITOR_INCARNATION)
        if monitor is not None:  # else the cluster is lost, and all that waits with it
            monitor.send(message)

    def _on_taken(self, message: wire.TakenSlots, buffers: Any, sender: int) -> None:
        then = self._asked.pop(message.number, None)
        if then is not None:  # else it was freed meanwhile
            then(message.taken)
