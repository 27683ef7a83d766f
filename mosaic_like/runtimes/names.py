"""Named tesserae as one runtime asks for them, and as it owns them.

Who asks gets a proxy at once; its calls are held until the monitor has said whether
this runtime is to make the tessera, or where it is. Then the proxy's stream becomes the
stream to it, and what stood for its construction ends when it is known to be built. The
order of messages and who may have a name is decided in ``core.names``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.call import RELEASED
from ..core.names import NamesHere
from ..core.references import Grant
from ..core.task import DONE
from ..core.tessera import TesseraState
from ..ids import MONITOR_INCARNATION
from ..proxies.handles import SupervisedHandle
from ..proxies.methods import NOTHING
from ..proxies.tessera import READY
from ..text import printable
from .failures import no_cluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.call import Call
    from ..core.tessera import Tessera
    from ..proxies.handles import TesseraHandle
    from .actor import ActorRuntime

_BUILT = b"N"  # what a construction gives, as the serializer has it


class Names:
    """Both sides of names in one runtime; on its loop."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._here = NamesHere()
        # By uid of the claim: the proxy's handle, what else its maker needs, and how
        # to make it.
        self._claims: dict[int, tuple[TesseraHandle, Any, Callable[[], object]]] = {}
        self._made: dict[int, tuple[str, Call]] = {}  # by this runtime, by uid

    def joined(self) -> None:
        """The runtime is a member: messages may come."""
        self._runtime.handlers.update(
            {wire.Claimed: self._on_claimed, wire.Share: self._on_share}
        )

    # -- asking ------------------------------------------------------------------------

    def claim(
        self,
        handle: TesseraHandle,
        message: wire.Claim,
        extra: Any,
        make: Callable[[], object],
    ) -> None:
        """Ask the monitor for the tessera of a name.

        Args:
            handle: of the proxy that was given out.
            message: the claim, whose uid is that of the handle.
            extra: inside which calls this is done.
            make: makes it, if the name is free.
        """
        for uid in [u for u, (_, c) in self._made.items() if c.state >= DONE]:
            del self._made[uid]
        self._claims[message.tessera] = handle, extra, make
        call = handle.call
        assert call is not None  # it was asked for here
        self._runtime.caller.calls[call.uid] = call  # a barrier waits for it
        monitor = self._runtime.outbox(MONITOR_INCARNATION)
        if monitor is not None:
            monitor.send(message)
            self._made[message.tessera] = message.name, call
        self._runtime.placing.later(lambda: self._answered(message.tessera))
        self._answered(message.tessera)

    def _answered(self, claim: int) -> bool:
        """Whether it waits no longer; without a cluster it never will be answered."""
        if claim not in self._claims:
            return True
        runtime = self._runtime
        if not runtime.cluster_lost and runtime.outbox(MONITOR_INCARNATION):
            return False
        handle, _, _ = self._claims.pop(claim)
        self._fail(handle, no_cluster(runtime.cluster_lost or "the monitor is gone"))
        return True

    def _on_claimed(self, message: wire.Claimed, buffers: Any, sender: int) -> None:
        found = self._claims.pop(message.claim, None)
        if found is None:
            return  # the cluster is lost, and with it what was granted
        handle, extra, make = found
        if message.why or message.owner:
            self._made.pop(message.claim, None)
        if message.why:
            self._fail(handle, TypeError(printable(message.why)))
        elif message.owner:
            self._join(handle, extra, message)
        else:
            if isinstance(handle, SupervisedHandle):
                self._made.pop(message.claim, None)  # its home is asked about it
                self._runtime.restarts.made(handle)
            make()
            self._runtime.placing.place_waiting()  # what waits for its place

    def _fail(self, handle: TesseraHandle, cause: BaseException) -> None:
        runtime, stream, call = self._runtime, handle.stream, handle.call
        assert call is not None
        # Known by some owner, so that calls which mention it go out, and fail.
        stream.owner = stream.owner or MONITOR_INCARNATION
        runtime.caller.calls[call.uid] = call
        call.hold = RELEASED
        runtime.caller.stream_failed(stream, cause)
        runtime.caller.lose(call, cause)
        runtime.placing.place_waiting()

    def _join(self, handle: TesseraHandle, extra: Any, message: wire.Claimed) -> None:
        """Somebody has made it: what was for the new one goes to that."""
        runtime, caller = self._runtime, self._runtime.caller
        old, call = handle.stream, handle.call
        assert call is not None
        grant, uid = self._granted(message), message.tessera
        if isinstance(handle, SupervisedHandle):
            stream = runtime.restarts.become(handle, uid, grant)
        else:
            stream = runtime.placing.become(old, uid, message.owner)
            handle.uid, handle.grant = uid, grant
        handle.stream = call.stream = stream
        runtime.silence_as(old, stream)
        held = caller.held.move(old, stream)
        if message.built and stream.error is None:
            stream.credit -= 1  # which the end of any call gives back
            call.hold = RELEASED
            caller.calls[call.uid] = call
            caller.done(wire.Done(call.uid, _BUILT), (), message.owner)
        else:
            call.method = READY
            caller.submit(call, NOTHING, extra, handle)
        caller.held.resume(stream, held)
        runtime.placing.place_waiting()

    def _granted(self, message: wire.Claimed) -> Grant:
        """What the owner has counted for this runtime when it was asked to share."""
        runtime = self._runtime
        uid, owner = message.tessera, message.owner
        if owner == runtime.incarnation:
            return Grant(uid, owner, owner, runtime.grants)
        reference = wire.Reference(wire.TESSERA, uid, owner)
        return runtime.grants.delivered([reference], owner)[0]

    def not_made(self, tessera: int) -> None:
        """It found no place, or its place is lost: the name is free."""
        name, _ = self._made.pop(tessera, ("", None))
        if name:
            self._tell(wire.Unnamed(name, tessera))

    def lost(self, incarnation: int) -> None:
        """A runtime is gone, perhaps before it had what was to be made there."""
        for uid, (_, call) in list(self._made.items()):
            if call.stream.owner == incarnation:
                self.not_made(uid)

    # -- owning ------------------------------------------------------------------------

    def created(self, message: wire.Create) -> None:
        """The construction of a named tessera has come, and is about to be done."""
        runtime = self._runtime
        if message.options.detached:
            # Held by the runtime where it lives, until it is closed.
            me = runtime.incarnation
            runtime.worker.holders.grant(message.tessera, me, me)
        self._tell(self._here.made(message.options.unique, message.tessera))

    def owned(self, name: str, uid: int) -> None:
        """This runtime is the home of what has this name, and builds it again."""
        self._tell(self._here.made(name, uid))

    def ended(self, uid: int) -> None:
        """What this runtime was the home of is built again no more."""
        message = self._here.gone(uid)
        if message is not None:
            self._tell(message)

    def gone(self, tessera: Tessera) -> None:
        """It is closed, or could not be built."""
        message = self._here.gone(tessera.uid)
        if message is None:
            return
        self._tell(message)
        if tessera.options.detached:
            me = self._runtime.incarnation
            self._runtime.worker.holders.release_grants(me, [(tessera.uid, me)])

    def _on_share(self, message: wire.Share, buffers: Any, sender: int) -> None:
        runtime, uid = self._runtime, message.tessera
        tessera = runtime.worker.tesserae.get(uid)
        built: bool | None = None
        if tessera is None:
            built = runtime.restarts.homes.shares(uid, message.holder)
        elif tessera.state in (TesseraState.PENDING, TesseraState.LISTENING):
            runtime.worker.holders.grant(uid, message.holder, runtime.incarnation)
            built = tessera.state is TesseraState.LISTENING
        if built is not None:  # else it is told that it is gone: see core.names
            self._tell(wire.Shared(message.name, uid, message.claim, built))

    def _tell(self, message: Any) -> None:
        monitor = self._runtime.outbox(MONITOR_INCARNATION)
        if monitor is not None:
            monitor.send(message)
