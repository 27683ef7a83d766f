"""Calls that wait here, in order, until they may go: for place, credit or bytes.

    the tessera has no place yet        ``placed`` at the caller, then ``release``
    its stream is out of credit         as calls of it end: ``release_credited``
    its peer has too many bytes         as calls with large arguments end: ``feed``
    it mentions what has no place       the same

They wait on their streams; here is who waits for what, and when it is looked at again.
Calls go and end in ``caller``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING

from ..comms.messages import CANCELLED as CANCELLED_REASON
from ..comms.messages import TIMEOUT as TIMEOUT_REASON
from ..comms.messages import Cancel
from .call import NEVER_IN_LINE, NONE_HELD, RELEASED
from .sending import fits, send
from .task import DONE, FAILED

if TYPE_CHECKING:
    from .call import Call, HeldCall, Stream
    from .caller import CallerState

LOOK_EVERY = 256  # calls held, for what gives credit back


class HeldCalls:
    """Those of one runtime.

    Args:
        caller: to submit them again.
    """

    def __init__(self, caller: CallerState) -> None:
        self._caller = caller
        self.credited: set[Stream] = set()  # by the batch that is being delivered
        # Those whose first held call waits for bytes, or for the place of a tessera.
        self.starved: dict[Stream, None] = {}

    # -- to other streams --------------------------------------------------------------

    def move(self, old: Stream, stream: Stream) -> list[HeldCall]:
        """What was to go to one tessera goes to another: what is held, for ``resume``.

        Args:
            old: to a tessera that was never made.
            stream: to the one that there is; perhaps the same, with another uid.
        """
        held = list(old.held)
        old.held = NONE_HELD
        if stream is not old:
            stream.watchers = (*stream.watchers, *old.watchers)
            old.watchers = ()
            # For what is to be made beside it.
            old.owner, old.error = stream.owner, stream.error
        return held

    def take(self, stream: Stream) -> list[HeldCall]:
        """What is held for a stream is to go elsewhere: see ``hold_again``."""
        held = list(stream.held)
        stream.held = NONE_HELD
        return held

    def hold_again(self, stream: Stream, held: list[HeldCall]) -> None:
        """Calls, in order, that wait for the place of a stream that has none."""
        for call, payload, extra, target in held:
            call.stream = stream
            call.line = NEVER_IN_LINE
            if call.state < DONE:
                self._caller.uncount(call)
                self._caller.submit(call, payload, extra, target)
            elif stream.held is NONE_HELD:  # it keeps its place in the line
                stream.held = deque(((call, payload, extra, target),))
            else:
                stream.held.append((call, payload, extra, target))

    def resume(self, stream: Stream, held: list[HeldCall]) -> None:
        """Submit again, in order, what ``move`` gave."""
        for call, payload, extra, target in held:
            call.stream, call.line = stream, NEVER_IN_LINE
            if call.state < DONE:
                self._caller.submit(call, payload, extra, target)
            elif call.hold != RELEASED and stream.outbox is not None:
                stream.outbox.send(Cancel(call.uid, ""))  # as `release` does
        self.release(stream)

    # -- they may go -------------------------------------------------------------------

    def feed_starved(self) -> None:
        """A task has its place: see whether a call mentions it."""
        if self.starved:
            self.feed()

    def feed(self) -> None:
        """Bytes are free, or a tessera has its place: see who waited for that."""
        starved = list(self.starved)
        self.starved.clear()  # those that wait still come back
        for stream in starved:
            self.release(stream)

    def release(self, stream: Stream) -> None:
        """Send what was held, as far as credit goes."""
        held = stream.held
        outbox = stream.outbox
        while held and outbox is not None and stream.credit > 0:
            call, payload, extra, _ = held[0]
            if call.state >= DONE:  # cancelled before there was a place to say so
                held.popleft()
                if call.hold != RELEASED:
                    late = call.state == FAILED
                    kind = TIMEOUT_REASON if late else CANCELLED_REASON
                    outbox.send(Cancel(call.uid, "", kind))
                continue
            if type(payload) is not bytes and not fits(outbox, payload):
                self.starved[stream] = None
                return
            held.popleft()
            call.line = NEVER_IN_LINE
            send(call, payload, extra)
        if stream.watchers and stream.credit > 0 and not held:
            watchers, stream.watchers = stream.watchers, []
            for watcher in watchers:
                watcher()

    def release_credited(self) -> None:
        """At the end of a batch: its credits are used together."""
        credited = self.credited
        while credited:
            self.release(credited.pop())


def place_in_line(call: Call) -> int:
    """Where a held call stands in the line of its stream."""
    held = call.stream.held
    if held[0][0] is call:  # as of each, where all are cancelled
        return 0
    # They stand in the order of their uids, unless threads called at one moment.
    index = bisect_left(held, call.uid, key=lambda entry: entry[0].uid)
    if index < len(held) and held[index][0] is call:
        return index
    return next(i for i, entry in enumerate(held) if entry[0] is call)
