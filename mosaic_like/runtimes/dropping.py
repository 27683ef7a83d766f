"""What user code has let go: proxies of calls, and handles of tesserae.

They fall on any thread, also inside a garbage collection, and are only put into a line
there. On the loop's thread their owners are told. What others hold of this runtime's
objects is counted in ``core.holders``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ..core.call import DROPPED, HELD, RELEASED, Call
from ..core.task import DONE, PREPARE

if TYPE_CHECKING:
    from ..proxies.handles import TesseraHandle
    from .actor import ActorRuntime
    from .peers import Peers
    from .unheard import UnheardFailures


class Dropping:
    """See the module.

    Args:
        runtime: whose calls and handles they were.
        peers: of the runtime.
        unheard: told of failures that nobody can ask for any more.

    Attributes:
        dropped: the line.
    """

    def __init__(
        self, runtime: ActorRuntime, peers: Peers, unheard: UnheardFailures
    ) -> None:
        self._runtime = runtime
        self._peers = peers
        self._unheard = unheard
        self.dropped: deque[Call | TesseraHandle] = deque()

    def drain(self) -> None:
        """Tell of all that is in the line."""
        dropped = self.dropped
        while dropped:
            item = dropped.popleft()
            if type(item) is Call:
                if item.state < DONE:
                    if item.rare is None or not self._stays(item):
                        item.hold = DROPPED
                    continue
                if item.rare is not None:
                    if item.rare.connected and self._stays(item):
                        continue
                    if item.rare.unheard:
                        self._unheard.complain(item)
                    self.release(item)
                elif item.hold == HELD:
                    item.hold = RELEASED
                    outbox = item.stream.outbox
                    if outbox is not None:
                        outbox.releases.append(item.uid)
                    elif self._runtime.caller.asking.heirs:
                        self._runtime.leavers.release(item)
            else:
                self._drop_handle(item)

    def release(self, call: Call) -> None:
        """Tell the owner that the proxy is gone."""
        if call.hold == RELEASED:
            return
        # Of one that has failed nothing is at its owner that this runtime has not.
        if call.rare is not None and call.rare.sought and call.state <= DONE:
            call.hold = DROPPED  # `Seeking` comes back
            return
        call.hold = RELEASED
        if call.rare is not None and call.rare.pending_fetch:
            self._runtime.caller.asking.unfetch(call)
        if call.rare is not None and call.rare.grant is not None:
            return  # the grant tells it
        outbox = call.stream.outbox
        if outbox is not None:
            outbox.releases.append(call.uid)
            if not self._peers.ticking:
                self._peers.tick_soon()
        elif self._runtime.caller.asking.heirs:
            self._runtime.leavers.release(call)

    def _stays(self, call: Call) -> bool:
        """Of a task that others wait for, or that waits: it has another proxy."""
        if call.rare.proxies:
            call.rare.proxies -= 1
            return True
        if call.rare.connected and not PREPARE < call.state < DONE:
            self._runtime.connections.dropped(call)
        return False

    def _drop_handle(self, handle: Any) -> None:
        outbox = handle.stream.outbox
        if outbox is not None:
            outbox.releases.append(handle.uid)
        call = handle.call
        if call is None or call.state == DONE or handle.stream.number:
            return
        # Nothing was ever called on it, so nothing else says that it was not made.
        if call.state < DONE:
            self._runtime.watch(call, lambda: self._unheard.complain(call))
        elif call.rare is not None and call.rare.unheard:
            self._unheard.complain(call)
