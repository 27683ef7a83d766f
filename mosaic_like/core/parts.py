"""Arguments of which a call takes only some parts, where the whole is elsewhere.

Here is only what stands for them. Who asks, and when, is in ``worker``; the owner picks
the parts in ``runtimes.plain_calls``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..comms.messages import Extra
    from .call import Call


class Parts:
    """Stands for an argument: the call that asks its owner for the parts.

    Args:
        call: gives the part, or a list of them where there is more than one key.
        keys: what is taken.
        payload: of the call.
        keep: while it lives, the owner keeps what the call has given.
    """

    __slots__ = ("call", "keep", "keys", "payload")

    def __init__(
        self, call: Call, keys: list[int | str], payload: Any, keep: Any
    ) -> None:
        self.call = call
        self.keys = keys
        self.payload = payload
        self.keep = keep

    @property
    def settled(self) -> bool:
        return self.call.settled

    @property
    def state(self) -> int:
        return self.call.state


def keys_of(extra: Extra, index: int) -> list[int | str]:
    """What a call takes of one of its references; nothing: the whole."""
    return [key for at, key in extra.outputs if at == index]
