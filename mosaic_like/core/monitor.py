"""Who is in the cluster: the monitor's state.

It numbers incarnations, gives uids, and says to all in one order who has joined and who
is lost. What it returns is to be sent; whom it welcomes is announced to the others
after the welcome, so that nobody hears of a member that does not know them.
"""

from __future__ import annotations

import enum
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..comms.messages import (
    DIED,
    PROTOCOL,
    Drain,
    Hello,
    Joined,
    Leaving,
    Lost,
    Member,
    Message,
    Refused,
    Welcome,
)
from ..errors import InvalidTransitionError
from ..ids import INCARNATION_BITS, MONITOR_INCARNATION
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKEN_BYTES = 8
_HOST_CHARACTERS = 255
_ADDRESS = re.compile(r"(ipc|tcp)://[^\x00-\x1f\x7f-\x9f]{1,255}")
_TCP = re.compile(r"tcp://[0-9a-fA-F.:\[\]]{1,64}:[0-9]{1,5}")
_MACHINE_CHARACTERS = 64
_UIDS = MappingProxyType(
    {
        "node": re.compile(r"node:[0-9]{1,9}"),
        "worker": re.compile(r"worker:[0-9]{1,9}:[0-9]{1,9}"),
        "helper": re.compile(r"helper:[0-9]{1,9}:[0-9]{1,9}"),
        "warehouse": re.compile(r"warehouse:[0-9]{1,9}"),
        # Any name will do, such as mrun, but that of another kind.
        "head": re.compile(
            r"(?!(monitor|node|worker|helper|warehouse)\b)"
            r"[A-Za-z0-9_.-]{1,64}(:[0-9]{1,9})?"
        ),
    }
)


class MemberState(enum.StrEnum):
    """A runtime as the monitor sees it."""

    JOINING = "joining"
    UP = "up"
    SUSPECT = "suspect"
    LOST = "lost"
    LEFT = "left"  # it was drained


TRANSITIONS: dict[MemberState, dict[str, MemberState]] = {
    MemberState.JOINING: {"welcome": MemberState.UP, "refuse": MemberState.LOST},
    MemberState.UP: {
        "silent": MemberState.SUSPECT,
        "lost": MemberState.LOST,
        "left": MemberState.LEFT,
    },
    MemberState.SUSPECT: {
        "heard": MemberState.UP,
        "lost": MemberState.LOST,
        "left": MemberState.LEFT,
    },
    MemberState.LOST: {},
    MemberState.LEFT: {},
}


def following(state: MemberState, event: str) -> MemberState:
    """The state after an event; InvalidTransitionError if the table has none."""
    new = TRANSITIONS[state].get(event)
    if new is None:
        raise InvalidTransitionError(state, event)
    return new


Sends = list[tuple[int, Message]]

KINDS = ("head", "node", "worker", "helper", "warehouse")
OF_NODES = ("worker", "helper", "warehouse")  # started, named and watched by a node
LEAVERS = ("worker", "helper", "node")  # that can be asked to leave in order


class MonitorState:
    """The members.

    Args:
        python: ``major.minor`` that all must have: code objects do not travel between.
        settings: what every runtime gets with its welcome.
        path: where the program finds its modules, for nodes that it did not start.
        cwd: its working directory, for these.
    """

    def __init__(
        self, python: str, settings: bytes, path: Sequence[str] = (), cwd: str = ""
    ) -> None:
        self._python = python
        self._settings = settings
        self._path = list(path)
        self._cwd = cwd
        self._next = MONITOR_INCARNATION
        self.members: dict[int, Member] = {}
        self.states: dict[int, MemberState] = {}
        self._heads = 0
        self._nodes = 0
        self._leaving: dict[int, Leaving] = {}
        # Of those that have left and have an heir: newcomers hear of it.
        self._left: list[Lost] = []

    def found(self, member: Member) -> Member:
        """The monitor itself joins first."""
        return self._add(member, "monitor")

    def hello(self, message: Hello) -> tuple[Member | None, Message, Sends]:
        """Somebody asks to join: the member, the answer, and what others are told."""
        why = self._objection(message)
        if why:
            return None, Refused(why), []
        others = list(self.members)
        member = self._add(
            Member(
                0,
                "",
                message.token,
                message.address,
                printable(message.host)[:_HOST_CHARACTERS],
                message.pid,
                message.tcp,
                message.machine,
            ),
            self._uid(message),
        )
        known = [m for m in self.members.values() if m is not member]
        welcome = Welcome(member, known, self._settings)
        if message.kind == "node":
            welcome.path, welcome.cwd = self._path, self._cwd
        joined: Sends = [
            (other, Joined(member)) for other in others if other != MONITOR_INCARNATION
        ]
        told = (*self._left, *self._leaving.values())
        joined += [(member.incarnation, message) for message in told]
        node = self._node_of(member)
        if node in self._leaving:
            joined += self._leave(member, self._leaving[node])
        return member, welcome, joined

    def drain(self, message: Drain) -> Sends:
        """Somebody wants a worker, or a node with all its own, to leave in order.

        Asked again, only the one that leaves is told: it may be in more of a hurry.
        """
        member = self.members.get(message.incarnation)
        if member is None or member.uid.partition(":")[0] not in LEAVERS:
            return []
        known = member.incarnation in self._leaving
        asked = Leaving(member.incarnation, message.timeout_s, message.replace)
        sends: list[tuple[int, Leaving]] = []
        for other in list(self.members.values()):
            if other is member or self._node_of(other) == member.incarnation:
                sends += self._leave(other, asked)
        return [(to, m) for to, m in sends if not known or to == m.incarnation]

    def _leave(self, member: Member, asked: Leaving) -> list[tuple[int, Leaving]]:
        told = Leaving(member.incarnation, asked.timeout_s, asked.replace)
        self._leaving[member.incarnation] = told
        return [(m, told) for m in self.members if m != MONITOR_INCARNATION]

    def _node_of(self, member: Member) -> int:
        """Incarnation of the node that has started it; 0: it is none of these."""
        kind, *indices = member.uid.split(":")
        node = self.of_uid(f"node:{indices[0]}") if kind in OF_NODES else None
        return 0 if node is None else node.incarnation

    def lost(
        self,
        incarnation: int,
        cause: str,
        remains: bytes = b"",
        left: int = DIED,
        heir: int = 0,
    ) -> Sends:
        """A runtime has ended, or left in order; told again, nothing happens."""
        member = self.members.get(incarnation)
        if member is None:
            return []
        event = "left" if left else "lost"
        self.states[incarnation] = following(self.states[incarnation], event)
        del self.members[incarnation]
        self._leaving.pop(incarnation, None)
        told = Lost(incarnation, member.uid, cause, remains, left, heir)
        if heir:
            self._left.append(told)
        sends = self._told(told)
        if member.uid.startswith("node:"):
            # What it started dies with it; the kernel sees to that.
            index = member.uid.split(":")[1]
            for other in list(self.members.values()):
                kind, *indices = other.uid.split(":")
                if kind in OF_NODES and indices[:1] == [index]:
                    sends += self.lost(other.incarnation, f"its node is lost: {cause}")
        return sends

    def silent(self, incarnation: int) -> None:
        """A member was not heard for a while."""
        self._move(incarnation, "silent")

    def heard(self, incarnation: int) -> None:
        """It is heard again."""
        self._move(incarnation, "heard")

    def _move(self, incarnation: int, event: str) -> None:
        self.states[incarnation] = following(self.states[incarnation], event)

    def of_uid(self, uid: str) -> Member | None:
        """The member that has this uid now."""
        for member in self.members.values():
            if member.uid == uid:
                return member
        return None

    def _told(self, message: Message) -> Sends:
        return [(m, message) for m in self.members if m != MONITOR_INCARNATION]

    def _add(self, member: Member, uid: str) -> Member:
        incarnation = self._next
        self._next += 1
        member = Member(
            incarnation,
            uid,
            member.token,
            member.address,
            member.host,
            member.pid,
            member.tcp,
            member.machine,
        )
        self.members[incarnation] = member
        self.states[incarnation] = following(MemberState.JOINING, "welcome")
        return member

    def _objection(self, message: Hello) -> str:
        if message.protocol != PROTOCOL:
            return (
                f"{message.kind} on {message.host} speaks protocol "
                f"{message.protocol}, this cluster {PROTOCOL}: install the same "
                "version of mosaic_like everywhere"
            )
        if message.python != self._python:
            return (
                f"{message.kind} on {message.host} runs Python {message.python}, this "
                f"cluster {self._python}: code does not travel between them; use the "
                "same Python everywhere"
            )
        if message.kind not in KINDS:
            return f"a {message.kind!r} cannot join"
        if message.kind in OF_NODES and not message.uid:
            return f"a {message.kind} without a uid cannot join: its node gives it one"
        if self._next >= 1 << INCARNATION_BITS:
            return "this cluster has had too many members; start a new one"
        if message.uid and self.of_uid(message.uid) is not None:
            return f"there is a {message.uid} already"
        return _senseless(message)

    def _uid(self, message: Hello) -> str:
        if message.uid:
            return message.uid
        while True:  # some have asked for the next one by name
            if message.kind == "head":
                uid = f"head:{self._heads}" if self._heads else "head"
                self._heads += 1
            else:
                uid = f"node:{self._nodes}"
                self._nodes += 1
            if self.of_uid(uid) is None:
                return uid


def _senseless(message: Hello) -> str:
    """What of it would be of no use to anybody: others connect, and read the uid."""
    if len(message.token) != TOKEN_BYTES:
        return f"its token has {len(message.token)} bytes, not {TOKEN_BYTES}"
    if not _ADDRESS.fullmatch(message.address):
        return f"{message.address[:200]!r} is no address to answer to"
    if message.tcp and not _TCP.fullmatch(message.tcp):
        return f"{message.tcp[:200]!r} is no address of the network"
    if len(message.machine) > _MACHINE_CHARACTERS:
        return f"its machine has {len(message.machine)} characters"
    if message.uid and message.kind in KINDS:
        pattern = _UIDS.get(message.kind, _UIDS["head"])
        if not pattern.fullmatch(message.uid):
            return f"{message.uid[:200]!r} is no uid of a {message.kind}"
    return ""
