"""The warehouse process: keeps the values of one host, and never looks into them.

It is a member of the cluster that owns tasks and counts who holds them, as a worker
does, but it runs no user code: what it keeps are payloads as they came, but that what
is large of them is in segments. Its node forks it when the workers are there, and again
when it has died.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..comms.checks import check_extra
from ..comms.gathering import SEGMENT_BYTES
from ..comms.messages import SEGMENT, Place, SharedBuffers
from ..comms.serialization import Payload
from ..config import Config
from ..core.payloads import Arrived
from ..core.shelf import Shelf
from ..errors import MonitorLost
from .actor import ActorRuntime
from .copies import Copies
from .departing import ANSWER_S, HAND_ON_S, Departing
from .inheriting import Inheriting
from .job_signals import leave_to_program
from .keeper import Keeper
from .loops import allow_open_files, new_own_loop, tune_collector
from .spec import Spec, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..core.call import Call
    from ..core.references import Grant


class Warehouse(ActorRuntime):
    """Keeps values; see the module."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spec: Spec) -> None:
        super().__init__(loop, Config.from_bytes(spec.config))
        self._spec = spec
        self.ended = loop.create_future()
        self._leaving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Join the cluster."""
        spec = self._spec
        self.bind(f"ipc://{spec.directory}/k{os.getpid()}", spec.network)
        await self.join("warehouse", spec.monitor_address, spec.monitor_token, spec.uid)

    def joined_cluster(self, settings: bytes) -> None:
        super().joined_cluster(settings)
        self.keeper = Keeper(self, self._spec.directory)
        self.sharing.keep_own(self.keeper.directory)
        self.shelf = self.worker.shelf = Shelf(self, self.worker, self.executor)
        self.copies = Copies(self)
        self._inheriting = Inheriting(self)
        self.publish = self.copies.publish
        self.unpublish = self.copies.unpublish

    def member_joined(self, member: wire.Member) -> None:
        super().member_joined(member)
        self.copies.member_joined(member)

    def member_lost(self, member: wire.Member, cause: str) -> None:
        super().member_lost(member, cause)
        self.copies.member_lost(member.incarnation)
        self._inheriting.lost(member.incarnation)

    # -- values that are passed on as they came ----------------------------------------

    def stored(
        self, message: Any, buffers: Any, sender: int
    ) -> bytes | Payload | Arrived:
        extra = message.extra
        data: bytes = message.data
        if extra is None or not (
            extra.references
            or extra.definitions
            or extra.buffers
            or extra.shared
            or extra.parts
        ):
            return data
        check_extra(extra, len(buffers))
        # Also of what lives here: the value holds it, long after the message.
        grants = tuple(self.grants.delivered(extra.references, sender))
        definitions = tuple(extra.definitions)
        if extra.parts is not None:
            return self.transfers.arrived(
                message,
                grants,
                sender,
                lambda views, done: self.aside(
                    lambda: self._kept(data, grants, definitions, views), done
                ),
            )
        if extra.shared is None:
            return self._kept(data, grants, definitions, tuple(buffers))
        shared = _Segments(self.keeper, grants, extra.shared)
        return Payload(data, grants, definitions, (), shared)

    def _kept(
        self,
        data: bytes,
        grants: tuple[Grant, ...],
        definitions: tuple[bytes, ...],
        buffers: tuple[Any, ...],
    ) -> Payload:
        """A payload that came in messages: what is large of it goes into a segment.

        So all of this host can map it, and it can be spilled, as if it had come so:
        early, from another host, or from who can make none. From any thread.
        """
        payload = Payload(data, grants, definitions, buffers)
        if payload.nbytes >= SEGMENT_BYTES:
            moved = self.sharing.in_segments(payload)
            if moved is not None and moved.shared is not None:
                shared = moved.shared
                moved.shared = _Segments(self.keeper, shared.handles, shared.wire)
                return moved
        return payload

    def aside(self, function: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Do what takes long on a thread, and have what it gives taken on the loop."""

        def run() -> None:
            result = function()
            with contextlib.suppress(RuntimeError):  # the loop is closed: it is the end
                self.post(done, result)

        try:
            threading.Thread(target=run, name="mosaic-keep", daemon=True).start()
        except RuntimeError:  # no more threads are to be had
            done(function())

    def passed_on(self, argument: Call) -> bytes | Payload:
        result = argument.result
        value: bytes | Payload
        value = result.buffers if type(result) is Arrived else result  # see arrived
        return value

    def arrived(self, message: Any, buffers: Any, sender: int) -> Any:
        extra = message.extra
        if type(message) is wire.Submit:  # it asks for something, and is no value
            return super().arrived(message, buffers, sender)
        if extra.size:
            return Arrived(message.data, size=extra.size)
        payload = self.stored(message, buffers, sender)
        # Nothing here reads what has arrived: it stands for the payload itself.
        return Arrived(b"", payload) if type(payload) is Payload else payload

    # -- who holds a key ---------------------------------------------------------------

    def delivered(self) -> None:
        super().delivered()
        self.shelf.sweep()
        self.copies.sweep()

    def on_tick(self) -> bool:
        more = super().on_tick()
        self.shelf.sweep()
        self.copies.sweep()
        return more

    # -- the end -----------------------------------------------------------------------

    def told_to_leave(self, message: wire.Leaving) -> None:
        if self.departing is None and not self.stopping:
            self.departing = Departing(self, self._membership_changed)
            self._leaving = self.loop.create_task(self._leave(self.departing))

    async def _leave(self, departing: Departing) -> None:
        """When the workers have left: give what is here to the warehouse of another."""
        index = self.uid.split(":")[1]
        while any(
            m.uid.split(":")[1] == index
            for m in (*self.of_kind("worker"), *self.of_kind("helper"))
        ):
            await self.membership()
        while not departing.has_heard_all:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await self.membership()
        # Whose heir this is leaves first: only then all that it had is here.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * HAND_ON_S):
                while self._inheriting.is_under_way:
                    await self.membership()
        heir = await departing.hand_on()
        await self.flushed(
            *(HAND_ON_S, "head", "worker", "helper", "warehouse"),
            broken_s=self.config.node_timeout_s,
        )
        how = "it was drained"
        exited = wire.Exited(self.uid, self.me.pid, how, b"", wire.LEFT, heir)
        with contextlib.suppress(MonitorLost):
            self.monitor.send(exited)
        await self.flushed(ANSWER_S, "monitor", broken_s=ANSWER_S)
        self._end()

    def on_stop(self, message: wire.Stop, buffers: Any, sender: int) -> None:
        """The workers have ended: nobody here reads anything any more."""
        if not self.stopping:
            self.stopping = True
            if self._leaving is not None:
                self._leaving.cancel()
            self._stopping = self.loop.create_task(self._stop())

    def _end(self) -> None:
        if not self.ended.done():
            self.keeper.close()
            self.ended.set_result(None)

    async def _stop(self) -> None:
        node = f"node:{self.uid.split(':')[1]}"
        for member in self.of_kind("node"):
            outbox = self.outbox(member.incarnation)
            if member.uid == node and outbox is not None:
                outbox.send(wire.Stopped([]))
        await self.flushed(0.5, "node")
        self._end()


class _Segments:
    """The segments of a payload that is kept: where they are by now."""

    __slots__ = ("_keeper", "_layout", "_places", "handles")

    def __init__(
        self, keeper: Keeper, grants: Sequence[Any], shared: SharedBuffers
    ) -> None:
        self._keeper = keeper
        self._layout = shared.layout
        self._places = shared.places
        self.handles = tuple(g for g in grants if g.kind == SEGMENT)

    @property
    def wire(self) -> SharedBuffers:
        return SharedBuffers(self._now(), self._layout)

    def _now(self) -> list[Place]:
        """Here, where it outlives its writer, if it could be opened here."""
        return [
            self._keeper.place(handle.uid) or place
            for handle, place in zip(self.handles, self._places, strict=True)
        ]

    def views(self) -> tuple[memoryview, ...]:
        """For those who can open nothing of this host."""
        from .mapping import Maps, views

        maps = Maps()
        windows = [
            maps.window(place, handle, place.size)
            for handle, place in zip(self.handles, self._now(), strict=True)
        ]
        return views(windows, self._layout)


async def _run(loop: asyncio.AbstractEventLoop, spec: Spec) -> None:
    warehouse = Warehouse(loop, spec)
    await warehouse.start()
    await warehouse.ended
    warehouse.close()


def main(argument: bytes, fds: list[int], control: int | None) -> None:
    """The entry of the forked process."""
    spec = decode(argument)
    leave_to_program()  # it ends with its node, after all
    tune_collector()
    allow_open_files()
    with asyncio.Runner(loop_factory=new_own_loop) as runner:
        runner.run(_run(runner.get_loop(), spec))
