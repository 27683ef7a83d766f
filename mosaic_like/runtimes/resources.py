"""What this host has for us: bytes of memory.

The limits of control groups (``cgroups.py``) and what the machine has, put together.
Nothing is decided here: who keeps a budget asks again when he needs to know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..cgroups import CGROUP, PROC, memory_bytes, read_text

if TYPE_CHECKING:
    from pathlib import Path

_KIB = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory that the processes of this host's node may use together."""

    limit_bytes: int  # the least limit of a control group, or what the machine has
    used_bytes: int  # of that limit, by whomever it counts; without the page cache
    available_bytes: int  # until any of the limits is reached
    source: str  # what has the least limit: the folder of a group, or "machine"


def memory(proc: Path = PROC, cgroup: Path = CGROUP) -> Memory:
    """The limit and the use at this moment.

    Args:
        proc: where the process file system is mounted.
        cgroup: where the cgroup file systems are mounted, if ``proc`` does not say it.

    >>> here = memory()
    >>> 0 <= here.used_bytes and here.available_bytes <= here.limit_bytes
    True
    """
    limits = [*memory_bytes(proc, cgroup), _machine(proc)]
    limit, used, source = min(limits, key=lambda each: each[0])
    available = min(each[0] - each[1] for each in limits)
    return Memory(limit, used, max(0, available), source)


def _machine(proc: Path) -> tuple[int, int, str]:
    found: dict[str, int] = {}
    for line in (read_text(proc / "meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * _KIB
    if "MemTotal" in found and "MemAvailable" in found:
        total, available = found["MemTotal"], found["MemAvailable"]
    else:  # macOS, or a /proc that was made smaller
        import psutil

        virtual = psutil.virtual_memory()
        total, available = virtual.total, virtual.available
    return total, total - available, "machine"
