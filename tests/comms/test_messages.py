"""Every message goes through the codec and back; garbage is refused as garbage."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like.comms import messages


def _values(kind: Any) -> st.SearchStrategy[Any]:
    """What a field of this type may hold on the wire."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:  # all of these are not to be empty
        return _values(arguments[0]).filter(len)
    if origin in (list, Sequence):
        return st.lists(_values(arguments[0]), max_size=4)
    if origin is tuple and arguments[-1] is ...:
        return st.lists(_values(arguments[0]), max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*map(_values, arguments))
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(_values, arguments))
    if kind is type(None):
        return st.none()
    if kind is int:
        return st.integers(-(2**63), 2**63 - 1)
    if kind is float:
        return st.floats(allow_nan=False)
    if kind in (str, bytes, bool):
        strategy: st.SearchStrategy[Any] = st.from_type(kind)
        return strategy
    return _structs(kind)


def _structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    return st.fixed_dictionaries(
        {name: _values(field) for name, field in fields.items()}
    ).map(lambda values: kind(**values))


MESSAGES: tuple[type[msgspec.Struct], ...] = typing.get_args(messages.AnyMessage)


def test_every_message_of_the_vocabulary_can_be_decoded() -> None:
    assert set(MESSAGES) == set(messages.Message.__subclasses__())


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_message_comes_back_as_it_was(
    kind: type[msgspec.Struct], data: st.DataObject
) -> None:
    message = data.draw(_structs(kind))
    (back,) = messages.decode(memoryview(messages.encode([message], 3))[3:])
    assert type(back) is kind
    assert back == message


@given(
    batch=st.lists(st.one_of(*map(_structs, MESSAGES)), max_size=8),
    reserve=st.integers(0, 40),
)
@settings(deadline=None)
def test_a_batch_keeps_its_order_and_leaves_room_in_front(
    batch: list[msgspec.Struct], reserve: int
) -> None:
    body = messages.encode(batch, reserve)
    assert body[:reserve] == bytes(reserve)
    assert messages.decode(bytes(body[reserve:])) == batch


@given(body=st.binary(max_size=200))
def test_garbage_is_refused_as_garbage(body: bytes) -> None:
    try:
        batch = messages.decode(body)
    except msgspec.DecodeError:  # ValidationError is one too
        return
    assert all(isinstance(message, messages.Message) for message in batch)


@given(
    batch=st.lists(st.one_of(*map(_structs, MESSAGES)), min_size=1, max_size=3),
    data=st.data(),
)
@settings(deadline=None)
def test_a_spoiled_batch_gives_messages_or_is_refused(
    batch: list[msgspec.Struct], data: st.DataObject
) -> None:
    body = messages.encode(batch)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    try:
        decoded = messages.decode(bytes(body[:cut]))
    except msgspec.DecodeError:
        return
    assert all(isinstance(message, messages.Message) for message in decoded)


def test_a_text_that_is_not_utf8_is_refused_as_garbage() -> None:
    body = messages.encode([messages.Refused("why")])
    body[-1] = 0xFF
    with pytest.raises(msgspec.DecodeError):
        messages.decode(bytes(body))


@given(batch=st.lists(st.one_of(*map(_structs, MESSAGES)), max_size=3))
@settings(deadline=None)
def test_a_text_that_no_message_can_carry_goes_escaped_with_all_around_it(
    batch: list[msgspec.Struct],
) -> None:
    """Or nothing that follows would ever be sent: it is tried again and again."""
    body = messages.encode([*batch, messages.Refused("h\udce4"), *batch], 3)
    expected = [*batch, messages.Refused("h\\udce4"), *batch]
    assert messages.decode(memoryview(body)[3:]) == expected


@pytest.mark.parametrize("byte", [b"\x91", b"\x81", b"\xdc\xff\xff"])
def test_deep_nesting_is_refused(byte: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        messages.decode(byte * 100_000)
