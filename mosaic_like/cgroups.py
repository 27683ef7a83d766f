"""What the control groups of this process allow: cores and bytes, versions 1 and 2.

Reads ``/proc`` and the cgroup file systems below roots that are given, so that tests
can make their own. A group counts with all groups above it, as far as they can be seen
from here; what is missing, unlimited or unreadable is no limit. Nothing is kept: a
limit may change while a program runs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC: Final = Path("/proc")
CGROUP: Final = Path("/sys/fs/cgroup")
# Version 1 has no word for unlimited but a number near 2**63.
_UNLIMITED_BYTES = 1 << 60


def cpu_quota_cores(proc: Path = PROC, cgroup: Path = CGROUP) -> float | None:
    """The least CPU quota of the groups of this process, in cores; None: no quota."""
    quotas = []
    for version, folder in _folders("cpu", proc, cgroup):
        if version == 2:
            words = (read_text(folder / "cpu.max") or "").split()
            quota, period = words if len(words) == 2 else ("", "")
        else:
            quota = read_text(folder / "cpu.cfs_quota_us") or ""
            period = read_text(folder / "cpu.cfs_period_us") or ""
        quota_us, period_us = _number(quota), _number(period) or 100_000
        if quota_us is not None and quota_us > 0:
            quotas.append(quota_us / period_us)
    return min(quotas, default=None)


def memory_bytes(
    proc: Path = PROC, cgroup: Path = CGROUP
) -> Iterator[tuple[int, int, str]]:
    """Of each group with a limit: the limit, what is used of it, and its folder.

    Files that were only read through the page cache do not count as used: the kernel
    drops them first.
    """
    for version, folder in _folders("memory", proc, cgroup):
        if version == 2:
            # Above ``high`` the kernel all but stops the group, and kills nothing.
            limits = [_bytes(folder / "memory.max"), _bytes(folder / "memory.high")]
            used, cache = _bytes(folder / "memory.current"), "inactive_file"
        else:
            limits = [_bytes(folder / "memory.limit_in_bytes")]
            used, cache = (
                _bytes(folder / "memory.usage_in_bytes"),
                "total_inactive_file",
            )
        limit = min((n for n in limits if n is not None), default=None)
        if limit is not None:
            dropped = _field(folder / "memory.stat", cache)
            yield limit, max(0, (used or 0) - dropped), str(folder)


def _folders(controller: str, proc: Path, cgroup: Path) -> Iterator[tuple[int, Path]]:
    """The group of this process and those above it, with their version."""
    mounts = list(_mounts(proc))
    for line in (read_text(proc / "self" / "cgroup") or "").splitlines():
        names, _, path = line.partition(":")[2].partition(":")
        version = 1 if names else 2
        if names and controller not in names.split(","):
            continue
        root, mount = _mount(version, names, controller, mounts, cgroup)
        group = Path(path)
        if ".." not in group.parts and group.is_relative_to(root):
            here = mount / group.relative_to(root)
        else:
            here = mount  # seen from a container, where only the mount is there
        for folder in (here, *here.parents):
            if not folder.is_relative_to(mount):
                break
            yield version, folder


def _mount(
    version: int,
    names: str,
    controller: str,
    mounts: list[tuple[int, list[str], Path, Path]],
    cgroup: Path,
) -> tuple[Path, Path]:
    """What group is at the mount of a hierarchy, and where that is."""
    for mounted, options, root, point in mounts:
        if mounted == version and (version == 2 or controller in options):
            return root, point
    if version == 2:
        hybrid = cgroup / "unified"
        return Path("/"), hybrid if hybrid.is_dir() else cgroup
    return Path("/"), cgroup / names


def _mounts(proc: Path) -> Iterator[tuple[int, list[str], Path, Path]]:
    """Version, options, root and place of each mounted hierarchy."""
    # proc(5): id parent device root place options ... - type source super-options
    for line in (read_text(proc / "self" / "mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        kind, *rest = right.split(" ") or [""]
        fields = left.split(" ")
        if kind in ("cgroup", "cgroup2") and len(fields) > 4:
            options = rest[-1].split(",") if rest else []
            version = 1 if kind == "cgroup" else 2
            yield version, options, _path(fields[3]), _path(fields[4])


def _path(text: str) -> Path:
    return Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), text))


def _bytes(path: Path) -> int | None:
    number = _number(read_text(path) or "")
    return None if number is None or number >= _UNLIMITED_BYTES else number


def _field(path: Path, name: str) -> int:
    """A line ``name number`` of a file; 0 if it is not there."""
    for line in (read_text(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return _number(value) or 0
    return 0


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None  # "max", or nothing


def read_text(path: Path) -> str | None:
    """What is in a file; None if it cannot be read."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return None
