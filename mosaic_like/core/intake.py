"""What a generator in another runtime yields, where it is taken.

The side of the generator, the messages and the credit are in ``streams``.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Any

from ..errors import InvalidTransitionError, ProtocolError
from .streams import WINDOW_ITEMS

if TYPE_CHECKING:
    from collections.abc import Callable


class IntakeState(enum.StrEnum):
    """A stream at the runtime that takes its items."""

    OPEN = "open"
    LEFT = "left"  # the consumer has gone: what still comes is dropped
    ENDED = "ended"  # nothing comes any more


INTAKE_TRANSITIONS: dict[IntakeState, dict[str, IntakeState]] = {
    IntakeState.OPEN: {
        "item": IntakeState.OPEN,
        "leave": IntakeState.LEFT,
        "end": IntakeState.ENDED,
    },
    IntakeState.LEFT: {
        "item": IntakeState.LEFT,
        "leave": IntakeState.LEFT,
        "end": IntakeState.ENDED,
    },
    IntakeState.ENDED: {"leave": IntakeState.ENDED},
}


class Intake:
    """The items of one stream that have come and were not taken.

    Items are put on the loop's thread and taken on any.
    """

    __slots__ = (
        *("_owed", "expected", "items", "opened", "state", "waiters", "watched"),
    )

    def __init__(self) -> None:
        self.state = IntakeState.OPEN
        self.items: deque[Any] = deque()
        self.expected = 0
        self._owed = 0
        self.waiters: list[Callable[[], Any]] = []  # for the next item, or the end
        self.watched = False  # the end of the call wakes the waiters
        self.opened = False  # somebody takes from it, or will

    def put(self, number: int, item: Any) -> None:
        """An item has come."""
        if number != self.expected:
            raise ProtocolError(f"item {number} came where {self.expected} was due")
        if len(self.items) >= WINDOW_ITEMS:
            raise ProtocolError(
                f"an item more than the {WINDOW_ITEMS} it had credit for"
            )
        self._move("item")
        self.expected = number + 1
        if self.state is IntakeState.OPEN:
            self.items.append(item)

    def take(self) -> tuple[Any, int]:
        """The next item, and how much credit is to be given now.

        Not for each: half a window at a time, or when nothing is left to take, since
        the producer may be held by the bytes of what was taken.
        """
        item = self.items.popleft()
        self._owed += 1
        if self._owed < WINDOW_ITEMS // 2 and self.items:
            return item, 0
        owed, self._owed = self._owed, 0
        return item, owed

    @property
    def ready(self) -> bool:
        """There is an item, or nothing comes any more. Asked on any thread."""
        return self.state is IntakeState.ENDED or bool(self.items)

    def leave(self) -> bool:
        """The consumer has gone; whether the producer is to be told."""
        told = self.state is IntakeState.OPEN
        self._move("leave")
        self.items.clear()
        return told

    def ended(self) -> None:
        """The call has ended: nothing comes any more."""
        if self.state is not IntakeState.ENDED:
            self._move("end")

    def _move(self, event: str) -> None:
        new = INTAKE_TRANSITIONS[self.state].get(event)
        if new is None:
            raise InvalidTransitionError(self.state, event)
        self.state = new
