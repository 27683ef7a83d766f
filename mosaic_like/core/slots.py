"""Who may run at the same time: the table of slots, at the monitor.

A *name* has so many slots: a tag as many as ``limits`` says, a rule of one task as many
as each request says. A request wants one slot of each of some names, and gets all of
them together or none, so that no two can each wait for what the other has. For each
name requests are served in the order in which they came; one that wants several is
served when it is the first for all of them. So none waits for ever behind later ones.
Where a tag has no slots at all, limit 0, what wants it stands in no line until that is
changed, and is then where it would have been: it would hold up what wants others.

    (new)     take, all free       -> held      TakenSlots(True)
              take, wait           -> waiting   parked, if one has limit 0
              take, not all free   -> gone      TakenSlots(False)
    waiting   first for all, free  -> held      TakenSlots(True)
              one gets limit 0     -> parked
              free                 -> gone
    parked    none has limit 0     -> waiting
              free                 -> gone
    held      free                 -> gone, others may be served

A request is known by who made it and its number, which is never used again: what is
said of one attempt cannot be taken for another's. When its runtime is lost, so is all
that it had. Nothing here sends: what is returned is to be sent in order.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ..comms.messages import TakenSlots

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..comms.messages import Message, Slot, TakeSlots

Sends = list[tuple[int, "Message"]]
_Key = tuple[int, int]  # incarnation and number


class _Request:
    __slots__ = ("held", "key", "order", "wants")

    def __init__(self, key: _Key, wants: Sequence[Slot], order: int) -> None:
        self.key = key
        self.order = order  # in which they came
        self.wants = tuple({slot.name: slot for slot in wants}.values())
        self.held = False


class SlotTable:
    """All slots of a cluster."""

    def __init__(self) -> None:
        self._limits: dict[str, int] = {}  # of tags
        self._setters: dict[str, int] = {}  # incarnations, of these
        self._used: dict[str, int] = {}
        self._waiting: dict[str, deque[_Request]] = {}
        self._parked: dict[_Request, None] = {}
        self._came = 0
        self._requests: dict[_Key, _Request] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def used(self, name: str) -> int:
        """How many slots of a name are taken."""
        return self._used.get(name, 0)

    def take(self, sender: int, message: TakeSlots) -> Sends:
        """A runtime wants slots for one of its tasks."""
        key = sender, message.number
        if key in self._requests or not message.wants:
            return []  # nonsense
        self._came += 1
        request = _Request(key, message.wants, self._came)
        if self._may_have(request):
            self._requests[key] = request
            return [self._give(request)]
        if not message.wait:
            return [(sender, TakenSlots(message.number, False))]
        self._requests[key] = request
        if self._is_off(request):
            self._parked[request] = None
        else:
            for slot in request.wants:
                self._waiting.setdefault(slot.name, deque()).append(request)
        return []

    def free(self, sender: int, numbers: Iterable[int]) -> Sends:
        """Requests have ended, whether they had got their slots or not."""
        sends: Sends = []
        for number in numbers:
            request = self._requests.pop((sender, number), None)
            if request is not None:
                sends += self._remove(request)
        return sends

    def set_limit(self, sender: int, name: str, limit: int | None) -> Sends:
        """A tag has so many slots from now on; None: as many as are wanted.

        That lasts as long as the runtime that has said it.
        """
        if limit is None:
            self._limits.pop(name, None)
            self._setters.pop(name, None)
        else:
            self._limits[name] = max(limit, 0)
            self._setters[name] = sender
        return self._serve({name: None, **self._park(name), **self._unpark()})

    def lost(self, incarnation: int) -> Sends:
        """A runtime is gone, and so is what it had."""
        keys = [key for key in self._requests if key[0] == incarnation]
        # All leave before any is served: those that wait must get nothing.
        names: dict[str, None] = {}
        for key in keys:
            names.update(self._take_out(self._requests.pop(key)))
        for name in [n for n, setter in self._setters.items() if setter == incarnation]:
            del self._limits[name], self._setters[name]
            names[name] = None
        return self._serve({**names, **self._unpark()})

    # -- limits of 0 -------------------------------------------------------------------

    def _limit(self, slot: Slot) -> int | None:
        return self._limits.get(slot.name) if slot.limit < 0 else slot.limit

    def _is_off(self, request: _Request) -> bool:
        return any(self._limit(slot) == 0 for slot in request.wants)

    def _park(self, name: str) -> dict[str, None]:
        """Take out of all lines what cannot be served; the names of these lines."""
        names: dict[str, None] = {}
        for request in list(self._waiting.get(name, ())):
            if self._is_off(request):
                names.update(self._take_out(request))
                self._parked[request] = None
        return names

    def _unpark(self) -> dict[str, None]:
        """Put what can be served again into its lines; the names of these lines."""
        names: dict[str, None] = {}
        for request in [r for r in self._parked if not self._is_off(r)]:
            del self._parked[request]
            for slot in request.wants:
                self._waiting.setdefault(slot.name, deque()).append(request)
                names[slot.name] = None
        for name in names:
            line = sorted(self._waiting[name], key=lambda request: request.order)
            self._waiting[name] = deque(line)
        return names

    # -- decisions ---------------------------------------------------------------------

    def _may_have(self, request: _Request) -> bool:
        """It is the first of those that wait for each name, and one is free."""
        for slot in request.wants:
            line = self._waiting.get(slot.name)
            if line and line[0] is not request:
                return False
            limit = self._limit(slot)
            if limit is not None and self.used(slot.name) >= limit:
                return False
        return True

    def _give(self, request: _Request) -> tuple[int, Message]:
        request.held = True
        for slot in request.wants:
            self._used[slot.name] = self.used(slot.name) + 1
        sender, number = request.key
        return sender, TakenSlots(number, True)

    def _remove(self, request: _Request) -> Sends:
        return self._serve(self._take_out(request))

    def _take_out(self, request: _Request) -> dict[str, None]:
        """It has no slots and waits for none; the names that others may have now."""
        if request in self._parked:
            del self._parked[request]
            return {}
        for slot in request.wants:
            name = slot.name
            if request.held:
                self._used[name] -= 1
                if not self._used[name]:
                    del self._used[name]
            else:
                self._leave_line(name, request)
        return {slot.name: None for slot in request.wants}

    def _leave_line(self, name: str, request: _Request) -> None:
        line = self._waiting[name]
        if line[0] is request:
            line.popleft()
        else:
            line.remove(request)
        if not line:
            del self._waiting[name]

    def _serve(self, names: Iterable[str]) -> Sends:
        """Give to those that are first for all that they want, as far as it goes."""
        sends: Sends = []
        look = dict.fromkeys(names)
        while look:
            name = next(iter(look))
            del look[name]
            line = self._waiting.get(name)
            if line and self._may_have(line[0]):
                request = line[0]
                for slot in request.wants:
                    self._leave_line(slot.name, request)
                    look[slot.name] = None  # another is the first there now
                sends.append(self._give(request))
        return sends
