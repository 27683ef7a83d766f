"""``mosaic.link`` in one runtime: tesserae that are to end with others.

Who tells whom is decided in ``core.bonds``. Here a link waits until both have a place,
messages are taken and sent, and what is to end is ended as by a kill.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import ids
from ..comms import messages as wire
from ..comms.exceptions import error_summary
from ..core.bonds import Bonds, Effects, Fate, Known, reason
from ..core.tessera import TesseraState
from ..errors import ProtocolError
from ..text import printable

if TYPE_CHECKING:
    from ..core.tessera import Tessera
    from ..proxies.handles import TesseraHandle
    from .actor import ActorRuntime

_WHY = 2000  # characters: of a long chain the last ones are those nearest
_LABEL = 300


class Linking:
    """Both sides of it; on the loop's thread, but for ``link``."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self.bonds = Bonds(0, self._known, self._loss)  # of nobody, until it joins

    def joined(self) -> None:
        """The runtime is a member: messages may come."""
        runtime = self._runtime
        self.bonds = Bonds(runtime.incarnation, self._known, self._loss)
        runtime.handlers.update(
            {
                wire.Bind: self._on_bind,
                wire.Broke: self._on_broke,
                wire.Unbound: self._on_unbound,
            }
        )

    def link(self, one: TesseraHandle, other: TesseraHandle) -> None:
        """Bind two, when both have a place; from any thread."""
        self._runtime.post(self._link, one, other)

    def _link(self, one: TesseraHandle, other: TesseraHandle) -> None:
        def tell() -> bool:
            if not (one.owner and other.owner):
                return False
            self._tell(one, other)
            self._tell(other, one)
            return True

        if not tell():
            self._runtime.placing.later(tell)

    def bind(self, message: wire.Bind) -> None:
        """Bind one of this runtime, by itself."""
        self._do(self.bonds.bind(message, self._runtime.incarnation))

    def _tell(self, to: TesseraHandle, other: TesseraHandle) -> None:
        label = other.stream.label
        message = wire.Bind(to.uid, other.uid, other.owner, label)
        self._send(to.owner, message)

    # -- what comes --------------------------------------------------------------------

    def _on_bind(self, message: wire.Bind, buffers: Any, sender: int) -> None:
        if not message.answer and sender != message.owner:
            raise ProtocolError("it answers for what another has")
        message.label = printable(message.label)[:_LABEL]
        self._do(self.bonds.bind(message, sender))

    def _on_broke(self, message: wire.Broke, buffers: Any, sender: int) -> None:
        message.why = printable(message.why)[:_WHY]
        self._do(self.bonds.broke(message))

    def _on_unbound(self, message: wire.Unbound, buffers: Any, sender: int) -> None:
        self.bonds.unbound(message)
        self._runtime.watching.closed(message.uid)

    # -- what has happened here --------------------------------------------------------

    def came(self, uid: int) -> None:
        """A construction has come."""
        if self.bonds:
            for sender, message in self.bonds.came(uid):
                self._do(self.bonds.bind(message, sender))

    def gone(self, tessera: Tessera) -> None:
        """One that lives here has ended, or is about to."""
        if self.bonds:
            known = _fate_of(tessera)
            departing = self._runtime.departing
            if known.fate is Fate.FAILED:
                self.failed(tessera.uid, known.label, known.why)
            elif departing is None or not departing.state.closing:
                self._do(self.bonds.closed(tessera.uid))

    def failed(self, uid: int, label: str, why: str) -> None:
        """One of this runtime has ended, and not in order."""
        if self.bonds:
            self._do(self.bonds.failed(uid, label, why))

    def closed(self, uid: int) -> None:
        """One of this runtime has ended in order."""
        if self.bonds:
            self._do(self.bonds.closed(uid))

    def lost(self, incarnation: int) -> None:
        """A runtime is lost."""
        if self.bonds and not self._runtime.cluster_lost:
            self._do(self.bonds.lost(incarnation, self._loss(incarnation)))

    # -- what Bonds asks for -----------------------------------------------------------

    def _known(self, uid: int) -> Known:
        runtime = self._runtime
        tessera = runtime.worker.tesserae.get(uid)
        if tessera is not None:
            return _fate_of(tessera)
        known = runtime.restarts.homes.known(uid) or runtime.watching.known(uid)
        if known is not None:
            return known
        maker = ids.maker(uid)
        if maker == runtime.incarnation or runtime.is_lost(maker):
            return Known(Fate.CLOSED)
        return Known(Fate.COMING)

    def _loss(self, incarnation: int) -> str:
        runtime = self._runtime
        if not runtime.is_lost(incarnation):
            return ""
        if incarnation not in runtime.causes:
            return "its runtime is lost"
        member, cause = runtime.causes[incarnation]
        has = "has left" if incarnation in runtime.leavers.left else "is lost"
        return (
            f"{ids.short(member.uid)} ({member.host}, pid {member.pid}) {has}: {cause}"
        )

    def _do(self, effects: Effects) -> None:
        for to, message in effects.sends:
            self._send(to, message)
        for uid, why in effects.ends:
            if uid in self._runtime.worker.tesserae:
                self._runtime.worker.lifecycle.end(uid, why)
            elif not self._runtime.watching.failed(uid, reason(why)):
                self._runtime.restarts.homes.end(uid, why)

    def _send(self, to: int, message: Any) -> None:
        runtime = self._runtime
        outbox = runtime.outbox(to)
        if outbox is not None:
            outbox.send(message)
        elif not runtime.is_lost(to):
            runtime.peers.expect(to, message)


def _fate_of(tessera: Tessera) -> Known:
    label, error = tessera.options.name, tessera.error
    if error is not None:
        why = str(error) if isinstance(error, str) else error_summary(error)
        return Known(Fate.FAILED, label, why)
    if tessera.state is TesseraState.STOPPED:
        return Known(Fate.CLOSED, label)
    return Known(Fate.HERE, label)
