"""Who may send what."""

from __future__ import annotations

import typing
from typing import Any

import pytest

from mosaic_like.comms import messages as wire
from mosaic_like.core.senders import ROUTES, UNCHECKED, Kind, kind_of, may_send

ALL = ("monitor", "node:0", "head", "head:1", "worker:0:0", "worker:1:0", "warehouse:0")
KINDS: tuple[Any, ...] = typing.get_args(wire.AnyMessage)


def test_each_kind_of_message_is_in_the_table_once() -> None:
    assert set(ROUTES) | UNCHECKED == set(KINDS)
    assert not set(ROUTES) & UNCHECKED


@pytest.mark.parametrize(
    "message", [wire.Welcome, wire.Refused, wire.Joined, wire.Lost]
)
@pytest.mark.parametrize("receiver", ALL)
def test_only_the_monitor_says_who_is_a_member(message: type, receiver: str) -> None:
    tellers = [uid for uid in ALL if may_send(message, uid, receiver)]
    assert tellers == ["monitor"]


@pytest.mark.parametrize(
    ("receiver", "senders"),
    [
        ("monitor", ["head", "head:1"]),
        ("node:0", ["monitor"]),
        ("head", ["monitor"]),
        ("worker:0:0", ["node:0"]),
        ("worker:1:0", []),  # whose node is another
        ("helper:0:0", ["node:0"]),
        ("warehouse:0", ["node:0"]),
    ],
)
def test_the_order_to_end_comes_from_who_started_it(
    receiver: str, senders: list[str]
) -> None:
    assert [uid for uid in ALL if may_send(wire.Stop, uid, receiver)] == senders


@pytest.mark.parametrize("message", KINDS)
def test_a_node_and_the_monitor_get_no_calls_and_make_none(message: type) -> None:
    if message not in (wire.Create, wire.Cancel, wire.Value, wire.Define, wire.Copy):
        return
    for uid in ("monitor", "node:0"):
        assert not any(may_send(message, uid, other) for other in ALL)
        assert not any(may_send(message, other, uid) for other in ALL)


def test_what_has_no_known_kind_is_a_head() -> None:
    assert [kind_of(uid) for uid in ("mrun", "look12", "", "head:3")] == [Kind.HEAD] * 4
