"""``runtime.transformer``: values that travel as something else; row 30 of the API."""

from __future__ import annotations

import os
import pickle
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from pathlib import Path

    from specimens import RunIn


class Scan:
    """Cannot travel by itself."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def __reduce__(self) -> Any:
        raise pickle.PicklingError("a scan is too large to travel")


def save(scan: Scan) -> str:
    folder = os.environ["SCANS"]
    path = os.path.join(folder, f"{os.getpid()}-{len(os.listdir(folder))}")
    with open(path, "wb") as file:
        pickle.dump(scan.values, file)
    return path


def load(path: str) -> Scan:
    with open(path, "rb") as file:
        return Scan(pickle.load(file))


@mosaic.task
def double(scans: dict[str, Scan]) -> list[Scan]:
    return [Scan([2 * v for v in scan.values]) for scan in scans.values()]


@mosaic.task
def pass_on(value: Any) -> Any:
    return value


@mosaic.task
def set_folder(path: str) -> None:
    os.environ["SCANS"] = path


@mosaic.task
def make() -> Scan:
    return Scan([1.0])


async def set_folders(runtime: Any, path: Path) -> None:
    os.environ["SCANS"] = str(path)
    workers = runtime.workers
    await mosaic.gather(
        set_folder.options(runtime=w).submit(str(path)) for w in workers
    )


def rough(array: Any) -> Any:
    return array.astype("f4")


def exact(array: Any) -> Any:
    return array.astype("f8")


def test_a_worker_that_joins_later_applies_transformers_too(tmp_path: Path) -> None:
    # First: it loses a worker, which the cluster of the others had better not.
    async def main(runtime: Any) -> None:
        runtime.transformer(save, load, where=Scan)
        (old,) = runtime.workers
        os.kill(old.pid, signal.SIGKILL)
        while runtime.workers in ([], [old]):
            await runtime.membership()
        await set_folders(runtime, tmp_path)
        assert (await make.submit().result()).values == [1.0]

    mosaic.run(main, num_workers=1)


def test_transformers_are_applied_to_arguments_results_and_what_is_put(
    cluster: RunIn, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        await set_folders(runtime, tmp_path)
        with pytest.raises(mosaic.SerializationError, match="too large to travel"):
            double.submit({"a": Scan([1.0])})
        with runtime.transformer(save, load, where=Scan):
            first = double.submit({"a": Scan([1.0]), "b": Scan([2.0])})
            then = pass_on.submit({"inside": [first]})
            assert [s.values for s in await first.result()] == [[2.0], [4.0]]
            found = await then.result()
            assert [s.values for s in found["inside"][0]] == [[2.0], [4.0]]
            kept = await mosaic.put(Scan([3.0]))
            assert (await mosaic.get(kept)).values == [3.0]
        assert await make.submit().exception() is not None

    cluster(main)


def test_transformers_choose_by_where_and_the_newest_is_used(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        small, large = np.full(10, 0.1), np.full(30_000, 0.1)

        def is_large(value: Any) -> bool:
            return isinstance(value, np.ndarray) and bool(value.nbytes > 1000)

        async def passed(array: Any) -> float:
            result = await pass_on.submit({"array": array}).result()
            assert result["array"].dtype == "f8"
            return float(result["array"][0])

        with runtime.transformer(rough, exact, where=is_large):
            assert await passed(small) == 0.1
            assert await passed(large) == float(np.float32(0.1))
            newer = runtime.transformer(
                lambda array: (array + 1, 0), lambda pair: pair[0], where=np.ndarray
            )
            assert await passed(large) == 2.1  # there, and back
            newer.remove()
            newer.remove()
            assert await passed(large) == float(np.float32(0.1))
        assert await passed(large) == 0.1

    cluster(main)


def test_a_transformer_that_raises_fails_the_call_or_the_task(cluster: RunIn) -> None:
    def refuse(scan: Scan) -> Any:
        raise OSError("disk full")

    async def main(runtime: Any) -> None:
        with (
            runtime.transformer(lambda scan: [scan], load, where=Scan),
            pytest.raises(mosaic.SerializationError, match="has the value itself in"),
        ):
            pass_on.submit(Scan([1.0]))
        with runtime.transformer(refuse, load, where=Scan):
            with pytest.raises(
                mosaic.SerializationError, match=r"refuse, which was given.*disk full"
            ) as caught:
                pass_on.submit([Scan([1.0])])
            assert isinstance(caught.value.__cause__, OSError)
            made = make.submit()
            error = await made.exception()
            assert isinstance(error, mosaic.SerializationError)
            assert "disk full" in str(error)
            assert (made.state, made.reason) == ("failed", "serialize")

    cluster(main)


def test_what_cannot_be_a_transformer_is_refused_at_once(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        with pytest.raises(TypeError, match="encode='gzip' cannot be called"):
            runtime.transformer("gzip", load, where=Scan)
        with pytest.raises(TypeError, match="where=3: expected a class"):
            runtime.transformer(save, load, where=3)
        with pytest.raises(TypeError, match=r"where=\(\): expected a class"):
            runtime.transformer(save, load, where=())
        with pytest.raises(TypeError, match="values of list themselves always go"):
            runtime.transformer(save, load, where=(Scan, list))
        with pytest.raises(TypeError, match="where"):
            runtime.transformer(save, load)
        lock = __import__("threading").Lock()
        with pytest.raises(mosaic.SerializationError, match="a transformer"):
            runtime.transformer(lambda scan: lock, load, where=Scan)
        assert await pass_on.submit([1]).result() == [1]

    cluster(main)
