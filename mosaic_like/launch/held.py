"""What would end a program while it only imports: held back, and handled afterwards.

KeyboardInterrupt out of the middle of an import leaves half a module, and says nothing
that helps. Nothing is imported here that a program does without.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType


class Held:
    """SIGINT and SIGTERM, from ``hold`` to ``let_go``; only the main thread can.

    By handlers, not by a mask: a signal that the main thread does not take the kernel
    gives to another one, such as those that numpy has.
    """

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}  # the handlers in whose place this one is
        self._come: list[int] = []

    def hold(self) -> None:
        """What comes from now on waits; a program that ignores it goes on doing so."""
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler in (signal.SIG_IGN, None):  # None: set by C code, not to be kept
                continue
            # First: if one comes at this moment its own handler may raise.
            self.before[number] = handler
            with contextlib.suppress(ValueError):  # not on the main thread
                signal.signal(number, self._note)

    def let_go(self) -> None:
        """Put back what is not replaced yet, and handle what has come; only once."""
        # SIGINT last: from then on KeyboardInterrupt may come out of this.
        for number, handler in sorted(self.before.items(), reverse=True):
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
        come, self._come = self._come, []
        for number in come:
            signal.raise_signal(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._come.append(number)
