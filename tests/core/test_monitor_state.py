"""Who is in the cluster: states of members, numbers, uids, and who is told what."""

from __future__ import annotations

import pytest

from mosaic_like.comms.messages import (
    LEFT,
    PROTOCOL,
    Drain,
    Hello,
    Joined,
    Leaving,
    Lost,
    Member,
    Refused,
    Welcome,
)
from mosaic_like.core.monitor import MemberState, MonitorState, following
from mosaic_like.errors import InvalidTransitionError
from mosaic_like.ids import INCARNATION_BITS, MONITOR_INCARNATION

EVENTS = ("welcome", "refuse", "silent", "heard", "lost", "left")
MOVES = {
    ("joining", "welcome"): "up",
    ("joining", "refuse"): "lost",
    ("up", "silent"): "suspect",
    ("up", "lost"): "lost",
    ("suspect", "heard"): "up",
    ("suspect", "lost"): "lost",
    ("up", "left"): "left",
    ("suspect", "left"): "left",
}


def hello(kind: str, uid: str = "", protocol: int = PROTOCOL) -> Hello:
    return Hello(protocol, "3.11", kind, uid, b"8 bytes.", "ipc://x", "host", 7)


@pytest.fixture
def monitor() -> MonitorState:
    state = MonitorState("3.11", b"settings")
    state.found(Member(0, "", b"monitor", "ipc://m", "host", 1))
    return state


def join(monitor: MonitorState, kind: str, uid: str = "") -> Member:
    member, _, _ = monitor.hello(hello(kind, uid))
    assert member is not None
    return member


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", list(MemberState))
def test_an_event_moves_a_member_as_the_table_says_or_not_at_all(
    state: MemberState, event: str
) -> None:
    expected = MOVES.get((state.value, event))
    if expected is None:
        with pytest.raises(InvalidTransitionError):
            following(state, event)
    else:
        assert following(state, event).value == expected


def test_the_monitor_is_the_first_member(monitor: MonitorState) -> None:
    assert monitor.members[MONITOR_INCARNATION].uid == "monitor"


def test_uids_are_given_in_order_and_never_twice(monitor: MonitorState) -> None:
    kinds = ["head", "node", "head", "node"]
    assert [join(monitor, kind).uid for kind in kinds] == [
        "head",
        "node:0",
        "head:1",
        "node:1",
    ]


def test_a_uid_that_was_asked_for_is_not_given_to_another(
    monitor: MonitorState,
) -> None:
    join(monitor, "node", "node:0")
    join(monitor, "head", "head")
    assert join(monitor, "node").uid == "node:1"
    assert join(monitor, "head").uid == "head:1"


def test_an_incarnation_is_never_used_again(monitor: MonitorState) -> None:
    first = join(monitor, "worker", "worker:0:0")
    monitor.lost(first.incarnation, "killed")
    assert join(monitor, "worker", "worker:0:0").incarnation > first.incarnation


def test_a_new_member_knows_all_and_is_told_to_all(monitor: MonitorState) -> None:
    head, node = join(monitor, "head"), join(monitor, "node")
    member, welcome, told = monitor.hello(hello("worker", "worker:0:0"))
    assert member is not None
    assert isinstance(welcome, Welcome)
    assert [m.uid for m in welcome.members] == ["monitor", "head", "node:0"]
    assert told == [
        (head.incarnation, Joined(member)),
        (node.incarnation, Joined(member)),
    ]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (hello("head", protocol=PROTOCOL + 1), "install the same version"),
        (Hello(PROTOCOL, "3.9", "head", "", b"", "", "h", 1), "Python 3.9"),
        (hello("monitor"), "cannot join"),
        (hello("worker"), "without a uid"),
        (hello("warehouse"), "without a uid"),
        (hello("worker", "worker:0:0"), "already"),
        (hello("head", "monitor"), "already"),
    ],
)
def test_who_does_not_fit_is_refused_and_nobody_hears_of_it(
    monitor: MonitorState, message: Hello, why: str
) -> None:
    join(monitor, "worker", "worker:0:0")
    before = dict(monitor.members)
    member, answer, told = monitor.hello(message)
    assert member is None
    assert isinstance(answer, Refused)
    assert why in answer.why
    assert told == []
    assert monitor.members == before


def test_a_cluster_that_ran_out_of_numbers_takes_nobody(monitor: MonitorState) -> None:
    monitor._next = 1 << INCARNATION_BITS
    assert isinstance(monitor.hello(hello("head"))[1], Refused)


def test_a_loss_is_told_once_to_all_that_are_left(monitor: MonitorState) -> None:
    head, worker = join(monitor, "head"), join(monitor, "worker", "worker:0:0")
    told = monitor.lost(worker.incarnation, "killed")
    assert told == [
        (head.incarnation, Lost(worker.incarnation, "worker:0:0", "killed"))
    ]
    assert monitor.lost(worker.incarnation, "killed") == []
    assert monitor.states[worker.incarnation] is MemberState.LOST


def test_a_node_takes_its_own_workers_and_warehouse_with_it(
    monitor: MonitorState,
) -> None:
    head = join(monitor, "head")
    node, other = join(monitor, "node"), join(monitor, "node")
    mine = join(monitor, "worker", "worker:0:0")
    theirs = join(monitor, "worker", "worker:1:0")
    values = join(monitor, "warehouse", "warehouse:0")
    others = join(monitor, "warehouse", "warehouse:1")
    told = monitor.lost(node.incarnation, "reset")
    to_head = [m for to, m in told if to == head.incarnation]
    heard = [m.incarnation for m in to_head if isinstance(m, Lost)]
    assert heard == [node.incarnation, mine.incarnation, values.incarnation]
    assert monitor.of_uid("warehouse:1") == others
    assert monitor.of_uid("worker:0:0") is None
    assert monitor.of_uid("worker:1:0") == theirs
    assert other.incarnation in monitor.members


def test_all_are_told_who_is_to_leave_and_later_only_that_one_to_hurry(
    monitor: MonitorState,
) -> None:
    head, worker = join(monitor, "head"), join(monitor, "worker", "worker:0:0")
    leaving = Leaving(worker.incarnation, None)
    told = monitor.drain(Drain(worker.incarnation, None))
    assert told == [(m.incarnation, leaving) for m in (head, worker)]
    hurry = Leaving(worker.incarnation, 1.0)
    told = monitor.drain(Drain(worker.incarnation, 1.0))
    assert told == [(worker.incarnation, hurry)]


def test_with_a_node_leaves_what_it_has_started_also_what_joins_later(
    monitor: MonitorState,
) -> None:
    node = join(monitor, "node")
    worker = join(monitor, "worker", "worker:0:0")
    join(monitor, "worker", "worker:1:0")
    told = monitor.drain(Drain(node.incarnation, None))
    assert {m.incarnation for _, m in told} == {node.incarnation, worker.incarnation}  # type: ignore[attr-defined]  # all are Leaving
    late, _, told = monitor.hello(hello("warehouse", "warehouse:0"))
    assert late is not None
    assert (worker.incarnation, Leaving(late.incarnation, None)) in told
    assert (late.incarnation, Leaving(late.incarnation, None)) in told
    assert (late.incarnation, Leaving(node.incarnation, None)) in told


def test_who_joins_later_hears_of_the_heirs_of_those_that_have_left(
    monitor: MonitorState,
) -> None:
    keeper = join(monitor, "warehouse", "warehouse:0")
    worker = join(monitor, "worker", "worker:0:0")
    monitor.lost(worker.incarnation, "it was drained", b"", LEFT, keeper.incarnation)
    assert monitor.states[worker.incarnation] is MemberState.LEFT
    newcomer, _, told = monitor.hello(hello("head"))
    assert newcomer is not None
    lost = Lost(
        worker.incarnation,
        worker.uid,
        "it was drained",
        b"",
        LEFT,
        keeper.incarnation,
    )
    assert (newcomer.incarnation, lost) in told


@pytest.mark.parametrize("kind", ["head", "warehouse"])
def test_only_workers_and_nodes_are_asked_to_leave(
    monitor: MonitorState, kind: str
) -> None:
    member = join(monitor, kind, "warehouse:0" if kind == "warehouse" else "")
    assert monitor.drain(Drain(member.incarnation, None)) == []
    assert monitor.drain(Drain(99, None)) == []
