"""Who has seen a loss, for those to whom they have nothing else to say: at the monitor.

After a loss each runtime says LossSeen to all that own objects. In a large cluster most
of these have never said a word to each other, and each pair would make a connection for
it. So they say it to the monitor, which tells each owner once who they are. Nothing can
be overtaken by this, since nothing was sent on the link that it would have gone on.

Nothing here sends: what is returned is to be sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..comms.messages import Message, SeenBy

if TYPE_CHECKING:
    from collections.abc import Iterable

FEW = 8  # owners to which a runtime may as well say it itself
Sends = list[tuple[int, Message]]


class Relays:
    """What is to be told, gathered for a moment."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], set[int]] = {}  # by owner, and lost

    def add(self, sender: int, lost: int, owners: Iterable[int]) -> bool:
        """``sender`` has seen a loss and wants these to know.

        Returns:
            Whether ``take`` is to be called a moment later.
        """
        was_empty = not self._seen
        for owner in owners:
            self._seen.setdefault((owner, lost), set()).add(sender)
        return was_empty and bool(self._seen)

    def take(self) -> Sends:
        """What is to be told to whom."""
        seen, self._seen = self._seen, {}
        return [
            (owner, SeenBy(lost, sorted(senders)))
            for (owner, lost), senders in seen.items()
        ]
