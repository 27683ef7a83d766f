"""The run directory: private, held while in use, cleaned when nobody holds it."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from mosaic_like.errors import ConnectError
from mosaic_like.runtimes.directory import RunDirectory, log_file, read_key

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
WAIT_S = 20


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short temporary directory: tmp_path may be too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="m") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


@pytest.fixture
def base(temporary: Path) -> Path:
    return temporary / f"mosaic-{os.geteuid()}"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def abandon(directory: RunDirectory) -> Path:
    """As its process leaves it when it is killed."""
    directory.release()
    return directory.path


def test_both_levels_are_open_to_the_user_alone(base: Path) -> None:
    directory = RunDirectory.create()
    assert directory.path.parent == base
    assert mode(base) == mode(directory.path) == 0o700
    directory.remove()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_modes_do_not_depend_on_the_umask_and_leave_it_alone(
    temporary: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        directory = RunDirectory.create()
        key = directory.write_key({})
    finally:
        after = os.umask(before)
    assert after == umask
    assert mode(directory.path.parent) == mode(directory.path) == 0o700
    assert mode(key) == 0o600
    directory.remove()


def test_removing_leaves_nothing_and_may_be_repeated(temporary: Path) -> None:
    directory = RunDirectory.create()
    directory.write_key({"a": 1})
    (directory.path / "deep").mkdir()
    (directory.path / "deep" / "file").touch()
    directory.remove()
    directory.remove()
    assert os.listdir(temporary) == []


def test_removing_does_not_follow_links(temporary: Path) -> None:
    precious = temporary / "precious"
    precious.mkdir()
    (precious / "file").touch()
    directory = RunDirectory.create()
    (directory.path / "link").symlink_to(precious)
    directory.remove()
    assert (precious / "file").exists()


def test_two_clusters_do_not_touch_each_other(base: Path) -> None:
    first, second = RunDirectory.create(), RunDirectory.create()
    first.write_key({"n": 1})
    second.write_key({"n": 2})
    assert first.path != second.path
    first.remove()
    third = RunDirectory.create()
    assert read_key(second.path / "cluster.key") == {"n": 2}
    assert sorted(os.listdir(base)) == sorted([second.path.name, third.path.name])
    second.remove()
    third.remove()


def test_an_abandoned_one_is_removed_by_the_next_cluster(base: Path) -> None:
    stale = abandon(RunDirectory.create())
    directory = RunDirectory.create()
    assert os.listdir(base) == [directory.path.name]
    assert not stale.exists()
    directory.remove()


def test_what_is_not_a_run_directory_is_not_cleaned(base: Path) -> None:
    directory = RunDirectory.create()
    (base / "0123456789ab.log").touch()
    (base / "other").mkdir()
    directory.remove()
    RunDirectory.create().remove()
    assert sorted(os.listdir(base)) == ["0123456789ab.log", "other"]


def test_one_that_was_joined_outlives_its_maker(temporary: Path) -> None:
    maker = RunDirectory.create()
    joined = RunDirectory.join(maker.path)
    maker.release()
    RunDirectory.create().remove()
    assert joined.path.exists()
    joined.remove()


def test_joining_one_that_has_gone_says_so(temporary: Path) -> None:
    directory = RunDirectory.create()
    path = directory.path
    directory.remove()
    with pytest.raises(ConnectError, match="its cluster has ended"):
        RunDirectory.join(path)


PROGRAM = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from mosaic_like.runtimes.directory import RunDirectory
directory = RunDirectory.create()
print(directory.path, flush=True)
sys.stdin.read()
"""


def test_that_of_a_running_process_is_kept_and_of_a_killed_one_removed(
    temporary: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, temporary],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        RunDirectory.create().remove()
        assert theirs.is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait(WAIT_S)
    RunDirectory.create().remove()
    assert not theirs.exists()


def test_many_processes_at_once_each_keep_their_own(temporary: Path) -> None:
    program = PROGRAM.replace(
        "print(",
        "for _ in range(50):\n"
        "    RunDirectory.create().remove()\n"
        "    assert directory.path.is_dir()\n"
        "print(",
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, temporary],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(4)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=WAIT_S)
        assert (process.returncode, errors) == (0, b"")


def test_a_fork_of_the_process_does_not_remove_it(temporary: Path) -> None:
    directory = RunDirectory.create()
    pid = os.fork()
    if pid == 0:
        directory.remove()
        os._exit(0)
    os.waitpid(pid, 0)
    assert directory.path.is_dir()
    directory.remove()


def test_a_base_that_is_a_link_is_refused(base: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    base.symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="is a link or a file"):
        RunDirectory.create()
    assert os.listdir(tmp_path) == []


def test_a_base_that_is_open_to_others_is_refused(base: Path) -> None:
    base.mkdir()
    base.chmod(0o750)
    with pytest.raises(PermissionError, match=r"open to others.*0750.*chmod 0700"):
        RunDirectory.create()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_base_of_another_user_is_refused(base: Path) -> None:
    base.mkdir(mode=0o700)
    os.chown(base, 12345, -1)
    with pytest.raises(PermissionError, match=r"belongs to user 12345.*TMPDIR"):
        RunDirectory.create()


def test_too_long_a_temporary_directory_is_left_for_tmp(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = temporary / ("d" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    directory = RunDirectory.create()
    assert directory.path.parent.parent == Path("/tmp")
    directory.remove()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_temporary_directory_that_takes_no_files_is_left_for_tmp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also for root, who has the right to write anywhere."""
    monkeypatch.setenv("TMPDIR", "/proc")
    monkeypatch.delitem(sys.modules, "tempfile")
    directory = RunDirectory.create()
    assert not directory.path.is_relative_to("/proc")
    directory.remove()


@pytest.mark.parametrize("open_to", [0o770, 0o777])
def test_a_temporary_directory_where_others_may_rename_is_left_for_tmp(
    temporary: Path, open_to: int
) -> None:
    temporary.chmod(open_to)
    directory = RunDirectory.create()
    assert directory.path.parent.parent == Path("/tmp")
    directory.remove()


def test_a_socket_has_an_ipc_address_in_the_directory(temporary: Path) -> None:
    directory = RunDirectory.create()
    assert directory.socket("head") == f"ipc://{directory.path}/head"
    assert len(os.fsencode(directory.path / ("n" * 32))) <= 107
    with pytest.raises(ValueError, match="at most 107"):
        directory.socket("n" * 108)
    with pytest.raises(ValueError, match="cannot be the name"):
        directory.socket("../head")
    directory.remove()


def test_a_key_comes_back_and_a_second_replaces_it(temporary: Path) -> None:
    directory = RunDirectory.create()
    directory.write_key({"public": "old"})
    path = directory.write_key({"public": "ü", "port": 5})
    assert read_key(path) == {"public": "ü", "port": 5}
    assert os.listdir(directory.path) == [path.name]
    directory.remove()


def test_a_key_that_cannot_be_written_leaves_no_draft(temporary: Path) -> None:
    directory = RunDirectory.create()
    with pytest.raises(TypeError):
        directory.write_key({"a": object()})
    assert os.listdir(directory.path) == []
    directory.remove()


def test_a_missing_key_asks_whether_the_cluster_has_ended(tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="has the cluster ended"):
        read_key(tmp_path / "cluster.key")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("{}")
    path.chmod(0o640)
    with pytest.raises(PermissionError, match=r"open to others.*chmod 0600"):
        read_key(path)


def test_a_link_to_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "real")
    with pytest.raises(PermissionError, match="is a link"):
        read_key(tmp_path / "key")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    os.chown(path, 12345, -1)
    with pytest.raises(PermissionError, match="belongs to user 12345"):
        read_key(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "\0", '"' + "a" * 70_000 + '"'])
def test_what_is_not_a_json_object_is_not_a_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConnectError, match="not a JSON object"):
        read_key(path)


def test_a_pipe_in_place_of_a_key_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(ConnectError, match="not even a file"):
        read_key(tmp_path / "key")


def test_a_directory_in_place_of_a_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="not even a file"):
        read_key(tmp_path)


# -- where there is no room ------------------------------------------------------------


def no_room(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_key_for_which_there_is_no_room_says_where_and_what_to_do(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = RunDirectory.create()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", no_room)
        with pytest.raises(OSError, match="No space left on device") as caught:
            directory.write_key({})
    assert caught.value.errno == errno.ENOSPC
    assert f"cannot write {directory.path / 'cluster.key'}: No sp" in str(caught.value)
    assert "make room there, or set TMPDIR to another directory" in str(caught.value)
    assert os.listdir(directory.path) == []
    directory.remove()


def test_a_key_that_is_larger_than_a_file_may_be_says_what_limits_it(
    temporary: Path,
) -> None:
    directory = RunDirectory.create()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match=r"cluster\.key: File too large") as caught:
            directory.write_key({})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert "ulimit -f" in str(caught.value)
    assert os.listdir(directory.path) == []
    directory.remove()


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_directory_for_which_there_is_no_room_says_where_and_what_to_do(
    base: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    made: list[str | Path] = []
    make = os.mkdir

    def mkdir(path: str | Path, mode: int = 0o777, **options: int) -> None:
        made.append(path)
        if len(made) == fails_at:
            no_room()
        make(path, mode, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(OSError, match="No space left on device") as caught:
        RunDirectory.create()
    assert caught.value.errno == errno.ENOSPC
    assert f"cannot write {base / made[-1]}: No space" in str(caught.value)
    assert "make room there, or set TMPDIR to another directory" in str(caught.value)


def test_a_log_for_which_there_is_no_room_says_where(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def open_(path: str | Path, *arguments: int, **options: Any) -> int:
        if path == "a.log":
            no_room()
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_)
    with pytest.raises(OSError, match="No space left on device") as caught:
        log_file("a.log")
    assert f"cannot write {base / 'a.log'}: No space" in str(caught.value)
