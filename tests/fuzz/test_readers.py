"""Whatever stands in a file or in a packet: it is read, or refused in words."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mosaic_like.comms.causes import Cause
from mosaic_like.comms.exceptions import error_summary, load_error
from mosaic_like.comms.frames import without_own
from mosaic_like.comms.security import answer
from mosaic_like.comms.serialization import Serializer
from mosaic_like.config import Config
from mosaic_like.core import verdicts
from mosaic_like.core.verdicts import Remains
from mosaic_like.errors import ConnectError
from mosaic_like.launch import keys
from mosaic_like.runtimes import fork_packets, journal, orders, spec
from mosaic_like.runtimes.directory import KEY_NAME

if TYPE_CHECKING:
    from pathlib import Path

CASES = settings(max_examples=60, deadline=None)
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
KEY = {"address": "ipc:///x/m", "token": "00" * 8, "directory": "/x"}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / KEY_NAME
    path.touch(0o600)
    return path


@CASES
@given(body=st.binary(max_size=300) | JSON.map(lambda v: json.dumps(v).encode()))
@example(body=b"")
@example(body=b"[" * 100_000)
@example(body=b"[" * 60_000)
@example(body=b'{"address": "\\ud800", "token": "zz", "directory": ""}')
def test_a_key_file_that_is_none_is_refused_with_its_name(
    body: bytes, key_file: Path
) -> None:
    key_file.write_bytes(body)
    with pytest.raises(ConnectError, match=KEY_NAME):
        keys.read(key_file)


@CASES
@given(field=st.sampled_from([*KEY, "protocol", "python", "pid", "host"]), value=JSON)
def test_a_key_file_with_a_wrong_field_is_read_or_refused(
    field: str, value: Any, key_file: Path
) -> None:
    key_file.write_text(json.dumps({**KEY, field: value}))
    try:
        assert keys.read(key_file).address.partition("://")[1]
    except ConnectError as error:
        assert KEY_NAME in str(error)  # noqa: PT017 - it may be read as well


@CASES
@given(
    index=st.integers(0, len(Config.options()) - 1),
    text=st.text(max_size=30) | st.sampled_from(["nan", "-inf", "1e999", "9" * 5000]),
)
def test_an_option_in_the_environment_is_read_or_refused_by_its_name(
    index: int, text: str
) -> None:
    option = Config.options()[index]
    try:
        option.parse(text)
    except (ValueError, TypeError, NotImplementedError) as error:
        assert option.environment in str(error)  # noqa: PT017 - it may be read as well


@CASES
@given(data=st.binary(max_size=200) | JSON.map(msgspec.msgpack.encode))
def test_bytes_for_a_child_are_read_or_refused(data: bytes) -> None:
    refusals = (*UNREADABLE, TypeError, ValueError)
    for read in (Config.from_bytes, spec.decode, fork_packets.decode_report):
        with contextlib.suppress(*refusals):
            read(data)


@CASES
@given(data=st.binary(max_size=300))
@example(data=b"\x81\xa1a\xff")
def test_what_a_dead_worker_left_is_read_or_empty(data: bytes) -> None:
    assert isinstance(verdicts.decode(data), Remains)


@CASES
@given(
    header=st.lists(
        st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 99), max_size=62
    ),
    rest=st.binary(max_size=400),
    size=st.integers(0, 12_000),
)
@example(header=[-50], rest=b"", size=12_000)
def test_a_journal_that_was_damaged_is_read_or_empty(
    header: list[int], rest: bytes, size: int
) -> None:
    magic = struct.pack("<q", journal._MAGIC)
    body = magic + struct.pack(f"<{len(header)}q", *header)
    body = body.ljust(8704, b"x") + rest
    remains = journal.read(body.ljust(size, b"\x01"))
    assert isinstance(remains, Remains)
    assert verdicts.decode(verdicts.encode(remains)) == remains


@CASES
@given(data=st.binary(max_size=20))
def test_an_order_that_is_none_is_no_order(data: bytes, key_file: Path) -> None:
    path = str(key_file.with_name("i1"))
    os.symlink(data.hex() or "-", path)
    uid, _ = orders.read(path)
    assert uid == (int.from_bytes(data[:8], "little") if len(data) == 9 else 0)
    os.unlink(path)


@CASES
@given(st.lists(st.binary(max_size=40), max_size=9))
def test_whatever_asks_at_the_door_without_the_key_is_not_let_in(
    request: list[bytes],
) -> None:
    reply = answer(request, b"k" * 32)
    assert reply is None or reply[2] == b"400"


@CASES
@given(data=st.binary(max_size=200) | JSON.map(msgspec.msgpack.encode))
@example(data=msgspec.msgpack.encode([["E", "m", "t", [], [], b"", "", 0, -5]]))
@example(data=msgspec.msgpack.encode([["E", "m", "t", [], [], b"", "", 99, 7]] * 40))
def test_a_report_of_an_error_that_is_none_becomes_an_error(data: bytes) -> None:
    serializer = Serializer()
    error = load_error(data, serializer)
    assert isinstance(error, BaseException)
    assert without_own(error.__traceback__) is None
    assert error_summary(data)
    told = Cause(data).under(ValueError("x"), serializer)
    assert isinstance(load_error(told, serializer), ValueError)
