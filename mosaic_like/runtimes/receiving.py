"""What comes from peers and makes no sense is dropped, which is told now and then.

``Handlers`` are those of one runtime by the class of the message. One that nobody
handles, that its sender is not to send (``core.senders``), or that contradicts itself
(``ProtocolError``) is dropped with one line that names message and sender. What a
handler does is not here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..core.senders import UNCHECKED, may_send
from ..errors import ProtocolError
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .base import Base

    Handler = Callable[[Any, Any, int], Any]

logger = logging.getLogger(__name__)

QUIET_S = 10.0  # between two lines about one sender
_SENDERS = 1000  # of whom it is known when one was last told, or what it may send


class Complaints:
    """Tells what was dropped, not more than a line for each sender in QUIET_S.

    Args:
        clock: seconds of a monotonic clock.
        log: called with a line.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        log: Callable[[str], Any] = logger.warning,
    ) -> None:
        self._clock = clock
        self._log = log
        # By sender: when it was last told, and how many were not told since.
        self._told: dict[str, tuple[float, int]] = {}

    def tell(self, sender: str, text: str) -> None:
        """Something of this sender was dropped.

        Args:
            sender: for people; what comes from strangers counts as one sender.
            text: what, and why.
        """
        now_s = self._clock()
        last_s, untold = self._told.get(sender, (-QUIET_S, 0))
        if now_s - last_s < QUIET_S:
            self._told[sender] = last_s, untold + 1
            return
        if sender not in self._told and len(self._told) >= _SENDERS:
            self._told.clear()
        self._told[sender] = now_s, 0
        more = f" (and {untold} more since the last time)" if untold else ""
        self._log(printable(f"{text}, from {sender}, was dropped{more}"))


class Handlers(dict[type, "Handler"]):
    """By class of message; those that are set are called for who may send it."""

    def __init__(self, runtime: Base) -> None:
        super().__init__()
        self._runtime = runtime

    def __setitem__(self, kind: type, handler: Handler) -> None:
        if kind not in UNCHECKED:
            handler = self._checking(kind, handler)
        super().__setitem__(kind, handler)

    def update(self, handlers: Mapping[type, Handler]) -> None:  # type: ignore[override]  # all go through __setitem__, and nobody needs the other forms
        for kind, handler in handlers.items():
            self[kind] = handler

    def __missing__(self, kind: type) -> Handler:
        return self._unexpected

    def _checking(self, kind: type, handler: Handler) -> Handler:
        """The handler, for who may send such a message; each is asked of once."""
        admitted: set[int] = set()  # an incarnation is nobody else's ever again

        def checked(message: Any, buffers: Any, sender: int) -> None:
            if sender not in admitted:
                self._admit(kind, sender, admitted)
            handler(message, buffers, sender)

        return checked

    def _admit(self, kind: type, sender: int, admitted: set[int]) -> None:
        runtime = self._runtime
        name = self._name_of(sender)
        if not may_send(kind, name, runtime.uid):
            raise ProtocolError(f"which {name} is not to send to {runtime.uid}")
        if sender in runtime.members and runtime.incarnation:
            if len(admitted) >= _SENDERS:
                admitted.clear()
            admitted.add(sender)

    def _unexpected(self, message: Any, buffers: Any, sender: int) -> None:
        raise ProtocolError(f"of which {self._runtime.uid} has no use")

    def _name_of(self, sender: int) -> str:
        runtime = self._runtime
        if sender == runtime.incarnation:
            return runtime.uid
        member = runtime.members.get(sender)
        return "" if member is None else member.uid
