"""The node process: the supervisor of one host's workers and its warehouse.

How they are forked, and what has ended them, is in ``children``.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import signal
from typing import TYPE_CHECKING, Any, TypeVar

from ..comms import messages as wire
from ..comms.link import LinkState
from ..config import DYNAMIC, Config
from ..core import verdicts
from ..core.node import PERIOD_S, Replacing
from ..core.reach import is_near
from ..core.silence import Presence
from ..errors import ConnectError
from ..ids import MONITOR_INCARNATION, short
from ..text import printable
from . import journal, orders
from .base import JOIN_TIMEOUT_S, Base
from .booting import open_pidfd
from .children import ENTRIES, Children
from .departing import ANSWER_S, HAND_ON_S
from .executor import CLOSE_TIMEOUT_S
from .helping import Helping
from .interrupts import SIGNAL
from .job_signals import leave_to_owner, leave_to_program
from .loops import new_own_loop, tune_collector
from .processes import ForkServer, gone_text
from .saying import say
from .spec import Spec, decode

if TYPE_CHECKING:
    from .oom import Evidence
    from .peer import Peer
    from .processes import Child

N = TypeVar("N", bound="Node")

HURRY_RUNNING_S = 1.0  # and for the calls that run
HURRY_S = 4.5  # for all of it, when the program has died
ENDING_S = 0.5  # from a worker's last word to its end
LEAVING_S = HAND_ON_S + 2 * ANSWER_S  # the same of one that leaves the others
JOIN_GRACE_S = 1.0
# The warehouse is forked when the workers are there, and a moment later, in which the
# first call is made; but not later than this if some of them do not come.
WAREHOUSE_AFTER_S = 0.2
WAREHOUSE_LATEST_S = 10.0


class Node(Base):
    """Starts workers and a warehouse, says how they ended, replaces and stops them."""

    join_timeout_s = JOIN_TIMEOUT_S

    def __init__(
        self, loop: asyncio.AbstractEventLoop, spec: Spec, server: ForkServer
    ) -> None:
        super().__init__(loop, Config.from_bytes(spec.config))
        self._spec = spec
        self._server = server
        self._children = Children(self, server)
        self._replacing = Replacing(PERIOD_S)
        self._warehouse = ""  # its uid, when it has been started
        self._lines: list[str] = []
        self._pidfd: int | None = None
        self._starts = 0
        self._hurry = False
        self._orphaned = False
        self._why = ""  # it stops, if nobody had asked for it
        self._server_pid = os.getppid()
        self.ended = loop.create_future()
        self.handlers[wire.Stopped] = self._on_stopped
        self.handlers[wire.Interrupt] = self._on_interrupt
        self.handlers[wire.Leaving] = self._on_leaving
        self._helping = Helping(self)
        self._leaving: dict[str, bool] = {}  # of its children: another takes its place
        self._is_drained = False  # it leaves when its children have
        self._signals = 0  # how often it got SIGTERM
        self._told = 0  # how often it was told to leave

    async def start(self, owner_pidfd: int) -> None:
        """Join the cluster and start the workers."""
        spec = self._spec
        self.bind(f"ipc://{spec.directory}/n{os.getpid()}", spec.network)
        self._server.watch(self.loop)
        self._server.on_lost = self._server_lost
        joining = asyncio.ensure_future(
            self.join(
                "node",
                spec.monitor_address,
                spec.monitor_token,
                spec.uid,
                self.join_timeout_s,
            )
        )
        if owner_pidfd >= 0:
            # A monitor that finds its owner dead, and no node yet, ends at once.
            self.loop.add_reader(owner_pidfd, self._owner_died, owner_pidfd, joining)
        await joining
        monitor = self.members[MONITOR_INCARNATION]
        if is_near(self.me, monitor):
            self._pidfd = open_pidfd(monitor.pid)
        if self._pidfd is not None:
            self.loop.add_reader(self._pidfd, self._monitor_died)
        self._has_joined(owner_pidfd)
        if self.config.in_job:  # until now there was nobody to leave it to
            self.loop.remove_signal_handler(signal.SIGTERM)
            leave_to_program()
        for index in range(self.config.num_workers):
            self._spawn(f"worker:{self._index}:{index}")
        self.loop.call_later(WAREHOUSE_LATEST_S, self._start_warehouse)
        self._children.look_at_memory()

    def start_helper(self, number: int) -> None:
        """One more worker, for function tasks; it shares the cores of another."""
        self._spawn(f"helper:{self._index}:{number}")

    @property
    def _index(self) -> str:
        return self.uid.split(":")[1]

    def _has_joined(self, owner_pidfd: int) -> None:
        if owner_pidfd >= 0:
            self.loop.remove_reader(owner_pidfd)
            os.close(owner_pidfd)  # from now on the monitor watches it for all

    def _owner_died(self, pidfd: int, joining: asyncio.Future[None]) -> None:
        self.loop.remove_reader(pidfd)
        self.loop.call_later(JOIN_GRACE_S, joining.cancel)

    # -- children ----------------------------------------------------------------------

    def _start_warehouse(self) -> None:
        if not self._warehouse and not self.stopping:
            self._warehouse = f"warehouse:{self._index}"
            self._spawn(self._warehouse)

    def _spawn(self, uid: str) -> None:
        if self.stopping or self._is_drained:
            return
        self._starts += 1
        own = self._spec
        spec = Spec(
            config=own.config,
            directory=own.directory,
            monitor_address=own.monitor_address,
            monitor_token=own.monitor_token,
            uid=uid,
            path=own.path,
            cwd=own.cwd,
            network=own.network,
        )
        self._children.spawn(spec)

    def child_ended(self, uid: str, child: Child, how: str, memory: Evidence) -> None:
        """It is told, and replaced if it is to be.

        Args:
            uid: of the child.
            child: that has ended.
            how: for people.
            memory: what speaks for it that it was killed for want of it.
        """
        is_left = uid in self._leaving and child.status == 0
        takes_place = self._leaving.pop(uid, True)
        directory = self._spec.directory
        remains = b""
        if self.stopping or uid.startswith("warehouse"):
            journal.remove(directory, child.pid)
        elif is_left:  # counts only if it could not tell the monitor itself
            left = verdicts.of_leaver(journal.collect(directory, child.pid))
            remains = verdicts.encode(left)
        else:
            left = journal.collect(directory, child.pid)
            if memory.is_certain:
                left.memory = memory.text
            elif memory.text:
                how = f"{how}, {memory.text}"
            remains = verdicts.encode(left)
        orders.forget(orders.path_of(self._spec.directory, child.pid))
        if self.outbox(MONITOR_INCARNATION) is not None:
            ended = wire.LEFT if is_left else wire.DIED
            self.monitor.send(wire.Exited(uid, child.pid, how, remains, ended))
        if self.stopping:
            self._check_stopped()
            return
        if self._is_drained:
            self._check_drained()
            return
        if child.failure:
            self._again(uid, *self._replacing.not_forked(uid, how))
            return
        if uid.startswith("helper"):
            self._helping.ended(uid, how, died=not is_left)
            return
        if is_left or not takes_place:
            if takes_place:
                self._spawn(uid)
            return
        self._again(uid, *self._replacing.died(uid, how, self.loop.time()))

    def _again(self, uid: str, delay_s: float, told: str) -> None:
        if told:
            say(told)
        self.loop.call_later(delay_s, self._spawn, uid)

    def _on_interrupt(self, message: wire.Interrupt, buffers: Any, sender: int) -> None:
        """Its worker does not end a call, and perhaps cannot."""
        member = self.members.get(message.owner)
        child = None if member is None else self._children.by_uid.get(member.uid)
        if member is None or child is None or child.pid != member.pid:
            return
        if message.kill:
            self._children.kill(
                child,
                "it was ended because a call that was to stop had not, and it did not "
                "answer (interrupt='kill')",
            )
            return
        path = orders.path_of(self._spec.directory, child.pid)
        orders.write(path, message.uid, message.kind == wire.TIMEOUT)
        self._server.kill(child.pid, SIGNAL)

    # -- leaving -----------------------------------------------------------------------

    def terminate(self) -> None:
        """SIGTERM."""
        self._signals += 1
        self._told_to_leave(self._signals)

    def _told_to_leave(self, times: int) -> None:
        """Leave in order; the second time in a hurry, the third at once.

        Args:
            times: that who says it now has said it; what others have said is the same.
        """
        if times <= self._told:
            return
        self._told = times
        if times > 2 and self.stopping:
            self._kill()
        elif times > 1 or MONITOR_INCARNATION not in self.members:
            self.stop(hurry=True)
        else:
            limit_s = self.config.drain_timeout_s
            self.monitor.send(wire.Drain(self.incarnation, limit_s))

    def _on_leaving(self, message: wire.Leaving, buffers: Any, sender: int) -> None:
        member = self.members.get(message.incarnation)
        if message.incarnation == self.incarnation:
            self._is_drained = True
            if message.timeout_s is not None:
                limit_s = message.timeout_s + CLOSE_TIMEOUT_S + 2 * LEAVING_S
                self.loop.call_later(limit_s, self.stop)
            self._check_drained()
        elif member is not None and member.uid in self._children.by_uid:
            self._leaving[member.uid] = message.replace
            self._helping.gone(member.incarnation)

    def _check_drained(self) -> None:
        """End when all that was started here has left."""
        if self._children.by_uid or self.stopping:
            return
        if len(self.of_kind("node")) == 1 and self.config.mode != DYNAMIC:
            self._why = f"{self.uid}, the last node, was drained"
            self.stop()
            return
        for line in self._lines:
            say(line)
        self.stopping = True
        exited = wire.Exited(self.uid, self.me.pid, "it was drained", b"", wire.LEFT)
        self.monitor.send(exited)
        self.ended.set_result(None)

    # -- the end -----------------------------------------------------------------------

    def on_stop(self, message: wire.Stop, buffers: Any, sender: int) -> None:
        self.stop(message.hurry)

    def _monitor_died(self) -> None:
        assert self._pidfd is not None
        self.loop.remove_reader(self._pidfd)
        self._orphaned = True
        self.stop(hurry=True)

    def _server_lost(self) -> None:
        # The kernel has killed the workers with it.
        self._why = gone_text(self._server_pid)
        self._children.by_uid.clear()
        self.stopping = True
        self._check_stopped()

    def stop(self, hurry: bool = False) -> None:
        """Let the workers close what they have; kill what does not end."""
        if self.stopping:
            return
        self.stopping = True
        self._hurry = hurry
        for uid in list(self._children.by_uid):
            if uid != self._warehouse:
                self._stop_child(uid)
        limit_s = self.config.stop_timeout_s + CLOSE_TIMEOUT_S
        if hurry:
            limit_s = min(limit_s, HURRY_S)
        self.loop.call_later(limit_s, self._kill)
        self._check_stopped()

    def _order(self) -> wire.Stop:
        why = "the monitor has ended" if self._orphaned else ""
        return wire.Stop(why, self._hurry, self._orphaned)

    def _stop_child(self, uid: str) -> None:
        child = self._children.by_uid[uid]
        members = (self.of_kind(kind) for kind in ENTRIES)
        for member in itertools.chain.from_iterable(members):
            outbox = self.outbox(member.incarnation)
            if member.uid == uid and outbox is not None:
                outbox.send(self._order())
                self._watch_order(uid, child.pid, outbox)
                return
        if child.pid:
            self._server.kill(child.pid)  # it has not joined: it has nothing

    def _watch_order(self, uid: str, pid: int, outbox: Peer) -> None:
        """Who has not even read the order when its calls have had their time is ended.

        What runs there holds its loop, and it could close nothing.
        """
        outbox.flush()
        limit_s = self.config.stop_timeout_s
        if self._hurry:
            limit_s = min(limit_s, HURRY_RUNNING_S)
        order = outbox.link.number
        self.loop.call_later(
            limit_s + ENDING_S, self._check_order, uid, pid, outbox, order
        )

    def _check_order(self, uid: str, pid: int, outbox: Peer, order: int) -> None:
        child = self._children.by_uid.get(uid)
        if child is None or child.pid != pid or outbox.link.acknowledged >= order:
            return
        if journal.is_closing(self._spec.directory, pid):
            return  # which has its time
        is_up = outbox.link.state is LinkState.UP
        why = "as what it runs holds its loop" if is_up else "as nothing reached it"
        self._lines.append(
            f"{short(uid)} did not answer, {why}: it was "
            "killed, and what lived there was not closed"
        )
        self._server.kill(pid)

    def _kill(self) -> None:
        for uid, child in self._children.by_uid.items():
            if child.pid:
                self._lines.append(f"{short(uid)} did not end and was killed")
                self._server.kill(child.pid)

    def member_joined(self, member: wire.Member) -> None:
        if member.incarnation == MONITOR_INCARNATION and is_near(self.me, member):
            self.presence.follow(member, math.inf)  # which is to hear this node
        limit_s = self.config.worker_timeout
        if limit_s is not None and self._runs_calls(member):
            self.presence.follow(member, limit_s, excuses_itself=True)
        self._helping.joined(member)
        if member.uid in self._children.by_uid:
            self._replacing.started()
        if self.stopping and member.uid in self._children.by_uid:
            outbox = self.outbox(member.incarnation)
            if outbox is not None:
                outbox.send(self._order())
                self._watch_order(member.uid, member.pid, outbox)
        elif not self._warehouse and self._starts >= self.config.num_workers:
            here = {m.uid for m in self.of_kind("worker")}
            if here.issuperset(self._children.by_uid):
                self.loop.call_later(WAREHOUSE_AFTER_S, self._start_warehouse)

    def _runs_calls(self, member: wire.Member) -> bool:
        """It is a worker or helper of this node."""
        return member.uid in self._children.by_uid and member.uid != self._warehouse

    def presence_changed(self, member: wire.Member, presence: Presence) -> None:
        """A worker is silent for longer than ``worker_timeout``."""
        child = self._children.by_uid.get(member.uid)
        if presence is not Presence.SILENT or child is None or child.pid != member.pid:
            return
        self._children.kill(
            child,
            f"it was killed, since it was not heard for {self.config.worker_timeout:g} "
            "s (worker_timeout): it was frozen, or what it ran held its loop or its "
            "interpreter",
        )

    def member_lost(self, member: wire.Member, cause: str) -> None:
        self._helping.gone(member.incarnation)

    def _on_stopped(self, message: wire.Stopped, buffers: Any, sender: int) -> None:
        self._lines += [printable(line) for line in message.lines]
        member = self.members.get(sender)
        if member is not None:
            # It has closed what it had. One that does not end now stands in a call.
            limit_s = LEAVING_S if member.uid in self._leaving else ENDING_S
            self.loop.call_later(limit_s, self._kill_ended, member.uid, member.pid)

    def _kill_ended(self, uid: str, pid: int) -> None:
        child = self._children.by_uid.get(uid)
        if child is not None and child.pid == pid:
            self._server.kill(pid)

    def _check_stopped(self) -> None:
        children = self._children.by_uid
        if self.stopping and list(children) == [self._warehouse]:
            self._stop_child(self._warehouse)  # the last: workers read from it
        if self.stopping and not children and not self.ended.done():
            if self.outbox(MONITOR_INCARNATION) is not None:
                self.monitor.send(self._last_word())
            self.ended.set_result(None)

    def _last_word(self) -> wire.Message:
        return wire.Stopped(self._lines, self._why)

    def close(self) -> None:
        self._children.close()
        super().close()


async def live(
    make: type[N],
    loop: asyncio.AbstractEventLoop,
    spec: Spec,
    owner: int,
    control: int,
) -> N:
    """The life of a node process, to its end.

    Args:
        make: the kind of node.
        loop: its loop.
        spec: what it was told.
        owner: a descriptor that is readable when the owner is gone; -1: there is none.
        control: that of its fork server.
    """
    server = ForkServer.adopt(control)
    node = make(loop, spec, server)
    leave_to_owner()
    loop.add_signal_handler(signal.SIGTERM, node.terminate)
    try:
        await node.start(owner)
        await node.ended
        await node.flushed(0.5, "monitor")
        return node
    except asyncio.CancelledError:
        raise SystemExit(1) from None  # the program has died while it was joining
    except ConnectError as error:
        say(f"a node could not join: {error}")
        raise SystemExit(1) from None
    finally:
        node.close()
        server.unwatch()
        server.close()


def main(argument: bytes, fds: list[int], control: int | None) -> None:
    """The entry of the forked process."""
    spec = decode(argument)
    tune_collector()
    assert control is not None
    with asyncio.Runner(loop_factory=new_own_loop) as runner:
        owner = fds[-1] if fds else -1
        runner.run(live(Node, runner.get_loop(), spec, owner, control))
