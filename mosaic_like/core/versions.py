"""Which version of each attribute of a parameter a copy has, and what it may then do.

A parameter is an object at its root with copies in other runtimes. Of each attribute
the root counts its changes; a copy knows the version that it took (its base), the
newest that its runtime has heard of, and whether its own value was changed since:

    changed here    newer at the root    state
    no              no                   CLEAN
    no              yes                  BEHIND
    yes             no                   CHANGED
    yes             yes                  CONFLICT

    asked           CLEAN      BEHIND     CHANGED         CONFLICT
    pull            nothing    go         nothing         ConflictError
    push            nothing    StaleError go              ConflictError
    set             go         StaleError go              ConflictError
    send, propagate go         go         StaleError      ConflictError

``push`` without names asks only for what was changed; ``force`` and ``discard`` do not
ask. A cached copy reads what is CLEAN by itself, and asks the root for the rest. What a
copy knows may be old, so the root decides again about each write: it is refused unless
the base is the root's own version, or the last write was this copy's too, whose answer
may still be under way. No values are here, and no messages.
"""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class CopyState(enum.Enum):
    """An attribute of a copy, seen beside the root."""

    CLEAN = "clean"
    BEHIND = "behind"
    CHANGED = "changed"
    CONFLICT = "conflict"


class Operation(enum.Enum):
    """What may be asked of a copy."""

    PULL = "pull"
    PUSH = "push"
    SET = "set"
    SEND = "send"


class Verdict(enum.Enum):
    """What is to be done about one attribute."""

    NOTHING = enum.auto()
    GO = enum.auto()
    STALE = enum.auto()  # an error: it would be lost, or old
    CONFLICT = enum.auto()  # an error: changed on both sides


_STATES = (
    (CopyState.CLEAN, CopyState.BEHIND),
    (CopyState.CHANGED, CopyState.CONFLICT),
)

_N, _G, _S, _C = Verdict
# In the order of CopyState.
VERDICTS: Mapping[Operation, tuple[Verdict, ...]] = MappingProxyType(
    {
        Operation.PULL: (_N, _G, _N, _C),
        Operation.PUSH: (_N, _S, _G, _C),
        Operation.SET: (_G, _S, _G, _C),
        Operation.SEND: (_G, _G, _S, _C),
    }
)
_COLUMNS = MappingProxyType({state: i for i, state in enumerate(CopyState)})


def verdict(operation: Operation, state: CopyState) -> Verdict:
    """What the table says."""
    return VERDICTS[operation][_COLUMNS[state]]


class CopyVersions:
    """The versions of one copy.

    Args:
        newest: by attribute, the newest version that anybody in this runtime has heard
            of; shared by the copies of one runtime.
    """

    __slots__ = ("_newest", "base")

    def __init__(self, newest: dict[str, int]) -> None:
        self.base: dict[str, int] = {}
        self._newest = newest

    def state(self, name: str, changed: bool) -> CopyState:
        """The state of an attribute.

        Args:
            name: the attribute; it need not be there.
            changed: its value here is not the one that was taken.
        """
        behind = self._newest.get(name, 0) > self.base.get(name, 0)
        return _STATES[changed][behind]

    def judge(
        self, operation: Operation, names: Iterable[str], changed: set[str]
    ) -> dict[Verdict, list[str]]:
        """The attributes by what is to be done about them, sorted."""
        found: dict[Verdict, list[str]] = {}
        for name in sorted(names):
            state = self.state(name, name in changed)
            found.setdefault(verdict(operation, state), []).append(name)
        return found

    def known(self) -> set[str]:
        """All attributes that were ever taken or heard of."""
        return {*self.base, *self._newest}

    def learned(self, versions: Mapping[str, int]) -> bool:
        """The root has said so; whether any of it is news to this runtime."""
        news = False
        for name, version in versions.items():
            if version > self._newest.get(name, 0):
                self._newest[name] = version
                news = True
        return news

    def taken(self, versions: Mapping[str, int]) -> None:
        """The values here are the root's of these versions, or have become them.

        Never backwards: what is in an answer may be older than a later write.
        """
        self.learned(versions)
        for name, version in versions.items():
            self.base[name] = max(version, self.base.get(name, 0))


class RootVersions:
    """The versions of the root: one count of changes for all attributes."""

    __slots__ = ("_writers", "version", "versions")

    def __init__(self, names: Iterable[str]) -> None:
        self.version = 1
        self.versions = dict.fromkeys(names, 1)
        self._writers: dict[str, int] = {}

    def behind(
        self, names: Iterable[str], bases: Mapping[str, int], writer: int
    ) -> list[str]:
        """Those that this copy may not write: somebody else has, since it took them.

        Args:
            names: what it wants to write.
            bases: the versions that it has; 0 where it has none.
            writer: the copy; never 0.
        """
        return sorted(
            name
            for name in names
            if self.versions.get(name, 0) != bases.get(name, 0)
            and self._writers.get(name) != writer
        )

    def wrote(self, names: Iterable[str], writer: int = 0) -> dict[str, int]:
        """They have changed; their new versions. Writer 0 is the root itself."""
        names = list(names)
        if names:
            self.version += 1
        for name in names:
            self.versions[name] = self.version
            self._writers[name] = writer
        return dict.fromkeys(names, self.version)

    def newer(self, have: Mapping[str, int]) -> dict[str, int]:
        """The versions of all that a copy with these has not."""
        return {n: v for n, v in self.versions.items() if v > have.get(n, 0)}
