"""Named tesserae: the table at the monitor, and the names that live in one runtime.

At most one tessera has a name at a time. The monitor says who may make it; whoever has
it says so, and when it is gone; everybody else who asks is granted a hold of it by its
owner. All goes through the monitor, so there is one order:

    asker    Claim ->monitor     Claimed <-monitor: make it, or: it is that one
    monitor  Share ->owner       Shared <-owner: the asker holds it from now on
    owner    Named ->monitor     a construction has come
             Unnamed ->monitor   it is closed, was collected or could not be built
    maker    Unnamed ->monitor   it found no place, or its place was lost on the way

An owner that cannot grant any more says nothing to a Share: its Unnamed is on its way,
or will be when ``__close__`` has ended, and then the next who has asked makes it.
Of a tessera that is built again (``core.restarts``) the owner is its home: so it keeps
its name wherever it is built, and the name is free when the home is lost.
When a maker dies before its tessera is known to be anywhere, the name waits until all
have fenced it (LossSeen): until then the construction may still come out of a link.

Nothing here sends or counts; what is returned is to be sent in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..comms.messages import (
    Claim,
    Claimed,
    Message,
    Named,
    NameEntry,
    Share,
    Shared,
    Unnamed,
)
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

Sends = list[tuple[int, Message]]

NAME_BYTES = 256
_RESTARTS = ("without", "with")
KEY_CHARACTERS = 16 << 10  # of a value in the warehouse


def is_name(text: str) -> bool:
    """Whether a tessera may have this name: it is shown to people, and kept."""
    return bool(text) and text.isprintable() and len(text.encode()) <= NAME_BYTES


class Entry:
    """One name that is taken, or about to be."""

    __slots__ = ("asked", "claim", "fencing", "maker", "owner")

    def __init__(self, maker: int, claim: Claim) -> None:
        self.maker = maker
        self.claim = claim  # of the maker
        self.owner = 0  # where it lives; 0: not known yet
        # Who else has asked, by the uid of the claim, in order.
        self.asked: dict[int, tuple[int, Claim]] = {}
        # Its maker is lost: who may still have its construction in a link.
        self.fencing: set[int] = set()


class NameTable:
    """All names of a cluster, at the monitor."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> list[NameEntry]:
        """What lives under a name, for people, in the order of the names."""
        return [
            NameEntry(
                name,
                printable(entry.claim.cls),
                entry.owner,
                entry.claim.detached,
            )
            for name, entry in sorted(self._entries.items())
        ]

    def claim(self, sender: int, message: Claim) -> Sends:
        """Somebody wants the tessera of a name, or to make it."""
        if not is_name(message.name):
            why = f"{message.name[:80]!r} is no name: 1 to {NAME_BYTES} printable bytes"
            return [(sender, Claimed(message.tessera, 0, 0, why=why))]
        entry = self._entries.get(message.name)
        if entry is None:
            self._entries[message.name] = Entry(sender, message)
            return [(sender, Claimed(message.tessera, message.tessera, 0))]
        held = entry.claim
        if held.cls != message.cls:
            why = (
                f"the name {message.name!r} is that of a {held.cls}, not of a "
                f"{message.cls}: choose another name, or ask for it with its class"
            )
            return [(sender, Claimed(message.tessera, 0, 0, why=why))]
        if held.restarts != message.restarts:
            has, asks = (_RESTARTS[one.restarts] for one in (held, message))
            why = (
                f"the tessera of the name {message.name!r} was made {has} "
                f"max_restarts, and is asked for {asks}: say it at the class"
            )
            return [(sender, Claimed(message.tessera, 0, 0, why=why))]
        entry.asked[message.tessera] = sender, message
        return self._share(entry, sender, message) if entry.owner else []

    def named(self, sender: int, message: Named) -> Sends:
        """A construction has come to its owner."""
        entry = self._entries.get(message.name)
        if entry is None or entry.claim.tessera != message.tessera:
            return []
        entry.owner = sender
        entry.fencing.clear()
        sends: Sends = []
        for asker, claim in entry.asked.values():
            sends += self._share(entry, asker, claim)
        return sends

    def shared(self, sender: int, message: Shared) -> Sends:
        """The owner has granted a hold to who asked."""
        entry = self._entries.get(message.name)
        if entry is None or entry.claim.tessera != message.tessera:
            return []  # it is gone since, and so is the grant: who asked, asks again
        asked = entry.asked.pop(message.claim, None)
        if asked is None:
            return []  # who asked is lost, and so is the grant
        claimed = Claimed(message.claim, message.tessera, sender, built=message.built)
        return [(asked[0], claimed)]

    def unnamed(self, message: Unnamed) -> Sends:
        """It is gone, or will never be: told again, nothing happens."""
        entry = self._entries.get(message.name)
        if entry is None or entry.claim.tessera != message.tessera:
            return []
        return self._free(message.name)

    def lost(self, incarnation: int, live: Iterable[int]) -> Sends:
        """A runtime is gone.

        Args:
            incarnation: which.
            live: all that own objects and will say LossSeen of it.
        """
        sends: Sends = []
        for name, entry in list(self._entries.items()):
            for claim, (asker, _) in list(entry.asked.items()):
                if asker == incarnation:
                    del entry.asked[claim]
            if entry.owner == incarnation:
                sends += self._free(name)
            elif not entry.owner and entry.maker == incarnation:
                entry.fencing = set(live)
                if not entry.fencing:
                    sends += self._free(name)
            elif incarnation in entry.fencing:
                sends += self._fenced(name, entry, incarnation)
        return sends

    def loss_seen(self, sender: int, incarnation: int) -> Sends:
        """Nothing of the lost one will come out of a link to the sender any more."""
        sends: Sends = []
        for name, entry in list(self._entries.items()):
            if entry.maker == incarnation and sender in entry.fencing:
                sends += self._fenced(name, entry, sender)
        return sends

    def _fenced(self, name: str, entry: Entry, by: int) -> Sends:
        entry.fencing.discard(by)
        return [] if entry.fencing else self._free(name)

    def _share(self, entry: Entry, asker: int, claim: Claim) -> Sends:
        return [
            (
                entry.owner,
                Share(claim.name, entry.claim.tessera, asker, claim.tessera),
            )
        ]

    def _free(self, name: str) -> Sends:
        """The next who has asked makes it; the others wait for that."""
        entry = self._entries.pop(name)
        sends: Sends = []
        for asker, claim in entry.asked.values():
            sends += self.claim(asker, claim)
        return sends


class NamesHere:
    """The named tesserae that live in one runtime."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}  # by tessera

    def __contains__(self, tessera: int) -> bool:
        return tessera in self._names

    def made(self, name: str, tessera: int) -> Named:
        """A construction has come."""
        self._names[tessera] = name
        return Named(name, tessera)

    def gone(self, tessera: int) -> Unnamed | None:
        """It is closed, was collected, or could not be built; told once."""
        name = self._names.pop(tessera, None)
        return None if name is None else Unnamed(name, tessera)
