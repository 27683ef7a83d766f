"""Text of other processes does nothing to a terminal but be shown."""

from __future__ import annotations

import io
import logging
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.comms.messages import PROTOCOL, Hello, Member
from mosaic_like.core.monitor import MonitorState
from mosaic_like.launch.status import _lines
from mosaic_like.runtimes import unheard
from mosaic_like.runtimes.output import LOGGED, show
from mosaic_like.text import lines_for_terminal, printable, printable_lines

CONTROL = [chr(c) for c in (*range(0x20), *range(0x7F, 0xA0))]
EVIL = "w0:0\x1b[2J\x9b31m\r\nmosaic: all is well\x07"


@given(st.text() | st.text(st.sampled_from([*CONTROL, "a", "é", "\u202e"])))
def test_one_line_has_no_control_characters_and_keeps_its_length(text: str) -> None:
    clean = printable(text)
    assert len(clean) == len(text)
    assert not any(c in clean for c in (*CONTROL, "\u2028", "\u202e"))
    assert printable(clean) == clean


@given(st.text(st.sampled_from([*CONTROL, "a"])))
def test_of_several_lines_the_lines_stay(text: str) -> None:
    clean = printable_lines(text)
    assert clean.count("\n") == text.count("\n")
    assert not any(c in clean for c in CONTROL if c not in "\n\t")


def test_what_is_printable_stays_as_it_is() -> None:
    text = "Counter#1 on wörker:0 · 3 µs → ok"
    assert printable(text) is text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_label_of_a_line_is_one_line(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr(sys, "stdout", stream)
    show(1, EVIL, "text\n")
    assert stream.getvalue() == f"{printable(EVIL)} | text\n"
    assert "\x1b" not in stream.getvalue()


@given(st.text(st.sampled_from([*CONTROL, "a", "[", "m", "3", ";"])))
def test_of_lines_for_a_terminal_only_colors_stay(text: str) -> None:
    clean = lines_for_terminal(text)
    assert clean.count("\n") == text.count("\n")
    without_colors = re.sub(r"\x1b\[[0-9;:]*m", "", clean)
    assert not any(c in without_colors for c in CONTROL if c not in "\n\t")
    assert lines_for_terminal(clean) == clean


def test_what_is_logged_for_a_worker_is_clean(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mosaic_like")
    show(LOGGED, EVIL, "\x1b[31mred\x1b[2J\x07\n")
    (record,) = caplog.records
    assert record.getMessage() == f"{printable(EVIL)}: \x1b[31mred\x1b[0m"


def test_a_failure_that_nobody_asked_for_is_logged_clean() -> None:
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    unheard.logger.addHandler(handler)
    unheard.logger.propagate = False
    try:
        for text in (EVIL, "harmless\ntext"):
            error = ValueError(text)
            unheard.logger.error("it failed", exc_info=(ValueError, error, None))
    finally:
        unheard.logger.propagate = True
        unheard.logger.removeHandler(handler)
    assert shown.getvalue() == (
        "it failed\nValueError: w0:031m\nmosaic: all is well\n"
        "it failed\nValueError: harmless\ntext\n"
    )
    assert str(error) == "harmless\ntext"


def hello(**fields: object) -> Hello:
    about = {
        "protocol": PROTOCOL,
        "python": "3.11",
        "kind": "head",
        "uid": "",
        "token": b"8 bytes.",
        "address": "ipc:///tmp/x",
        "host": "host",
        "pid": 7,
    }
    return Hello(**{**about, **fields})  # type: ignore[arg-type]  # each of its own type


@pytest.fixture
def monitor() -> MonitorState:
    state = MonitorState("3.11", b"")
    state.found(Member(0, "", b"monitor.", "ipc:///m", "host", 1))
    return state


def test_a_host_with_control_characters_is_announced_without(
    monitor: MonitorState,
) -> None:
    member, _, _ = monitor.hello(hello(host=EVIL * 50))
    assert member is not None
    assert member.host.isprintable()
    assert len(member.host) == 255


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"uid": EVIL}, "no uid of a head"),
        ({"uid": "monitor"}, "there is a monitor already"),
        ({"uid": "monitor:1"}, "no uid of a head"),
        ({"uid": "worker:0:0"}, "no uid of a head"),
        ({"uid": "x" * 100}, "no uid of a head"),
        ({"kind": "worker", "uid": "worker:0"}, "no uid of a worker"),
        ({"kind": "worker", "uid": "worker:0:x"}, "no uid of a worker"),
        ({"kind": "worker", "uid": "monitor:1"}, "no uid of a worker"),
        ({"kind": "node", "uid": "node:0:1"}, "no uid of a node"),
        ({"kind": "warehouse", "uid": "head"}, "no uid of a warehouse"),
        ({"address": "here"}, "no address"),
        ({"address": "inproc://x"}, "no address"),
        ({"address": "ipc:///tmp/\nx"}, "no address"),
        ({"token": b""}, "0 bytes"),
    ],
)
def test_who_could_not_be_spoken_to_or_of_cannot_join(
    monitor: MonitorState, fields: dict[str, object], why: str
) -> None:
    member, answer, told = monitor.hello(hello(**fields))
    assert member is None
    assert told == []
    assert why in answer.why  # type: ignore[attr-defined]  # a Refused
    assert len(monitor.members) == 1


@pytest.mark.parametrize("uid", ["mrun", "look1a2b3c4d", "head:7", "my.program-2"])
def test_a_head_may_have_any_plain_name(monitor: MonitorState, uid: str) -> None:
    member, _, _ = monitor.hello(hello(uid=uid))
    assert member is not None
    assert member.uid == uid


def test_status_prints_names_without_control_characters() -> None:
    named = {"name": EVIL, "class": EVIL, "runtime": "", "detached": False}
    about = {
        "id": "0",
        "pid": 1,
        "up_s": 1.0,
        "key_file": "/x",
        "workers": [],
        "nodes": [],
        "heads": [],
        "warehouses": [],
        "names": [named],
        "tcp": "",
    }
    assert all(printable(line).isprintable() for line in _lines(about))
