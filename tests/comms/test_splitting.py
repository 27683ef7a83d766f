"""Packets as they go over the network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.comms.splitting import FRAME_BYTES, is_small, joined, split
from mosaic_like.errors import ProtocolError

HEAD = b"\x01" + bytes(21)  # as a link has it
SIZES = st.sampled_from(
    (0, 1, 100, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES)
)


@given(st.lists(SIZES, max_size=4), SIZES)
def test_what_was_split_is_what_is_joined(sizes: list[int], head: int) -> None:
    packet = [HEAD + bytes(head), *(bytes([n + 1]) * s for n, s in enumerate(sizes))]
    frames = split(packet)
    assert all(memoryview(frame).nbytes <= FRAME_BYTES for frame in frames)
    assert [bytes(part) for part in joined(frames)] == packet


def test_what_was_joined_cannot_be_written_to() -> None:
    _, large = joined(split([HEAD, bytearray(2 * FRAME_BYTES)]))
    assert memoryview(large).readonly


def test_a_small_packet_goes_and_comes_as_it_is() -> None:
    packet = [HEAD, bytes(FRAME_BYTES)]
    assert is_small(packet)
    assert joined(packet) is packet
    assert not is_small([HEAD, bytes(FRAME_BYTES + 1)])


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=5))
def test_a_plan_that_does_not_fit_what_came_is_refused(frames: list[bytes]) -> None:
    frames[0] = b"\xf5" + frames[0]
    try:
        parts = joined(list(frames))
    except ProtocolError:
        return
    assert b"".join(map(bytes, parts)) == b"".join(frames[1:])


@pytest.mark.parametrize("first", [b"\xf5", b"\xf5\x00", b"\xf5\xff\xff\xff\xff"])
def test_no_plan_makes_something_of_nothing(first: bytes) -> None:
    with pytest.raises(ProtocolError):
        joined([first])
