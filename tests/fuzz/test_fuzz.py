"""Nonsense from members: what ``make fuzz`` does a thousand times longer.

Each of the other tests is something that it has found.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import fuzzing
import msgspec
import nonsense
import pytest
import targets
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like.comms import messages as wire
from mosaic_like.comms.exceptions import error_summary
from mosaic_like.comms.link import Link
from mosaic_like.ids import NUMBER_BITS

Work = Callable[[targets.Runtime], None]


@pytest.fixture
def faults() -> Iterator[targets.Faults]:
    with targets.no_fault_is_logged() as watching:
        yield watching


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_found(seed: int, faults: targets.Faults) -> None:
    tally = fuzzing.fuzz(1500, seed, faults)
    assert tally.found == []
    assert tally.messages >= 1500
    assert tally.mutated > 100


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_batch_or_none(body: bytes) -> None:
    targets.decode(body)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_are_taken_by_a_link_or_refused(heads: list[bytes]) -> None:
    link = Link(b"12345678")
    link.opened(0.0)
    for head in heads:
        targets.unwrap(link, head)


def test_mutated_batches_are_batches_or_none() -> None:
    rnd = random.Random(4)
    generator = nonsense.Generator(rnd, [1, 2, 3])
    for _ in range(500):
        targets.decode(nonsense.mutated(bytes(wire.encode(generator.batch())), rnd))


@pytest.mark.parametrize(
    "message",
    [
        wire.Submit(1, 2, 3, "", b"N"),
        wire.Submit(1, 2, 3, "ping", b""),
        wire.Create(1, 2, b"N", b"", wire.Options("x")),
    ],
)
def test_a_call_without_a_method_or_arguments_is_no_message(message: Any) -> None:
    # A coroutine call without bytes was never ended, nor what was behind it.
    with pytest.raises(msgspec.ValidationError):
        wire.decode(bytes(wire.encode([message])))


def play(work: Work) -> list[str]:
    """Do it in a runtime with two members; what is left when they are lost."""

    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryDirectory(prefix="mf-") as directory:
            runtime = targets.Runtime(loop, directory, random.Random(0))
            try:
                runtime.join()
                work(runtime)
                await asyncio.sleep(0)
                return await runtime.lose()
            finally:
                runtime.close()

    return asyncio.run(run())


def uid(runtime: targets.Runtime, index: int, number: int) -> int:
    """A number that this member might give."""
    return (runtime.members[index] << NUMBER_BITS) + number


def test_what_nobody_has_a_use_for_is_one_line_that_names_it(
    faults: targets.Faults, caplog: pytest.LogCaptureFixture
) -> None:
    def work(runtime: targets.Runtime) -> None:
        for _ in range(3):
            runtime.receive(runtime.members[0], [wire.AskNames()])

    assert play(work) == []
    assert [r.getMessage() for r in caplog.records] == [
        "head: AskNames: of which head has no use, from worker:0:0, was dropped"
    ]
    assert caplog.records[0].exc_info is None


@pytest.mark.parametrize(
    "message",
    [
        wire.Lost(targets.HEAD, "head", "says a worker"),
        wire.Joined(targets.member(99, "worker:0:9")),
        wire.Welcome(targets.member(99, "head"), [], b""),
        wire.Stop("says a worker"),
        wire.Stopped([]),
        wire.Exited("worker:0:1", 1, "says a worker"),
    ],
)
def test_a_worker_does_not_speak_for_the_monitor(
    message: Any, faults: targets.Faults
) -> None:
    def work(runtime: targets.Runtime) -> None:
        head = runtime.head
        before = set(head.members), head.me
        runtime.receive(runtime.members[0], [message])
        assert (set(head.members), head.me) == before
        assert not head.cluster_lost
        assert not head.stopped.done()
        assert not head.stillborn.done()

    assert play(work) == []


def test_a_control_message_that_is_too_large_is_dropped_and_told(
    faults: targets.Faults, caplog: pytest.LogCaptureFixture
) -> None:
    def work(runtime: targets.Runtime) -> None:
        sender = runtime.members[0]
        reason = "x" * runtime.head.config.control_limit
        task = next(iter(runtime.head.caller.calls))
        runtime.receive(sender, [wire.Cancel(task, reason), wire.Waits(task, False)])
        assert not runtime.head.worker._early_cancels

    assert play(work) == []
    assert [r.getMessage() for r in caplog.records] == [
        "Cancel of 1.0 MiB, where messages without a value have at most 1.0 MiB "
        "(control_limit=), from worker:0:0, was dropped"
    ]


def test_a_welcome_counts_only_from_the_monitor_that_was_asked(
    faults: targets.Faults,
) -> None:
    def work(runtime: targets.Runtime) -> None:
        head = runtime.head
        welcome = head._welcome = head.loop.create_future()
        head._monitor_token = b"monitor."
        said = [wire.Welcome(targets.member(99, "head"), [], b""), wire.Refused("no")]
        head._stranger(b"stranger", said)
        assert not welcome.done()
        head._welcome = None

    assert play(work) == []


def test_an_answer_that_contradicts_itself_ends_its_call(
    faults: targets.Faults,
) -> None:
    def work(runtime: targets.Runtime) -> None:
        calls = list(runtime.head.caller.calls.values())
        extra = wire.Extra([wire.Reference(wire.SEGMENT, 1, 3)])
        extra.shared = wire.SharedBuffers([], [(4, 0, 10)])
        owner = calls[0].stream.owner
        runtime.receive(owner, [wire.Done(calls[0].uid, b"N", extra)])
        assert calls[0].settled
        assert not calls[1].settled
        assert "0 places for 1 segments" in error_summary(calls[0].result)

    assert play(work) == []


def test_a_call_whose_arguments_contradict_themselves_fails(
    faults: targets.Faults,
) -> None:
    def work(runtime: targets.Runtime) -> None:
        sender = runtime.members[0]
        extra = wire.Extra([wire.Reference(wire.TASK, 1, 0)])
        tessera, first = uid(runtime, 0, 1), uid(runtime, 0, 2)
        options = wire.Options("Subject#1")
        create = wire.Create(first, tessera, b"N", b"N", options, extra)
        runtime.receive(sender, [create])
        task = runtime.head.worker.tasks[first]
        assert task.settled
        assert task.outcome.reason == wire.ERROR

    assert play(work) == []


def test_nobody_makes_what_has_the_number_of_another(faults: targets.Faults) -> None:
    def work(runtime: targets.Runtime) -> None:
        sender, options = runtime.members[0], wire.Options("x")
        mine, others = uid(runtime, 0, 1), uid(runtime, 1, 1)
        for pair in ((mine, others), (others, mine), (mine, mine)):
            runtime.receive(sender, [wire.Create(*pair, b"N", b"N", options)])
        assert not runtime.head.worker.tesserae
        assert not runtime.head.worker.tasks

    assert play(work) == []


def test_what_waits_for_what_never_comes_is_bounded(
    faults: targets.Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mosaic_like.core import strays

    monkeypatch.setattr(strays, "_PARKED", 10)
    monkeypatch.setattr(strays, "_PARKED_CALLS", 10)
    monkeypatch.setattr(strays, "_EARLY_CANCELS", 10)

    def work(runtime: targets.Runtime) -> None:
        sender, other = runtime.members
        for k in range(1, 31):
            there = (other << NUMBER_BITS) + 1000
            batch: list[Any] = [wire.Cancel(there + k, "")]
            batch.append(wire.Submit(uid(runtime, 0, k), there, k, "ping", b"N"))
            batch.append(wire.Submit(uid(runtime, 0, 50 + k), there + k, 0, "x", b"N"))
            runtime.receive(sender, batch)
        worker = runtime.head.worker
        assert len(worker._early_cancels) == 10
        assert len(worker.strays.parked) == 10
        assert sum(map(len, worker.strays.parked.values())) < 30

    assert play(work) == []


def test_strangers_take_no_more_than_their_share(
    faults: targets.Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mosaic_like.runtimes import peers as peers_module

    monkeypatch.setattr(peers_module, "_STRANGERS", 20)
    monkeypatch.setattr(peers_module, "_STASHED_BYTES", 3000)

    def work(runtime: targets.Runtime) -> None:
        peers = runtime.head.peers
        link = Link(b"12345678")
        link.opened(0.0)
        for number in range(100):
            head: list[Any] = [wire.encode([wire.Refused("x" * 30)], 22)]
            link.wrap(head)
            runtime.raw((500 + number).to_bytes(8, "big"), bytes(head[0]))
            runtime.raw(b"the same", bytes(head[0]))
            runtime.raw(b"short", bytes(head[0]))
        assert len(peers._strangers) <= 20
        assert peers._stashed_bytes <= 3000
        kept = sum(len(p[0]) for peer in peers.by_token.values() for p in peer.stash)
        assert kept == peers._stashed_bytes

    assert play(work) == []


def test_an_address_that_is_none_is_told_and_not_tried_again(
    faults: targets.Faults, caplog: pytest.LogCaptureFixture
) -> None:
    def work(runtime: targets.Runtime) -> None:
        def connect(address: str, *_: Any) -> Any:
            raise ValueError(f"{address!r} is no address")

        runtime.head.peers.transport.connect = connect  # type: ignore[method-assign, assignment]  # as ZmqTransport refuses
        peer = runtime.head.outbox(runtime._join("worker:0:7"))
        assert peer is not None
        peer.send(wire.Quiet(1, 1))
        peer.flush()
        peer.open()
        assert peer.address == ""
        peer.open()
        runtime._lost(runtime._next)

    assert play(work) == []
    texts = [r.getMessage() for r in caplog.records if "worker:0:7" in r.getMessage()]
    assert len(texts) == 1
    assert texts[0].startswith("nothing can be sent to <Peer worker:0:7")


def test_a_definition_under_a_false_digest_is_not_taken(
    faults: targets.Faults,
) -> None:
    def work(runtime: targets.Runtime) -> None:
        runtime.receive(runtime.members[0], [wire.Define(b"0" * 16, b"\x80\x05N.")])
        with pytest.raises(LookupError):
            runtime.head.serializer.blob(b"0" * 16)

    assert play(work) == []


def test_what_a_lost_member_said_of_a_loss_that_never_comes_is_forgotten(
    faults: targets.Faults,
) -> None:
    def work(runtime: targets.Runtime) -> None:
        runtime.receive(runtime.members[0], [wire.LossSeen(runtime._next + 7)])

    assert play(work) == []


def test_what_a_lost_member_sends_is_heard_by_nobody(faults: targets.Faults) -> None:
    def work(runtime: targets.Runtime) -> None:
        gone = runtime._join("worker:0:8")
        link = runtime.links[gone]
        runtime._lost(gone)
        runtime.links[gone] = link
        runtime.receive(gone, [wire.Define(b"x", b"y")])
        del runtime.links[gone]
        assert gone.to_bytes(8, "big") not in runtime.head.peers.by_token
        assert not runtime.head.peers._strangers

    assert play(work) == []
