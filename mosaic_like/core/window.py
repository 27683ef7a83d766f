"""What one worker is given of function tasks: how many at once, and which it has.

A window is two calls, so that the next one is there when one ends, and more while they
end so soon that a worker would stand idle between two messages. Which tasks go into
which window is decided in ``dispatch``, and which are wanted back in ``reclaiming``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from .call import CALL_CREDIT, Call, Stream
from .task import DONE

if TYPE_CHECKING:
    from ..comms.messages import Extra

LEAST_WINDOW = 2  # one runs, the next is there
MOST_WINDOW = 1024
SOON_S = 0.015  # from sending to the end, behind half of a window: it may grow
LATE_S = 0.1  # it shrinks


class Entry(NamedTuple):
    """A function task and all that is needed to send it, once or again."""

    call: Call
    payload: Any
    extra: Extra | None
    sent_s: float = 0.0  # seconds since the epoch


class Window:
    """What one worker is given.

    Args:
        owner: incarnation of the worker.
        stream: to what runs functions there; its credit says how many have not ended.
        size: of the window at first.
        machine: that the worker is on; those of one share memory.
    """

    __slots__ = (
        "asked_s",
        "ended_s",
        "filled",
        "full",
        "grown_s",
        "knows",
        "machine",
        "owner",
        "recalled",
        "sent",
        "size",
        "stream",
        "took_s",
        "unanswered",
    )

    def __init__(
        self, owner: int, stream: Stream, size: int, machine: str = ""
    ) -> None:
        self.owner = owner
        self.machine = machine
        self.stream = stream
        self.size = size
        self.sent: deque[Entry] = deque()  # in this order, some of which have ended
        self.knows: set[str] = set()  # the functions that it was told of
        self.full = False  # since it was last looked at
        self.filled = False  # and more than half of that is there yet
        # Uids that it was asked for since one ended there; it gets no more meanwhile.
        self.recalled: set[int] = set()
        # Of these, those that it has not answered for: nothing may go there that takes
        # one, since it would come after the question.
        self.unanswered: set[int] = set()
        self.asked_s = 0.0
        self.grown_s = 0.0  # when its size has grown last
        self.ended_s = 0.0  # when one has ended last
        self.took_s = 0.0  # from its sending on

    @property
    def has_room(self) -> bool:
        stream = self.stream
        return (
            CALL_CREDIT - stream.credit < self.size
            and not self.recalled
            and not self.unanswered
            and not stream.held  # bytes that do not fit go first
            and stream.outbox is not None
        )

    def takes_some(self) -> bool:
        """It has room; once it was full, for half of what it may have.

        Tasks that go together cost both sides much less than one for each that ends,
        and the other half is there meanwhile. Who is left in peace also tells several
        ends at once.
        """
        if self.filled and self.load > self.size // 2:
            return False
        self.filled = False
        return self.has_room

    @property
    def is_idle(self) -> bool:
        return self.stream.credit >= CALL_CREDIT and self.has_room

    @property
    def load(self) -> int:
        """Calls that were sent and have not ended."""
        return CALL_CREDIT - self.stream.credit

    @property
    def open_uids(self) -> list[int]:
        """Of what was sent and has not ended, in order."""
        return [entry.call.uid for entry in self.sent if entry.call.state < DONE]

    def adapt(self, least: int, most: int, sent_s: float) -> None:
        """Some have ended: give it more at once, or less, by how long that took.

        It does not grow for those that were sent before it grew last: while they end
        it would go on until all there is lies at one worker.

        Args:
            least, most: between which it stays.
            sent_s: when the last one of those was sent that have ended.
        """
        size, took_s = self.size, self.took_s
        if took_s < SOON_S:
            if not self.full or size >= most or sent_s < self.grown_s:
                return
            self.grown_s = self.ended_s
            new = min(2 * size, most)
        elif took_s > LATE_S and size > least:
            new = max(size // 2, least)
        else:
            return
        self.full = False
        self.size = new
