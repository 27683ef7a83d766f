"""The node process: the supervisor of one host's workers and its warehouse."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import math
import os
import signal
from typing import TYPE_CHECKING, Any, TypeVar

from ..comms import messages as wire
from ..config import DYNAMIC, Config
from ..core import verdicts
from ..core.node import PERIOD_S, Replacements
from ..core.reach import is_near
from ..core.silence import Presence
from ..environment import FULL_TRACEBACK
from ..errors import ConnectError, MosaicError
from ..ids import MONITOR_INCARNATION, short
from ..text import printable
from . import journal, orders, portions
from .base import JOIN_TIMEOUT_S, Base
from .booting import open_pidfd
from .departing import ANSWER_S, HAND_ON_S
from .helping import Helping
from .interrupts import SIGNAL
from .job_signals import leave_to_owner, leave_to_program
from .loops import new_own_loop, tune_collector
from .oom import LOOK_S, Evidence, MemoryKills, near_limit
from .processes import Child, ForkServer, describe_status, gone_text
from .raw_output import RawOutput
from .saying import say
from .spec import Spec, decode

if TYPE_CHECKING:
    from .peer import Peer

logger = logging.getLogger(__name__)

_ENTRIES = {
    "worker": "mosaic_like.runtimes.worker_process:main",
    "helper": "mosaic_like.runtimes.worker_process:main",
    "warehouse": "mosaic_like.runtimes.warehouse:main",
}
# What numeric libraries read when they are imported.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
N = TypeVar("N", bound="Node")

CLOSE_TIMEOUT_S = 10.0
HURRY_RUNNING_S = 1.0  # and for the calls that run
HURRY_S = 4.5  # for all of it, when the program has died
ENDING_S = 0.5  # from a worker's last word to its end
LEAVING_S = HAND_ON_S + 2 * ANSWER_S  # the same of one that leaves the others
JOIN_GRACE_S = 1.0
LATE_S = 1.0  # after which a worker is replaced, for people to be told
OUTPUT_S = 10.0  # that what a dead worker had started may still print
SERVER_GONE = "its parent, the fork server, has ended, and it was killed"
# The warehouse is forked when the workers are there, and a moment later, in which the
# first call is made; but not later than this if some of them do not come.
WAREHOUSE_AFTER_S = 0.2
WAREHOUSE_LATEST_S = 10.0
WAREHOUSE_AGAIN_S = 10.0  # where it has died so often that a worker would not come back


class Node(Base):
    """Starts workers and a warehouse, says how they ended, replaces and stops them."""

    join_timeout_s = JOIN_TIMEOUT_S

    def __init__(
        self, loop: asyncio.AbstractEventLoop, spec: Spec, server: ForkServer
    ) -> None:
        super().__init__(loop, Config.from_bytes(spec.config))
        self._spec = spec
        self._server = server
        self._children: dict[str, Child] = {}
        self._outputs: dict[Child, RawOutput] = {}
        self._replacements = Replacements(PERIOD_S)
        self._memory = MemoryKills()
        self._warehouse_replacements = Replacements()
        self._warehouse = ""  # its uid, when it has been started
        self._lines: list[str] = []
        self._pidfd: int | None = None
        self._starts = 0
        self._cores: list[int] = []  # to be shared out, if workers are pinned
        self._hurry = False
        self._orphaned = False
        self._why = ""  # it stops, if nobody had asked for it
        self._server_pid = os.getppid()
        self.ended = loop.create_future()
        self.handlers[wire.Stopped] = self._on_stopped
        self.handlers[wire.Interrupt] = self._on_interrupt
        self.handlers[wire.Leaving] = self._on_leaving
        self._helping = Helping(self)
        self._recycled: dict[int, str] = {}  # why this node has killed them, by pid
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
        self._look_at_memory()

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
        spec = Spec(
            config=self._spec.config,
            directory=self._spec.directory,
            monitor_address=self._spec.monitor_address,
            monitor_token=self._spec.monitor_token,
            uid=uid,
            path=self._spec.path,
            cwd=self._spec.cwd,
            network=self._spec.network,
        )
        threads = str(self.config.num_threads)
        environment: dict[str, str | None] = {
            name: threads for name in THREAD_VARIABLES if name not in os.environ
        }
        if uid != self._warehouse:
            count = self.config.num_workers
            index = int(uid.split(":")[2]) % count
            if self.config.pin:
                self._cores = self._cores or portions.cores()
                spec.cores = list(portions.portion(self._cores, index, count))
            if self.config.split_gpus:
                environment |= portions.gpus(index, count, os.environ)
        if self.config.full_traceback:
            environment[FULL_TRACEBACK] = "1"
        output: RawOutput | None = None
        stdout: int | None = None
        stderr: int | None = None
        if uid != self._warehouse:
            output = RawOutput(self, uid, spec.directory)
            stdout, stderr = output.pipes()
        try:
            self._children[uid] = child = self._server.spawn(
                _ENTRIES[uid.split(":")[0]],
                spec.encode(),
                environment=environment,
                death_signal=True,
                stdout=stdout,
                stderr=stderr,
                on_started=self._started,
                on_exited=functools.partial(self._exited, uid),
            )
            if output is not None:
                self._outputs[child] = output
        except MosaicError:
            if output is not None:
                output.close()
            self.stop()
        finally:
            for end in (stdout, stderr):
                if end is not None:
                    os.close(end)

    def _started(self, child: Child) -> None:
        self._memory.watch(child.pid)
        if child in self._outputs:
            self._outputs[child].pid = child.pid

    def _exited(self, uid: str, child: Child) -> None:
        if self._children.get(uid) is child:
            del self._children[uid]
        if child in self._outputs:
            # Before it is said that it has ended.
            self._outputs[child].ended()
            self.loop.call_later(OUTPUT_S, self._outputs.pop(child).close)
        status = child.status
        how = SERVER_GONE if status is None else describe_status(status)
        if child.failure:
            how = f"could not be forked: {child.failure}"
        killed = self._killed_for(child)
        how = self._recycled.pop(child.pid, how)
        is_left = uid in self._leaving and status == 0
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
            if killed.is_certain:
                left.memory = killed.text
            elif killed.text:
                how = f"{how}, {killed.text}"
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
        if uid.startswith("helper"):
            self._helping.ended(uid, died=not is_left)
            return
        if is_left or not takes_place:
            if takes_place:
                self._spawn(uid)
            return
        if uid == self._warehouse:
            delay_s = self._warehouse_replacements.delay_s(self.loop.time())
            # Who puts something waits for it: so it is tried for ever.
            self.loop.call_later(delay_s or WAREHOUSE_AGAIN_S, self._spawn, uid)
            return
        delay_s = self._replacements.delay_s(self.loop.time())
        if delay_s is None:
            delay_s = self._replacements.later_s(self.loop.time())
            if delay_s >= LATE_S:
                say(self._replacements.postponed(short(uid), how, delay_s))
        self.loop.call_later(delay_s, self._spawn, uid)

    def _killed_for(self, child: Child) -> Evidence:
        """What speaks for it that a signal ended it for want of memory."""
        pid, status, found = child.pid, child.status, Evidence()
        by_others = pid not in self._recycled
        if status is not None and os.WIFSIGNALED(status) and by_others:
            if os.WTERMSIG(status) == signal.SIGKILL:
                found = self._memory.killed(pid, child.max_rss_bytes)
            near = "" if found.is_certain else near_limit(child.max_rss_bytes)
            found = Evidence(near, is_certain=True) if near else found
        self._memory.forget(pid)
        return found

    def _look_at_memory(self) -> None:
        self._memory.look()
        self.loop.call_later(LOOK_S, self._look_at_memory)

    def _on_interrupt(self, message: wire.Interrupt, buffers: Any, sender: int) -> None:
        """Its worker does not end a call, and perhaps cannot."""
        member = self.members.get(message.owner)
        child = None if member is None else self._children.get(member.uid)
        if member is None or child is None or child.pid != member.pid:
            return
        if message.kill:
            self._recycled[child.pid] = (
                "it was ended because a call that was to stop had not, and it did not "
                "answer (interrupt='kill')"
            )
            self._server.kill(child.pid)
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
        elif member is not None and member.uid in self._children:
            self._leaving[member.uid] = message.replace
            self._helping.gone(member.incarnation)

    def _check_drained(self) -> None:
        """End when all that was started here has left."""
        if self._children or self.stopping:
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
        self._children.clear()
        self.stopping = True
        self._check_stopped()

    def stop(self, hurry: bool = False) -> None:
        """Let the workers close what they have; kill what does not end."""
        if self.stopping:
            return
        self.stopping = True
        self._hurry = hurry
        for uid in list(self._children):
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
        child = self._children[uid]
        children = (self.of_kind(kind) for kind in _ENTRIES)
        for member in itertools.chain.from_iterable(children):
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
        child = self._children.get(uid)
        if child is None or child.pid != pid or outbox.link.acknowledged >= order:
            return
        if journal.is_closing(self._spec.directory, pid):
            return  # which has its time
        self._lines.append(
            f"{short(uid)} did not answer, as what it runs holds its loop: it was "
            "killed, and what lived there was not closed"
        )
        self._server.kill(pid)

    def _kill(self) -> None:
        for uid, child in self._children.items():
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
        if self.stopping and member.uid in self._children:
            outbox = self.outbox(member.incarnation)
            if outbox is not None:
                outbox.send(self._order())
                self._watch_order(member.uid, member.pid, outbox)
        elif not self._warehouse and self._starts >= self.config.num_workers:
            here = {m.uid for m in self.of_kind("worker")}
            if here.issuperset(self._children):
                self.loop.call_later(WAREHOUSE_AFTER_S, self._start_warehouse)

    def _runs_calls(self, member: wire.Member) -> bool:
        """It is a worker or helper of this node."""
        return member.uid in self._children and member.uid != self._warehouse

    def presence_changed(self, member: wire.Member, presence: Presence) -> None:
        """A worker is silent for longer than ``worker_timeout``."""
        child = self._children.get(member.uid)
        if presence is not Presence.SILENT or child is None or child.pid != member.pid:
            return
        self._recycled[child.pid] = (
            f"it was killed, since it was not heard for {self.config.worker_timeout:g} "
            "s (worker_timeout): it was frozen, or what it ran held its loop or its "
            "interpreter"
        )
        self._server.kill(child.pid)

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
        child = self._children.get(uid)
        if child is not None and child.pid == pid:
            self._server.kill(pid)

    def _check_stopped(self) -> None:
        if self.stopping and list(self._children) == [self._warehouse]:
            self._stop_child(self._warehouse)  # the last: workers read from it
        if self.stopping and not self._children and not self.ended.done():
            if self.outbox(MONITOR_INCARNATION) is not None:
                self.monitor.send(self._last_word())
            self.ended.set_result(None)

    def _last_word(self) -> wire.Message:
        return wire.Stopped(self._lines, self._why)

    def close(self) -> None:
        for output in self._outputs.values():
            output.close()
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
    tune_collector(50_000)
    assert control is not None
    with asyncio.Runner(loop_factory=new_own_loop) as runner:
        owner = fds[-1] if fds else -1
        runner.run(live(Node, runner.get_loop(), spec, owner, control))
