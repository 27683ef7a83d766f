"""What this runtime asks others of the tasks that they own: ends, and values.

    subscribe    awaited     until Done or Failed comes, which ``caller`` hears
    fetch        fetching    a value that stayed where it was made, until Value comes
                 locating    it has come but for segments or chunks

Whom to ask changes: an owner that leaves in order has an heir, and who looks for a task
whose owner is lost may find its value elsewhere (``seek``). What else can be lost is
told by ``caller``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms.messages import REASONS, Fetch, Subscribe
from .call import rare
from .payloads import Arrived
from .task import DONE, FAILED

if TYPE_CHECKING:
    from collections.abc import Callable

    from .call import Call, Stream
    from .caller import CallerState
    from .calling import Caller
    from .outbox import Outbox


class Asking:
    """What one runtime has asked and not been told.

    Args:
        caller: ends the calls that are awaited.
        port: see ``Caller``.
    """

    def __init__(self, caller: CallerState, port: Caller) -> None:
        self._caller = caller
        self._port = port
        self.awaited: dict[int, list[Call]] = {}  # tasks of others, by uid
        self.fetching: dict[int, list[Call]] = {}
        # Of these, what has come but for segments or chunks.
        self._locating: dict[int, Arrived] = {}
        # Asks elsewhere for a task whose owner is lost, if that is of any use.
        self.seek: Callable[[Call, Any], bool] = lambda call, cause: False
        # Owners that have left in order, and who owns now what they owned.
        self.heirs: dict[int, int] = {}

    # -- ends --------------------------------------------------------------------------

    def subscribe(self, call: Call) -> None:
        """Learn the end of a task that another runtime made."""
        waiting = self.awaited.get(call.uid)
        if waiting is not None:
            self._join(waiting, call)
            return
        self.awaited[call.uid] = [call]
        outbox = call.stream.outbox or self._heir_of(call)
        if outbox is not None:
            outbox.send(Subscribe(call.uid))
        elif call.stream.error is not None and not self.seek(call, call.stream.error):
            self._caller.lose(call, call.stream.error)

    @staticmethod
    def _join(waiting: list[Call], call: Call) -> None:
        """The first has asked, perhaps elsewhere than this one's owner was."""
        first = waiting[0]
        if call.stream is not first.stream:
            call.stream = first.stream
            if first.rare is not None and first.rare.grant is not None:
                rare(call).grant = first.rare.grant
        waiting.append(call)

    def follow(self, call: Call, error: bytes) -> None:
        """A task of this runtime, which another made, goes on elsewhere.

        Args:
            call: that stands for it.
            error: what it ends with if nobody can be asked.
        """
        waiting = self.awaited.get(call.uid)
        if waiting is not None and waiting[0].owner != call.owner:
            self._join(waiting, call)
            return
        self.awaited.setdefault(call.uid, []).append(call)
        if not self.seek(call, error):
            self._caller.lose(call, error)

    def moved_on(self, uid: int, error: bytes, sender: int) -> bool:
        """Who had a task says that it goes on elsewhere; False: it has ended.

        Nobody may wait there any more: its caller has told them where it is.
        """
        waiting = self.awaited.get(uid, ())
        there = [call for call in waiting if call.owner == sender]
        return all([self.seek(call, error) for call in there])  # noqa: C419 -- each

    def placed(self, stream: Stream, outbox: Outbox) -> None:
        """The owner of awaited tasks is known."""
        for uid, waiting in self.awaited.items():
            if waiting[0].stream is stream:
                outbox.send(Subscribe(uid))

    # -- values ------------------------------------------------------------------------

    def fetch(self, call: Call) -> None:
        """Get a value that stayed where it was made."""
        waiting = self.fetching.setdefault(call.uid, [])
        waiting.append(call)
        if len(waiting) == 1:
            result = call.result
            if type(result) is Arrived and result.size and result.shared is not None:
                self._locate(call.uid, result)
            else:
                self._fetch(call)

    def _fetch(self, call: Call) -> None:
        stream = call.stream
        outbox = stream.outbox if stream.error is None else self._heir_of(call)
        if outbox is None:
            self.value_lost(call.uid, stream.error)
        else:
            outbox.send(Fetch(call.uid))

    def _locate(self, uid: int, result: Arrived) -> None:
        """The value has come, but what made its segments is gone, or not all chunks."""
        self._locating[uid] = result
        asked_owner = self.fetching[uid][0].result is not result

        def located() -> None:
            self._locating.pop(uid, None)
            waiting = self.fetching.get(uid, ())
            if not result.size:
                self._fetched_all(uid, result)
            elif asked_owner:
                # If its owner is lost, how that died says more than what broke off.
                lost = waiting[0].stream.error if waiting else None
                self.value_lost(uid, lost or result.shared.why)
            elif waiting:
                self._fetch(waiting[0])  # whoever has the task may have it still

        self._port.locate(result, located)

    def value(self, message: Any, buffers: Any, sender: int) -> None:
        """A value that was fetched."""
        uid = message.uid
        result = message.data
        if message.extra is not None:
            result = self._port.arrived(message, buffers, sender)
            if type(result) is Arrived and result.size:
                if uid in self.fetching:
                    self._locate(uid, result)
                else:
                    self._port.unwanted(result)
                return
        self._fetched_all(uid, result)

    def _fetched_all(self, uid: int, result: Any) -> None:
        for call in self.fetching.pop(uid, ()):
            call.result = result
            self._fetched(call)

    def unfetch(self, call: Call) -> None:
        """Nobody has the proxy of a call any more whose value is on its way."""
        waiting = self.fetching.get(call.uid, ())
        if len(waiting) != 1 or waiting[0] is not call:
            return
        arrived = self._locating.get(call.uid)
        self.value_lost(call.uid, "nobody held it any more")
        if arrived is not None:
            self._port.unwanted(arrived)

    def value_lost(self, uid: int, cause: Any) -> None:
        """Who waits for a value waits no longer; ``cause``: bytes if its owner said."""
        for call in self.fetching.pop(uid, ()):
            self._lose_value(call, cause)

    def _lose_value(self, call: Call, cause: Any) -> None:
        call.state = FAILED
        told = type(cause) is bytes  # an error of its owner
        call.result = cause if told else self._port.lost_error(call, cause)
        rare(call).reason = REASONS[4]
        self._fetched(call)

    def look_for_value(self, call: Call) -> None:
        """A task that is done fails if its value stayed at one that is lost."""
        result = call.result
        if (
            call.state == DONE
            and type(result) is Arrived
            and result.size
            and result.shared is None
            and call.uid not in self.fetching
            and call.stream.error is not None
            and self._heir_of(call) is None
        ):
            self._lose_value(call, call.stream.error)

    def _fetched(self, call: Call) -> None:
        item = rare(call)
        item.pending_fetch = False
        item.fetched = True
        if call.waiters is not None:
            self._port.settled(call)

    # -- whom to ask -------------------------------------------------------------------

    def _heir_of(self, call: Call) -> Outbox | None:
        """Who answers for a call whose owner has left in order."""
        heir = self.heirs.get(call.stream.owner)
        return None if heir is None else self._port.outbox(heir)

    def answers(self, call: Call) -> int:
        """Incarnation of the runtime that is asked about a task."""
        return self.heirs.get(call.stream.owner, call.stream.owner)

    def moved(self, owner: int, outbox: Outbox) -> None:
        """What one owner was asked is asked its heir; it has not answered, and left.

        Args:
            owner: incarnation; ``heirs`` does not have it yet.
            outbox: to its heir.
        """
        for uid, waiting in self.awaited.items():
            if self.answers(waiting[0]) == owner:
                outbox.send(Subscribe(uid))
        for uid, waiting in self.fetching.items():
            if uid not in self._locating and self.answers(waiting[0]) == owner:
                outbox.send(Fetch(uid))

    def lost(self, incarnation: int, cause: Any) -> None:
        """A runtime is gone: the values that it was asked for will not come."""
        for uid, waiting in list(self.fetching.items()):
            if uid in self._locating:
                continue  # the warehouse has outlived it
            if waiting and self.answers(waiting[0]) == incarnation:
                self.value_lost(uid, cause)
