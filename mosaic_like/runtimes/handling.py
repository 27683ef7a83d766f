"""The messages that a runtime with calls and tesserae takes: who handles which.

Most go straight to a state of ``core``. Here are those that several parts of a runtime
hear of, or that want a look at first. Messages of one feature alone are added by it.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.call import rare
from ..core.names import NAME_BYTES
from ..errors import ProtocolError
from ..text import printable
from .leavers import is_owner

if TYPE_CHECKING:
    from .actor import ActorRuntime
    from .base import Handler

_UNHEARD = 10_000  # incarnations that others may have heard of before this runtime


class Handling:
    """Those of one runtime; all on its loop's thread."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime

    def table(self) -> dict[type, Handler]:
        """Who handles what; once the runtime has its states."""
        runtime = self._runtime
        worker, caller = runtime.worker, runtime.caller
        holders = worker.holders
        return {
            wire.Submit: worker.submit,
            wire.Done: caller.done,
            wire.Release: worker.release,
            wire.Create: self.on_create,
            wire.Failed: caller.failed,
            wire.Value: caller.asking.value,
            wire.Cancel: lambda m, b, s: worker.stopping.on_cancel(
                m, runtime.executor.attempts.of(worker.tasks.get(m.uid)), s
            ),
            wire.Subscribe: lambda m, b, s: worker.telling.subscribe(m.uid, s),
            wire.Fetch: lambda m, b, s: worker.telling.fetch(m.uid, s),
            wire.Item: runtime.intakes.item,
            wire.Credit: lambda m, b, s: worker.producers.credit(m.uid, m.items),
            wire.Running: self.on_running,
            wire.Again: self.on_again,
            wire.Ran: self.on_ran,
            wire.Ending: self.on_ending,
            wire.Learn: runtime.learned.learn,
            wire.Recall: lambda m, b, s: worker.recalls.asked(m.uids, s),
            wire.Recalled: self.on_recalled,
            wire.Helped: self.on_helped,
            wire.Waiting: runtime.cycles.on_waiting,
            wire.Circle: runtime.cycles.on_circle,
            wire.ReleaseGrants: lambda m, b, s: holders.release_grants(s, m.grants),
            wire.Retain: self.on_retain,
            wire.Holding: self.on_holding,
            wire.LossSeen: self.on_loss_seen,
            wire.SeenBy: self.on_seen_by,
            wire.Define: lambda m, b, s: runtime.serializer.define(m.digest, m.blob),
            wire.Copied: self.on_copied,
            wire.Leaving: runtime.leavers.on_leaving,
            wire.LeavingSeen: runtime.leavers.on_seen,
        }

    # -- tesserae ----------------------------------------------------------------------

    def on_create(self, message: wire.Create, buffers: Any, sender: int) -> None:
        self._runtime.worker.lifecycle.check_create(message, sender)
        message.options.name = printable(message.options.name)[:NAME_BYTES]
        if message.options.unique and message.options.supervised is None:
            self._runtime.names.created(message)  # else its home has the name
        self._runtime.worker.lifecycle.create(message, buffers, sender)
        self._runtime.linking.came(message.tessera)

    # -- how calls go on ---------------------------------------------------------------

    def on_running(self, message: wire.Running, buffers: Any, sender: int) -> None:
        call = self._runtime.caller.calls.get(message.uid)
        if call is not None:
            item = rare(call)
            if message.delay_s is None:
                item.running_s, item.reason = time.time() - message.for_s, None
            else:
                item.running_s, item.reason = None, "retry"
            self._runtime.limiting.begun(call, message.attempt, message.delay_s)
            if item.watched is not None:
                item.watched.look(call)

    def on_again(self, message: wire.Again, buffers: Any, sender: int) -> None:
        if not (message.delay_s >= 0 and math.isfinite(message.delay_s)):
            raise ProtocolError(f"it waits {message.delay_s} s")
        if self._runtime.functions is not None:
            self._runtime.functions.again(message, sender)

    def on_ran(self, message: wire.Ran, buffers: Any, sender: int) -> None:
        call = self._runtime.caller.calls.get(message.uid)
        item = None if call is None else call.rare
        if item is not None and item.watched is not None:
            item.watched.ran(message, item.earlier)

    def on_ending(self, message: wire.Ending, buffers: Any, sender: int) -> None:
        call = self._runtime.caller.calls.get(message.uid)
        if call is not None:
            rare(call).told = message.state, message.reason

    def on_recalled(self, message: wire.Recalled, buffers: Any, sender: int) -> None:
        if self._runtime.functions is not None:
            self._runtime.functions.recalled(message, sender)

    def on_helped(self, message: wire.Helped, buffers: Any, sender: int) -> None:
        runtime = self._runtime
        if runtime.functions is not None and not runtime.is_lost(message.helper):
            runtime.functions.helped(message.helper, message.may)

    # -- who holds what ----------------------------------------------------------------

    def on_retain(self, message: wire.Retain, buffers: Any, sender: int) -> None:
        runtime = self._runtime
        if message.holder == runtime.incarnation and not runtime.leavers.left:
            raise ProtocolError("what comes here is counted here")
        runtime.worker.holders.retain(sender, message.uid, message.holder)

    def on_holding(self, message: wire.Holding, buffers: Any, sender: int) -> None:
        if self.check_loss(message.granter):
            holders = self._runtime.worker.holders
            holders.holding(sender, message.uid, message.granter, message.count)

    def on_loss_seen(self, message: wire.LossSeen, buffers: Any, sender: int) -> None:
        if self.check_loss(message.incarnation):
            self._runtime.grants.loss_seen(sender, message.incarnation)
            self._runtime.worker.holders.loss_seen(sender, message.incarnation)

    def on_seen_by(self, message: wire.SeenBy, buffers: Any, sender: int) -> None:
        if not self.check_loss(message.incarnation):
            return
        for runtime in message.runtimes:
            self._runtime.grants.loss_seen(runtime, message.incarnation)
            self._runtime.worker.holders.loss_seen(runtime, message.incarnation)

    def check_loss(self, incarnation: int) -> bool:
        """Whether a loss that others have heard of counts here; raises if it is none.

        They may hear of it earlier, even of one that is not announced here yet. That of
        one that was lost before this runtime came does not count.
        """
        member = self._runtime.members.get(incarnation)
        if member is None and incarnation in self._runtime.causes:
            member = self._runtime.causes[incarnation][0]
        newest = self._runtime.peers.newest
        known = member is not None and is_owner(member.uid)
        if not known and not (member is None and 0 < incarnation < newest + _UNHEARD):
            raise ProtocolError(f"{incarnation} is nobody who could be lost")
        return known or incarnation > newest

    def on_copied(self, message: wire.Copied, buffers: Any, sender: int) -> None:
        warehouse, copied = self._runtime.warehouse, self._runtime.copied
        for uid in message.uids:
            if not message.kept:
                copied.pop(uid, None)
            elif warehouse is not None and warehouse.incarnation == sender:
                copied[uid] = sender
