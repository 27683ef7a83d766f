"""For whom one that leaves waits, and for how long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mosaic_like.comms import messages as wire
from mosaic_like.comms.link import LinkState
from mosaic_like.runtimes.departing import ANSWER_S, Departing

HEAD = 7
NODE_TIMEOUT_S = 15.0


class Leaver:
    """A worker that leaves, on a clock of the test; one head has to answer."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.link = SimpleNamespace(state=LinkState.UP, connection=0)
        peer = SimpleNamespace(link=self.link)
        head = wire.Member(HEAD, "head", b"", "", "", 1)
        runtime: Any = SimpleNamespace(
            uid="worker:0:0",
            incarnation=5,
            loop=SimpleNamespace(time=lambda: self.now_s, create_future=lambda: None),
            of_kind=lambda kind: [head] if kind == "head" else [],
            outbox=lambda incarnation: peer,
            config=SimpleNamespace(node_timeout_s=NODE_TIMEOUT_S),
            leavers=SimpleNamespace(take_early=dict),
            handling=SimpleNamespace(on_create=None),
            peers=SimpleNamespace(deliver=None, by_incarnation={HEAD: peer}),
            deliver_singly=None,
            handlers={},
        )
        self.departing = Departing(runtime, lambda: None)


def test_who_is_frozen_is_waited_for_as_long_as_an_answer_takes() -> None:
    leaver = Leaver()
    assert not leaver.departing.has_heard_all
    leaver.link.connection = 1  # the first one
    leaver.now_s += ANSWER_S
    assert leaver.departing.has_heard_all


def test_who_has_answered_or_is_lost_is_not_waited_for() -> None:
    leaver = Leaver()
    leaver.departing.seen(HEAD, 0)
    assert leaver.departing.has_heard_all
    other = Leaver()
    other.departing.lost(HEAD)
    assert other.departing.has_heard_all


@pytest.mark.parametrize(
    ("state", "connection"),
    [
        (LinkState.BROKEN, 1),
        (LinkState.OPENING, 2),
        (LinkState.UP, 2),  # as far as is known: it is just being made again
    ],
)
def test_who_is_cut_off_is_waited_for_until_it_must_be_lost(
    state: LinkState, connection: int
) -> None:
    leaver = Leaver()
    leaver.link.state, leaver.link.connection = state, connection
    leaver.now_s += ANSWER_S
    assert not leaver.departing.has_heard_all
    leaver.now_s += NODE_TIMEOUT_S - ANSWER_S
    assert leaver.departing.has_heard_all


@pytest.mark.parametrize(
    ("rest_s", "patience_s"),
    [(0.0, ANSWER_S), (ANSWER_S + 1, ANSWER_S + 1), (100.0, NODE_TIMEOUT_S)],
)
def test_who_is_cut_off_gets_what_is_left_of_the_time(
    rest_s: float, patience_s: float
) -> None:
    leaver = Leaver()
    assert leaver.departing.patience_s(leaver.now_s + rest_s) == patience_s
