"""Which buffers go into shared memory, and how memoryviews arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mosaic_like.comms.gathering import LARGE_BYTES, SEGMENT_BYTES, Mapped
from mosaic_like.comms.messages import SEGMENT, SharedBuffers
from mosaic_like.comms.serialization import Payload, Referent, Serializer
from mosaic_like.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Handle:
    kind, uid, owner = SEGMENT, 7, 3


class Proxy(Referent):
    def __reference__(self) -> tuple[Handle, tuple[Any, ...]]:
        return Handle(), ("task",)


class Stored:
    """Copies that are no memory of anybody else."""

    def __init__(self, views: Sequence[memoryview]) -> None:
        self.copies = tuple(memoryview(bytes(view)) for view in views)
        self.handles = (Handle(),)
        layout = [(0, 0, view.nbytes) for view in views]
        self.wire = SharedBuffers([], layout)

    def views(self) -> tuple[memoryview, ...]:
        return self.copies


class Segments:
    """Shared memory of a test."""

    def __init__(self) -> None:
        self.there = True
        self.bases: list[Any] = []

    def store(self, views: Sequence[memoryview], bases: Sequence[Any]) -> Stored | None:
        self.bases = list(bases)
        return Stored(views) if self.there else None


@pytest.fixture
def segments() -> Segments:
    return Segments()


@pytest.fixture
def serializer(segments: Segments) -> Serializer:
    return Serializer(segments=segments)


def back(serializer: Serializer, payload: bytes | Payload) -> Any:
    if type(payload) is bytes:
        return serializer.loads(payload)
    assert isinstance(payload, Payload)
    return serializer.loads(payload.data, payload.inside)


def test_large_buffers_go_into_shared_memory(serializer: Serializer) -> None:
    array = np.arange(SEGMENT_BYTES, dtype="u1")
    payload = serializer.dumps({"a": array, "b": bytearray(3)})
    assert isinstance(payload, Payload)
    assert payload.shared is not None
    assert payload.buffers == ()
    assert payload.handles == payload.shared.handles
    assert payload.nbytes == len(payload.data) + array.nbytes
    assert np.array_equal(back(serializer, payload)["a"], array)


def test_middling_ones_stay_beside_the_bytes_unless_they_are_many(
    serializer: Serializer,
) -> None:
    array = np.ones(LARGE_BYTES, "u1")
    payload = serializer.dumps(array)
    assert isinstance(payload, Payload)
    assert payload.shared is None
    assert len(payload.buffers) == 1
    payload = serializer.dumps([array.copy() for _ in range(4)])
    assert isinstance(payload, Payload)
    assert payload.shared is not None
    assert len(payload.shared.wire.layout) == 4


def test_without_shared_memory_buffers_are_copied_beside_the_bytes(
    serializer: Serializer, segments: Segments
) -> None:
    segments.there = False
    array = np.zeros(SEGMENT_BYTES, "u1")
    payload = serializer.dumps(array)
    array[:] = 1
    assert isinstance(payload, Payload)
    assert payload.shared is None
    assert not back(serializer, payload).any()


def test_who_cannot_open_segments_gets_what_is_in_them(serializer: Serializer) -> None:
    array = np.arange(SEGMENT_BYTES, dtype="u1")
    payload = serializer.dumps(array)
    assert isinstance(payload, Payload)
    framed = payload.framed()
    assert framed.shared is None
    assert framed.handles == ()
    assert framed.nbytes == payload.nbytes
    assert np.array_equal(back(serializer, framed), array)
    assert framed.framed() is framed


@pytest.mark.parametrize("there", [True, False], ids=["shared", "not-shared"])
@pytest.mark.parametrize("kind", ["plain", "by value", "with a proxy"])
def test_a_pickle_that_is_large_itself_goes_with_the_buffers(
    serializer: Serializer, segments: Segments, there: bool, kind: str
) -> None:
    segments.there = there
    words = [f"number {number}" for number in range(50_000)]
    array = np.arange(20_000.0)
    more: Any = {
        "plain": None,
        "by value": lambda: len(words),
        "with a proxy": Proxy(),
    }[kind]
    sent = serializer.dumps([words, array, more, array[::2], bytes(300_000)])
    assert isinstance(sent, Payload)
    assert len(sent.data) < 200
    assert (sent.shared is not None) is there
    assert sent.nbytes > 1_000_000
    got = serializer.loads(
        sent.data, sent.inside, lambda index, args: (sent.handles[index].uid, *args)
    )
    assert got[0] == words
    assert np.array_equal(got[1], array)
    assert np.array_equal(got[3], array[::2])
    assert got[4] == bytes(300_000)
    if kind == "by value":
        assert got[2]() == len(words)
    elif kind == "with a proxy":
        assert got[2] == (7, "task")
    call = serializer.dumps_call((words, array), {"more": words})
    assert isinstance(call, Payload)
    (first, second), rest = serializer.loads_call(call.data, call.inside)
    assert first == words
    assert rest["more"] is first
    assert np.array_equal(second, array)


class Memory(Mapped, bytearray):
    """Shared memory that came with another payload."""


@pytest.mark.parametrize("there", [True, False], ids=["shared", "not-shared"])
def test_a_large_text_goes_with_the_buffers_of_a_call(
    serializer: Serializer, segments: Segments, there: bool
) -> None:
    segments.there = there
    args = ("é" * SEGMENT_BYTES, 1)
    payload = serializer.dumps_call(args, {})
    assert isinstance(payload, Payload)
    assert len(payload.data) < 100
    framed = payload.framed()
    assert serializer.loads_call(framed.data, framed.buffers) == (args, {})


def test_what_came_in_shared_memory_is_known_by_its_base(
    serializer: Serializer, segments: Segments
) -> None:
    memory = Memory(2 * SEGMENT_BYTES)
    came = np.frombuffer(memoryview(memory).toreadonly(), "u1")
    own = np.zeros(SEGMENT_BYTES, "u1")
    serializer.dumps([came, came[5:], own, own.tobytes()])
    assert type(segments.bases[0]) is bytes  # the pickle itself, which is large
    assert segments.bases[1] is memory
    assert segments.bases[2] is memory
    assert segments.bases[3] is None


@pytest.mark.parametrize("size", [0, 24, 720_000])
@pytest.mark.parametrize("form", ["B", "d", "i"])
def test_a_memoryview_arrives_read_only_with_its_format_and_shape(
    serializer: Serializer, form: str, size: int
) -> None:
    flat: Any = np.arange(size // np.dtype(form).itemsize).astype(form)
    views = [memoryview(flat), memoryview(bytearray(flat)), memoryview(flat[::2])]
    if size:
        views += [memoryview(flat.reshape(3, -1)), memoryview(flat.reshape(3, -1).T)]
    for view in views:
        arrived = back(serializer, serializer.dumps(view))
        assert type(arrived) is memoryview
        assert arrived.readonly
        assert (arrived.format, arrived.shape) == (view.format, view.shape)
        assert arrived.tobytes() == view.tobytes()


def test_a_memoryview_of_records_is_refused_with_what_to_do(
    serializer: Serializer,
) -> None:
    records: Any = np.zeros(3, [("a", "i4"), ("b", "f8")])
    with pytest.raises(SerializationError, match="pass the array that it views"):
        serializer.dumps([memoryview(records)])
