"""The monitor process: membership, and the order to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import Any

from ..comms import messages as wire
from ..config import Config
from ..core.monitor import OF_NODES, MonitorState
from ..core.names import NameTable
from ..core.reach import endpoint, is_near
from ..core.relays import Relays
from ..core.senders import USER, Kind, kind_of
from ..core.silence import Presence, suspect_s
from ..core.slots import SlotTable
from ..errors import ProtocolError
from .base import PYTHON, Base
from .booting import open_pidfd
from .job_signals import leave_to_program
from .loops import new_own_loop, tune_collector
from .spec import Spec, decode

logger = logging.getLogger(__name__)

RELAY_S = 0.02  # in which others have seen a loss too
GOODBYE_S = 0.05  # in which an answer is on its way


class Monitor(Base):
    """Performs what MonitorState decides."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spec: Spec) -> None:
        super().__init__(loop, Config.from_bytes(spec.config))
        self.token = spec.monitor_token
        self.peers.token = spec.monitor_token
        self._spec = spec
        self.state = MonitorState(PYTHON, spec.config, spec.path, spec.cwd)
        self.silence_s = self.config.node_timeout_s
        self.names = NameTable()
        self.slots = SlotTable()
        self.relays = Relays()
        self.ended = loop.create_future()
        self._pidfds: dict[int, int] = {}
        self._stopped: set[int] = set()  # nodes that have stopped
        self._lines: list[str] = []
        self._why = ""  # it stops, if nobody had asked for it
        self._killed: dict[int, str] = {}  # why, by incarnation
        self._goodbyes: set[int] = set()  # who has said that it leaves now
        self._asked: list[int] = []  # who wants to know when all has stopped
        self.handlers.update(
            {
                wire.Hello: self._on_hello,
                wire.Exited: self._on_exited,
                wire.Stopped: self._on_stopped,
                wire.Drain: self._on_drain,
                wire.Claim: lambda m, b, s: self._send(self.names.claim(s, m)),
                wire.Named: lambda m, b, s: self._send(self.names.named(s, m)),
                wire.Shared: lambda m, b, s: self._send(self.names.shared(s, m)),
                wire.Unnamed: lambda m, b, s: self._send(self.names.unnamed(m)),
                wire.TakeSlots: lambda m, b, s: self._send(self.slots.take(s, m)),
                wire.FreeSlots: lambda m, b, s: self._send(
                    self.slots.free(s, m.numbers)
                ),
                wire.SetLimit: lambda m, b, s: self._send(
                    self.slots.set_limit(s, m.name, m.limit)
                ),
                wire.AskNames: lambda m, b, s: self._send(
                    [(s, wire.Names(self.names.entries()))]
                ),
                wire.LossSeen: self._on_loss_seen,
            }
        )

    def start(self, owner_pidfd: int) -> None:
        """Bind, and watch the process that owns the cluster."""
        self.bind(self._spec.monitor_address, self._spec.network)
        self.me = self.state.found(self.me)
        self.uid = self.me.uid
        self.incarnation = self.me.incarnation
        self.peers.announce(self.me)
        if owner_pidfd >= 0:
            self.loop.add_reader(owner_pidfd, self._owner_died, owner_pidfd)

    def _owner_died(self, pidfd: int) -> None:
        self.loop.remove_reader(pidfd)
        os.close(pidfd)
        self.stop("the program that started the cluster has ended", hurry=True)

    # -- members -----------------------------------------------------------------------

    def _stranger(self, token: bytes, batch: list[Any]) -> None:
        for message in batch:
            if isinstance(message, wire.Hello) and message.token == token:
                self._hello(message)
                return

    def _on_hello(self, message: Any, buffers: Any, sender: int) -> None:
        """The one that was stashed: it has been answered."""

    def _hello(self, message: wire.Hello) -> None:
        member, answer, told = self.state.hello(message)
        peer = self.peers.address(message.token, endpoint(self.me, message))
        if member is None:
            peer.send(answer)
            return
        self.members[member.incarnation] = member
        self.peers.announce(member)
        peer.send(answer)
        self._send(told)
        if member.uid.split(":")[0] not in OF_NODES:
            if self.stopping:  # a node tells its own
                peer.send(wire.Stop("the cluster is stopping"))
            # Those are watched by their nodes, which know how they ended.
            self._watch(member)
            if member.uid.startswith("node") or not is_near(self.me, member):
                self.presence.follow(member)

    def _send(self, sends: list[tuple[int, Any]]) -> None:
        for to, message in sends:
            outbox = self.outbox(to)
            if outbox is not None:
                outbox.send(message)

    def _watch(self, member: wire.Member) -> None:
        pidfd = open_pidfd(member.pid) if is_near(self.me, member) else None
        if pidfd is None:
            return
        self._pidfds[member.incarnation] = pidfd
        self.loop.add_reader(pidfd, self._ended, member.incarnation)

    def presence_changed(self, member: wire.Member, presence: Presence) -> None:
        incarnation = member.incarnation
        who = f"{member.uid} on {member.host} (pid {member.pid})"
        if presence is Presence.SUSPECT:
            self.state.silent(incarnation)
            logger.warning(
                "%s was not heard for %g s; after %g s it counts as lost",
                who,
                suspect_s(self.silence_s),
                self.silence_s,
            )
        elif presence is Presence.HEARD:
            self.state.heard(incarnation)
            logger.warning("%s is heard again", who)
        elif presence is Presence.ENDED:
            why = "its process has ended: its host refuses connections to it"
            self._lost(incarnation, why)
        else:
            why = f"it was not heard for {self.silence_s:g} s"
            pidfd = self._pidfds.get(incarnation)
            if pidfd is None:
                self._lost(incarnation, why)
            else:  # its kernel sees to it that nothing of it goes on
                self._killed[incarnation] = f"{why}, and was killed"
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def _ended(self, incarnation: int) -> None:
        self._unwatch(incarnation)
        if incarnation not in self._goodbyes:
            why = self._killed.pop(incarnation, "its process has ended")
            self._lost(incarnation, why)

    def _unwatch(self, incarnation: int) -> None:
        pidfd = self._pidfds.pop(incarnation, None)
        if pidfd is not None:
            self.loop.remove_reader(pidfd)
            os.close(pidfd)

    def _on_drain(self, message: wire.Drain, buffers: Any, sender: int) -> None:
        if not self.stopping:
            self._send(self.state.drain(message))

    def _lost(
        self,
        incarnation: int,
        cause: str,
        remains: bytes = b"",
        left: int = wire.DIED,
        heir: int = 0,
    ) -> None:
        sends = self.state.lost(incarnation, cause, remains, left, heir)
        ended = [m for m in self.members if m not in self.state.members]
        for gone in ended:
            self._unwatch(gone)
            self._goodbyes.discard(gone)
            self.presence.forget(gone)
            self.peers.lose(gone)
            del self.members[gone]
            self._stopped.add(gone)
        self._send(sends)
        owners = [m.incarnation for m in self.members.values() if kind_of(m.uid) & USER]
        for gone in ended:
            self._send(self.names.lost(gone, owners))
            self._send(self.slots.lost(gone))
        if self.stopping:
            self._check_stopped()

    def _on_exited(self, message: wire.Exited, buffers: Any, sender: int) -> None:
        member = self.state.of_uid(message.uid)
        if not self._may_tell_end_of(message.uid, sender):
            raise ProtocolError(f"of {message.uid}, which is not its own to tell")
        if member is not None and member.pid == message.pid:
            self._ends(member, message, sender)
        elif (
            member is None
            and not self.stopping
            and not message.left  # which it has told itself
            and message.uid.startswith("worker")
        ):
            # It never joined: who waits for it at the start wants to know.
            self._send(
                [
                    (other.incarnation, message)
                    for other in self.members.values()
                    if kind_of(other.uid) is Kind.HEAD
                ]
            )

    def _on_loss_seen(self, message: wire.LossSeen, buffers: Any, sender: int) -> None:
        self._send(self.names.loss_seen(sender, message.incarnation))
        if message.incarnation in self.members:
            raise ProtocolError(f"{message.incarnation} is not lost")
        # Who is lost since needs to hear nothing.
        owners = self.members.keys() & set(message.tell)
        if self.relays.add(sender, message.incarnation, owners):
            self.loop.call_later(
                RELAY_S, lambda: self._send(self.relays.take()), context=self.context
            )

    def _ends(self, member: wire.Member, message: wire.Exited, sender: int) -> None:
        """A member has ended, or is about to and says so itself."""
        one = member.incarnation
        if one in self._goodbyes:
            return
        heir = message.heir if message.heir in self.members else 0
        if sender == one and message.left:
            # It waits until this is heard, and to who is lost nothing is sent.
            self._goodbyes.add(one)
            self.outbox(one).acknowledge()  # type: ignore[union-attr]  # it lives
            left = message.how, message.remains, message.left, heir
            self.loop.call_later(GOODBYE_S, lambda: self._lost(one, *left))
        else:
            self._lost(one, message.how, message.remains, message.left, heir)

    def _may_tell_end_of(self, uid: str, sender: int) -> bool:
        """Its node, which started it, or itself."""
        teller = self.members.get(sender)
        if teller is None:
            return False
        kind, *indices = uid.split(":")
        node = f"node:{indices[0]}" if indices and kind in OF_NODES else ""
        return teller.uid in (uid, node)

    # -- the end -----------------------------------------------------------------------

    def terminate(self) -> None:
        """SIGTERM: the cluster ends in order; the second time in a hurry."""
        is_asked_again = self.stopping
        self.stop("the monitor got SIGTERM")
        if is_asked_again:
            for node in self.of_kind("node"):
                self._send([(node.incarnation, wire.Stop("", hurry=True))])

    def on_stop(self, message: wire.Stop, buffers: Any, sender: int) -> None:
        if sender:
            self._asked.append(sender)
        self.stop(message.why)

    def stop(self, why: str, hurry: bool = False) -> None:
        """Stop all nodes; end when they have."""
        if self.stopping:
            return
        self.stopping = True
        for node in self.of_kind("node"):
            self.outbox(node.incarnation).send(wire.Stop(why, hurry))  # type: ignore[union-attr]  # it lives
        self._check_stopped()

    def _on_stopped(self, message: wire.Stopped, buffers: Any, sender: int) -> None:
        self._stopped.add(sender)
        self._lines += message.lines
        self._why = self._why or message.why
        self._check_stopped()

    def _check_stopped(self) -> None:
        if any(n.incarnation not in self._stopped for n in self.of_kind("node")):
            return
        for member in self.members.values():
            if member.uid.split(":")[0] in ("monitor", "node", *OF_NODES):
                continue  # what is left are heads, and mrun and its status
            outbox = self.outbox(member.incarnation)
            if outbox is not None:
                if member.incarnation not in self._asked:
                    outbox.send(wire.Stop(self._why or "the cluster has stopped"))
                outbox.send(wire.Stopped(self._lines))
        if not self.ended.done():
            self.ended.set_result(None)


async def _run(loop: asyncio.AbstractEventLoop, spec: Spec, pidfd: int) -> None:
    monitor = Monitor(loop, spec)
    if monitor.config.in_job:
        leave_to_program()
    else:
        loop.add_signal_handler(signal.SIGTERM, monitor.terminate)
    monitor.start(pidfd)
    await monitor.ended
    await monitor.flushed(0.5, "head")
    monitor.close()


def main(argument: bytes, fds: list[int], control: int | None) -> None:
    """The entry of the forked process."""
    spec = decode(argument)
    tune_collector()
    with asyncio.Runner(loop_factory=new_own_loop) as runner:
        runner.run(_run(runner.get_loop(), spec, fds[-1] if fds else -1))
