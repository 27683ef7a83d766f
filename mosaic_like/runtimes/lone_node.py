"""A node that was started by itself, by ``mrun node``, to join a cluster that runs.

It differs from one that the program has started in where its life comes from: what it
needs to know it is told with its welcome, and it ends when its owner's end of a socket
is closed; SIGTERM drains it, as any node, and so does a byte on that socket. Where the
monitor is on another host it hears of that by beats: when the monitor has ended it
stops, in order and at once; when it is only not heard, others take this node for lost
soon, so what runs here is ended before.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from ..comms import messages as wire
from ..config import Config, usable_cores, workers_for
from ..core.reach import is_near
from ..core.silence import Presence, fence_s
from ..errors import ConnectError
from ..ids import MONITOR_INCARNATION
from .loops import new_own_loop, tune_collector
from .node import Node, live
from .saying import say
from .spec import decode

if TYPE_CHECKING:
    from collections.abc import Mapping

JOIN_TIMEOUT_S = 10.0  # it joins what runs already
OWNER_ENDED = "the process that had started it has ended"


def options_for(settings: bytes, asked: Mapping[str, Any]) -> Config:
    """The options of a cluster, as they are here.

    Args:
        settings: of the cluster.
        asked: those that are this node's own: ``num_workers``, ``num_threads``,
            ``in_job``; of the cluster they are those of another host.
    """
    workers = workers_for(asked.get("num_threads", 0))
    own = {"num_workers": workers, "num_threads": 0, "in_job": False, **asked}
    return dataclasses.replace(Config.from_bytes(settings), **own)


class LoneNode(Node):
    """See the module."""

    excuses_itself = False
    join_timeout_s = JOIN_TIMEOUT_S
    status = 0  # of the process
    _is_orphan = False  # its owner has died
    _orders = 0  # of its owner, to leave

    def on_welcome(self, message: wire.Welcome, buffers: Any, sender: int) -> None:
        asked = msgspec.msgpack.decode(self._spec.config)
        self.config = options_for(message.settings, asked)
        limit_s = self.config.node_timeout_s
        self.silence_s = limit_s - fence_s(limit_s)
        self._spec = msgspec.structs.replace(
            self._spec,
            config=self.config.to_bytes(),
            path=message.path,
            cwd=message.cwd,
        )
        super().on_welcome(message, buffers, sender)

    def member_joined(self, member: wire.Member) -> None:
        super().member_joined(member)
        if member.incarnation == MONITOR_INCARNATION and not is_near(self.me, member):
            self.presence.follow(member)
        elif self.config.worker_timeout is None and self._runs_calls(member):
            self.presence.follow(member, math.inf)  # see Worker.presence_changed

    def presence_changed(self, member: wire.Member, presence: Presence) -> None:
        if member.incarnation != MONITOR_INCARNATION:
            super().presence_changed(member, presence)
        elif presence is Presence.ENDED:
            self._orphaned = True
            self.stop(hurry=True)
        elif presence is Presence.SILENT:
            say(
                f"{self.uid} has not heard the monitor on {member.host} for "
                f"{self.silence_s:g} s: its workers are ended, as the others take them "
                "for lost"
            )
            self.status = 1
            self._orphaned = True
            self.stop(hurry=True)
            self._kill()

    # -- leaving -----------------------------------------------------------------------

    def _has_joined(self, owner: int) -> None:
        # Not closed: from now on its end means that this node is to end too.
        self.loop.remove_reader(owner)
        self.loop.add_reader(owner, self._hear_owner, owner)
        workers = _count(self.config.num_workers, "worker")
        threads = _count(self.config.num_threads, "thread")
        cores = _count(usable_cores(), "core")
        # Whoever has started it, also from another host, waits for this line.
        say(f"{self.uid} has joined, with {workers} of {threads}, on {cores}")

    def _told_to_leave(self, times: int) -> None:
        if self._welcome is not None and not self._welcome.done():
            self._welcome.set_exception(ConnectError("it was told to end"))
        else:
            super()._told_to_leave(times)

    def _owner_died(self, pidfd: int, joining: asyncio.Future[None]) -> None:
        # Or has something to say, before this node has joined.
        if not self._hear_orders(pidfd):
            super()._owner_died(pidfd, joining)

    def _hear_owner(self, owner: int) -> None:
        if self._hear_orders(owner):
            return
        self.loop.remove_reader(owner)
        os.close(owner)
        self._is_orphan = True
        self.stop()

    def _hear_orders(self, owner: int) -> bool:
        """Each byte is one; False: the owner has ended.

        Not by a signal: a job's engine sends that to all of its processes, and what the
        owner passes on would be the second one.
        """
        orders = os.read(owner, 16)
        if orders:
            self._orders += len(orders)
            self._told_to_leave(self._orders)
        return bool(orders)

    def _last_word(self) -> wire.Message:
        if self._is_orphan:  # the cluster goes on
            return wire.Exited(self.uid, self.me.pid, OWNER_ENDED)
        return super()._last_word()


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def main(argument: bytes, fds: list[int], control: int | None) -> None:
    """The entry of the forked process."""
    tune_collector()
    assert control is not None
    spec, owner = decode(argument), fds[0]
    with asyncio.Runner(loop_factory=new_own_loop) as runner:
        node = runner.run(live(LoneNode, runner.get_loop(), spec, owner, control))
    sys.exit(node.status)
