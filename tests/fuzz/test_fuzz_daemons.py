"""Nonsense from members into a live monitor, a live node and a live warehouse."""

from __future__ import annotations

import asyncio
import gc
import random
import tempfile
from typing import TYPE_CHECKING, Any, cast

import growth
import nonsense
import pytest
import targets

from mosaic_like.comms import messages as wire
from mosaic_like.comms.link import HEADER_BYTES, Link
from mosaic_like.runtimes.base import PYTHON
from mosaic_like.runtimes.monitor import Monitor
from mosaic_like.runtimes.node import Node
from mosaic_like.runtimes.spec import Spec
from mosaic_like.runtimes.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mosaic_like.runtimes.base import Base

UIDS = ("head", "node:0", "worker:0:0", "warehouse:0")
# What grows with the members that there ever were, and lines for people at the end.
# _open: what members that are there say of each other's loss.
KEPT = {*targets.KEPT, "states", "_stopped", "_lines", "_asked", "_open"}


@pytest.fixture(autouse=True)
def faults() -> Iterator[targets.Faults]:
    with targets.no_fault_is_logged() as watching:
        yield watching


def spec_in(directory: str) -> Spec:
    config = targets.SETTINGS.to_bytes()
    return Spec(config, directory, f"ipc://{directory}/m", b"monitor.", "node:0")


class Sender:
    """One member, or somebody who wants to be one."""

    def __init__(self, runtime: Base, token: bytes) -> None:
        self._runtime = runtime
        self._token = token
        self._link = Link(runtime.token)
        self._link.opened(0.0)

    def send(self, batch: list[Any]) -> None:
        packet: list[Any] = [wire.encode(batch, HEADER_BYTES)]
        self._link.wrap(packet)
        head = [bytes(packet[0])]
        self._runtime.peers._packet(self._token + (1).to_bytes(4, "big"), head)


def run(make: Callable[[asyncio.AbstractEventLoop, str], Base], work: Any) -> None:
    async def inside() -> None:
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryDirectory(prefix="mf-") as directory:
            runtime = make(loop, directory)
            runtime.peers.transport.connect = (  # type: ignore[method-assign]  # as above
                lambda *_: targets.Silent()
            )
            try:
                await work(runtime)
            finally:
                runtime.close()

    asyncio.run(inside())


def a_monitor(loop: asyncio.AbstractEventLoop, directory: str) -> Monitor:
    monitor = Monitor(loop, spec_in(directory))
    monitor._watch = lambda member: None  # type: ignore[method-assign]  # no processes
    monitor.start(-1)
    return monitor


@pytest.mark.parametrize("seed", range(3))
def test_a_monitor_keeps_nothing_of_nonsense(seed: int) -> None:
    async def work(runtime: Base) -> None:
        monitor = cast("Monitor", runtime)
        before = growth.sizes(monitor)
        rnd = random.Random(seed)
        for turn in range(5):
            senders = []
            for uid in UIDS:
                token = f"{uid:_<7.7}{turn}".encode()
                sender = Sender(monitor, token)
                kind = uid.partition(":")[0]
                address = "ipc:///nowhere"
                hello = wire.Hello(
                    wire.PROTOCOL, PYTHON, kind, uid, token, address, "host", 1
                )
                sender.send([hello])
                assert monitor.state.of_uid(uid) is not None, uid
                senders.append(sender)
            members = [m for m in monitor.members if m != 1]
            numbers = [*members, *range(6), *((m << 40) + 1 for m in members)]
            generator = nonsense.Generator(rnd, numbers)
            for _ in range(150):
                rnd.choice(senders).send(generator.batch())
                await asyncio.sleep(0)
            for incarnation in members:
                monitor._lost(incarnation, "the test ends it")
            assert not monitor.members.keys() - {1}
        monitor.relays.take()  # a moment later it would be told
        for token in list(monitor.peers._strangers):
            monitor.peers._forget(monitor.peers.by_token[token])
        assert growth.grown(before, growth.sizes(monitor), KEPT) == []

    run(a_monitor, work)


def test_the_end_of_a_process_is_told_by_its_node_or_itself() -> None:
    async def work(runtime: Base) -> None:
        monitor = cast("Monitor", runtime)
        senders = {}
        for uid in (*UIDS, "node:1"):
            token = f"{uid:_<8.8}".encode()
            senders[uid] = Sender(monitor, token)
            kind = uid.partition(":")[0]
            hello = wire.Hello(
                wire.PROTOCOL, PYTHON, kind, uid, token, "ipc:///x", "host", 1
            )
            senders[uid].send([hello])
        exited = wire.Exited("worker:0:0", 1, "killed by nobody")
        for uid in ("head", "node:1"):
            senders[uid].send([exited])
            assert monitor.state.of_uid("worker:0:0") is not None
        senders["node:0"].send([exited])
        assert monitor.state.of_uid("worker:0:0") is None

    run(a_monitor, work)


class NoServer:
    """A fork server that starts nothing, and is asked for nothing."""

    def kill(self, pid: int, number: int = 9) -> None:
        raise AssertionError(f"{pid} was to be killed")


def a_node(loop: asyncio.AbstractEventLoop, directory: str) -> Node:
    node = Node(loop, spec_in(directory), cast("Any", NoServer()))
    node.bind(f"ipc://{directory}/n")
    node.me = wire.Member(3, "node:0", node.token, "ipc:///x", "host", 1)
    node.incarnation, node.uid = 3, "node:0"
    node.peers.announce(node.me)
    return node


@pytest.mark.parametrize("seed", range(3))
def test_a_node_keeps_nothing_of_nonsense_and_kills_nobody(seed: int) -> None:
    async def work(runtime: Base) -> None:
        before = growth.sizes(runtime)
        rnd = random.Random(seed)
        for turn in range(5):
            senders = []
            for index, uid in enumerate(("head", "node:1", "worker:1:0")):
                incarnation = 10 * turn + 10 + index
                runtime._add(targets.member(incarnation, uid))
                senders.append(Sender(runtime, incarnation.to_bytes(8, "big")))
            here = list(runtime.members)
            generator = nonsense.Generator(rnd, [*here, 3, 1, 0])
            for _ in range(150):
                rnd.choice(senders).send(generator.batch())
                await asyncio.sleep(0)
            assert list(runtime.members) == here
            assert not runtime.stopping
            for incarnation in here:
                uid = runtime.members[incarnation].uid
                runtime.on_lost(wire.Lost(incarnation, uid, "the test ends it"), (), 1)
        assert growth.grown(before, growth.sizes(runtime), KEPT) == []

    run(a_node, work)


def a_warehouse(loop: asyncio.AbstractEventLoop, directory: str) -> Warehouse:
    warehouse = Warehouse(loop, spec_in(directory))
    warehouse.bind(f"ipc://{directory}/k")
    warehouse.me = wire.Member(3, "warehouse:0", warehouse.token, "ipc:///x", "host", 1)
    warehouse.incarnation, warehouse.uid = 3, "warehouse:0"
    warehouse.peers.announce(warehouse.me)
    warehouse.joined_cluster(targets.SETTINGS.to_bytes())
    warehouse._add(targets.member(1, "monitor"))
    return warehouse


@pytest.mark.parametrize("seed", range(3))
def test_a_warehouse_keeps_nothing_of_nonsense(seed: int) -> None:
    async def work(runtime: Base) -> None:
        warehouse = cast("Warehouse", runtime)
        before = growth.sizes(warehouse)
        rnd = random.Random(seed)
        for turn in range(5):
            senders = []
            for index, uid in enumerate(("head", "worker:0:0", "warehouse:1")):
                incarnation = 10 * turn + 10 + index
                warehouse._add(targets.member(incarnation, uid))
                senders.append(Sender(warehouse, incarnation.to_bytes(8, "big")))
            here = [member for member in warehouse.members if member != 1]
            numbers = [(m << 40) + k for m in (*here, 3) for k in range(1, 6)]
            generator = nonsense.Generator(rnd, [*here, 3, 1, 0, *numbers])
            for _ in range(150):
                rnd.choice(senders).send(generator.batch())
                await asyncio.sleep(0)
            assert list(warehouse.members) == [1, *here]
            for incarnation in here:
                uid = warehouse.members[incarnation].uid
                lost = wire.Lost(incarnation, uid, "the test ends it")
                warehouse.handlers[wire.Lost](lost, (), 1)
            gc.collect()
            for _ in range(20):
                warehouse.on_tick()
                await asyncio.sleep(0)
        try:
            # Copies that were taken back are remembered, not more than 10,000 of them.
            kept = {*KEPT, "_forgotten", "copies"}
            assert growth.grown(before, growth.sizes(warehouse), kept) == []
        finally:
            keeper = cast("Any", warehouse.keeper)
            keeper.close()
            keeper.ledger = keeper._rows = None  # mapped, which keeps a descriptor

    run(a_warehouse, work)
