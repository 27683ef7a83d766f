"""A runtime that makes calls: they are sent, cancelled and watched; from any thread.

It gives what the proxies do to ``core.caller``, on the loop's thread. Arguments are
pickled here, in the caller's thread, as they are at that moment.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from .. import ids
from ..comms import direct
from ..comms import messages as wire
from ..comms.serialization import PLAIN, Payload
from ..core.call import Call, rare
from ..core.payloads import Arrived
from ..core.sending import COUNTED_BYTES
from ..core.task import CANCELLED, DONE, PREPARE
from ..proxies.task import TaskProxy
from ..proxies.tessera import ordered_only
from ..text import lines_for_terminal
from .port import CURRENT
from .posting import Posting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..comms.serialization import Serializer
    from ..core.caller import CallerState
    from ..core.limits import Limit
    from ..core.worker import WorkerState
    from ..proxies.handles import TesseraHandle
    from .limits import Limiting
    from .placing import Placing

logger = logging.getLogger(__name__)

# Looked up for each call.
getframe = sys._getframe
now = time.time
get_ident = threading.get_ident
current_task = CURRENT.get

_DIRECT_KINDS = (PLAIN - {bytes}) | {TaskProxy}
_REASON_CHARACTERS = 1000  # of why a call is cancelled: it stands in texts of errors


class Calling(Posting):
    """See the module.

    Attributes:
        caller: the state of its calls.
        worker: that of the calls that run here.
        uids: of what it makes, once it has joined.
        limits: of calls that have a time, by uid: looked at by those made inside them.
        made_inside: calls made inside those of runtimes that wait in a barrier, by
            incarnation.
    """

    caller: CallerState
    worker: WorkerState
    serializer: Serializer
    placing: Placing
    limiting: Limiting
    uids: Iterator[int]
    limits: dict[int, Limit]
    made_inside: dict[int, int]
    _looking = False  # at what has come, inside user code

    # -- making ------------------------------------------------------------------------

    def submit(
        self,
        handle: TesseraHandle,
        method: str,
        payload: bytes | Payload,
        extra: wire.Extra | None = None,
        depth: int = 2,
    ) -> Call:
        """Send a call: the hot path."""
        frame = getframe(depth)
        call = Call(
            next(self.uids), handle.stream, method, frame.f_code, frame.f_lasti, now()
        )
        task = current_task()
        if task is not None:
            call.inside = task.within()
            if self.limits and task.uid in self.limits:
                extra = extra or wire.Extra()
                self.limiting.inherit(task, call, extra)
            if self.made_inside:
                self.count_inside(call.root)
        if self.stopping:
            self._refuse(call)
        if get_ident() != self._ident:
            self.post(self.caller.submit, call, payload, extra, handle)
            return call
        if self._inbox:
            contextvars.Context().run(self._drain)  # not in the user's
        self.caller.submit(call, payload, extra, handle)
        return call

    def prepare(
        self, handle: Any, method: str, extra: wire.Extra | None, depth: int = 2
    ) -> tuple[Call, wire.Extra | None]:
        """A call as ``submit`` makes it, in state prepare, and what goes with it."""
        frame = getframe(depth)
        call = Call(
            next(self.uids), handle.stream, method, frame.f_code, frame.f_lasti, now()
        )
        call.state = PREPARE
        task = current_task()
        if task is not None:
            call.inside = task.within()
            if self.limits and task.uid in self.limits:
                extra = extra or wire.Extra()
                self.limiting.inherit(task, call, extra)
            if self.made_inside:
                self.count_inside(call.root)
        if self.stopping:
            self._refuse(call)
        return call, extra

    def count_inside(self, root: int) -> None:
        # Threads may lose a count to each other, but never all of them: it changes.
        maker = ids.maker(root)
        if maker in self.made_inside:
            self.made_inside[maker] += 1

    def dump_call(
        self, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bytes | Payload:
        """The arguments of a call, as they are now."""
        kinds = set(map(type, args))
        if not kwargs and TaskProxy in kinds and _DIRECT_KINDS.issuperset(kinds):
            return direct.dump(args)
        payload = self.serializer.dumps_call(
            ordered_only(args), kwargs, describe=method.describe
        )
        if type(payload) is bytes and len(payload) > COUNTED_BYTES:
            return Payload(payload)  # which counts for the credit
        return payload

    def give_here(self, call: Call, value: bytes | Payload) -> None:
        """A call that was not sent has a value, which is kept here."""
        self.caller.calls[call.uid] = call
        call.stream = self.placing.foreign(self.incarnation)
        self.worker.given.here(call.uid, value)

    def refuse_here(self, call: Call, kind: int, error: bytes) -> None:
        call.stream = self.placing.foreign(self.incarnation)
        self.worker.given.refuse(call.uid, kind, error)

    def forked(self) -> None:
        """In a child that the program forked: the cluster is not the child's.

        What has ended can still be read; nothing else would ever end here, and what
        the child sent would come between the batches of its parent.
        """

        def refuse(*_: Any) -> Any:
            raise RuntimeError(
                f"this process was forked from that of {self.uid}, and has no runtime: "
                "start one here with mosaic.init(), or make the calls before the fork"
            )

        self.stopping = True
        self._refuse = refuse  # type: ignore[method-assign, assignment]  # of this one alone
        self.when_settled = refuse  # type: ignore[method-assign, assignment]  # the same

    def _refuse(self, call: Call) -> None:
        raise RuntimeError(
            f"{call.name}: this runtime has stopped; start "
            "another with mosaic.init() or mosaic.run(main)"
        )

    # -- cancelling and watching -------------------------------------------------------

    def cancel(self, call: Call, reason: str) -> bool:
        """Ask that a call ends; False if it has ended."""
        if call.state >= DONE:
            return False
        if reason:
            reason = reason[:_REASON_CHARACTERS].encode("utf-8", "replace").decode()
            reason = lines_for_terminal(reason)
        if self.on_loop:
            if self._inbox:
                contextvars.Context().run(self._drain)  # not in the user's
            return self._cancel(call, reason)
        self.post(self._cancel, call, reason)
        return True

    def _cancel(self, call: Call, reason: str) -> bool:
        asked = self.caller.cancel(call, reason)
        if asked and reason:
            rare(call).told = CANCELLED, reason
        if asked and call.uid in self.caller.calls:
            self.limiting.asked(call, reason)
        return asked

    def when_settled(self, call: Call, then: Callable[[], Any]) -> None:
        """Call it on the loop's thread when the call has ended; from any thread."""
        if self.on_loop or (call.state >= DONE and self.loop.is_closed()):
            self.watch(call, then)
        else:
            self.post(self.watch, call, then)

    def watch(self, call: Call, then: Callable[[], Any]) -> None:
        """The same, on the loop's thread."""
        if call.state >= DONE:
            then()
            return
        waiters = call.waiters
        if waiters is None:
            call.waiters = [then]
        else:
            waiters.append(then)
        if call.rare is not None and call.rare.grant is not None:
            if call.uid not in self.caller.asking.awaited:
                self.caller.asking.subscribe(call)
            elif call not in self.caller.asking.awaited[call.uid]:
                self.caller.asking.awaited[call.uid].append(call)

    def fetch(self, call: Call, then: Callable[[], Any]) -> None:
        """Get the value that stayed where it was made; on the loop's thread."""
        if not is_away(call):
            then()
            return
        waiters = call.waiters
        if waiters is None:
            call.waiters = [then]
        else:
            waiters.append(then)
        item = rare(call)
        if not item.pending_fetch:
            item.pending_fetch = True
            self.caller.asking.fetch(call)

    def is_away(self, call: Call) -> bool:
        """The value stayed where it was made."""
        return is_away(call)

    # -- Caller: what CallerState asks for ---------------------------------------------

    def stayed(self, uid: int) -> None:
        call = self.caller.calls.get(uid)
        if call is not None and call.stream.queue is not None:
            call.stream.queue.stayed(call)

    def settled(self, call: Call) -> None:
        waiters = call.waiters
        call.waiters = None
        for then in waiters:
            if self._looking:  # inside user code, which nothing may run in between
                self.loop.call_soon(then, context=self.context)
                continue
            try:
                then()
            except Exception:
                logger.exception("a callback of %s.%s", call.stream.label, call.method)

    def credit_spent(self) -> None:
        """Take in what has come, although the loop has not come by.

        A program that makes many calls without awaiting would else stand still with
        its workers, each in turn: it makes calls while they have run out of them, and
        they run calls while it waits. Where tesserae live here it is left to the loop:
        their methods must not run inside somebody's code.
        """
        if self.peers.gathering or not self.on_loop or self.worker.tesserae:
            return
        self._looking = True
        try:
            contextvars.Context().run(self.transport.poll)
        finally:
            self._looking = False


def is_away(call: Call) -> bool:
    """The value stayed where it was made."""
    result = call.result
    return type(result) is Arrived and bool(result.size)
