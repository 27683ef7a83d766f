"""``mosaic.monitor`` in one runtime: who watches what, and what they are told.

Of a tessera that is built again its home tells all that happens (``restarting``). Any
other is watched by a bond to it, as ``mosaic.link`` makes them between two tesserae:
who watches is known by a uid of its own here, which ends when the tessera does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ..comms import messages as wire
from ..core.bonds import Fate, Known
from ..core.call import DROPPED
from ..core.task import DONE
from ..ids import MONITOR_INCARNATION
from ..proxies.handles import SupervisedHandle
from ..proxies.methods import NOTHING
from ..proxies.monitoring import TesseraChange
from ..proxies.tessera import READY

if TYPE_CHECKING:
    from ..comms.messages import Member
    from ..core.call import Call
    from ..proxies.handles import TesseraHandle
    from ..proxies.monitoring import Monitor
    from .actor import ActorRuntime


class Watching:
    """All that is watched from one runtime; on the loop's thread."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        # By the uid that stands for who watches; who does not any more is gone here.
        self._monitors: WeakValueDictionary[int, Monitor] = WeakValueDictionary()
        self._owners: dict[int, int] = {}  # of what each watches, once that has a place

    def watch(self, handle: TesseraHandle, monitor: Monitor) -> None:
        """Somebody wants to hear of a tessera's changes."""
        runtime = self._runtime
        if isinstance(handle, SupervisedHandle):
            runtime.restarts.watch(handle.followed, monitor)
            return
        if runtime.stopping:
            monitor.end()
            return
        self._sweep()
        uid = next(runtime.uids)
        self._monitors[uid] = monitor

        def bind() -> bool:
            owner = handle.owner
            if owner and uid in self._monitors:
                self._owners[uid] = owner
                label = handle.stream.label
                if owner == MONITOR_INCARNATION:
                    self.failed(uid, "it found no place")
                else:
                    runtime.linking.bind(wire.Bind(uid, handle.uid, owner, label))
            return bool(owner) or uid not in self._monitors

        if not bind():
            runtime.placing.later(bind)
        construction = handle.call
        if construction is None or construction.state >= DONE:
            construction = self._ask(handle)  # it may have ended since
        runtime.watch(construction, lambda: self._built(uid, construction))

    def _ask(self, handle: TesseraHandle) -> Call:
        """A call that tells that it is built."""
        call = self._runtime.submit(handle, READY, NOTHING, wire.Extra(ordered=False))
        call.hold = DROPPED
        return call

    def _built(self, uid: int, told: Call) -> None:
        monitor = self._monitors.get(uid)
        if monitor is not None and told.state == DONE:
            where = self._runtime.uid_of(told.owner)
            monitor.put(TesseraChange.UP, where, "", 0)

    # -- what becomes of it ------------------------------------------------------------

    def known(self, uid: int) -> Known | None:
        """Of who watches, as of a tessera; None: nobody does by this uid."""
        if uid not in self._owners:
            return None
        return Known(Fate.HERE if uid in self._monitors else Fate.CLOSED)

    def failed(self, uid: int, why: str) -> bool:
        """What is watched has ended, and not in order; False: it is no such uid."""
        owner = self._owners.pop(uid, 0)
        monitor = self._monitors.pop(uid, None)
        if monitor is not None:
            monitor.put(TesseraChange.DOWN, self._runtime.uid_of(owner), why, 0)
            monitor.end()
        return bool(owner)

    def closed(self, uid: int) -> None:
        """It was closed; or it is no such uid."""
        self._owners.pop(uid, None)
        monitor = self._monitors.pop(uid, None)
        if monitor is not None:
            monitor.end()

    def lost(self, member: Member, cause: str) -> None:
        """A runtime is lost, before its bonds are."""
        for uid, owner in list(self._owners.items()):
            if owner == member.incarnation:
                self.failed(uid, cause)
                self._runtime.linking.closed(uid)

    def _sweep(self) -> None:
        for uid in [uid for uid in self._owners if uid not in self._monitors]:
            del self._owners[uid]
            self._runtime.linking.closed(uid)
