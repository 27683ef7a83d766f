"""Errors that are passed on as a cause, unread."""

from __future__ import annotations

import pickle
from typing import Any

from mosaic_like.comms.causes import Cause
from mosaic_like.comms.exceptions import dump_error, load_error
from mosaic_like.comms.serialization import Serializer
from mosaic_like.errors import UpstreamError

LOADED: list[str] = []
SERIALIZER = Serializer()


def note() -> ValueError:
    LOADED.append("here")
    return ValueError("noted")


class Noting(ValueError):
    """Tells when it is unpickled."""

    def __reduce__(self) -> Any:
        return note, ()


def test_a_cause_is_passed_on_without_being_unpickled() -> None:
    cause = Cause(dump_error(Noting("why"), SERIALIZER))
    told = cause.under(UpstreamError("what", "1-1"), SERIALIZER)
    assert (cause.kind, cause.message) == ("Noting", "why")
    assert not LOADED
    error = load_error(told, SERIALIZER)
    assert LOADED == ["here"]
    assert isinstance(error, UpstreamError)
    assert isinstance(error.__cause__, ValueError)
    assert error.__suppress_context__


def test_of_a_chain_only_the_first_cause_is_kept() -> None:
    data = dump_error(ValueError("first"), SERIALIZER)
    for index in range(50):
        cause = Cause(data)
        assert (cause.kind, cause.message) == ("ValueError", "first")
        data = cause.under(UpstreamError(f"call {index}", "1-1"), SERIALIZER)
    error = load_error(data, SERIALIZER)
    assert str(error) == "call 49"
    assert repr(error.__cause__) == "ValueError('first')"
    assert error.__cause__ is not None
    assert error.__cause__.__cause__ is None
    assert len(data) < 10_000


def test_the_causes_of_the_cause_come_too() -> None:
    try:
        try:
            raise KeyError("deep")
        except KeyError as deep:
            raise ValueError("first") from deep
    except ValueError as error:
        data = dump_error(error, SERIALIZER)
    data = Cause(data).under(UpstreamError("one", "1-1"), SERIALIZER)
    data = Cause(data).under(UpstreamError("two", "1-1"), SERIALIZER)
    told = load_error(data, SERIALIZER)
    assert repr(told.__cause__) == "ValueError('first')"
    assert told.__cause__ is not None
    assert repr(told.__cause__.__cause__) == "KeyError('deep')"


def test_bytes_that_are_no_report_are_a_cause_all_the_same() -> None:
    cause = Cause(pickle.dumps(1))
    told = cause.under(UpstreamError("what", "1-1"), SERIALIZER)
    assert isinstance(load_error(told, SERIALIZER), UpstreamError)
