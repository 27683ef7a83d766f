"""The remote streams that this process takes: their items as they come.

What is decided about one is decided in ``core/intake.py``; the side of the generator is
in ``streams``.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.call import HELD, IN_LINE, Call, rare
from ..core.intake import Intake, IntakeState
from ..core.payloads import Arrived
from ..core.streams import WINDOW_ITEMS
from ..core.task import CANCELLED, DONE, FAILED
from ..errors import ProtocolError
from .loops import on_a_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from .actor import ActorRuntime

_END = -1  # instead of the number of an item


class Intakes:
    """The streams that this process takes, by the uid of the call."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._by_uid: dict[int, Intake] = {}
        # Items, and at last the end, since one of which not all has come: that first.
        self._late: dict[int, deque[tuple[int, Any]]] = {}

    def __len__(self) -> int:
        return len(self._by_uid)

    def open(self, call: Call) -> Intake:
        """The items of a call; from any thread, once for each."""
        intake = self._of(call)
        intake.opened = True
        self._runtime.when_settled(call, lambda: self._ended(call, intake))
        return intake

    def _of(self, call: Call) -> Intake:
        # From the thread that called or from the loop's, whichever is first.
        return self._by_uid.setdefault(call.uid, Intake())

    def lost(self, incarnation: int) -> None:
        """A runtime is gone: what it sent to calls that are no streams goes too."""
        calls = self._runtime.caller.calls
        for uid, intake in list(self._by_uid.items()):
            if not intake.opened and uid not in calls:
                del self._by_uid[uid]
        for uid in [u for u in self._late if u not in calls and u not in self._by_uid]:
            del self._late[uid]

    def item(self, message: wire.Item, buffers: Any, sender: int) -> None:
        """The handler of Item."""
        item: Any = message.data
        if message.extra is not None:
            item = self._runtime.arrived(message, buffers, sender)
        call = self._runtime.caller.calls.get(message.uid)
        is_away = type(item) is Arrived and item.size and item.shared is not None
        if call is None:
            if is_away:
                self._runtime.unwanted(item)
        elif is_away or call.uid in self._late:
            late = self._late.setdefault(call.uid, deque())
            if len(late) > WINDOW_ITEMS:
                raise ProtocolError("an item more than it had credit for")
            late.append((message.number, item))
            if is_away:
                self._runtime.locate(item, lambda: self._catch_up(call))
        else:
            self._put(call, message.number, item)

    def _put(self, call: Call, number: int, item: Any) -> None:
        intake = self._of(call)
        intake.put(number, item)
        self._wake(intake)

    def _catch_up(self, call: Call) -> None:
        """The rest of an item has come, or never will."""
        late = self._late.get(call.uid, deque())
        while late:
            number, item = late[0]
            if number == _END:
                del self._late[call.uid]
                self._ended(call, item)
                return
            if type(item) is Arrived and item.size and not item.shared.why:
                return
            late.popleft()
            try:
                self._put(call, number, item)
            except ProtocolError as error:
                name = self._runtime.uid_of(call.owner)
                self._runtime.complaints.tell(name, f"{self._runtime.uid}: {error}; it")
        self._late.pop(call.uid, None)

    def _ended(self, call: Call, intake: Intake) -> None:
        if call.uid in self._late:
            if call.state != CANCELLED:
                self._late[call.uid].append((_END, intake))
                return
            self._forget_late(call)
        left = intake.state is IntakeState.LEFT
        intake.ended()
        self._by_uid.pop(call.uid, None)
        if call.state == FAILED:
            if not left:
                rare(call).unheard = call.hold == HELD
            elif call.rare is not None and call.rare.reason == "error":
                self._runtime.unheard_failures.complain(call)
        self._wake(intake)

    def _wake(self, intake: Intake) -> None:
        waiters, intake.waiters = intake.waiters, []
        for then in waiters:
            then()

    def when_ready(self, intake: Intake, then: Callable[[], Any]) -> None:
        """Call it on the loop's thread when there is an item, or the end."""
        if not self._runtime.on_loop:
            self._runtime.post(self.when_ready, intake, then)
        elif intake.ready:
            then()
        else:
            intake.waiters.append(then)

    def take(self, call: Call, intake: Intake) -> Any:
        """The next item; there is one."""
        item, credit = intake.take()
        if credit:
            if self._runtime.on_loop:
                self._credit(call, credit)
            else:
                self._runtime.post(self._credit, call, credit)
        return self._runtime.values.item(item)

    def _credit(self, call: Call, items: int) -> None:
        outbox = call.stream.outbox
        if call.state < DONE and outbox is not None:
            outbox.send(wire.Credit(call.uid, items))

    def leave(self, call: Call, intake: Intake) -> None:
        """Nobody wants more of it; from any thread, also inside a collection."""
        if not self._runtime.peers.closed:
            self._runtime.post(self._leave, call, intake)

    def _leave(self, call: Call, intake: Intake) -> None:
        told = intake.leave()
        self._forget_late(call)
        if not told or call.state >= DONE:
            return
        if call.line == IN_LINE:
            self._runtime.caller.cancel(call, "its consumer has gone")
        else:
            self._credit(call, 0)

    def _forget_late(self, call: Call) -> None:
        """Nobody wants the items that are still to be completed."""
        for _, item in self._late.get(call.uid, ()):
            if type(item) is Arrived and item.size:
                self._runtime.unwanted(item)
        if call.state == CANCELLED:
            self._late.pop(call.uid, None)

    def block(self, call: Call, intake: Intake, timeout: float | None) -> None:
        """Block this thread until there is an item, or the end."""
        name = call.name
        if self._runtime.on_loop or on_a_loop():
            raise RuntimeError(
                f"{name}: to block here would stop the loop that is to bring the "
                "items; write 'async for item in ...'"
            )
        runtime = self._runtime
        if runtime.waits_on_main():
            self.when_ready(intake, runtime.wake_main)
            in_time = runtime.block_until(lambda: intake.ready, call, timeout)
        else:
            event = threading.Event()
            self.when_ready(intake, event.set)
            in_time = event.wait(timeout)
        if not in_time:
            raise TimeoutError(f"{name} has yielded nothing in {timeout} s")
