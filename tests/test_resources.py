"""Memory and cores of this host, from trees that are made up here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mosaic_like.cgroups import cpu_quota_cores, memory_bytes
from mosaic_like.runtimes.resources import Memory, memory

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
UNLIMITED_V1 = "9223372036854771712\n"
MEMINFO = "MemTotal:       8388608 kB\nMemFree: 1 kB\nMemAvailable:   6291456 kB\n"


def _tree(root: Path, files: dict[str, str]) -> tuple[Path, Path]:
    """A /proc and a /sys/fs/cgroup; ``@`` in a file stands for where they are."""
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("@", str(root)))
    return root / "proc", root / "cgroup"


def _v2(folder: str, limit: object, used: object = 0, **more: object) -> dict[str, str]:
    files = {"memory.max": limit, "memory.current": used}
    files.update({name.replace("_", ".", 1): value for name, value in more.items()})
    return {f"cgroup/{folder}/{name}": f"{value}\n" for name, value in files.items()}


def _v1(folder: str, limit: object, used: object = 0) -> dict[str, str]:
    files = {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used}
    return {f"cgroup/{folder}/{name}": f"{value}\n" for name, value in files.items()}


def test_without_groups_the_machine_is_the_limit(tmp_path: Path) -> None:
    found = memory(*_tree(tmp_path, {}))
    assert found == Memory(8 * GIB, 2 * GIB, 6 * GIB, "machine")


def test_a_group_of_version_2_limits(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/a\n", **_v2("a", 4 * GIB, 3 * GIB)}
    found = memory(*_tree(tmp_path, files))
    assert found == Memory(4 * GIB, 3 * GIB, GIB, str(tmp_path / "cgroup/a"))


def test_a_group_of_version_1_limits(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/b\n",
        **_v1("memory/a", 4 * GIB, GIB),
        **_v1("memory", UNLIMITED_V1, 7 * GIB),
    }
    found = memory(*_tree(tmp_path, files))
    assert found == Memory(4 * GIB, GIB, 3 * GIB, str(tmp_path / "cgroup/memory/a"))


def test_the_least_limit_and_the_least_room_may_be_of_different_groups(
    tmp_path: Path,
) -> None:
    files = {
        "proc/self/cgroup": "0::/a/b/c\n",
        **_v2("a/b/c", "max", GIB),
        **_v2("a/b", 2 * GIB, GIB),
        **_v2("a", 3 * GIB, 3 * GIB - 4096),
    }
    found = memory(*_tree(tmp_path, files))
    assert found == Memory(2 * GIB, GIB, 4096, str(tmp_path / "cgroup/a/b"))


def test_a_group_that_uses_more_than_its_limit_has_no_room(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/a\n", **_v2("a", GIB, 2 * GIB)}
    assert memory(*_tree(tmp_path, files)).available_bytes == 0


def test_the_page_cache_is_not_used_memory(tmp_path: Path) -> None:
    stat = f"anon 5\ninactive_file {2 * GIB}\nactive_file 3"
    two = {
        "proc/self/cgroup": "0::/a\n",
        **_v2("a", 4 * GIB, 3 * GIB, memory_stat=stat),
    }
    assert memory(*_tree(tmp_path / "2", two)).used_bytes == GIB
    one = {
        "proc/self/cgroup": "1:memory:/a\n",
        **_v1("memory/a", 4 * GIB, 3 * GIB),
        "cgroup/memory/a/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}\n",
    }
    assert memory(*_tree(tmp_path / "1", one)).used_bytes == 2 * GIB


def test_where_the_kernel_slows_a_group_down_is_its_limit(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/a\n", **_v2("a", 4 * GIB, memory_high=3 * GIB)}
    assert memory(*_tree(tmp_path, files)).limit_bytes == 3 * GIB


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/a\n"},
        {"proc/self/cgroup": "0::/a\n", **_v2("a", "max")},
        {"proc/self/cgroup": "0::/a\n", "cgroup/a/memory.max": "nonsense"},
        {"proc/self/cgroup": "0::/a\n", "cgroup/a/memory.max": ""},
        {"proc/self/cgroup": "1:memory:/a\n", **_v1("memory/a", UNLIMITED_V1)},
        {"proc/self/cgroup": "1:cpuset:/a\n", **_v1("memory/a", GIB)},
        {"proc/self/mountinfo": "garbage\n\n - cgroup2\n"},
    ],
)
def test_what_is_missing_or_unlimited_is_no_limit(
    tmp_path: Path, files: dict[str, str]
) -> None:
    proc, cgroup = _tree(tmp_path, files)
    assert list(memory_bytes(proc, cgroup)) == []
    assert cpu_quota_cores(proc, cgroup) is None
    assert memory(proc, cgroup).source == "machine"


def test_a_container_sees_its_own_group_at_the_mount(tmp_path: Path) -> None:
    # The path is the host's, of which nothing can be seen but the mount.
    files = {"proc/self/cgroup": "0::/docker/1234\n", **_v2(".", GIB)}
    assert memory(*_tree(tmp_path / "a", files)).limit_bytes == GIB
    # Here the mount says which group of the host's it is.
    mounted = "31 23 0:28 /docker/1234 @/else\\040where rw - cgroup2 cgroup rw\n"
    files = {
        "proc/self/cgroup": "0::/docker/1234/job\n",
        "proc/self/mountinfo": mounted,
        "else where/job/memory.max": f"{2 * GIB}\n",
        "else where/job/cpu.max": "150000 100000\n",
        "else where/memory.max": f"{3 * GIB}\n",
    }
    proc, cgroup = _tree(tmp_path / "b", files)
    assert memory(proc, cgroup).limit_bytes == 2 * GIB
    assert len(list(memory_bytes(proc, cgroup))) == 2
    assert cpu_quota_cores(proc, cgroup) == 1.5


def test_a_group_outside_the_namespace_is_looked_for_at_the_mount(
    tmp_path: Path,
) -> None:
    files = {"proc/self/cgroup": "0::/../other\n", **_v2(".", GIB)}
    files.update(_v2("../other", 7))
    assert memory(*_tree(tmp_path, files)).limit_bytes == GIB


def test_both_versions_at_once(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/a\n1:name=systemd:/\n0::/b\n",
        "proc/self/mountinfo": (
            "35 31 0:32 / @/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
            "41 31 0:38 / @/cgroup/unified rw,relatime - cgroup2 cgroup rw\n"
        ),
        **_v1("memory/a", 2 * GIB),
        **_v2("unified/b", 3 * GIB, 2 * GIB),
    }
    found = memory(*_tree(tmp_path, files))
    assert (found.limit_bytes, found.available_bytes) == (2 * GIB, GIB)


def test_without_proc_the_system_is_asked(tmp_path: Path) -> None:
    found = memory(tmp_path, tmp_path)
    assert found.source == "machine"
    assert 0 < found.available_bytes <= found.limit_bytes


def test_this_host_can_be_read() -> None:
    here = memory()
    assert here.limit_bytes > 64 << 20
    assert here.available_bytes <= here.limit_bytes
