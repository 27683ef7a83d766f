"""Buffers in chunks, without sockets: every order of sending, taking and dropping."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mosaic_like.comms.messages import Parts
from mosaic_like.comms.transfers import (
    CHUNK_BYTES,
    WINDOW_BYTES,
    Arrivals,
    Arriving,
    Departures,
    Piece,
)
from mosaic_like.errors import ProtocolError


def drained(departures: Departures, arrivals: Arrivals) -> list[Arriving]:
    """All that is left goes over, one chunk at a time; what is complete by it."""
    complete = []
    while (piece := departures.next(0.0)) is not None:
        found = arrivals.take(piece.transfer, piece.buffer, piece.offset, piece.view)
        if found is not None:
            complete.append(found)
        departures.taken(piece.view.nbytes, 0.0)
    return complete


def contents(arriving: Arriving) -> list[bytes]:
    return [bytes(view) for view in arriving.views()]


def test_buffers_arrive_as_they_were() -> None:
    departures, arrivals = Departures(chunk_bytes=3), Arrivals()
    buffers = [b"", b"abcdefgh", b"", b"ij", b"klm", b""]
    arrivals.expect(departures.add(buffers))
    (arriving,) = drained(departures, arrivals)
    assert contents(arriving) == buffers
    assert not len(departures)
    assert not len(arrivals)
    assert not departures.under_way


def test_what_arrived_cannot_be_written_to() -> None:
    departures, arrivals = Departures(), Arrivals()
    arrivals.expect(departures.add([b"abc"]))
    (arriving,) = drained(departures, arrivals)
    assert arriving.views()[0].readonly


def test_empty_buffers_are_complete_at_once() -> None:
    departures, arrivals = Departures(), Arrivals()
    arriving = arrivals.expect(departures.add([b"", b""]))
    assert not arriving.left
    assert contents(arriving) == [b"", b""]
    assert departures.next(0.0) is None
    assert not len(arrivals)


def test_chunks_are_parts_of_the_buffer_itself() -> None:
    departures = Departures(chunk_bytes=2)
    buffer = bytearray(b"abcd")
    departures.add([memoryview(buffer)])
    buffer[0:1] = b"x"
    piece = departures.next(0.0)
    assert piece is not None
    assert piece.view.obj is buffer
    assert bytes(piece.view) == b"xb"


def test_transfers_take_turns() -> None:
    departures = Departures(chunk_bytes=1)
    for _ in range(3):
        departures.add([b"12"])
    numbers = []
    while (piece := departures.next(0.0)) is not None:
        numbers.append(piece.transfer)
        departures.taken(1, 0.0)
    assert numbers == [1, 2, 3, 1, 2, 3]


def test_a_large_value_holds_up_no_small_one() -> None:
    departures, arrivals = Departures(chunk_bytes=1), Arrivals()
    arrivals.expect(departures.add([bytes(1000)]))
    arrivals.expect(departures.add([b"1"]))
    complete = None
    for _ in range(2):
        piece = departures.next(0.0)
        assert piece is not None
        complete = arrivals.take(piece.transfer, piece.buffer, piece.offset, piece.view)
        departures.taken(1, 0.0)
    assert complete is not None
    assert complete.number == 2


# -- the window ------------------------------------------------------------------------


def test_the_second_chunk_waits_until_the_first_is_taken() -> None:
    departures = Departures(chunk_bytes=2)
    departures.add([b"abcd"])
    assert departures.next(0.0) is not None
    assert departures.next(0.0) is None
    assert departures.under_way == 2
    departures.taken(2, 0.1)
    assert departures.next(0.1) is not None


def through(departures: Departures, *, way_s: float, chunk_s: float) -> float:
    """Send all over a way; the most bytes that were under way in the second half.

    Args:
        departures: what is sent.
        way_s: there and back.
        chunk_s: that each chunk takes on it, one after the other.
    """
    now_s = free_s = 0.0
    under_way: deque[tuple[float, int]] = deque()  # when it is heard that it was taken
    most: list[int] = []
    while True:
        while (piece := departures.next(now_s)) is not None:
            free_s = max(now_s, free_s) + chunk_s
            under_way.append((free_s + way_s, piece.view.nbytes))
        if not under_way:
            return max(most[len(most) // 2 :])
        most.append(departures.under_way)
        now_s, nbytes = under_way.popleft()
        departures.taken(nbytes, now_s)


def test_over_a_long_way_more_is_under_way() -> None:
    departures = Departures(chunk_bytes=8, most_bytes=8000)
    departures.add([bytes(80_000)])
    # 100 chunks fit on the way: with as many it is always busy.
    assert 90 * 8 <= through(departures, way_s=0.1, chunk_s=0.001) <= 200 * 8


def test_over_a_short_way_nothing_waits_behind_a_large_value() -> None:
    departures = Departures(chunk_bytes=4, most_bytes=4000)
    departures.add([bytes(40_000)])
    assert through(departures, way_s=0.0001, chunk_s=0.001) <= 3 * 4


def test_there_is_a_most_that_is_ever_under_way() -> None:
    departures = Departures(chunk_bytes=8, most_bytes=400)
    departures.add([bytes(80_000)])
    assert through(departures, way_s=10.0, chunk_s=0.001) == 400


def test_the_window_is_of_whole_chunks() -> None:
    assert WINDOW_BYTES % CHUNK_BYTES == 0


# -- faults ----------------------------------------------------------------------------


def test_more_cannot_be_taken_than_was_sent() -> None:
    departures = Departures(chunk_bytes=2)
    departures.add([b"abcd"])
    departures.next(0.0)
    for nbytes in (-1, 0, 1, 3, 1 << 70):
        with pytest.raises(ProtocolError, match="bytes were taken"):
            departures.taken(nbytes, 0.0)
    assert departures.under_way == 2
    departures.taken(2, 0.0)
    with pytest.raises(ProtocolError):
        departures.taken(2, 0.0)


@pytest.mark.parametrize(
    ("buffer", "offset", "data"),
    [
        (0, 1, b"x"),  # a gap
        (1, 0, b"x"),  # another buffer
        (0, 0, b"12345"),  # over the end
        (0, 0, b""),
        (0, -1, b"x"),
        (-2, 0, b"x"),
        (9, 0, b"x"),
    ],
)
def test_a_chunk_that_is_not_the_next_is_refused(
    buffer: int, offset: int, data: bytes
) -> None:
    arrivals = Arrivals()
    arriving = arrivals.expect(Parts(1, [4, 4]))
    with pytest.raises(ProtocolError, match="transfer 1"):
        arrivals.take(1, buffer, offset, memoryview(data))
    assert arriving.left == 8


def test_the_same_chunk_again_is_refused() -> None:
    arrivals = Arrivals()
    arrivals.expect(Parts(1, [4]))
    arrivals.take(1, 0, 0, memoryview(b"12"))
    with pytest.raises(ProtocolError):
        arrivals.take(1, 0, 0, memoryview(b"12"))


@pytest.mark.parametrize("parts", [Parts(1, [1]), Parts(0, [1]), Parts(2, [1, -1])])
def test_a_transfer_that_makes_no_sense_is_refused(parts: Parts) -> None:
    arrivals = Arrivals()
    arrivals.expect(Parts(1, [1]))
    with pytest.raises(ProtocolError, match="after transfer 1"):
        arrivals.expect(parts)


def test_without_memory_the_chunks_are_dropped() -> None:
    def none(nbytes: int) -> memoryview:
        raise OSError("there is no memory")

    arrivals = Arrivals(none)
    with pytest.raises(OSError, match="no memory"):
        arrivals.expect(Parts(1, [1]))
    assert arrivals.take(1, 0, 0, memoryview(b"x")) is None


def test_what_is_on_its_way_of_a_dropped_transfer_is_dropped() -> None:
    departures, arrivals = Departures(chunk_bytes=1), Arrivals()
    arrivals.expect(departures.add([b"abc"]))
    piece = departures.next(0.0)
    assert piece is not None
    assert arrivals.drop(1)
    assert not arrivals.drop(1)
    assert arrivals.take(1, piece.buffer, piece.offset, piece.view) is None
    departures.taken(1, 0.0)
    departures.drop(1)
    departures.drop(1)
    assert departures.next(0.0) is None


# -- any order -------------------------------------------------------------------------

CHUNK = 3
MOST = 12


class Transfers(RuleBasedStateMachine):
    """Two ends, and what is on its way between them, in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.departures = Departures(CHUNK, MOST)
        self.arrivals = Arrivals()
        self.there: deque[Any] = deque()  # Parts and Pieces
        self.back: deque[int] = deque()  # bytes taken, or minus a number not wanted
        self.sent: dict[int, list[bytes]] = {}
        self.wanted: dict[int, Arriving] = {}
        self.now_s = 0.0

    @rule(
        buffers=st.lists(st.binary(max_size=20), max_size=4),
        past_s=st.floats(0, 1),
    )
    def send(self, buffers: list[bytes], past_s: float) -> None:
        self.now_s += past_s
        parts = self.departures.add(buffers)
        self.sent[parts.number] = buffers
        self.there.append(parts)
        self.go_on()

    def go_on(self) -> None:
        while (piece := self.departures.next(self.now_s)) is not None:
            self.there.append(piece)

    @precondition(lambda self: self.there)
    @rule(past_s=st.floats(0, 1))
    def receive(self, past_s: float) -> None:
        self.now_s += past_s
        message = self.there.popleft()
        if isinstance(message, Piece):
            number, view = message.transfer, message.view
            complete = self.arrivals.take(number, message.buffer, message.offset, view)
            self.back.append(view.nbytes)
            if complete is not None:
                assert self.wanted.pop(number) is complete
                assert contents(complete) == self.sent.pop(number)
        else:
            arriving = self.arrivals.expect(message)
            if arriving.left:
                self.wanted[message.number] = arriving
            else:
                assert not any(self.sent.pop(message.number))

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def unwanted(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.wanted)))
        del self.wanted[number]
        assert self.arrivals.drop(number)
        self.back.append(-number)

    @precondition(lambda self: self.back)
    @rule(past_s=st.floats(0, 1))
    def hear(self, past_s: float) -> None:
        self.now_s += past_s
        message = self.back.popleft()
        if message < 0:
            self.departures.drop(-message)
        else:
            self.departures.taken(message, self.now_s)
        self.go_on()

    @invariant()
    def no_more_is_under_way_than_may_be(self) -> None:
        assert CHUNK <= self.departures.window_bytes <= MOST
        assert self.departures.under_way < MOST + CHUNK
        pieces = [m.view.nbytes for m in self.there if isinstance(m, Piece)]
        taken = [nbytes for nbytes in self.back if nbytes > 0]
        assert self.departures.under_way == sum(pieces) + sum(taken)

    def teardown(self) -> None:
        while self.there or self.back:
            if self.there:
                self.receive(0.0)
            if self.back:
                self.hear(0.0)
        assert not self.wanted
        assert not len(self.departures)
        assert not len(self.arrivals)
        assert not self.departures.under_way


TestAnyOrder = Transfers.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
