"""When a loss is settled: the agreement that a lost runtime's grants are all known.

After Lost(G) every runtime drops what it has not read of G, announces what it holds
from G (Holding) and then says LossSeen(G). An owner may act on the loss only when
everybody has said so; this file knows who has. What is counted, and what settling a
loss does to the counts, is in ``holders.py``.

A runtime that is lost itself before it said LossSeen(G) is not simply struck off: what
it passed on of G's grants is known only by the answers to its own loss, so G waits for
that loss to be settled. Losses come from one monitor, hence in one order, and a loss
only ever waits for later ones: there is no circle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Loss:
    """What has been said of one lost runtime so far."""

    __slots__ = ("announced", "seen", "told", "waiting")

    def __init__(self) -> None:
        self.announced: set[tuple[int, int]] = set()  # holder, uid of each Holding
        self.seen: set[int] = set()  # who said LossSeen before the monitor told us
        self.told = False  # by the monitor; others may know it earlier
        self.waiting: set[int] = set()


class Losses:
    """The losses of a cluster as one runtime sees them."""

    __slots__ = ("_lost", "_open")

    def __init__(self) -> None:
        self._lost: set[int] = set()  # for ever: an incarnation is never used again
        self._open: dict[int, Loss] = {}  # not settled

    def is_lost(self, incarnation: int) -> bool:
        """The monitor told us of it."""
        return incarnation in self._lost

    def is_silent(self, incarnation: int) -> bool:
        """What it says of counts is void: somebody has fenced it already.

        True from the first word of anybody about the loss. To count some of its
        messages and not others would be wrong: a Release would be believed whose
        Retain, sent before it, is not.
        """
        return incarnation in self._open or incarnation in self._lost

    def is_settled(self, incarnation: int) -> bool:
        return incarnation in self._lost and incarnation not in self._open

    def announce(self, holder: int, uid: int, lost: int) -> None:
        """``holder`` told what it holds of ``uid`` from the lost one."""
        if not self.is_settled(lost):
            self._open.setdefault(lost, Loss()).announced.add((holder, uid))

    def is_exact(self, holder: int, uid: int, granter: int) -> bool:
        """What is counted will not be changed by the loss of who granted it."""
        loss = self._open.get(granter)
        return loss is None or (holder, uid) in loss.announced

    def see(self, sender: int, lost: int) -> list[tuple[int, Loss]]:
        """``sender`` said LossSeen; returns what is settled by it, in order."""
        if self.is_settled(lost):
            return []
        loss = self._open.setdefault(lost, Loss())
        if not loss.told:
            loss.seen.add(sender)
            return []
        loss.waiting.discard(sender)
        return self._settle()

    def lose(self, lost: int, live: Iterable[int]) -> list[tuple[int, Loss]]:
        """The monitor told us; returns what is settled by it, in order.

        Args:
            lost: the incarnation that will not be heard again.
            live: the other runtimes, without this one, that will say LossSeen.
        """
        if lost in self._lost:
            return []
        self._lost.add(lost)
        loss = self._open.setdefault(lost, Loss())
        loss.told = True
        loss.waiting = {runtime for runtime in live if not self.is_lost(runtime)}
        loss.waiting -= loss.seen
        return self._settle()

    def prune(self, never: Callable[[int], bool]) -> None:
        """Forget what others said of losses that the monitor will never tell."""
        for lost in [o for o, loss in self._open.items() if not loss.told]:
            if never(lost):
                del self._open[lost]

    def _settle(self) -> list[tuple[int, Loss]]:
        settled = []
        while ready := [
            lost for lost, loss in self._open.items() if loss.told and not loss.waiting
        ]:
            for lost in ready:
                settled.append((lost, self._open.pop(lost)))
                for other in self._open.values():
                    other.waiting.discard(lost)
        return settled
