"""Who belongs to the cluster, as one runtime knows it.

A dictionary by incarnation that also keeps the members of each kind in order, since
each tessera that is made asks for the workers. Who joins and who is lost is decided by
the monitor (``core.monitor``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..comms.messages import Member


class Members(dict[int, "Member"]):
    """See the module; changed by ``[]``, ``del`` and ``pop`` alone, on one thread."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[str, list[Member]] = {}

    def __setitem__(self, incarnation: int, member: Member) -> None:
        super().__setitem__(incarnation, member)
        self._kinds = {}

    def __delitem__(self, incarnation: int) -> None:
        super().__delitem__(incarnation)
        self._kinds = {}

    def pop(self, incarnation: int, *default: Any) -> Any:
        popped = super().pop(incarnation, *default)
        self._kinds = {}
        return popped

    def of_kind(self, kind: str, me: Member) -> list[Member]:
        """All whose uid begins so, in order of their indices.

        Args:
            kind: such as ``worker``.
            me: the runtime that asks, which is not among its own members.
        """
        # Any thread asks: what it found before a change must not be kept after it.
        kinds = self._kinds
        found = kinds.get(kind)
        if found is None:
            members = (*self.values(), me)
            found = [m for m in members if m.uid.split(":")[0] == kind]
            found.sort(key=lambda m: [int(i) for i in m.uid.split(":")[1:]])
            kinds[kind] = found
        return found.copy()
