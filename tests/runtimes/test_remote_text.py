"""Text of other processes is cleaned where it comes in: nobody has to think of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from mosaic_like.comms import messages as wire
from mosaic_like.core.names import NAME_BYTES, NameTable
from mosaic_like.runtimes.handling import Handling
from mosaic_like.runtimes.memory_report import report_of
from mosaic_like.runtimes.node import Node
from mosaic_like.runtimes.receiving import Complaints

if TYPE_CHECKING:
    from mosaic_like.runtimes.actor import ActorRuntime

EVIL = "Counter\x1b[2J\r\nmosaic: all is well\x07"


def test_the_name_of_a_tessera_is_clean_and_short_when_it_is_made() -> None:
    made: list[wire.Create] = []
    lifecycle = SimpleNamespace(
        check_create=lambda message, sender: None,
        create=lambda message, buffers, sender: made.append(message),
    )
    worker = SimpleNamespace(lifecycle=lifecycle)
    linking = SimpleNamespace(came=lambda uid: None)
    runtime = cast("ActorRuntime", SimpleNamespace(worker=worker, linking=linking))
    options = wire.Options(EVIL * 100)
    Handling(runtime).on_create(wire.Create(1, 2, b"c", b"d", options), (), 3)
    assert made[0].options.name.isprintable()
    assert len(made[0].options.name) == NAME_BYTES


@pytest.mark.parametrize("name", [EVIL, "", "x" * (NAME_BYTES + 1), "\ud800"])
def test_a_name_that_cannot_be_shown_is_not_given(name: str) -> None:
    names = NameTable()
    ((to, answer),) = names.claim(7, wire.Claim(name, "m:C", 1, False))
    assert to == 7
    assert isinstance(answer, wire.Claimed)
    assert "is no name" in answer.why
    assert not names.entries()


def test_the_class_of_a_name_is_shown_clean() -> None:
    names = NameTable()
    names.claim(7, wire.Claim("name", EVIL, 1, False))
    assert names.entries()[0].cls.isprintable()


def test_what_a_worker_could_not_close_is_printed_clean() -> None:
    node = SimpleNamespace(_lines=[], members={})
    Node._on_stopped(cast("Node", node), wire.Stopped([EVIL]), (), 3)
    assert all(line.isprintable() for line in node._lines)


def test_the_names_of_values_are_clean() -> None:
    told = wire.MemoryOf(1, [wire.KnownValue(0, EVIL)])
    members = {1: wire.Member(1, "head", b"", "", "host", 1)}
    (value,) = report_of({1: told}, members, [], lambda holder: "head").values
    assert value.name.isprintable()


def test_refused_strangers_are_told_once_in_ten_seconds_and_counted() -> None:
    now_s = 0.0
    lines: list[str] = []
    complaints = Complaints(lambda: now_s, lines.append)
    for _ in range(1000):
        complaints.tell("10.0.0.5\x1b[2J", "a connection without our key")
    now_s = 10.5
    complaints.tell("10.0.0.5\x1b[2J", "a connection without our key")
    assert len(lines) == 2
    assert "(and 999 more since the last time)" in lines[1]
    assert all(line.isprintable() for line in lines)
