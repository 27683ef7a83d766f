"""Tesserae that end together, ``mosaic.link``: what each side knows, and whom it tells.

A link between two runtimes is something else here, so this is called a *bond*. Who
answers for a tessera keeps its half of it: the runtime where it lives, or the home of
one that is built again, as long as it is. A half has the other one's number, runtime
and name.

    who binds   Bind ->both        yours is bound to that one, which is there
    one side    Bind ->other       I have my half: so that no news were missed
                Broke ->other      mine has ended, and not in order: end yours
                Unbound ->other    mine was closed: forget your half
    monitor     Lost ->all         what was there has ended, and not in order

Each may come before any other of another sender. News for what has no half yet are
dropped: when that has one it says so, and is told again.

    own one is    it hears                 it does
    here          Bind                     keeps the half, and says so to the other
    here          Bind, other one is lost  ends it
    here          Broke, Lost              ends it, and tells its other bonds: Broke
    here          Unbound                  forgets the half
    to come       Bind of who binds        does this when it comes
    closed        Bind                     Unbound ->other
    failed        Bind                     Broke ->other
    not here      the rest                 nothing

How a tessera is ended, and why one has, is not known here.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from ..comms.messages import Bind, Broke, Message, Unbound
from ..errors import ProtocolError
from ..ids import maker

if TYPE_CHECKING:
    from collections.abc import Callable

_ENDED = ", which has ended: "
_MOST_EARLY = 10_000  # bonds of what has not come: more is nonsense


class Fate(enum.Enum):
    """What is known of a tessera by who answers for it."""

    COMING = enum.auto()  # its construction is on its way
    HERE = enum.auto()
    CLOSED = enum.auto()  # in order, or nobody held it
    FAILED = enum.auto()  # in any other way


class Known(NamedTuple):
    """A fate; the name where there is one, and why it has failed."""

    fate: Fate
    label: str = ""
    why: str = ""


class Effects(NamedTuple):
    """What is to be done now."""

    sends: list[tuple[int, Message]]
    ends: list[tuple[int, str]]  # tesserae of this runtime that are to end, and why


class _Half(NamedTuple):
    owner: int  # incarnation of who answers for the other one
    label: str


class Bonds:
    """The halves in one runtime.

    Args:
        me: its incarnation.
        known: of one of its tesserae, by uid.
        loss: how an incarnation ended, as the monitor has said; empty: it has not.
    """

    def __init__(
        self, me: int, known: Callable[[int], Known], loss: Callable[[int], str]
    ) -> None:
        self._me = me
        self._known = known
        self._loss = loss
        self._halves: dict[int, dict[int, _Half]] = {}  # by uid, by that of the other
        # Of what is to come, by uid; and who says so.
        self._early: dict[int, list[tuple[int, Bind]]] = {}

    def __len__(self) -> int:
        return len(self._halves) + len(self._early)

    def bind(self, message: Bind, sender: int) -> Effects:
        """One of this runtime is bound to another.

        Args:
            message: says so.
            sender: incarnation of who does.

        Raises:
            ProtocolError: too many that have not come.
        """
        uid, other = message.uid, message.other
        fate, label, why = self._known(uid)
        if fate is Fate.COMING:
            if len(self._early) >= _MOST_EARLY:
                raise ProtocolError(f"{_MOST_EARLY} are bound that have not come")
            self._early.setdefault(uid, []).append((sender, message))
            return Effects([], [])
        if fate is Fate.FAILED:
            return Effects([(message.owner, _broke(other, uid, label, why))], [])
        if fate is not Fate.HERE:
            return Effects([(message.owner, Unbound(other, uid))], [])
        loss = self._loss(message.owner)
        if loss:
            return self._end(uid, because(message.label, loss))
        self._halves.setdefault(uid, {})[other] = _Half(message.owner, message.label)
        if not message.answer:
            return Effects([], [])
        mine = Bind(other, uid, self._me, label, answer=False)
        return Effects([(message.owner, mine)], [])

    def came(self, uid: int) -> list[tuple[int, Bind]]:
        """A construction has come: who has bound it before, to be done now."""
        return self._early.pop(uid, [])

    def broke(self, message: Broke) -> Effects:
        """The other one has failed."""
        if not self._forget(message.uid, message.other):
            return Effects([], [])
        return self._end(message.uid, message.why)

    def unbound(self, message: Unbound) -> None:
        """The other one was closed."""
        self._forget(message.uid, message.other)

    def closed(self, uid: int) -> Effects:
        """One of this runtime has ended in order."""
        halves = self._halves.pop(uid, {})
        return Effects([(h.owner, Unbound(o, uid)) for o, h in halves.items()], [])

    def failed(self, uid: int, label: str, why: str) -> Effects:
        """One of this runtime has ended in another way."""
        halves = self._halves.pop(uid, {})
        return Effects(
            [(h.owner, _broke(o, uid, label, why)) for o, h in halves.items()], []
        )

    def lost(self, incarnation: int, why: str) -> Effects:
        """A runtime is lost, and with it all that it answers for.

        Args:
            incarnation: of it.
            why: for people.
        """
        effects = Effects([], [])
        for uid, halves in list(self._halves.items()):
            gone = {o: h for o, h in halves.items() if h.owner == incarnation}
            for other in gone:
                self._forget(uid, other)
            for half in list(gone.values())[:1]:
                _add(effects, self._end(uid, because(half.label, why)))
        for uid, line in list(self._early.items()):
            left = [one for one in line if one[0] != incarnation]
            if left and maker(uid) != incarnation:
                self._early[uid] = left
                continue
            del self._early[uid]
            for sender, message in left:  # its construction will not come
                _add(effects, self.bind(message, sender))
        return effects

    def _end(self, uid: int, why: str) -> Effects:
        told = self.failed(uid, self._known(uid).label, why)
        return Effects(told.sends, [(uid, why)])

    def _forget(self, uid: int, other: int) -> bool:
        halves = self._halves.get(uid)
        if halves is None or halves.pop(other, None) is None:
            return False
        if not halves:
            del self._halves[uid]
        return True


def because(label: str, why: str) -> str:
    """Why a tessera ends that is bound to one that has ended.

    >>> because("Solver#1", "it was killed")
    'it was linked to Solver#1, which has ended: it was killed'
    """
    return f"it was linked to {label}{_ENDED}{why}"


def reason(because: str) -> str:
    """What ``because`` was made of.

    >>> reason(because("Solver#1", because("Solver#2", "it was killed")))
    'it was linked to Solver#2, which has ended: it was killed'
    """
    return because.partition(_ENDED)[2]


def _broke(uid: int, other: int, label: str, why: str) -> Broke:
    return Broke(uid, other, because(label, why))


def _add(effects: Effects, more: Effects) -> None:
    effects.sends.extend(more.sends)
    effects.ends.extend(more.ends)
