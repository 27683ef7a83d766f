"""The members of a cluster by kind, and that they are never those of a while ago."""

from __future__ import annotations

import pytest

from mosaic_like.comms.messages import Member
from mosaic_like.runtimes.membership import Members


def member(incarnation: int, uid: str) -> Member:
    return Member(incarnation, uid, b"", "", "", 0)


ME = member(9, "head")


@pytest.fixture
def members() -> Members:
    found = Members()
    for incarnation, uid in ((3, "worker:0:10"), (4, "worker:0:2"), (5, "node:0")):
        found[incarnation] = member(incarnation, uid)
    return found


def uids(members: Members, kind: str) -> list[str]:
    return [m.uid for m in members.of_kind(kind, ME)]


def test_members_of_a_kind_are_in_the_order_of_their_indices(members: Members) -> None:
    assert uids(members, "worker") == ["worker:0:2", "worker:0:10"]
    assert uids(members, "head") == ["head"], "who asks is one too"


def test_who_joins_and_who_is_lost_is_seen_at_once(members: Members) -> None:
    uids(members, "worker")
    members[6] = member(6, "worker:0:1")
    assert uids(members, "worker") == ["worker:0:1", "worker:0:2", "worker:0:10"]
    del members[4]
    assert uids(members, "worker") == ["worker:0:1", "worker:0:10"]
    assert members.pop(3).uid == "worker:0:10"
    assert members.pop(3, None) is None
    assert uids(members, "worker") == ["worker:0:1"]


def test_what_a_thread_found_before_a_change_is_not_kept(members: Members) -> None:
    class Slow:
        """Whoever looks at it is slow: meanwhile somebody is lost."""

        @property
        def uid(self) -> str:
            members.pop(4, None)
            return "head"

    members.of_kind("worker", Slow())  # type: ignore[arg-type]  # all of it that is read
    assert uids(members, "worker") == ["worker:0:10"]


def test_what_one_does_to_its_list_is_not_seen_by_the_next(members: Members) -> None:
    members.of_kind("worker", ME).clear()
    assert len(uids(members, "worker")) == 2
