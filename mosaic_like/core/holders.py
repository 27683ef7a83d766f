"""The owner's side of counting: who holds each task and tessera that lives here.

For each object a signed count for each (holder, granter), free when all are zero:

    message, from sender S          count that changes
    Create, Submit of X             (S, S) += 1      the maker's own grant
    Retain(X, H)                    (H, S) += 1
    payload with X arrives here     (me, S) += 1     ``grant``, without a message
    payload with X sent to H        (H, me) += 1     ``grant``, without a message
    Release(X)                      (S, S) -= 1
    ReleaseGrants(X, G)             (S, G) -= 1
    Holding(X, G, n)                (S, G) := n      G is lost
    loss of G is settled            (G, any) := 0; (H, G) := 0 unless H announced it

A granter's Retain and its own release travel on one link, so some count is always
above zero while anybody holds the object; single counts may be negative for a while,
also those of objects whose Create or Submit is still on its way (a placeholder). Most
objects are never shared: for them there is no record but membership in a set.

No messages are sent from here. When a loss is settled is decided in ``losses.py``; what
this runtime holds of others is in ``references.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..ids import NUMBER_BITS
from .losses import Loss, Losses

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator


# No incarnations: who holds what is on its way to its heir, and who none.
_NOBODY, _NO_RUNTIME = -1, -2


class Owned(Protocol):
    """What keeps the objects themselves."""

    def freed(self, uid: int) -> None:
        """Nobody holds it any more, and nobody can ask for it again."""


class Holders:
    """The counts of one object that more than its maker holds or has held."""

    __slots__ = ("counts", "made", "maker")

    def __init__(self, maker: int) -> None:
        self.maker = maker
        self.made = False  # a placeholder, until ``make``
        self.counts: dict[tuple[int, int], int] = {}  # holder, granter; no zeros

    def make(self) -> None:
        self.made = True
        self.add(self.maker, self.maker, 1)

    def only_maker(self) -> bool:
        """As if it had never been shared."""
        counts = self.counts
        return (
            self.made and len(counts) == 1 and counts.get((self.maker, self.maker)) == 1
        )

    def add(self, holder: int, granter: int, by: int) -> None:
        self.put(holder, granter, self.counts.get((holder, granter), 0) + by)

    def put(self, holder: int, granter: int, count: int) -> None:
        if count:
            self.counts[holder, granter] = count
        else:
            self.counts.pop((holder, granter), None)

    def settle(self, uid: int, me: int, lost: int, loss: Loss) -> None:
        """Drop what the lost runtime held, and what it granted to nobody.

        Announced counts are exact, since nothing of the lost one was counted after
        them; so are those of ``me``, which counts at delivery.
        """
        for holder, granter in list(self.counts):
            if holder == lost or (
                granter == lost and holder != me and (holder, uid) not in loss.announced
            ):
                del self.counts[holder, granter]


class Alone(Protocol):
    """A set of uids; whoever keeps the objects may know it from them."""

    def __contains__(self, uid: Any, /) -> bool: ...
    def __iter__(self) -> Iterator[int]: ...
    def __len__(self) -> int: ...
    def add(self, uid: int, /) -> None: ...
    def discard(self, uid: int, /) -> None: ...


class HolderTable:
    """The holders of all objects of one runtime.

    A lost runtime must be fenced by who reads the links: after ``lost`` nothing of
    it may come here but by ``grant`` and ``release_grants`` of this runtime's own.
    """

    __slots__ = (
        "_announced_here",
        "_freed",
        "_losses",
        "_me",
        "alone",
        "inherited",
        "settled",
        "shared",
    )

    def __init__(self, me: int, owned: Owned, alone: Alone | None = None) -> None:
        self._me = me
        self._freed = owned.freed
        # Those that only the maker holds, as made.
        self.alone: Alone = set() if alone is None else alone
        self.shared: dict[int, Holders] = {}  # all others, and placeholders
        self._losses = Losses()
        # Objects that others had, and who had them last. What comes of these may have
        # been counted there.
        self.inherited: dict[int, int] = {}
        # Announced of these, until all has come of who had them: holder, granter, uid.
        self._announced_here: set[tuple[int, int, int]] = set()
        # Told of each loss of which all have heard.
        self.settled: Callable[[int], None] = _nobody_told

    def __contains__(self, uid: int) -> bool:
        """It was made here and is not free."""
        holders = self.shared.get(uid)
        return uid in self.alone if holders is None else holders.made

    def __len__(self) -> int:
        """How many are counted, placeholders too."""
        return len(self.alone) + len(self.shared)

    def counts(self, uid: int) -> dict[tuple[int, int], int]:
        """The count of each (holder, granter) that is not zero, for people."""
        if uid in self.alone:
            maker = uid >> NUMBER_BITS
            return {(maker, maker): 1}
        holders = self.shared.get(uid)
        return {} if holders is None else dict(holders.counts)

    def holders(self, uid: int) -> set[int]:
        """The runtimes known to hold it."""
        held = {holder for (holder, _), n in self.counts(uid).items() if n > 0}
        return held - {_NOBODY}

    # -- events of the hot path --------------------------------------------------------

    def add(self, uid: int) -> None:
        """Create or Submit has come: its maker, who is in the uid, holds it."""
        holders = self.shared.get(uid)
        if holders is None:
            self.alone.add(uid)
            return
        self.alone.discard(uid)  # also of a call that comes back, as a task that is new
        if not holders.made:
            holders.make()
            self._tidy(uid, holders)

    def release(self, sender: int, uids: Iterable[int]) -> None:
        """Their maker has dropped them."""
        if self._losses.is_silent(sender):
            return
        alone = self.alone
        freed = self._freed
        for uid in uids:
            if uid in alone and uid >> NUMBER_BITS == sender:
                alone.discard(uid)
                if self.inherited:
                    self.inherited.pop(uid, None)
                freed(uid)
            else:
                self._add(uid, sender, sender, -1)

    def is_silent(self, sender: int) -> bool:
        """What it says of counts is void: it is lost, or about to be."""
        return self._losses.is_silent(sender)

    # -- grants ------------------------------------------------------------------------

    def grant(self, uid: int, holder: int, granter: int) -> None:
        """A payload with it has come here, or goes from here to ``holder``."""
        # Until the loss of the holder is settled the count is needed: what the holder
        # passed on before it was lost is perhaps protected by nothing else.
        if not self._losses.is_settled(holder):
            self._add(uid, holder, granter, 1)

    def retain(self, sender: int, uid: int, holder: int) -> None:
        """``sender`` sends a payload with it to ``holder``."""
        if not self._losses.is_silent(sender):
            self.grant(uid, holder, sender)

    def release_grants(self, sender: int, grants: Iterable[tuple[int, int]]) -> None:
        """``sender`` has dropped these (uid, granter)."""
        if not self._losses.is_silent(sender):
            for uid, granter in grants:
                self._add(uid, sender, granter, -1)

    def is_settled(self, incarnation: int) -> bool:
        """It is lost, and all have heard of that."""
        return self._losses.is_settled(incarnation)

    # -- leaving -----------------------------------------------------------------------

    def counted(self, uid: int) -> list[tuple[int, int, int]]:
        """All that is counted of an object, for its heir: holder, granter, count.

        Without what is not known any more, since who granted it is lost: those who
        hold it will tell the heir.
        """
        is_exact = self._losses.is_exact
        return [
            (holder, granter, count)
            for (holder, granter), count in self.counts(uid).items()
            if holder != _NOBODY and is_exact(holder, uid, granter)
        ]

    def silent(self, granters: Iterable[int]) -> list[int]:
        """Those of them that are known here to be lost."""
        return [one for one in granters if self._losses.is_silent(one)]

    def inherit(
        self,
        uid: int,
        counts: Iterable[tuple[int, int, int]],
        left: int,
        lost: Collection[int] = (),
    ) -> None:
        """An object that another runtime has counted lives here from now on.

        What was said of it here already, by those who were faster, counts on top. What
        the others keep to say of it comes before they say LossSeen of who leaves: until
        that loss is settled it is held by nobody's name.

        Args:
            uid: of the object.
            counts: holder, granter and count, as there.
            left: incarnation of who has had it.
            lost: granters that it knew to be lost: what is counted of these was told by
                who holds it.
        """
        holders = self._find(uid)
        if holders is None:  # its maker was lost, and others may hold it
            holders = self.shared[uid] = Holders(uid >> NUMBER_BITS)
        holders.made = True
        self.inherited[uid] = left
        holders.add(_NOBODY, left, 1)
        settled = self._losses.is_settled
        for holder, granter, count in counts:
            if settled(holder):
                continue
            holders.add(holder, granter, count)
            if granter in lost:
                self._announced(holder, uid, granter)
        self._tidy(uid, holders)

    def forget(self, uid: int) -> None:
        """It has not come here after all."""
        self.alone.discard(uid)
        self.shared.pop(uid, None)
        self.inherited.pop(uid, None)

    # -- losses ------------------------------------------------------------------------

    def holding(self, sender: int, uid: int, granter: int, count: int) -> None:
        """``sender`` has fenced the granter and holds so many grants from it."""
        if self._losses.is_silent(sender):
            return
        self._announced(sender, uid, granter)
        holders = self._find(uid)
        if holders is not None:
            holders.put(sender, granter, count)
            self._tidy(uid, holders)

    def _announced(self, holder: int, uid: int, granter: int) -> None:
        self._losses.announce(holder, uid, granter)
        left = self.inherited.get(uid)
        if left is not None and not self._losses.is_settled(left):
            self._announced_here.add((holder, granter, uid))

    def loss_seen(self, sender: int, lost: int) -> None:
        """``sender`` has fenced the lost one and announced all it holds from it."""
        if not self._losses.is_silent(sender):
            self._settle(self._losses.see(sender, lost))

    def lost(self, incarnation: int, live: Iterable[int]) -> None:
        """The monitor says so, and this runtime has fenced it.

        Args:
            incarnation: the lost one; told again, nothing happens.
            live: all other runtimes but this one that the monitor has announced and
                not taken back: each will say LossSeen, or be lost itself.
        """
        settled = self._losses.lose(incarnation, live)
        # What it was about to make here and others know of already will never be.
        for uid, holders in list(self.shared.items()):
            if not holders.made and holders.maker == incarnation:
                del self.shared[uid]
        self._settle(settled)

    def prune(self, never: Callable[[int], bool]) -> None:
        """Forget what was said of objects and losses that will never be.

        Args:
            never: whether nothing will come any more of an incarnation.
        """
        for uid, holders in list(self.shared.items()):
            if not holders.made and never(holders.maker):
                del self.shared[uid]
        self._losses.prune(never)

    def _settle(self, settled: list[tuple[int, Loss]]) -> None:
        now = {lost for lost, _ in settled}
        for lost, loss in settled:
            for uid in [u for u in self.alone if u >> NUMBER_BITS == lost]:
                self.alone.discard(uid)
                self.inherited.pop(uid, None)
                self._freed(uid)
            for uid, holders in list(self.shared.items()):
                # What is held here of what it inherited it has announced to itself.
                me = self._me if uid not in self.inherited else _NO_RUNTIME
                holders.settle(uid, me, lost, loss)
                if self.inherited.get(uid) == lost:
                    self._settle_before(uid, holders, now)
                self._tidy(uid, holders)
            if self._announced_here:
                self._announced_here = {
                    told
                    for told in self._announced_here
                    if self.inherited.get(told[2], lost) != lost
                }
            self.settled(lost)

    def _settle_before(self, uid: int, holders: Holders, now: set[int]) -> None:
        """All has come of one that was inherited: also of what was settled before.

        Args:
            uid, holders: of the object.
            now: losses that are settled with that of who had it.
        """
        for holder, granter in list(holders.counts):
            told = (holder, granter, uid) in self._announced_here
            if self._was_settled(holder, now) or (
                self._was_settled(granter, now) and not told
            ):
                del holders.counts[holder, granter]

    def _was_settled(self, lost: int, now: set[int]) -> bool:
        return lost not in now and self._losses.is_settled(lost)

    # -- records -----------------------------------------------------------------------

    def _add(self, uid: int, holder: int, granter: int, by: int) -> None:
        holders = self.shared.get(uid) or self._find(uid)
        if holders is None:
            return
        counts = holders.counts
        key = holder, granter
        count = counts.get(key, 0) + by
        if count:
            counts[key] = count
        else:
            counts.pop(key, None)
        if len(counts) < 2:
            self._tidy(uid, holders)

    def _find(self, uid: int) -> Holders | None:
        """The record of it, made if there is none; none if it will never be made."""
        holders = self.shared.get(uid)
        if holders is None:
            holders = Holders(uid >> NUMBER_BITS)
            if uid in self.alone:
                self.alone.discard(uid)
                holders.make()
            elif self._losses.is_lost(holders.maker):
                return None
            self.shared[uid] = holders
        return holders

    def _tidy(self, uid: int, holders: Holders) -> None:
        """Free it if nobody holds it; forget the record if only the maker does."""
        if not holders.counts:
            del self.shared[uid]
            self.inherited.pop(uid, None)
            if holders.made:
                self._freed(uid)
        elif holders.only_maker():
            del self.shared[uid]
            self.alone.add(uid)


def _nobody_told(lost: int) -> None:
    """Where nobody waits until a loss is settled."""
