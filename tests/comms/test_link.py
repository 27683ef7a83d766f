"""The link, without sockets: every order of delivery, loss and cut."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from memory_network import MemoryChannel, MemoryTransport, Network

from mosaic_like.comms.link import (
    ACKNOWLEDGE_AFTER_S,
    ACKNOWLEDGE_EVERY,
    HEADER_BYTES,
    RETRY_MAX_S,
    RETRY_MIN_S,
    TRANSITIONS,
    Link,
    LinkState,
)
from mosaic_like.errors import InvalidTransitionError, ProtocolError

TOKEN = b"8 bytes!"


def packet(body: bytes = b"", *buffers: bytes) -> list[bytes | bytearray | memoryview]:
    return [bytearray(HEADER_BYTES) + body, *buffers]


def sent(parts: list[bytes | bytearray | memoryview]) -> list[bytes]:
    """As it looks on its way."""
    return [bytes(part) for part in parts]


def opened(stall_s: float = 5.0) -> Link:
    link = Link(TOKEN, stall_s)
    link.opened(0.0)
    return link


def test_batches_are_delivered_once_and_in_order() -> None:
    a, b = opened(), opened()
    first, second = packet(b"1"), packet(b"2")
    assert a.wrap(first)
    assert a.wrap(second)
    assert b.unwrap(sent(first), 0.0)
    assert b.unwrap(sent(second), 0.0)
    assert not b.unwrap(sent(second), 0.0)
    assert b.duplicates == 1


def test_the_body_follows_the_header_untouched() -> None:
    link = opened()
    parts = packet(b"body", b"buffer")
    link.wrap(parts)
    assert bytes(parts[0][HEADER_BYTES:]) == b"body"
    assert parts[1] == b"buffer"


def test_the_routing_id_is_the_token_and_the_number_of_the_connection() -> None:
    link = Link(TOKEN)
    assert link.opened(0.0) == TOKEN + b"\0\0\0\1"
    link.broken(1.0)
    assert link.opened(2.0) == TOKEN + b"\0\0\0\2"


def test_an_acknowledgement_rides_on_what_goes_the_other_way() -> None:
    a, b = opened(), opened()
    request, reply = packet(b"1" * 10, b"2" * 5), packet()
    a.wrap(request)
    assert (a.unacknowledged, a.unacknowledged_bytes) == (1, HEADER_BYTES + 15)
    b.unwrap(sent(request), 0.0)
    assert b.acknowledge_at == ACKNOWLEDGE_AFTER_S
    b.wrap(reply)
    assert b.acknowledgement() is None
    a.unwrap(sent(reply), 0.0)
    assert (a.unacknowledged, a.unacknowledged_bytes) == (0, 0)


def test_a_lone_acknowledgement_waits_for_other_traffic_a_while() -> None:
    a, b = opened(), opened()
    parts = packet()
    a.wrap(parts)
    b.unwrap(sent(parts), 10.0)
    assert not b.owes(10.0 + ACKNOWLEDGE_AFTER_S / 2)
    assert b.owes(10.0 + 2 * ACKNOWLEDGE_AFTER_S)
    bare = b.acknowledgement()
    assert bare is not None
    assert not a.unwrap([bare], 0.0)
    assert a.unacknowledged == 0
    assert not a.owes(99.0)  # an acknowledgement is not acknowledged


def test_many_batches_are_acknowledged_at_once() -> None:
    a, b = opened(), opened()
    for _ in range(ACKNOWLEDGE_EVERY):
        assert not b.owes(0.0)
        parts = packet()
        a.wrap(parts)
        b.unwrap(sent(parts), 0.0)
    assert b.owes(0.0)


def test_what_is_wrapped_without_a_connection_waits_for_one() -> None:
    link = Link(TOKEN)
    parts = packet(b"early")
    assert not link.wrap(parts)
    link.opened(0.0)
    assert link.resend() == [parts]
    assert link.resend() == []
    assert Link(TOKEN).resend() == []


def test_a_new_connection_resends_what_is_unacknowledged_in_order() -> None:
    a, b = opened(), opened()
    packets = [packet(b"%d" % n) for n in range(3)]
    for parts in packets:
        a.wrap(parts)
    b.unwrap(sent(packets[0]), 0.0)
    bare = b.acknowledgement()
    assert bare is not None
    a.unwrap([bare], 0.0)
    a.broken(0.0)
    a.opened(0.1)
    assert a.resend() == packets[1:]
    assert a.resent == 2
    assert [b.unwrap(sent(parts), 0.0) for parts in packets[1:]] == [True, True]


def test_late_frames_of_an_older_connection_are_dropped() -> None:
    a, b = opened(), opened()
    parts = packet()
    a.wrap(parts)
    old = sent(parts)
    a.broken(0.0)
    a.opened(0.1)
    (new,) = a.resend()
    assert b.unwrap(sent(new), 0.0)
    assert not b.unwrap(old, 0.0)
    assert b.late == 1


def test_a_duplicate_is_acknowledged_again_at_once() -> None:
    a, b = opened(), opened()
    parts = packet()
    a.wrap(parts)
    b.unwrap(sent(parts), 0.0)
    assert b.acknowledgement() is not None  # and lost on its way
    assert not b.owes(1.0)
    assert not b.unwrap(sent(parts), 1.0)
    assert b.owes(1.0)


def test_a_new_connection_says_again_what_was_received() -> None:
    a, b = opened(), opened()
    parts = packet()
    a.wrap(parts)
    b.unwrap(sent(parts), 0.0)
    assert b.acknowledgement() is not None  # and lost in the cut
    b.broken(1.0)
    assert not b.owes(1.5)
    b.opened(2.0)
    assert b.owes(2.0)
    bare = b.acknowledgement()
    assert bare is not None
    a.unwrap([bare], 2.0)
    assert a.unacknowledged == 0


def test_a_gap_is_dropped_and_makes_the_peer_open_a_new_connection() -> None:
    a, b = opened(), opened()
    lost, parts = packet(b"lost"), packet(b"seen")
    a.wrap(lost)
    a.wrap(parts)
    assert not b.unwrap(sent(parts), 0.0)
    assert b.owes(0.0)
    bare = b.acknowledgement()
    assert bare is not None
    a.unwrap([bare], 0.0)
    assert a.check(0.0)
    assert a.state is LinkState.BROKEN
    a.opened(0.1)
    assert [b.unwrap(sent(p), 0.2) for p in a.resend()] == [True, True]
    a.unwrap([bare], 0.2)  # late: speaks of the first connection
    assert not a.check(0.3)


def test_a_stalled_batch_is_sent_again_alone_until_it_is_answered() -> None:
    a, b = opened(stall_s=5.0), opened()
    packets = [packet(b"%d" % n) for n in range(3)]
    for parts in packets:
        a.wrap(parts)
    assert not a.check(1.0)
    assert not a.check(5.9)
    assert a.check(6.0)
    a.opened(6.1)
    assert a.state is LinkState.OPENING
    assert a.resend() == packets[:1]
    late = packet(b"late")
    assert not a.wrap(late)
    b.unwrap(sent(packets[0]), 7.0)
    bare = b.acknowledgement()
    assert bare is not None
    a.unwrap([bare], 7.0)
    assert a.resend() == [*packets[1:], late]
    assert a.wrap(packet())


def test_a_stall_that_repeats_is_waited_for_twice_as_long() -> None:
    link = opened(stall_s=1.0)
    link.wrap(packet())
    assert not link.check(0.0)
    assert link.check(1.0)
    link.opened(1.0)
    assert not link.check(2.9)
    assert link.check(3.0)


def test_nothing_unacknowledged_never_stalls() -> None:
    link = opened()
    assert not link.check(0.0)
    assert not link.check(1e6)
    link.wrap(packet())
    assert not link.check(1e6 + 1)


def test_retries_back_off_and_progress_resets_them() -> None:
    link = Link(TOKEN)
    waits = []
    for _ in range(12):
        link.opened(100.0)
        link.broken(100.0)
        waits.append(link.retry_at - 100.0)
    assert waits[:3] == pytest.approx(
        [RETRY_MIN_S, 2 * RETRY_MIN_S, 4 * RETRY_MIN_S], rel=1e-6
    )
    assert waits[-1] == pytest.approx(RETRY_MAX_S)


def test_a_lost_peer_is_fenced() -> None:
    a, b = opened(), opened()
    parts = packet()
    a.wrap(parts)
    b.wrap(packet())
    b.lost()
    assert not b.unwrap(sent(parts), 0.0)
    assert not b.wrap(packet())
    assert (b.unacknowledged, b.unacknowledged_bytes) == (0, 0)
    assert b.resend() == []
    assert b.acknowledgement() is None
    assert not b.check(1e6)


@pytest.mark.parametrize("state", LinkState)
@pytest.mark.parametrize("event", sorted({event for _, event in TRANSITIONS}))
def test_an_event_that_the_table_does_not_hold_is_refused(
    state: LinkState, event: str
) -> None:
    link = Link(TOKEN)
    link.state = state
    target = TRANSITIONS.get((state, event))
    if target is None:
        with pytest.raises(InvalidTransitionError):
            link.move(event)
        assert link.state is state
    else:
        link.move(event)
        assert link.state is target


def test_what_is_no_packet_is_refused_and_changes_nothing() -> None:
    link = opened()
    with pytest.raises(ProtocolError):
        link.unwrap([b"short"], 0.0)
    with pytest.raises(ProtocolError):
        link.unwrap([b"\xff" * HEADER_BYTES], 0.0)
    parts = packet()
    opened().wrap(parts)
    assert link.unwrap(sent(parts), 0.0)


class End:
    """One runtime with one peer: as small a driver of a link as there can be."""

    def __init__(self, network: Network, name: str, peer: str, token: bytes) -> None:
        self.link = Link(token, stall_s=5.0)
        self.peer = peer
        self.transport = MemoryTransport(network)
        self.transport.on_packet = self._received
        self.transport.bind(name)
        self.channel: MemoryChannel | None = None
        self.now = 0.0
        self.wrapped = 0
        self.delivered: list[int] = []

    def send(self) -> None:
        self.wrapped += 1
        parts = packet(b"%d" % self.wrapped)
        if self.link.wrap(parts):
            assert self.channel is not None
            self.channel.send(parts)

    def tick(self, now: float) -> None:
        self.now = now
        link = self.link
        if link.check(now):
            assert self.channel is not None
            self.channel.close()
        if link.state in (LinkState.CLOSED, LinkState.BROKEN) and now >= link.retry_at:
            routing_id = link.opened(now)
            self.channel = self.transport.connect(self.peer, routing_id, self._broken)
        for parts in link.resend():
            assert self.channel is not None
            self.channel.send(parts)
        if link.owes(now):
            bare = link.acknowledgement()
            assert bare is not None
            assert self.channel is not None
            self.channel.send([bare])

    def _broken(self, cause: str) -> None:
        self.link.broken(self.now)

    def _received(self, routing_id: bytes, parts: list[bytes]) -> None:
        if self.link.unwrap(parts, self.now):
            self.delivered.append(int(parts[0][HEADER_BYTES:]))


class TwoLinks(RuleBasedStateMachine):
    """Loss, doubling, disorder, cuts and late frames, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()
        self.now = 0.0
        self.ends = [
            End(self.network, "a", "b", b"token: a"),
            End(self.network, "b", "a", b"token: b"),
        ]

    def _pick(self, number: int) -> tuple[MemoryChannel, int]:
        channels = self.network.in_flight()
        channel = channels[number % len(channels)]
        return channel, number // len(channels) % len(channel.queue)

    @rule(who=st.integers(0, 1), count=st.integers(1, 3))
    def send(self, who: int, count: int) -> None:
        for _ in range(count):
            self.ends[who].send()

    @rule(who=st.integers(0, 1), after=st.sampled_from([0.001, 0.03, 2.0, 20.0]))
    def tick(self, who: int, after: float) -> None:
        self.now += after
        self.ends[who].tick(self.now)

    @precondition(lambda self: self.network.in_flight())
    @rule(
        number=st.integers(0, 1000),
        fate=st.sampled_from(["next", "next", "any", "duplicate", "lose"]),
    )
    def move(self, number: int, fate: str) -> None:
        channel, index = self._pick(number)
        if fate == "next":
            self.network.deliver(channel)
        elif fate == "any":
            self.network.deliver(channel, index)
        elif fate == "duplicate":
            self.network.duplicate(channel, index)
        else:
            self.network.lose(channel, index)

    @rule(who=st.integers(0, 1), late=st.booleans())
    def cut(self, who: int, late: bool) -> None:
        channel = self.ends[who].channel
        if channel is not None and channel.is_open:
            self.network.cut(channel, late=late)

    @invariant()
    def delivered_is_what_was_sent_in_order(self) -> None:
        for end, other in (self.ends, self.ends[::-1]):
            assert end.delivered == list(range(1, len(end.delivered) + 1))
            assert len(end.delivered) <= other.wrapped

    def teardown(self) -> None:
        # Left in peace the two come to rest with everything delivered.
        for _ in range(40):
            self.now += 20.0
            for end in self.ends:
                end.tick(self.now)
            self.network.run()
            self.delivered_is_what_was_sent_in_order()
        for end, other in (self.ends, self.ends[::-1]):
            assert len(end.delivered) == other.wrapped
            assert (end.link.unacknowledged, end.link.unacknowledged_bytes) == (0, 0)
            assert not end.link.owes(self.now + 1.0)
            assert end.link.state is LinkState.UP
        assert not self.network.in_flight()


TestTwoLinks = TwoLinks.TestCase
TestTwoLinks.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None
)


def test_connecting_to_nothing_breaks_the_channel() -> None:
    network = Network()
    causes: list[str] = []
    channel = MemoryTransport(network).connect("nowhere", TOKEN, causes.append)
    channel.send(packet())
    assert causes == []
    network.run()
    assert len(causes) == 1
    assert not channel.is_open
