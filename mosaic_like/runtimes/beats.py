"""Beats between the monitor and nodes, and heads of other hosts: see ``core.silence``.

The monitor follows all nodes, and the heads of other hosts; each of them the monitor.
Both send, so that none has to answer. So do a node of another host and its workers: one
whose node stands still has nobody else to say that it counts as lost. On one host the
kernel tells a node of the monitor's end, and it follows only to be heard. What is done
about one that is lost, its runtime knows (``Base.presence_changed``). With the option
``worker_timeout`` a node follows its workers, and they beat for it.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.addresses import host_and_port
from ..core.reach import is_near
from ..core.silence import Presence, Silence, beat_s

if TYPE_CHECKING:
    from .base import Base
    from .peer import Peer

PROBE_S = 2.0  # for one connection
_AGAIN_S = 0.2  # between two


class Beats:
    """See the module; on the loop's thread.

    Args:
        runtime: that follows others.
    """

    def __init__(self, runtime: Base) -> None:
        self._runtime = runtime
        self._followed: dict[int, Silence] = {}  # by incarnation
        self._probes: dict[int, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def follow(
        self,
        member: wire.Member,
        limit_s: float | None = None,
        *,
        excuses_itself: bool | None = None,
    ) -> None:
        """Learn of its end, from now on.

        Args:
            member: who.
            limit_s: after which it is lost; None: that of this runtime; ``inf``: it is
                only to hear this one.
            excuses_itself: as for ``Silence``; None: as this runtime does.
        """
        runtime = self._runtime
        if excuses_itself is None:
            excuses_itself = runtime.excuses_itself
        self._followed[member.incarnation] = Silence(
            runtime.loop.time(),
            runtime.silence_s if limit_s is None else limit_s,
            excuses_itself=excuses_itself,
            beat_s=self._beat_s,
        )
        if self._timer is None:
            self._beat()

    @property
    def _beat_s(self) -> float:
        config = self._runtime.config  # which a node is told
        return beat_s(min(config.node_timeout_s, config.worker_timeout or math.inf))

    def forget(self, incarnation: int) -> None:
        """It is lost, or has left."""
        self._followed.pop(incarnation, None)
        probe = self._probes.pop(incarnation, None)
        if probe is not None:
            probe.cancel()

    def close(self) -> None:
        """Follow nobody any more."""
        for incarnation in list(self._followed):
            self.forget(incarnation)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_beat(self, message: wire.Beat, buffers: Any, sender: int) -> None:
        """It is there."""
        silence = self._followed.get(sender)
        if silence is not None:
            silence.heard(self._runtime.loop.time())

    def _beat(self) -> None:
        """Send a beat to each, and look who is silent."""
        runtime = self._runtime
        self._timer = None
        now_s = runtime.loop.time()
        for incarnation, silence in list(self._followed.items()):
            before = silence.presence
            presence = silence.look(now_s)
            if presence is not before:
                self._changed(incarnation, presence)
            outbox = runtime.outbox(incarnation)
            if outbox is not None and not presence.is_lost:
                outbox.send(wire.Beat())
        if self._followed:
            self._timer = runtime.loop.call_later(
                self._beat_s, self._beat, context=runtime.context
            )

    def _changed(self, incarnation: int, presence: Presence) -> None:
        runtime = self._runtime
        member = runtime.members.get(incarnation)
        if member is None:
            self.forget(incarnation)
            return
        if presence.is_lost:
            self.forget(incarnation)
        runtime.presence_changed(member, presence)

    # -- connections that end ----------------------------------------------------------

    def broken(self, peer: Peer, *, was_there: bool) -> None:
        """A connection to it has ended: ask its kernel whether anybody listens.

        Args:
            peer: whose.
            was_there: else it could not be made.
        """
        incarnation, me = peer.incarnation, self._runtime.me
        if self._runtime.stopping:
            return
        silence = self._followed.get(incarnation)
        now_s = self._runtime.loop.time()
        if silence is None or not silence.may_have_ended(now_s, was_there=was_there):
            return
        if incarnation not in self._probes:
            member = self._runtime.members.get(incarnation)
            # Of one on this machine the kernel tells, and how it ended.
            if member is not None and member.tcp and not is_near(me, member):
                probing = self._probe(incarnation, member.tcp)
                self._probes[incarnation] = self._runtime.loop.create_task(probing)

    async def _probe(self, incarnation: int, tcp: str) -> None:
        host, port = host_and_port(tcp)
        silence = self._followed[incarnation]
        while not silence.presence.is_lost:
            try:
                async with asyncio.timeout(PROBE_S):
                    _, writer = await asyncio.open_connection(host, port)
            except ConnectionRefusedError:
                silence.refused()
                await asyncio.sleep(_AGAIN_S)
            except OSError:  # no way there, or no answer: the beats will tell
                break
            else:
                writer.close()
                silence.answered()
                break
        self._probes.pop(incarnation, None)
        if silence.presence is Presence.ENDED and incarnation in self._followed:
            self._changed(incarnation, Presence.ENDED)
