"""What is fuzzed: everything that reads what came over a link, without its sockets.

A runtime that owns tesserae and makes calls gets packets of two members that say what
no honest peer says, and of strangers. Nothing may be unpickled, nothing may be raised,
and when both members have been declared lost nothing may be left of what they sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import marshal
import pickle
import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

import growth
import msgspec

# First, so that nothing is imported, and so read by marshal, while it is forbidden.
import mosaic_like.runtimes.mapping  # noqa: F401
from mosaic_like.comms import messages as wire
from mosaic_like.comms.link import HEADER_BYTES, Link
from mosaic_like.config import Config
from mosaic_like.core.call import DROPPED
from mosaic_like.core.task import RUNNING
from mosaic_like.errors import ProtocolError
from mosaic_like.ids import MONITOR_INCARNATION, NUMBER_BITS
from mosaic_like.proxies.handles import TesseraHandle
from mosaic_like.runtimes.head import Head
from mosaic_like.runtimes.port import Built, Raised

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

HEAD = 10
SETTINGS = Config.make(num_workers=1)

# Tables that grow with the members that there ever were, or are bounded otherwise.
KEPT = {
    "causes",  # of the lost, to say how they ended
    "lost_makers",
    "_lost",
    "_lost_heads",
    "_losses",
    "_settled",
    "_silent",
    "_fenced",  # tokens, bounded
    "_visited",  # bounded
    "_warned",  # bounded
    "_free",  # memory to be used again, bounded
    "_idle",
    "_types",  # by powers of two
    "_told",  # one for each sender, bounded
    "_blobs",  # definitions are kept as long as the runtime, bounded
    "_definitions",
    "_lanes",  # by class
    "lanes",
    "_members",
    "_kept",
}


class Subject:
    """What tesserae are of that nobody has asked for."""

    def ping(self) -> None: ...

    async def x(self) -> None: ...


def member(incarnation: int, uid: str) -> wire.Member:
    token = incarnation.to_bytes(8, "big")
    return wire.Member(incarnation, uid, token, "ipc:///nowhere", "host", 1)


class Faults(logging.Handler):
    """Errors that a runtime has caught and logged: each is a defect."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        kind, error, tb = record.exc_info or (None, None, None)
        if kind is None or "nobody asked for its result" in record.msg:
            return
        while tb is not None and tb.tb_next is not None:
            tb = tb.tb_next
        where = ""
        if tb is not None:
            name = tb.tb_frame.f_code.co_qualname
            where = f" in {name}, line {tb.tb_lineno}"
        self.found.append(f"{record.getMessage()}: {kind.__name__}: {error}{where}")


class Silent:
    """A channel to a peer that only listens."""

    def send(self, packet: Any) -> None: ...

    def close(self, linger_ms: int = 0) -> None: ...


class Idle:
    """Runs nothing: says now and then that something has ended, somehow."""

    def __init__(self, head: Head, random: Random) -> None:
        self._head = head
        self._random = random
        self._begun: list[Any] = []

    def construct(self, task: Any) -> None:
        self._begun.append(task)

    start = construct

    def start_run(self, run: list[Any]) -> None:
        self._begun += run

    def cancel(self, task: Any) -> None: ...

    def end_some(self, count: int) -> int:
        """End so many of those that began, in order; how many there were."""
        for _ in range(min(count, len(self._begun))):
            self._end(self._begun.pop(0))
        return len(self._begun)

    def _end(self, task: Any) -> None:
        if task.settled and task.uid not in self._head.worker.stopping.abandoned:
            return
        head = self._head
        if task.state != RUNNING and not task.settled:
            task.state = RUNNING
        if task.method == "__init__" and task.tessera.instance is None:
            head.completed(task, Built(Subject()))
        elif self._random.random() < 0.2:
            head.completed(task, Raised(wire.ERROR, b"\x90"))
        else:
            head.completed(task, b"N")


class Runtime:
    """A head among two members, and what they send to it.

    Args:
        loop: that runs.
        directory: for its socket.
        random: what its own part is taken from.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, directory: str, random: Random
    ) -> None:
        self.head = head = Head(loop, SETTINGS)
        self._random = random
        head.bind(f"ipc://{directory}/fuzz")
        head.peers.transport.connect = lambda *_: Silent()  # type: ignore[method-assign]  # the least that is asked of a channel
        head.me = wire.Member(HEAD, "head", head.token, "ipc:///nowhere", "host", 1)
        head.incarnation, head.uid = HEAD, "head"
        head.peers.announce(head.me)
        head.joined_cluster(SETTINGS.to_bytes())
        self.idle = Idle(head, random)
        for name in ("start", "start_run", "construct", "cancel"):
            setattr(head.executor, name, getattr(self.idle, name))
        self.links: dict[int, Link] = {}
        self._next = HEAD
        self._join("monitor", MONITOR_INCARNATION)
        self.members: tuple[int, ...] = ()
        self.before = growth.sizes(head)

    def _join(self, uid: str, incarnation: int = 0) -> int:
        if not incarnation:
            self._next += 1
            incarnation = self._next
        self.head._add(member(incarnation, uid))
        link = self.links[incarnation] = Link(self.head.token)
        link.opened(0.0)
        return incarnation

    def join(self) -> list[int]:
        """Two members come; the numbers that are worth to be mentioned."""
        self.members = self._join("worker:0:0"), self._join("warehouse:0")
        known = [HEAD, *self.members, self._next + 1]
        numbers = [(m << NUMBER_BITS) + k for m in known for k in range(1, 6)]
        numbers += self._call()
        return [*known, *range(6), *numbers]

    def _call(self) -> list[int]:
        """Calls of this runtime, for them to answer: their uids."""
        head = self.head
        uids = []
        for owner in self.members:
            uid = (owner << NUMBER_BITS) + 1
            stream = head.placing.met(uid, owner, "Subject#1")
            handle = TesseraHandle(head, uid, stream, None, None)
            for number in range(4):
                call = head.submit(handle, "ping", b"N", depth=1)
                call.waiters = [lambda: None]
                if number % 2:
                    call.hold = DROPPED
                uids.append(call.uid)
        return uids

    def receive(self, sender: int, batch: list[Any]) -> None:
        """A packet of one of them."""
        packet: list[Any] = [wire.encode(batch, HEADER_BYTES)]
        self.links[sender].wrap(packet)
        self.raw(sender.to_bytes(8, "big"), bytes(packet[0]))

    def raw(self, token: bytes, head: bytes, *buffers: bytes) -> None:
        """Bytes from whoever has this token."""
        self.head.peers._packet(token + (1).to_bytes(4, "big"), [head, *buffers])

    async def lose(self) -> list[str]:
        """Both are lost, and another comes and goes: what is left of them."""
        self._next += 20_000  # more than anybody could have heard of before
        for one in (*self.members, self._join("head:1")):
            self._lost(one)
        for tessera in list(self.head.worker.tesserae.values()):
            if tessera.options.detached:  # held by the runtime itself
                mine = [(tessera.uid, HEAD)]
                self.head.worker.holders.release_grants(HEAD, mine)
        peers = self.head.peers
        for token in list(peers._strangers):
            peers._forget(peers.by_token[token])  # as when there is no room for them
        for _ in range(20):
            left = self.idle.end_some(1000)
            gc.collect()
            self.head.on_tick()
            await asyncio.sleep(0)
            if not left:
                break
        self.members = ()
        return growth.grown(self.before, growth.sizes(self.head), KEPT)

    def _lost(self, incarnation: int) -> None:
        del self.links[incarnation]
        uid = self.head.members[incarnation].uid
        lost = wire.Lost(incarnation, uid, "the test ends it")
        self.head.on_lost(lost, (), MONITOR_INCARNATION)

    def close(self) -> None:
        self.head.stopping = True
        self.head.close()


@contextlib.contextmanager
def loads_are_faults(faults: Faults) -> Iterator[None]:
    """While this is entered, it is a fault if the package loads bytes of a peer."""
    real = {"pickle": pickle.loads, "marshal": marshal.loads}

    def refusing(module: str) -> Any:
        def loads(*args: Any, **kwargs: Any) -> Any:
            asks = sys._getframe(1).f_globals.get("__name__", "")
            if asks.startswith("mosaic_like"):
                caller = sys._getframe(2).f_code.co_qualname
                faults.found.append(f"{module}.loads in {asks}, for {caller}")
            return real[module](*args, **kwargs)

        return loads

    with (
        mock.patch.object(pickle, "loads", refusing("pickle")),
        mock.patch.object(marshal, "loads", refusing("marshal")),
    ):
        yield


@contextlib.contextmanager
def no_fault_is_logged() -> Iterator[Faults]:
    """While this is entered, nothing of the package may be caught and logged."""
    logger = logging.getLogger("mosaic_like")
    watching = Faults()
    logger.addHandler(watching)
    try:
        with loads_are_faults(watching):
            yield watching
    finally:
        logger.removeHandler(watching)
    assert not watching.found


def decode(body: bytes) -> None:
    """The codec: a batch or DecodeError."""
    try:
        batch = wire.decode(body)
    except msgspec.DecodeError:
        return
    assert isinstance(batch, list)
    assert all(isinstance(message, wire.Message) for message in batch)


def unwrap(link: Link, head: bytes) -> None:
    """The link: taken, dropped, or ProtocolError."""
    try:
        assert link.unwrap([head], 0.0) in (True, False)
    except ProtocolError:
        return
    link.check(1.0)
    link.acknowledgement()
