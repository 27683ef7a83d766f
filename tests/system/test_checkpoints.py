"""The state of tesserae that are built again: written down, read, damaged."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest

import mosaic_like as mosaic
from mosaic_like import MosaicError, SerializationError
from mosaic_like.runtimes.checkpoint_files import CheckpointFiles, Found

LIMIT_S = 40.0


@mosaic.tessera(max_restarts=3)
class Sum:
    """Adds, and can be written down."""

    def __init__(self) -> None:
        self.total = 0
        self.taken = 0
        self.extra: Any = None

    def add(self, k: int) -> int:
        self.total += k
        return self.total

    def add_to(self, other: Any) -> int:
        return int(other.add(1).get())

    async def add_later(self, k: int) -> int:
        return self.add(k)

    def hold(self, extra: Any) -> None:
        self.extra = extra

    def fill(self, size: int) -> None:
        self.extra = bytes(size)

    def linger(self) -> None:
        """Takes time until there was one."""
        if not self.taken:
            time.sleep(0.05)

    def times(self) -> int:
        return self.taken

    def pid(self) -> int:
        return os.getpid()

    def limit_files(self, size: int) -> None:
        """From now on this process can write no larger file."""
        import resource

        # Otherwise that is a signal which ends it.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    def __checkpoint__(self) -> dict[str, Any]:
        self.taken += 1
        return {"total": self.total, "extra": self.extra}

    def __restore__(self, state: dict[str, Any]) -> None:
        self.total = state["total"]
        self.extra = state["extra"]


async def kill_worker_of(proxy: Any) -> None:
    os.kill(await proxy.pid().result(), signal.SIGKILL)


def run(main: Any, folder: Path) -> None:
    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(runtime)

    mosaic.run(bounded, num_workers=2, checkpoint_directory=str(folder))


def files(folder: Path) -> list[Path]:
    return [path for path in everything(folder) if path.suffix != ".new"]


def everything(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*"))


def test_they_are_taken_after_so_many_calls_or_seconds_and_given_back(
    tmp_path: Path,
) -> None:
    async def main(runtime: Any) -> None:
        kinds: list[dict[str, Any]] = [{}, {"inline": True}, {"thread": True}]
        for options in kinds:
            each = Sum.options(checkpoint_calls=10, **options).remote()
            adding = [each.add(1) for _ in range(17)]
            adding += [each.add_later(1) for _ in range(17)]
            await mosaic.gather(adding)
            # The 35th call asks, and three went before.
            assert await each.times().result() == 3
            if options == kinds[0]:
                await kill_worker_of(each)
                assert await each.add(0).result() == 30
        later = Sum.options(checkpoint_s=0.05).remote()
        await mosaic.gather(later.add(1) for _ in range(5))
        taken = await later.times().result()  # perhaps in the midst of them
        while await later.times().result() == taken:
            pass
        await kill_worker_of(later)
        assert await later.add(0).result() == 5
        for path in files(tmp_path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        await mosaic.close(later)

    run(main, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_after_some_seconds_one_goes_before_calls_that_wait(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        kinds: list[dict[str, Any]] = [{}, {"inline": True}, {"thread": True}]
        for options in kinds:
            each = Sum.options(checkpoint_s=0.05, **options).remote()
            for _ in range(200):
                each.linger()
            assert await each.times().result() > 0

    run(main, tmp_path)


def test_one_does_not_stop_a_method_that_waits_for_the_object(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        here = Sum.options(checkpoint_s=0.002, runtime=runtime.workers[0])
        one, other = here.remote(), here.remote()
        await mosaic.gather(one.add_to(other) for _ in range(200))
        assert await other.add(0).result() == 200

    run(main, tmp_path)


def test_a_damaged_one_leaves_the_one_before_and_two_are_an_error(
    tmp_path: Path,
) -> None:
    async def main(runtime: Any) -> None:
        each = Sum.remote()
        for _ in range(2):
            each.add(1)
            await mosaic.checkpoint(each)
        one, two = files(tmp_path)
        newest = max((one, two), key=lambda path: path.stat().st_mtime_ns)
        content = bytearray(newest.read_bytes())
        content[-1] ^= 1
        newest.write_bytes(content)
        await kill_worker_of(each)
        assert await each.add(0).result() == 1
        each.add(10)
        await mosaic.checkpoint(each)  # over the damaged one
        await kill_worker_of(each)
        assert await each.add(0).result() == 11
        one.write_bytes(b"")
        two.write_bytes(b"mosaicC1 and no more")
        await kill_worker_of(each)
        with pytest.raises(MosaicError, match="its checkpoints are damaged") as caught:
            await each.add(0)
        assert str(one) in str(caught.value)

    run(main, tmp_path)


def test_what_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        each = Sum.remote()
        each.add(7)
        await mosaic.checkpoint(each)
        each.hold(each)
        with pytest.raises(SerializationError, match=r"Sum#1\.__checkpoint__.*proxies"):
            await mosaic.checkpoint(each)
        each.fill(100_000)
        each.add(1)
        await each.limit_files(50_000)
        with pytest.raises(OSError, match=r"could not be written .*one before"):
            await mosaic.checkpoint(each)
        assert len(everything(tmp_path)) == 1
        await kill_worker_of(each)
        assert await each.add(0).result() == 7
        folder = everything(tmp_path)[0].parent
        folder.chmod(0o755)
        with pytest.raises(OSError, match=r"\(it is not .* with mode 0700\)"):
            await mosaic.checkpoint(each)
        folder.chmod(0o700)

    run(main, tmp_path)


def test_a_pipe_in_its_place_is_a_damaged_one(tmp_path: Path) -> None:
    kept = CheckpointFiles(str(tmp_path), b"x")
    kept.write(7, 1, b"one")
    os.mkfifo(f"{kept.path(7)}.0")
    assert kept.read(7) == Found(1, b"one", [f"{kept.path(7)}.0"])


def test_what_is_not_built_again_leaves_its_last_one_in_the_users_directory(
    tmp_path: Path,
) -> None:
    async def main(runtime: Any) -> None:
        last = Sum.options(max_restarts=1).remote()
        linked, closed = Sum.remote(), Sum.remote()
        for each in (last, linked, closed):
            each.add(3)
            await mosaic.checkpoint(each)
        mosaic.link(last, linked)
        await mosaic.close(closed)
        for _ in range(2):
            await kill_worker_of(last)
        for each in (last, linked):
            while (error := await each.add(1).exception()) is None:
                pass  # the news may be under way
            path = re.search(
                r"; mosaic.read_checkpoint\('(.*)'\) gives its last state$", str(error)
            )
            assert path, error
            assert mosaic.read_checkpoint(path[1])["total"] == 3
            left.append(path[1])

    left: list[str] = []
    run(main, tmp_path)
    assert [mosaic.read_checkpoint(path)["total"] for path in left] == [3, 3]
    one, two = (Path(f"{path}.1") for path in left)
    assert everything(tmp_path) == sorted((one, two))
    one.chmod(0o602)
    with pytest.raises(PermissionError, match="others can write to it"):
        mosaic.read_checkpoint(left[0])
    two.write_bytes(b"mosaicC1 and no more")
    with pytest.raises(MosaicError, match="is damaged"):
        mosaic.read_checkpoint(two)


class Quitting:
    """Wants to end the program instead."""

    def add(self) -> int:
        return 1

    def __checkpoint__(self) -> None:
        raise SystemExit(3)

    def __restore__(self, state: Any) -> None:
        """There is none."""


def test_one_that_nobody_called_for_and_that_exits_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main(runtime: Any) -> None:
        each = mosaic.remote(Quitting, max_restarts=1, checkpoint_calls=1)()
        await mosaic.gather(each.add() for _ in range(2))

    run(main, tmp_path)
    told = "Quitting#1 has no new checkpoint, the last one stands: SystemExit: 3"
    assert told in capfd.readouterr().err


class Plain:
    """Has no state that could be written down."""

    def pid(self) -> int:
        return os.getpid()


class Overlapping(Plain):
    async def __checkpoint__(self) -> None:
        """It may not be one."""

    def __restore__(self, state: Any) -> None:
        """Of a coroutine nothing is kept."""


def test_where_it_can_do_nothing_it_is_refused_at_once(tmp_path: Path) -> None:
    async def main(runtime: Any) -> None:
        with pytest.raises(ValueError, match="make it with max_restarts"):
            mosaic.checkpoint(mosaic.remote(Plain)())
        with pytest.raises(TypeError, match="Plain has no __checkpoint__"):
            mosaic.checkpoint(mosaic.remote(Plain, max_restarts=1)())
        with pytest.raises(TypeError, match="coroutine function"):
            mosaic.remote(Overlapping, max_restarts=1, checkpoint_calls=2)()
        with pytest.raises(TypeError, match="takes a proxy"):
            mosaic.checkpoint(3)  # type: ignore[arg-type]  # that is the point

    run(main, tmp_path)
