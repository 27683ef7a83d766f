"""Control groups of both versions, as files in a temporary directory."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from mosaic_like.runtimes.oom import Evidence, MemoryKills, near_limit

if TYPE_CHECKING:
    from pathlib import Path


def process(folder: Path, *lines: str, pid: int = 7) -> Path:
    here = folder / "proc" / str(pid)
    here.mkdir(parents=True)
    (here / "cgroup").write_text("".join(f"{x}\n" for x in lines))
    return folder / "proc"


def group(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def watching(root: Path, proc: Path, *pids: int) -> MemoryKills:
    kills = MemoryKills(root, proc)
    for pid in pids or (7,):
        kills.watch(pid)
    return kills


def test_a_kill_is_seen_in_the_group_of_version_1(tmp_path: Path) -> None:
    proc = process(tmp_path, "5:cpu:/other", "4:cpuset,memory:/a/b", "0::/")
    root = tmp_path / "root"
    outer = group(root / "memory" / "a", memory__oom_control="oom_kill 0\n")
    group(outer, memory__limit_in_bytes=str(300 << 20))
    inner = group(outer / "b", memory__oom_control="under_oom 0\noom_kill 4\n")
    group(inner, memory__limit_in_bytes=str(9223372036854771712))
    kills = watching(root, proc)
    assert kills.killed(7, 1 << 20) == Evidence()
    kills.watch(7)
    group(inner, memory__oom_control="under_oom 0\noom_kill 5\n")
    text = kills.killed(7, 290 << 20).text
    assert "for want of memory; it had 290 MiB" in text
    assert "its control group may have 300 MiB" in text


def test_a_kill_is_seen_in_the_group_of_version_2(tmp_path: Path) -> None:
    proc = process(tmp_path, "0::/slice/job")
    root = tmp_path / "root"
    job = group(root / "slice" / "job", memory__events="oom 1\noom_kill 0\n")
    group(job, memory__max="max\n")
    kills = watching(root, proc)
    group(job, memory__events="oom 2\noom_kill 1\n")
    found = kills.killed(7, 3 << 30)
    assert found.text.endswith("it had 3.0 GiB")  # nothing is known of a limit
    assert found.is_certain


def test_inside_a_container_the_mount_is_the_group(tmp_path: Path) -> None:
    proc = process(tmp_path, "0::/outside/of/it")
    root = group(
        tmp_path / "root", memory__events="oom_kill 0\n", memory__max="1048576"
    )
    kills = watching(root, proc)
    group(root, memory__events="oom_kill 1\n")
    assert "may have 1 MiB" in kills.killed(7, 1 << 20).text


def shared(folder: Path) -> tuple[MemoryKills, Path]:
    """Two processes, 7 and 8, in one group."""
    for pid in (7, 8):
        proc = process(folder, "0::/g", pid=pid)
    one = group(folder / "root" / "g", memory__events="oom_kill 0\n")
    return watching(folder / "root", proc, 7, 8), one


def test_each_kill_of_a_shared_group_is_that_of_one_process(tmp_path: Path) -> None:
    kills, both = shared(tmp_path)
    group(both, memory__events="oom_kill 1\n")
    assert kills.killed(7, 1 << 20).is_certain
    assert kills.killed(8, 1 << 20) == Evidence()  # somebody has killed it by hand


def test_a_kill_that_none_of_ours_has_died_of_is_forgotten(tmp_path: Path) -> None:
    kills, both = shared(tmp_path)
    group(both, memory__events="oom_kill 1\n")  # of another one there
    kills.look()
    # That one of ours has died of it may not have been heard yet.
    assert kills.killed(7, 1 << 20).is_certain
    group(both, memory__events="oom_kill 2\n")
    kills.look()
    kills.look()
    assert kills.killed(8, 1 << 20) == Evidence()


def test_who_is_not_the_largest_was_perhaps_not_killed_for_it(tmp_path: Path) -> None:
    kills, both = shared(tmp_path)
    group(both, memory__events="oom_kill 1\n", cgroup__procs="8\n9\n")
    (tmp_path / "proc" / "8" / "statm").write_text("900 800 1 1 0 1 0\n")
    found = kills.killed(7, 799 * resource.getpagesize())
    assert found.text.startswith("perhaps by the kernel for want of memory")
    assert not found.is_certain


def test_who_was_near_a_limit_of_the_shell_is_told_so() -> None:
    limits = {resource.RLIMIT_AS: 1 << 30, resource.RLIMIT_DATA: -1}
    text = near_limit(900 << 20, limits.__getitem__)
    assert text == "it had 900 MiB, and ulimit -v is 1.0 GiB"
    assert near_limit(100 << 20, limits.__getitem__) == ""
    assert near_limit(900 << 20, lambda kind: resource.RLIM_INFINITY) == ""


def test_nothing_is_said_where_nothing_is_known(tmp_path: Path) -> None:
    assert watching(tmp_path, tmp_path).killed(7, 1) == Evidence()
    proc = process(tmp_path, "0::/gone")
    assert watching(tmp_path / "root", proc).killed(7, 1) == Evidence()
