"""Function tasks whose arguments are not there yet: what they wait for.

    waiting    some argument has not ended
    unowned    all have, but one that it mentions has no place yet

Those that take only tasks of one worker do not wait: they are sent there, or pinned
behind what was. What becomes of those that wait no longer is decided in ``dispatch``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .locality import arguments_of
from .task import DONE

if TYPE_CHECKING:
    from .call import Call
    from .dispatch import FunctionQueue
    from .dispatching import Dispatching
    from .window import Entry


class Unready:
    """Those of one queue.

    Args:
        queue: takes them when they are ready.
        port: see ``Dispatching``.
        overlaps: what is in a window runs at once: nothing lies behind another.
    """

    def __init__(
        self, queue: FunctionQueue, port: Dispatching, *, overlaps: bool
    ) -> None:
        self._queue = queue
        self._port = port
        self._overlaps = overlaps
        self.waiting: dict[int, Entry] = {}
        # What they mention has no place yet, such as a quoted task that waits here.
        self.unowned: list[Entry] = []

    def __len__(self) -> int:
        return len(self.waiting) + len(self.unowned)

    def waits(self, entry: Entry) -> bool:
        """Some arguments have not ended: it waits for them here, or behind them."""
        if type(entry.payload) is bytes:
            return False
        queue = self._queue
        calls = arguments_of(entry.payload)
        unsettled = [call for call in calls if call.state < DONE]
        # Those that are pinned have their place by the time that this one is sent.
        has_owners = all(
            handle.owner or handle.uid in queue.pinned
            for handle in entry.payload.handles
        )
        if not unsettled:
            if not has_owners:
                self.unowned.append(entry)
            return not has_owners
        if has_owners and self._pin(entry, unsettled):
            return True
        left = len(unsettled)

        def ended() -> None:
            nonlocal left
            left -= 1
            if (
                not left
                and self.waiting.pop(entry.call.uid, None) is not None
                and not self.waits(entry)
            ):
                queue.offer(entry)

        self.waiting[entry.call.uid] = entry
        for call in unsettled:
            self._port.when_settled(call, ended)
        return True

    def _pin(self, entry: Entry, unsettled: list[Call]) -> bool:
        """What takes only tasks of one worker goes there at once, behind them.

        Then their submitter need not hear of their ends before.
        """
        queue = self._queue
        streams = {queue.pinned.stream_of(call) for call in unsettled}
        stream = streams.pop()
        window = queue.windows.get(stream)
        if window is None or streams or self._overlaps or not window.size:
            return False
        if queue.places and entry.call.uid in queue.places:
            return False
        if not queue.pinned.has_line(stream) and window.has_room:
            queue.send(window, entry)
        else:
            queue.pinned.add(stream, entry)
        return True

    def take_unowned(self, call: Call) -> Entry | None:
        """Take out one of these; None: it is none."""
        entry = next((e for e in self.unowned if e.call is call), None)
        if entry is not None:
            self.unowned.remove(entry)
        return entry

    def take_owned(self) -> list[Entry]:
        """Take out those that mention nothing without a place any more."""
        unowned, self.unowned = self.unowned, []
        return [entry for entry in unowned if not self.waits(entry)]
