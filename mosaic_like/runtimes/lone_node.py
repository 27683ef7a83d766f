"""A node that was started by itself, by ``mrun node``, to join a cluster that runs.

It differs from one that the program has started in where its life comes from: what it
needs to know it is told with its welcome, and it ends when its owner's end of a socket
is closed; SIGTERM drains it, as any node. Where the monitor is on another host it hears
of that by beats: when the monitor has ended it stops, in order and at once; when it is
only not heard, others take this node for lost soon, so what runs here is ended before.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from ..comms import messages as wire
from ..config import Config, usable_cores
from ..core.reach import is_near
from ..core.silence import Presence, fence_s
from ..errors import ConnectError
from ..ids import MONITOR_INCARNATION
from .loops import new_own_loop, tune_collector
from .node import Node, live
from .spec import decode

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

JOIN_TIMEOUT_S = 10.0  # it joins what runs already
OWNER_ENDED = "the process that had started it has ended"


def options_for(settings: bytes, asked: Mapping[str, Any]) -> Config:
    """The options of a cluster, as they are here.

    Args:
        settings: of the cluster.
        asked: those that are this node's own: ``num_workers``, ``num_threads``,
            ``in_job``; of the cluster they are those of another host.
    """
    own = {"num_workers": usable_cores(), "num_threads": 0, "in_job": False, **asked}
    return dataclasses.replace(Config.from_bytes(settings), **own)


class LoneNode(Node):
    """See the module."""

    excuses_itself = False
    join_timeout_s = JOIN_TIMEOUT_S
    status = 0  # of the process
    _is_orphan = False  # its owner has died

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
        elif member.uid.startswith(f"worker:{self._index}:"):
            self.presence.follow(member, math.inf)  # see Worker.presence_changed

    def presence_changed(self, member: wire.Member, presence: Presence) -> None:
        if presence is Presence.ENDED:
            self._orphaned = True
            self.stop(hurry=True)
        elif presence is Presence.SILENT:
            print(
                f"mosaic: {self.uid} has not heard the monitor on {member.host} for "
                f"{self.silence_s:g} s: its workers are ended, as the others take them "
                "for lost",
                file=sys.stderr,
            )
            self.status = 1
            self._orphaned = True
            self.stop(hurry=True)
            self._kill()

    # -- leaving -----------------------------------------------------------------------

    def _has_joined(self, owner: int) -> None:
        # Not closed: from now on its end means that this node is to end too.
        self.loop.remove_reader(owner)
        self.loop.add_reader(owner, self._end_with_owner, owner)
        workers = _count(self.config.num_workers, "worker")
        threads = _count(self.config.num_threads, "thread")
        # Whoever has started it, also from another host, waits for this line.
        print(
            f"mosaic: {self.uid} has joined, with {workers} of {threads}",
            file=sys.stderr,
        )

    def terminate(self) -> None:
        if self._welcome is not None and not self._welcome.done():
            self._welcome.set_exception(ConnectError("it was told to end"))
        else:
            super().terminate()

    def _end_with_owner(self, owner: int) -> None:
        self.loop.remove_reader(owner)
        os.close(owner)
        self._is_orphan = True
        self.stop()

    def _last_word(self) -> wire.Message:
        if self._is_orphan:  # the cluster goes on
            return wire.Exited(self.uid, self.me.pid, OWNER_ENDED)
        return super()._last_word()


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def main(argument: bytes, fds: list[int], control: int | None) -> None:
    """The entry of the forked process."""
    tune_collector(50_000)
    assert control is not None
    spec, owner = decode(argument), fds[0]
    with asyncio.Runner(loop_factory=new_own_loop) as runner:
        node = runner.run(live(LoneNode, runner.get_loop(), spec, owner, control))
    sys.exit(node.status)
