"""Function tasks that were sent and are wanted back, since they could run sooner.

    stuck     nothing has ended at their worker for a while, and others are idle
    stolen    a worker has run out of tasks, and another one has many
    home      the thread that waits for them here could run them itself
    retired   their worker is to leave

A worker is asked for them, gives back what has not started, and gets no more until it
has answered and one has ended there. Its side is ``recalls``; where what is given back
goes is decided in ``dispatch``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from .task import DONE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .call import Call
    from .caller import CallerState
    from .dispatch import FunctionQueue
    from .dispatching import Dispatching
    from .window import Entry, Window

STUCK_S = 0.05  # nothing has ended for so long: the others are called back
STEAL_S = 0.004  # by then a worker that is free is to have some of another's
SHUN_S = 0.2  # a worker that gave all back gets no more for so long


class Reclaiming:
    """What one queue wants back.

    Args:
        queue: whose tasks they are.
        port: see ``Dispatching``.
        caller: that has sent them.
    """

    def __init__(
        self, queue: FunctionQueue, port: Dispatching, caller: CallerState
    ) -> None:
        self._queue = queue
        self._port = port
        self._caller = caller
        # Others were told where these are: uids.
        self.mentioned: set[int] = set()

    def mention(self, call: Call, to: int) -> None:
        """Somebody is told where a task is, and may wait for it there.

        Args:
            call: which.
            to: incarnation of who is told. Its own worker knows what waits for it, and
                does not give it back, but for what it was asked for already.
        """
        window = self._queue.windows.get(call.stream)
        if window is not None and (window.owner != to or call.uid in window.unanswered):
            self.mentioned.add(call.uid)

    # -- a worker is asked -------------------------------------------------------------

    def ask(self, window: Window, uids: Iterable[int], now_s: float) -> None:
        """Have a worker give back what it has not started of these."""
        uids = [uid for uid in uids if uid not in self._queue.places]
        if uids:
            window.recalled.update(uids)
            window.unanswered.update(uids)
            window.asked_s = now_s
            self._port.recall(window.owner, uids)

    def steal(self) -> None:
        """A worker has run out of tasks: half of those of another are called back."""
        queue = self._queue
        fullest = max(queue.windows.values(), key=lambda window: window.load)
        if (
            fullest.load > queue.least
            and fullest.took_s > STEAL_S
            and not fullest.recalled
            and not fullest.unanswered
        ):
            open_uids = fullest.open_uids
            later = open_uids[(len(open_uids) + 1) // 2 :]
            self.ask(fullest, later, self._caller.now_s)

    def tidy(self) -> None:
        """Forget what has ended of those that were mentioned."""
        if self.mentioned:
            self.mentioned.intersection_update(
                uid
                for window in self._queue.windows.values()
                for uid in window.open_uids
            )

    def forgive(self, now_s: float) -> None:
        """A worker that gave back a while ago may get some again.

        If it has something yet, only where tasks wait and nobody has room: what lies
        behind a call that waits for them is seen there (``core.helpers``).
        """
        queue = self._queue
        is_full = queue.ready and not any(w.has_room for w in queue.windows.values())
        for window in queue.windows.values():
            long_ago = now_s - window.asked_s > SHUN_S and not window.unanswered
            if long_ago and (is_full or not window.sent):
                window.recalled.clear()

    def call_back(self, now_s: float) -> None:
        """Ask for what has waited long, where it could run elsewhere."""
        queue = self._queue
        is_any_idle = not queue.ready and any(
            window.is_idle for window in queue.windows.values()
        )
        for window in queue.windows.values():
            # Also the first, which may lie behind another submitter's; what runs is
            # not given back.
            uids = [
                entry.call.uid
                for entry in window.sent
                if entry.call.state < DONE
                and now_s - max(entry.sent_s, window.ended_s) > STUCK_S
                and entry.call.uid not in window.recalled
                and (is_any_idle or self._may_take_home(window, entry.call))
            ]
            self.ask(window, uids, now_s)

    def _may_take_home(self, window: Window, call: Call) -> bool:
        home = self._queue.home
        if home is None or window is home or not call.inside:
            return False
        blocked = self._port.blocked_here()
        return blocked != 0 and blocked in call.inside

    # -- it answers --------------------------------------------------------------------

    def given_back(self, owner: int, asked: Iterable[int], taken: set[int]) -> None:
        """The answer of a worker.

        Args:
            owner: its incarnation.
            asked: uids that it was asked for.
            taken: of these, those that have not started there and never will.
        """
        queue = self._queue
        window = queue.window_of(owner)
        if window is None:
            return
        window.unanswered.difference_update(asked)
        kept: deque[Entry] = deque()
        back = []
        for entry in window.sent:
            if entry.call.uid in taken and entry.call.state < DONE:
                back.append(entry)
            else:
                kept.append(entry)
        window.sent = kept
        for entry in back:
            self._caller.take_back(entry.call)
            if entry.call.uid in self.mentioned:
                queue.place(entry.call, owner)  # it is waited for there
        queue.put_back(back)
