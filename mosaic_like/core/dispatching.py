"""What the runtime does for the queues of function tasks: their port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..comms.messages import Extra
    from .call import Call
    from .dispatch import FunctionQueue
    from .window import Entry, Window


class Dispatching(Protocol):
    """What the runtime does for a FunctionQueue."""

    def when_settled(self, call: Call, then: Callable[[], Any]) -> None:
        """Call it when the call has ended; at once if it has."""

    def arm(self) -> None:
        """Something is on its way: ``look`` from time to time."""

    def teach(self, window: Window, function: str) -> None:
        """Tell a worker of a function, before the first call of it."""

    def sent(self, call: Call, extra: Extra) -> None:
        """The call goes to a worker: its time begins."""

    def recall(self, owner: int, uids: list[int]) -> None:
        """Ask a worker for those that have not started."""

    def blocked_here(self) -> int:
        """The call in which the thread of this very worker is blocked; 0: in none.

        What was made inside it can run there, whatever else that worker has.
        """

    def failed(self, queue: FunctionQueue, entry: Entry) -> None:
        """A call has failed or was cancelled, or is about to be."""

    def stayed(self, queue: FunctionQueue, entry: Entry) -> None:
        """A call is about to be done, and its value stays at its worker."""

    def survives(self, entry: Entry, cause: Any) -> Entry | None:
        """Its worker is lost: what is to be sent elsewhere; None: it is lost too."""
