"""The holder's side of counting: what this runtime holds of tasks and tesserae.

Each reference in each payload that is delivered is one ``Grant``, never shared between
payloads. The payload and the proxies made from it hold the Grant, so that Python's own
count is the local count, and its end is what the owner is told, in batches:

    event here                      message
    payload with X goes to H        Retain(X, H) to the owner, before the payload
    Grant of X from G dies          ReleaseGrants(X, G), or Release(X) if made here
    loss of G                       Holding(X, G, n) for each X of G, then LossSeen(G)

What is held of one that is lost is in ``outlived``.
No message where the owner is H (it counts when the payload comes), this runtime (it
counts itself) or lost. Calls that were never shared do not come by here: the call that
the caller keeps is its own grant.

A Grant may die on any thread; all else runs on the loop's. The counts of the owner are
in ``holders.py``. Nothing is sent from here: messages are returned to be sent in order.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ..comms.messages import (
    TASK,
    Holding,
    LossSeen,
    Release,
    ReleaseGrants,
    Retain,
)
from .outlived import Outlived

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..comms.messages import Message, Reference
    from .holders import HolderTable

_NOBODY = -1  # granter of what is counted elsewhere
# So that a drain holds the loop for a few milliseconds at most.
_AT_ONCE = 10_000


class Grant:
    """The right to one object by one payload, or by having made it."""

    __slots__ = ("_home", "granter", "kind", "owner", "uid")

    def __init__(
        self, uid: int, owner: int, granter: int, home: Grants, kind: int = TASK
    ) -> None:
        self.kind = kind
        self.uid = uid
        self.owner = owner
        self.granter = granter
        self._home = home

    def is_of(self, home: Grants) -> bool:
        """Whether it counts there, and not in a cluster that has ended."""
        return self._home is home

    def __repr__(self) -> str:
        return f"<Grant of {self.uid} at {self.owner} from {self.granter}>"

    def __del__(self) -> None:
        self._home.dropped(self.uid, self.owner, self.granter)


class Grants:
    """What one runtime holds.

    Args:
        me: the incarnation of this runtime.
        table: of the objects that live here.
        wake: called once when something was dropped, so that ``drain`` is called soon
            on the loop's thread. It may be called on any thread and inside a garbage
            collection: it must take no lock that such code can hold.
    """

    __slots__ = (
        "_awake",
        "_fallen",
        "_held",
        "_lost",
        "_me",
        "_outlived",
        "_seen",
        "_table",
        "_unaware",
        "_wake",
        "heirs",
    )

    def __init__(self, me: int, table: HolderTable, wake: Callable[[], object]) -> None:
        self._me = me
        self._table = table
        self._wake = wake
        self._awake = False
        self._fallen: deque[tuple[int, int, int]] = deque()  # uid, owner, granter
        # By granter, then (owner, uid): the grants whose release has not been sent,
        # without those that need never be announced.
        self._held: dict[int, dict[tuple[int, int], int]] = {}
        self._lost: set[int] = set()
        self._outlived = Outlived()
        # Owners that have left in order, and who owns now what they owned.
        self.heirs: dict[int, int] = {}
        # Of those who leave: who knows the heir, before I do; and who does not, after.
        self._seen: dict[int, set[int]] = {}
        self._unaware: dict[int, set[int]] = {}

    def made(self, uid: int, owner: int) -> Grant:
        """The maker's own grant, for what is created or submitted with this uid."""
        return Grant(uid, owner, self._me, self)

    def delivered(self, references: Iterable[Reference], sender: int) -> list[Grant]:
        """A payload with these has come; it is to keep the grants as long as it is.

        To be called in the order of the link, and not for a sender that is fenced.
        """
        me = self._me
        inherited = self._table.inherited
        grants = []
        for reference in references:
            uid = reference.uid
            owner = self.owner_now(reference.owner)
            left = inherited.get(uid) if inherited else None
            is_counted_here = owner == me
            if left is not None and sender != me:
                # Who does not know that it is here has said it to who had it, or keeps
                # it for me; and I may not know it yet when others do.
                is_counted_here = self._knows(sender, left)
            if is_counted_here:
                self._table.grant(uid, me, sender)
            if owner in self._lost:
                self._outlived.held((owner, uid))
                self._wake_once()
            elif owner != me or (left is not None and sender != me):
                held = self._held.setdefault(sender, {})
                held[owner, uid] = held.get((owner, uid), 0) + 1
            grants.append(Grant(uid, reference.owner, sender, self, reference.kind))
        return grants

    def sending(
        self, references: Iterable[Reference], to: int
    ) -> list[tuple[int, Message]]:
        """What to send, and to whom, before a payload with these goes to a runtime.

        The caller holds a grant of each until this returns; a payload that waits for
        credit, or is stored, holds them until then and asks when it really goes.
        """
        messages: list[tuple[int, Message]] = []
        if to not in self._lost:
            for reference in references:
                uid = reference.uid
                owner = self.owner_now(reference.owner)
                if owner == to or owner in self._lost:
                    continue
                if owner == self._me:
                    self._table.grant(uid, to, self._me)
                else:
                    messages.append((owner, Retain(uid, to)))
        return messages

    def dropped(self, uid: int, owner: int, granter: int) -> None:
        """A grant is not needed any more. May be called on any thread."""
        self._fallen.append((uid, owner, granter))
        self._wake_once()

    def _wake_once(self) -> None:
        if not self._awake:
            self._awake = True
            self._wake()

    def drain(self) -> list[tuple[int, Message]]:
        """What to send, and to whom, for the grants dropped since the last time."""
        self._awake = False  # first: what falls from here on wakes again
        made: dict[int, list[int]] = {}
        granted: dict[int, list[tuple[int, int]]] = {}
        for _ in range(min(len(self._fallen), _AT_ONCE)):
            uid, owner, granter = self._fallen.popleft()
            owner = self.owner_now(owner)
            if owner in self._lost or granter == _NOBODY:
                self._outlived.dropped((owner, uid))
                continue
            if granter == self._me:
                made.setdefault(owner, []).append(uid)
            else:
                granted.setdefault(owner, []).append((uid, granter))
            if owner != self._me or self.heirs:
                self._forget(uid, owner, granter)
        if self._fallen:
            self._wake_once()
        # Last, because it frees objects here, and so drops what these hold.
        self._table.release(self._me, made.pop(self._me, ()))
        self._table.release_grants(self._me, granted.pop(self._me, ()))
        messages: list[tuple[int, Message]] = []
        messages += [(owner, Release(uids)) for owner, uids in made.items()]
        messages += [(owner, ReleaseGrants(pairs)) for owner, pairs in granted.items()]
        return messages + self._outlived.tell()

    def owner_now(self, owner: int) -> int:
        """Who counts what this one owned: itself, or its heir if it has left."""
        return self.heirs.get(owner, owner) if self.heirs else owner

    def moved(self, owner: int, heir: int) -> None:
        """What one owner had is another's from now on; told before it is lost."""
        for left, other in self.heirs.items():
            if other == owner:
                self.heirs[left] = heir
        self.heirs[owner] = heir
        for held in self._held.values():
            for key in [key for key in held if key[0] == owner]:
                moved = heir, key[1]
                held[moved] = held.get(moved, 0) + held.pop(key)

    def moved_on(self, uid: int) -> Grant:
        """A task of this runtime goes elsewhere, as its caller alone knows.

        Returns:
            What is to live as long as others hold the task here.
        """
        self._outlived.held((self._me, uid))
        self._wake_once()
        return Grant(uid, self._me, _NOBODY, self)

    def loss_seen(self, sender: int, lost: int) -> None:
        """``sender`` has heard that one is lost, or whose all is that it had."""
        if lost not in self._lost:
            self._seen.setdefault(lost, set()).add(sender)
        elif lost in self._unaware:
            self._no_more(lost, sender)

    def _knows(self, sender: int, left: int) -> bool:
        """It knew that what one had is here when it sent what comes now."""
        if left in self._lost:
            return sender not in self._unaware.get(left, ())
        return sender in self._seen.get(left, ())

    def _no_more(self, left: int, runtime: int) -> None:
        self._unaware[left].discard(runtime)
        if not self._unaware[left]:
            del self._unaware[left]

    def lost(self, incarnation: int, live: Iterable[int]) -> list[tuple[int, Message]]:
        """What to send, and to whom, when the monitor says that a runtime is lost.

        To be called after its unread messages were thrown away. What has been dropped
        but not drained counts as held: its release is still to come.

        Args:
            incarnation: the lost one; told again, nothing is sent.
            live: all other runtimes but this one, as for ``HolderTable.lost``.
        """
        if incarnation in self._lost:
            return []
        self._lost.add(incarnation)
        for left in list(self._unaware):
            self._no_more(left, incarnation)
        for left, seen in list(self._seen.items()):
            seen.discard(incarnation)
            if not seen:
                del self._seen[left]
        unaware = set(live) - self._seen.pop(incarnation, set())
        if unaware and self.heirs.get(incarnation) == self._me:
            self._unaware[incarnation] = unaware
        for granter, held in list(self._held.items()):
            for key in [key for key in held if key[0] == incarnation]:
                self._outlived.held(key, held.pop(key))
            if not held:
                del self._held[granter]
        messages: list[tuple[int, Message]] = [*self._outlived.tell()]
        for (owner, uid), count in self._held.get(incarnation, {}).items():
            if owner == self._me:  # inherited
                self._table.holding(owner, uid, incarnation, count)
            else:
                messages.append((owner, Holding(uid, incarnation, count)))
        messages += [(to, LossSeen(incarnation)) for to in live]
        return messages

    def _forget(self, uid: int, owner: int, granter: int) -> None:
        held = self._held.get(granter, {})
        count = held.get((owner, uid), 0) - 1
        if count < 0:
            return  # it has always been here, and is counted
        if count:
            held[owner, uid] = count
        else:
            del held[owner, uid]
            if not held:
                del self._held[granter]
