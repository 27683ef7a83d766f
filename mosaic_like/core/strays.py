"""What comes before what it is for, and waits for that; all of it is bounded.

    a call on a tessera that has not come       parked: submitted when the tessera comes
    a cancel of a call that is parked           it ends as soon as it is submitted
    a cancel of a call that has not come        it ends as soon as it comes

The messages of one peer come in their order, those of several in any. What can no
longer come, since who makes it is lost, is given up: ``lost`` and ``stranded`` say so.
Here it is only remembered: calls are admitted in ``worker`` and ended elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ProtocolError
from ..ids import maker

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..comms.messages import Submit

# What others make wait here, for what may never come.
_PARKED = 100_000  # tesserae
_PARKED_CALLS = 100_000  # of each: ten callers with all their credit
_EARLY_CANCELS = 10_000


class Parked:
    """A call on a tessera that has not come, and why it is cancelled, if it is."""

    __slots__ = ("buffers", "message", "sender", "why")

    def __init__(self, message: Submit, buffers: Any, sender: int) -> None:
        self.message = message
        self.buffers = buffers
        self.sender = sender
        self.why: str | None = None


class Strays:
    """Those of one runtime."""

    def __init__(self) -> None:
        self.parked: dict[int, list[Parked]] = {}  # by uid of the tessera, in order
        # Asked by others for calls that their makers' messages have not brought yet.
        self.cancels: dict[int, str] = {}
        self._cancellers: dict[int, int] = {}  # who asked

    # -- calls -------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """No further tessera is waited for."""
        return len(self.parked) >= _PARKED

    def park(self, message: Submit, buffers: Any, sender: int) -> None:
        """Its tessera is on its way.

        Raises:
            ProtocolError: more wait for it than all callers may have sent.
        """
        line = self.parked.setdefault(message.tessera, [])
        if len(line) >= _PARKED_CALLS:
            raise ProtocolError(
                f"{len(line)} calls wait already for a tessera that has not come"
            )
        line.append(Parked(message, buffers, sender))

    def take(self, tessera: int) -> list[Parked]:
        """The tessera has come: the calls that waited for it, in order."""
        return self.parked.pop(tessera, [])

    def stranded(self, never: Callable[[int], bool]) -> list[Parked]:
        """Take out the calls on tesserae that will not come.

        Args:
            never: of a maker: nothing more will come of it.
        """
        gone = [uid for uid in self.parked if never(maker(uid))]
        return [call for uid in gone for call in self.parked.pop(uid)]

    # -- cancels -----------------------------------------------------------------------

    def cancel_parked(self, uid: int, why: str) -> bool:
        """A call is to end before it begins; False: it is not parked."""
        for line in self.parked.values():
            for call in line:
                if call.message.uid == uid:
                    call.why = why
                    return True
        return False

    def cancel_early(self, uid: int, why: str, sender: int) -> None:
        """Another holder of a call was faster than its maker: it is on its way."""
        if len(self.cancels) < _EARLY_CANCELS:
            self._cancellers[uid] = sender
            self.cancels[uid] = why

    def come(self, uid: int) -> str | None:
        """A call has come: why it is to end at once; None: it is not."""
        self._cancellers.pop(uid, None)
        return self.cancels.pop(uid, None)

    # -- loss --------------------------------------------------------------------------

    def lost(self, incarnation: int, never: Callable[[int], bool]) -> None:
        """A runtime is gone, with all that it has sent and asked for.

        Args:
            incarnation: its own.
            never: of a maker: nothing more will come of it.
        """
        for uid, canceller in list(self._cancellers.items()):
            if canceller == incarnation or never(maker(uid)):
                self.come(uid)
        for uid, line in list(self.parked.items()):
            self.parked[uid] = [call for call in line if call.sender != incarnation]
            if not self.parked[uid]:
                del self.parked[uid]
