"""A tessera with restarts as one runtime has it, and its calls that have not ended.

Here is what is kept; what becomes of it when the tessera moves, is in ``following``.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.messages import Submit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..core.call import Call, Stream
    from ..core.restarts import Follower
    from ..proxies.handles import SupervisedHandle
    from ..proxies.monitoring import Monitor
    from .peer import Peer

_LOST = wire.REASONS[wire.LOST]
_SWEEP = 256  # calls kept, at least, before those that have ended are looked for


class Kept:
    """The outbox of one life: it keeps the calls that go through until they end.

    As long as there are any it holds a handle: the tessera may not be freed before.
    """

    __slots__ = (
        *("_anchor", "_calls", "_handles", "_peer", "_stream", "_sweep"),
        *("idempotent", "sent"),
    )

    def __init__(
        self,
        peer: Peer,
        stream: Stream,
        calls: Mapping[int, Call],
        handles: weakref.WeakSet[SupervisedHandle],
        *,
        idempotent: bool = False,
    ) -> None:
        self.idempotent = idempotent
        self._peer = peer
        self._stream = weakref.ref(stream)  # which has this
        self._calls = calls
        self._handles = handles
        self._anchor: SupervisedHandle | None = None
        self._sweep = _SWEEP
        self.sent: deque[tuple[Submit, Any]] = deque()  # and their payloads, in order

    @property
    def incarnation(self) -> int:
        return self._peer.incarnation

    @property
    def shares_memory(self) -> bool:
        return self._peer.shares_memory

    @property
    def releases(self) -> list[int]:
        return self._peer.releases

    @property
    def bytes_out(self) -> int:
        return self._peer.bytes_out

    @bytes_out.setter
    def bytes_out(self, nbytes: int) -> None:
        self._peer.bytes_out = nbytes

    def send(self, message: Any, payload: Any = None) -> None:
        if type(message) is Submit:
            extra = message.extra
            # A stream of items cannot go on elsewhere: some have been consumed.
            if extra is None or extra.kind != wire.STREAM:
                self._keep(message, payload)
        self._peer.send(message, payload)

    def send_ends(self, messages: list[Any]) -> None:
        self._peer.send_ends(messages)

    def _keep(self, message: Submit, payload: Any) -> None:
        item = self._calls[message.uid].rare
        if item is not None and item.reason == _LOST:
            item.reason = None
        if not self.sent:
            self._anchor = next(iter(self._handles), None)
            self._watch()
        elif len(self.sent) >= self._sweep:
            calls = self._calls
            self.sent = deque(one for one in self.sent if one[0].uid in calls)
            self._sweep = 2 * len(self.sent) + _SWEEP
        self.sent.append((message, payload))

    def _watch(self) -> None:
        """Be told when some have ended: with their credit."""
        stream = self._stream()
        if stream is not None and stream.error is None:
            stream.watchers = (*stream.watchers, self.look)

    def take(self) -> deque[tuple[Submit, Any]]:
        """Its runtime is lost: what was sent, some of which may have ended."""
        sent, self.sent = self.sent, deque()
        self._anchor = None
        return sent

    def look(self) -> None:
        """Forget those that have ended, as far as they ended in order."""
        sent, calls = self.sent, self._calls
        while sent and sent[0][0].uid not in calls:
            sent.popleft()
        if sent:
            self._watch()
        else:
            self._anchor = None


class Followed:
    """A tessera with restarts as one runtime has it; its handles keep this alive.

    Args:
        uid: of the tessera, in all its lives.
        stream: to the life there is, or without a place.
        follower: decides.
        policy: ``idempotent``, ``max_retries`` and ``retry`` of its options.
    """

    __slots__ = (
        *("__weakref__", "ending", "follower", "handles", "idempotent", "leaving"),
        *("max_retries", "monitors", "moved", "ran", "retry", "stream", "uid"),
    )

    def __init__(
        self,
        uid: int,
        stream: Stream,
        follower: Follower,
        policy: tuple[bool, int, bytes],
    ) -> None:
        self.uid = uid
        self.stream = stream
        # To a life whose worker is about to leave, or that is to end, for the latter.
        self.leaving: Stream | None = None
        self.ending = ""
        self.follower = follower
        self.idempotent, self.max_retries, self.retry = policy
        self.handles: weakref.WeakSet[SupervisedHandle] = weakref.WeakSet()
        self.monitors: weakref.WeakSet[Monitor] = weakref.WeakSet()
        # Of calls that go again although they may have run: how they ended, for when
        # there is no further life.
        self.ran: dict[int, bytes] = {}
        # Of calls that go elsewhere while who had them lives, and keeps how they ended.
        self.moved: tuple[int, list[int]] = 0, []

    @property
    def policy(self) -> tuple[bool, int, bytes]:
        return self.idempotent, self.max_retries, self.retry
