"""Control groups of both versions, as files in a temporary directory."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from mosaic_like.runtimes.oom import MemoryWatch, near_limit

if TYPE_CHECKING:
    from pathlib import Path


def process(folder: Path, *lines: str) -> Path:
    (folder / "proc" / "7").mkdir(parents=True)
    (folder / "proc" / "7" / "cgroup").write_text("".join(f"{x}\n" for x in lines))
    return folder / "proc"


def group(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_a_kill_is_seen_in_the_group_of_version_1(tmp_path: Path) -> None:
    proc = process(tmp_path, "5:cpu:/other", "4:cpuset,memory:/a/b", "0::/")
    root = tmp_path / "root"
    outer = group(root / "memory" / "a", memory__oom_control="oom_kill 0\n")
    group(outer, memory__limit_in_bytes=str(300 << 20))
    inner = group(outer / "b", memory__oom_control="under_oom 0\noom_kill 4\n")
    group(inner, memory__limit_in_bytes=str(9223372036854771712))
    watch = MemoryWatch(7, root, proc)
    assert watch.evidence(1 << 20) == ""
    group(inner, memory__oom_control="under_oom 0\noom_kill 5\n")
    text = watch.evidence(290 << 20)
    assert "for want of memory; it had 290 MiB" in text
    assert "its control group may have 300 MiB" in text


def test_a_kill_is_seen_in_the_group_of_version_2(tmp_path: Path) -> None:
    proc = process(tmp_path, "0::/slice/job")
    root = tmp_path / "root"
    job = group(root / "slice" / "job", memory__events="oom 1\noom_kill 0\n")
    group(job, memory__max="max\n")
    watch = MemoryWatch(7, root, proc)
    group(job, memory__events="oom 2\noom_kill 1\n")
    text = watch.evidence(3 << 30)
    assert text.endswith("it had 3.0 GiB")  # nothing is known of a limit


def test_inside_a_container_the_mount_is_the_group(tmp_path: Path) -> None:
    proc = process(tmp_path, "0::/outside/of/it")
    root = group(
        tmp_path / "root", memory__events="oom_kill 0\n", memory__max="1048576"
    )
    watch = MemoryWatch(7, root, proc)
    group(root, memory__events="oom_kill 1\n")
    assert "may have 1 MiB" in watch.evidence(1 << 20)


def test_who_was_near_a_limit_of_the_shell_is_told_so() -> None:
    limits = {resource.RLIMIT_AS: 1 << 30, resource.RLIMIT_DATA: -1}
    text = near_limit(900 << 20, limits.__getitem__)
    assert text == "it had 900 MiB, and ulimit -v is 1.0 GiB"
    assert near_limit(100 << 20, limits.__getitem__) == ""
    assert near_limit(900 << 20, lambda kind: resource.RLIM_INFINITY) == ""


def test_nothing_is_said_where_nothing_is_known(tmp_path: Path) -> None:
    assert MemoryWatch(7, tmp_path, tmp_path).evidence(1) == ""
    proc = process(tmp_path, "0::/gone")
    watch = MemoryWatch(7, tmp_path / "root", proc)
    assert watch.evidence(1) == ""
