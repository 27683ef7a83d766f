"""Whether a process ended for want of memory: from its control group, and its limits.

The group counts such kills. It is found while the process lives and looked at again
when it has ended; nothing is known where there are no groups (macOS), or where the
process was moved into another one meanwhile.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60
_NEAR = 0.8  # of a limit on what is mapped, not all of which is in memory
# Of version 2 and of version 1: what counts, and what is the limit.
_COUNTS = ("memory.events", "memory.oom_control")
_LIMITS = ("memory.max", "memory.limit_in_bytes")


class MemoryWatch:
    """The memory groups of one process.

    Args:
        pid: of a process that lives.
        root: where the groups are mounted.
        proc: where the processes are.
    """

    def __init__(
        self, pid: int, root: Path = _ROOT, proc: Path = Path("/proc")
    ) -> None:
        self._groups = _groups(pid, root, proc)
        self._kills = self._count()

    def evidence(self, rss_bytes: int) -> str:
        """How it is known that it was killed for that; empty if it is not.

        Args:
            rss_bytes: the most that it had in memory.
        """
        if self._count() <= self._kills:
            return ""
        limits = [limit for group in self._groups if (limit := _limit(group))]
        text = f"the kernel killed it for want of memory; it had {_size(rss_bytes)}"
        if limits:
            text += f", and its control group may have {_size(min(limits))}"
        return text

    def _count(self) -> int:
        return sum(map(_kills, self._groups[:1]))


def near_limit(
    rss_bytes: int,
    soft_limit: Callable[[int], int] = lambda kind: resource.getrlimit(kind)[0],
) -> str:
    """That a process which a signal ended was close to what ulimit gives it, or "".

    Args:
        rss_bytes: the most that it had in memory.
        soft_limit: of this process, whose children have the same; negative: none.
    """
    for name, kind in (("-v", resource.RLIMIT_AS), ("-d", resource.RLIMIT_DATA)):
        limit = soft_limit(kind)
        if 0 <= limit <= rss_bytes / _NEAR:
            return f"it had {_size(rss_bytes)}, and ulimit {name} is {_size(limit)}"
    return ""


def _groups(pid: int, root: Path, proc: Path) -> list[Path]:
    """Its own group and those around it that there are here, the innermost first."""
    found: list[Path] = []
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            mount = root / "memory"
        elif not controllers:
            mount = root
        else:
            continue
        # Inside a container the path may be that outside of it.
        group = mount / path.lstrip("/")
        inner = [group, *group.parents] if group.is_dir() else [mount]
        groups = [g for g in inner if g == mount or mount in g.parents]
        found += [g for g in groups if any((g / name).exists() for name in _COUNTS)]
    return found


def _kills(group: Path) -> int:
    for name in _COUNTS:
        try:
            text = (group / name).read_text()
        except OSError:
            continue
        for line in text.splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
    return 0


def _limit(group: Path) -> int:
    for name in _LIMITS:
        try:
            text = (group / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _NO_LIMIT:
            return int(text)
    return 0


def _size(size_bytes: int) -> str:
    """For people.

    >>> _size(200 << 20), _size(3 << 30)
    ('200 MiB', '3.0 GiB')
    """
    if size_bytes >= 1 << 30:
        return f"{size_bytes / (1 << 30):.1f} GiB"
    return f"{size_bytes / (1 << 20):.0f} MiB"
