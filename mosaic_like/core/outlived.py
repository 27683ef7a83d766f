"""Tasks that are held here and whose owner is lost: their callers are told.

The caller may have sent such a task elsewhere, and may be asked for it as long as
somebody holds it. Nobody counts that any more, so each holder says so for itself:

    the loss of W                   Keep(uids, W) to the caller, before LossSeen
    a payload with it comes later   the same
    the last grant of it dies       Keep(uids, W, dropped)

The same is told of what was here, and goes elsewhere while this runtime lives, by who
had it: as long as others hold it here.

What the caller does with that is in ``runtimes.seeking``.
"""

from __future__ import annotations

from ..comms.messages import Keep
from ..ids import maker


class Outlived:
    """Those of one runtime; keys are (owner, uid)."""

    __slots__ = ("_changed", "_counts", "_told")

    def __init__(self) -> None:
        self._counts: dict[tuple[int, int], int] = {}  # of grants
        self._changed: dict[tuple[int, int], None] = {}  # since callers were told
        self._told: set[tuple[int, int]] = set()

    def held(self, key: tuple[int, int], count: int = 1) -> None:
        """So many more grants are held."""
        self._counts[key] = self._counts.get(key, 0) + count
        self._changed[key] = None

    def dropped(self, key: tuple[int, int]) -> None:
        """One of them is not."""
        count = self._counts.get(key, 0) - 1
        if count > 0:
            self._counts[key] = count
        elif self._counts.pop(key, 0):
            self._changed[key] = None

    def tell(self) -> list[tuple[int, Keep]]:
        """What to send, and to whom."""
        messages: dict[tuple[int, int, bool], Keep] = {}
        for key in self._changed:
            owner, uid = key
            dropped = key not in self._counts
            if dropped is not (key in self._told):
                continue
            if dropped:
                self._told.discard(key)
            else:
                self._told.add(key)
            to = maker(uid)
            new = Keep([], owner, dropped)
            messages.setdefault((to, owner, dropped), new).uids.append(uid)
        self._changed.clear()
        return [(to, message) for (to, *_), message in messages.items()]
