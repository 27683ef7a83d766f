"""The head: the program that uses the cluster, as one of its runtimes."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..config import Config
from ..core.reach import is_near
from ..core.silence import LOST_S, Presence
from ..core.task import DONE
from ..ids import MONITOR_INCARNATION
from ..text import printable
from .booting import open_pidfd
from .failures import no_cluster
from .output import RECORDED, show
from .user import UserRuntime

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator

    from ..tasks.recording import Recorder
    from .logs import Logs

# When the cluster is lost its workers end in order, and so answer what they have. What
# they have not answered by then is lost too.
ANSWERS_S = 3.0


class Head(UserRuntime):
    """The runtime object that ``main`` is given.

    ``with`` and ``async with`` on it stop it at the end of the block; awaiting it gives
    itself, so that ``await mosaic.init()`` can be written when it runs already.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config) -> None:
        super().__init__(loop, config)
        self.handlers[wire.Output] = self._on_output
        self.handlers[wire.Stopped] = self._on_stopped
        self.handlers[wire.Exited] = self._on_exited
        self._recorder: Recorder | None = None  # of the whole program
        self.stopped: asyncio.Future[list[str]] = loop.create_future()
        self.monitor_ended: asyncio.Future[None] = loop.create_future()
        # How a worker ended that never joined: told while the cluster starts.
        self.stillborn: asyncio.Future[str] = loop.create_future()
        self.never_joined: dict[str, str] = {}  # the same of all of them, by uid
        self._logs: Logs | None = None
        self.hold: Any = None  # who started it, and so knows how it ends
        self._pidfd: int | None = None

    # -- as a value --------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Head]:
        yield from ()
        return self

    def __enter__(self) -> Head:
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.stop().wait()

    async def __aenter__(self) -> Head:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hold.stop()

    def __repr__(self) -> str:
        if self.cluster_lost or self.stopping:
            return f"<{self.uid or 'head'} · stopped>"
        count = self.num_workers
        return f"<{self.uid} · {count} worker{'' if count == 1 else 's'}>"

    # -- the cluster -------------------------------------------------------------------

    def joined_cluster(self, settings: bytes) -> None:
        self.config = Config.from_bytes(
            settings
        )  # that of the cluster, whoever made it
        super().joined_cluster(settings)
        if self.config.logs is not None:
            from .logs import Logs  # few programs keep them

            self._logs = Logs(self.config.logs, self.config.logs_limit)
        if self.config.record is not None:
            from ..tasks.recording import Recorder  # few programs are recorded

            self._recorder = Recorder(self.config.record)
            self.observing.start(self._recorder)

    def member_joined(self, member: wire.Member) -> None:
        super().member_joined(member)
        if member.incarnation == MONITOR_INCARNATION and is_near(self.me, member):
            self._pidfd = open_pidfd(member.pid)
            if self._pidfd is not None:
                self.loop.add_reader(self._pidfd, self._monitor_ended)

        elif member.incarnation == MONITOR_INCARNATION:
            self.presence.follow(member)

    def presence_changed(self, member: wire.Member, presence: Presence) -> None:
        if presence is Presence.ENDED:
            self._lose_monitor("the monitor has ended")
        elif presence is Presence.SILENT:
            why = f"the monitor on {member.host} was not heard for {LOST_S:g} s"
            self._lose_monitor(why)

    def _monitor_ended(self) -> None:
        self._unwatch_monitor()
        self._lose_monitor("the monitor has ended")

    def _lose_monitor(self, why: str) -> None:
        if not self.monitor_ended.done():
            self.monitor_ended.set_result(None)
        self.lose_cluster(why)

    def _unwatch_monitor(self) -> None:
        if self._pidfd is not None:
            self.loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def lose_cluster(self, cause: str) -> None:
        """Nobody is left who could make a tessera, or say who joins or is lost."""
        if self.stopping or self.cluster_lost:
            return
        self.cluster_lost = cause
        self.placing.place_waiting()
        self._membership_changed()
        self.loop.call_later(ANSWERS_S, self._lose_all)

    def _lose_all(self) -> None:
        if self.peers.closed:
            return
        self.deaths.all_lost = self.cluster_lost
        for member in list(self.members.values()):
            if member.incarnation != self.incarnation:
                lost = wire.Lost(
                    member.incarnation, member.uid, f"{self.cluster_lost}, it with it"
                )
                self.on_lost(lost, (), 0)
        if self.functions is not None:
            self.functions.lose_all(functools.partial(no_cluster, self.cluster_lost))

    def cancel_all(self, reason: str) -> tuple[int, int]:
        """Cancel every call that has not ended; how many ran, and how many waited."""
        calls = [call for call in self.caller.calls.values() if call.state < DONE]
        begun: set[int] = set()
        running: list[Any] = []
        held: list[Any] = []
        waiting: list[Any] = []
        for call in calls:  # in the order in which they were made
            stream = call.stream
            reported = call.rare is not None and call.rare.running_s
            if stream.outbox is None:
                held.append(call)
            elif reported or id(stream) not in begun:
                # What has not been reported: the oldest of each tessera.
                begun.add(id(stream))
                running.append(call)
            else:
                waiting.append(call)
        # Those first that wait here for credit, each found at the front of its line:
        # otherwise each of the others would be looked for in it.
        for stream in {id(call.stream): call.stream for call in calls}.values():
            for entry in list(stream.held):
                self.caller.cancel(entry[0], reason)
        for call in (*held, *waiting, *running):
            self.caller.cancel(call, reason)
        return len(running), len(held) + len(waiting)

    async def save_checkpoints(self) -> list[str]:
        """Before the cluster ends too early: what was written down, for people."""
        from .saving import Saving  # of use to few jobs, and once

        return await Saving(self).all()

    # -- what comes --------------------------------------------------------------------

    def _on_output(self, message: wire.Output, buffers: Any, sender: int) -> None:
        if message.stream == RECORDED:
            if self._recorder is not None:
                self._recorder.write_line(message.text)
            return
        show(message.stream, message.label, message.text)
        if self._logs is not None:
            self._logs.keep(self.members[sender].uid, message.label, message.text)

    def _on_exited(self, message: wire.Exited, buffers: Any, sender: int) -> None:
        how = printable(f"{message.uid} (pid {message.pid}) {message.how}")
        self.never_joined[message.uid] = how
        if not self.stillborn.done():
            self.stillborn.set_result(how)
        self._membership_changed()

    def _on_stopped(self, message: wire.Stopped, buffers: Any, sender: int) -> None:
        if not self.stopped.done():
            self.stopped.set_result([printable(line) for line in message.lines])

    def on_stop(self, message: wire.Stop, buffers: Any, sender: int) -> None:
        self.lose_cluster(printable(message.why))

    # -- the end -----------------------------------------------------------------------

    async def leave(self) -> None:
        """Go, while the cluster goes on: what this head holds is released."""
        if not self.cluster_lost and MONITOR_INCARNATION in self.peers.by_incarnation:
            self.monitor.send(wire.Exited(self.uid, self.me.pid, "it has left"))
        await self.flushed(0.5, "monitor", "worker", "helper", "warehouse", "head")

    def close(self) -> None:
        self._unwatch_monitor()
        if self._logs is not None:
            self._logs.close()
        super().close()
