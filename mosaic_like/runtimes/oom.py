"""Whether a process ended for want of memory: from its control group, and its limits.

The group counts such kills, but not of whom, and others may be in it. So a process that
was killed is said to be one of them only if

    the count has grown a moment ago           ``look`` is called now and then
    by more than were found since              each counts for one process
    none of those that are left has more       the kernel takes the largest

and perhaps one of them if all but the last is so. Nothing is known where there are no
groups (macOS), or where the process was moved into another one meanwhile.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S = 2.0  # between two looks: longer than it takes to hear of an end
_ROOT = Path("/sys/fs/cgroup")
_PAGE_BYTES = resource.getpagesize()
_NO_LIMIT = 1 << 60
_NEAR = 0.8  # of a limit on what is mapped, not all of which is in memory
# Of version 2 and of version 1: what counts, and what is the limit.
_COUNTS = ("memory.events", "memory.oom_control")
_LIMITS = ("memory.max", "memory.limit_in_bytes")


class Evidence(NamedTuple):
    """What speaks for it, for people; empty: nothing does."""

    text: str = ""
    is_certain: bool = False


class MemoryKills:
    """Finds those among the processes of a node.

    Args:
        root: where the groups are mounted.
        proc: where the processes are.
    """

    def __init__(self, root: Path = _ROOT, proc: Path = Path("/proc")) -> None:
        self._root = root
        self._proc = proc
        self._groups: dict[int, list[Path]] = {}  # by pid, the innermost first
        # By group: how many kills are known, all of a while ago; and as of the last
        # look, which may be those of processes that are not known to have ended yet.
        self._known: dict[Path, int] = {}
        self._latest: dict[Path, int] = {}

    def watch(self, pid: int) -> None:
        """This process lives."""
        self._groups[pid] = groups = _groups(pid, self._root, self._proc)
        for group in groups[:1]:
            if group not in self._known:
                self._known[group] = self._latest[group] = _kills(group)

    def forget(self, pid: int) -> None:
        """It has ended in another way."""
        self._groups.pop(pid, None)

    def look(self) -> None:
        """What was new at the last look was of others than those that are watched."""
        used = {groups[0] for groups in self._groups.values() if groups}
        self._known = {
            group: max(self._known[group], self._latest[group]) for group in used
        }
        self._latest = {group: _kills(group) for group in used}

    def killed(self, pid: int, rss_bytes: int) -> Evidence:
        """It was killed, a moment ago.

        Args:
            pid: of it.
            rss_bytes: the most that it had in memory.
        """
        groups = self._groups.pop(pid, [])
        if not groups or _kills(groups[0]) <= self._known[groups[0]]:
            return Evidence()
        self._known[groups[0]] += 1
        text = f"it had {_size(rss_bytes)}"
        limits = [limit for group in groups if (limit := _limit(group))]
        if limits:
            text += f", and its control group may have {_size(min(limits))}"
        if self._largest_in(groups[0]) <= rss_bytes:
            return Evidence(f"the kernel killed it for want of memory; {text}", True)
        return Evidence(
            "perhaps by the kernel for want of memory, as another in its control "
            f"group may have been: {text}"
        )

    def _largest_in(self, group: Path) -> int:
        """Bytes in memory of the largest process in a group, as far as can be seen."""
        largest = 0
        with contextlib.suppress(OSError):
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    pages = int((self._proc / pid / "statm").read_text().split()[1])
                    largest = max(largest, pages * _PAGE_BYTES)
        return largest


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
        controllers, _, path = line.partition(":")[2].partition(":")
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
