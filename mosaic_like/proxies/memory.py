"""What ``runtime.memory()`` gives: the large values of a cluster, and their room."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from ..ids import short
from ..sizes import size_text


class Where(enum.StrEnum):
    """Where a value is.

    >>> Where.SPILLED == "spilled"
    True
    """

    RESIDENT = "resident"  # in memory that the processes of its host share
    SPILLED = "spilled"  # in a file, which is mapped by who reads it
    WORKER = "worker"  # in the memory of the process that owns it


class ValueKind(enum.StrEnum):
    """What made a value."""

    PUT = "put"
    RESULT = "result"
    OTHER = "other"  # an argument on its way, or what somebody still looks at


@dataclasses.dataclass(frozen=True, slots=True)
class StoredValue:
    """One large value.

    Attributes:
        uid: of its task, as ``task.uid`` gives it; of its memory if it has none.
        kind: what made it.
        name: tessera and method, or the key that it is under; empty: not known.
        size: bytes.
        place: where it is.
        runtime: the uid of who owns it.
        host: of that.
        holders: the uids of the runtimes that hold it.
    """

    uid: str
    kind: ValueKind
    name: str
    size: int
    place: Where
    runtime: str
    host: str
    holders: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class HostMemory:
    """The memory that large values take on one host; all in bytes.

    Attributes:
        warehouse: the uid of the warehouse that counts it.
        host: its name.
        used: memory, with what is kept for the next values.
        limit: of that; see the option ``memory=``.
        spilled: in files.
        spill_limit: of that; see the option ``spill_limit=``.
    """

    warehouse: str
    host: str
    used: int
    limit: int
    spilled: int
    spill_limit: int


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryReport:
    """The large values of a cluster, at about one moment.

    Attributes:
        values: those of 64 KiB and more, the largest first.
        hosts: what they take, by host.
        silent: the uids of runtimes that did not answer in time.
    """

    values: tuple[StoredValue, ...]
    hosts: tuple[HostMemory, ...]
    silent: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Of all values together."""
        return sum(value.size for value in self.values)

    def to_dict(self) -> dict[str, Any]:
        """The same as it goes into JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        lines = [
            f"{each.warehouse} · {each.host} · memory {size_text(each.used)} of "
            f"{size_text(each.limit)} · files {size_text(each.spilled)} of "
            f"{size_text(each.spill_limit)}"
            for each in self.hosts
        ]
        for value in self.values:
            name = f" {value.name}" if value.name else ""
            holders = ", ".join(map(short, value.holders)) or "nobody"
            place = value.place.value
            if value.place is Where.WORKER:
                place = f"in {short(value.runtime)}"
            lines.append(
                f"  {size_text(value.size):>10}  {place:8}  {value.kind.value:6} "
                f"{value.uid}{name} · held by {holders}"
            )
        if not self.values:
            lines.append("  no large values")
        if self.silent:
            names = ", ".join(map(short, self.silent))
            lines.append(f"  no answer from {names}: what they own is not shown")
        return lines
