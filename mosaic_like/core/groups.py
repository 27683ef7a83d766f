"""Tesserae that are built again together: which, and in which order.

This is what ``mosaic.supervise`` asks for. All members have the same home
(``core.restarts``); their order is that in which they were named. When a member is
lost, those that are built again with it are ended first, the last one first; when all
of them have ended they are built, each when the one before it is built. A member is:

    up        lives, or is built for the first time
    ending    lives, and is to end: it is built again with another one
    down      has ended, and is to be built
    building  the home builds it
    left      closed for good; nothing of this concerns it any more

              lost                        ended    built    left
    up        down: this one and ``with`` -        -        left
    ending    down                        down     -        left
    down      down                        -        -        left
    building  down: this one and ``with`` -        up       left

``with`` are, by ``restart``: none for ``one``, those behind it for ``rest``, all others
for ``all``. More losses than ``Intensity`` allows end the group; so does one member
that is not built again. There is no clock here, and how one is ended or built is not
known.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .restarts import Intensity


class Restart(enum.StrEnum):
    """Who is built again with one that was lost."""

    ONE = "one"
    REST = "rest"
    ALL = "all"


class _State(enum.Enum):
    UP = enum.auto()
    ENDING = enum.auto()
    DOWN = enum.auto()
    BUILDING = enum.auto()
    LEFT = enum.auto()


class Orders(NamedTuple):
    """What the home is to do now, in order."""

    end: list[int]
    build: list[int]


_NOTHING = Orders([], [])


class Group:
    """What the home of all members decides.

    Args:
        members: their uids, in order.
        restart: who goes with one that is lost.
        intensity: how often.
    """

    def __init__(
        self, members: Iterable[int], restart: Restart, intensity: Intensity
    ) -> None:
        self.restart = restart
        self.intensity = intensity
        self._states = dict.fromkeys(members, _State.UP)

    @property
    def members(self) -> list[int]:
        """Those that have not left, in order."""
        return [uid for uid, state in self._states.items() if state is not _State.LEFT]

    def lost(self, uids: set[int], now_s: float) -> Orders | None:
        """Members were lost at the same moment.

        Args:
            uids: of them.
            now_s: seconds that only grow.

        Returns:
            None: too often, the group ends.
        """
        states = self._states
        unasked = {uid for uid in uids if states[uid] in (_State.UP, _State.BUILDING)}
        for uid in uids:
            states[uid] = _State.DOWN
        if unasked and not self.intensity.another(now_s):
            return None
        if self.restart is Restart.ONE:
            return self._build(uid for uid in states if uid in uids)
        order = list(states)
        first = 0
        if self.restart is Restart.REST and unasked:
            first = min(order.index(uid) for uid in unasked)
        end = []
        for uid in reversed(order[first:]) if unasked else ():
            if states[uid] in (_State.UP, _State.BUILDING):
                states[uid] = _State.ENDING
                end.append(uid)
        return Orders(end, self._next().build)

    def ended(self, uid: int) -> Orders:
        """One that was to end has done so."""
        if self._states[uid] is not _State.ENDING:
            return _NOTHING
        self._states[uid] = _State.DOWN
        return self._next()

    def built(self, uid: int) -> Orders:
        """Its constructor has returned."""
        if self._states[uid] is not _State.BUILDING:
            return _NOTHING
        self._states[uid] = _State.UP
        return self._next()

    def left(self, uid: int) -> Orders:
        """It is closed for good."""
        self._states[uid] = _State.LEFT
        return self._next()

    def _next(self) -> Orders:
        states = self._states
        busy = (_State.ENDING, _State.BUILDING)
        if self.restart is Restart.ONE or any(s in busy for s in states.values()):
            return _NOTHING
        down = [uid for uid, state in states.items() if state is _State.DOWN]
        return self._build(down[:1])

    def _build(self, uids: Iterable[int]) -> Orders:
        build = list(uids)
        for uid in build:
            self._states[uid] = _State.BUILDING
        return Orders([], build)
