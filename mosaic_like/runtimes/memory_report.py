"""What the runtimes tell of their large values, put together: ``runtime.memory()``.

Who asks them, and how long, is in ``inventory``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ids import task_name
from ..proxies.memory import HostMemory, MemoryReport, StoredValue, ValueKind, Where
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..comms.messages import KnownValue, Member, MemoryOf


def report_of(
    found: Mapping[int, MemoryOf],
    members: Mapping[int, Member],
    silent: Sequence[str],
    uid_of: Callable[[int], str],
) -> MemoryReport:
    """The values of all, each with the segments that it is in.

    Args:
        found: the answers, by incarnation.
        members: those who were asked, and who asks.
        silent: the uids of those that did not answer.
        uid_of: the uid of an incarnation; empty if it is not known.
    """
    segments = {s.uid: s for a in found.values() for s in a.segments}
    of_values: set[int] = set()
    values = []
    for incarnation, answer in found.items():
        for known in answer.values:
            of_values.update(known.segments)
            place = Where.WORKER
            if known.segments:
                parts = [segments[u] for u in known.segments if u in segments]
                # Also who looks at it, or keeps it in something else.
                others = {h for part in parts for h in part.holders}
                known.holders += others - {incarnation, *known.holders}
                spilled = bool(parts) and all(part.spilled for part in parts)
                place = Where.SPILLED if spilled else Where.RESIDENT
            kind = ValueKind.PUT if known.is_put else ValueKind.RESULT
            values.append(_value(known, kind, place, members[incarnation], uid_of))
    for incarnation, answer in found.items():
        for known in answer.segments:
            if known.uid not in of_values:
                place = Where.SPILLED if known.spilled else Where.RESIDENT
                owner = members[incarnation]
                values.append(_value(known, ValueKind.OTHER, place, owner, uid_of))
    values.sort(key=lambda value: (-value.size, value.uid))
    hosts = tuple(
        HostMemory(
            members[i].uid,
            members[i].host,
            answer.used[0],
            answer.limits[0],
            answer.used[1],
            answer.limits[1],
        )
        for i, answer in found.items()
        if answer.limits
    )
    return MemoryReport(tuple(values), hosts, tuple(silent))


def _value(
    known: KnownValue,
    kind: ValueKind,
    place: Where,
    owner: Member,
    uid_of: Callable[[int], str],
) -> StoredValue:
    holders = map(uid_of, known.holders)
    return StoredValue(
        uid=task_name(known.uid) if known.uid else "-",
        kind=kind,
        name=printable(known.name),
        size=known.size,
        place=place,
        runtime=owner.uid,
        host=owner.host,
        holders=tuple(sorted(uid for uid in holders if uid)),
    )
