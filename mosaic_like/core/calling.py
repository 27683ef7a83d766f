"""What the runtime does for the calls that it has made: the port of ``CallerState``.

Whatever needs a socket, or the user's values and those who wait for them, is asked for
here. Nothing is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from .call import Call
    from .outbox import Outbox
    from .payloads import Arrived


class Caller(Protocol):
    """What the runtime does for CallerState."""

    def settled(self, call: Call) -> None:
        """A call that somebody waits for has ended."""

    def credit_spent(self) -> None:
        """Many calls are held: a good moment to see what has ended."""

    def unheard(self, call: Call) -> None:
        """A call has failed and nobody waits for it."""

    def release(self, call: Call) -> None:
        """Nobody here holds the task any more."""

    def arrived(self, message: Any, buffers: Any, sender: int) -> Any:
        """Take the grants of a payload; what stands for it from now on."""

    def stayed(self, uid: int) -> None:
        """The value of a call that is about to be done stays where it was made."""

    def locate(self, arrived: Arrived, then: Callable[[], None]) -> None:
        """Have the rest of a payload: unopened segments, chunks that have not come."""

    def unwanted(self, arrived: Arrived) -> None:
        """The rest is not needed any more."""

    def lost_error(self, call: Call, cause: Any) -> bytes: ...

    def outbox(self, incarnation: int) -> Outbox | None:
        """To send to a runtime; None if it is lost."""

    def cancelled_error(self, call: Call, reason: str) -> bytes: ...

    def refuse_here(self, call: Call, kind: int, error: bytes) -> None:
        """It has failed, and this runtime tells those who ask for it."""
