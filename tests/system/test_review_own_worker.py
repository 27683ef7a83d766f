"""A worker counts itself among the workers: methods place tesserae as the head does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mosaic_like as mosaic

if TYPE_CHECKING:
    from conftest import RunScript
    from specimens import RunIn


class Where:
    """Says where it lives."""

    def here(self) -> str:
        return str(mosaic.runtime().uid)

    def known(self) -> tuple[int, list[str], str]:
        runtime = mosaic.runtime()
        own = runtime.get_worker(runtime.uid)
        return runtime.num_workers, [w.uid for w in runtime.workers], own.uid

    async def spread(self) -> list[str]:
        members = [mosaic.remote(Where)() for _ in range(4)]
        return list(await mosaic.gather(m.here() for m in members))

    def blocking(self, uid: str) -> str:
        return str(mosaic.remote(Where, runtime=uid)().here().get(10))


def test_a_worker_knows_itself(cluster: RunIn) -> None:
    async def main(runtime: Any) -> None:
        uids = [worker.uid for worker in runtime.workers]
        where = mosaic.remote(Where, runtime=uids[1])()
        assert await where.known().result() == (2, uids, uids[1])
        assert sorted(set(await where.spread().result())) == uids
        assert await where.blocking(uids[1]).result() == uids[1]
        assert await where.blocking(uids[0]).result() == uids[0]

    cluster(main)


def test_one_worker_alone_makes_and_frees_tesserae_of_its_own(
    run_script: RunScript,
) -> None:
    found = run_script(
        """
import mosaic_like as mosaic


@mosaic.tessera
class Closing:
    def here(self):
        return mosaic.runtime().uid

    def __close__(self):
        print("closed")

    async def spread(self):
        members = [Closing.remote() for _ in range(4)]
        return list(await mosaic.gather(m.here() for m in members))


async def main(runtime):
    closing = Closing.remote()
    print(await closing.spread().result())
    await mosaic.barrier(20)
    print(await closing.here().result())


mosaic.run(main, num_workers=1)
"""
    )
    assert found.code == 0, found.stderr
    assert str(["worker:0:0"] * 4) in found.stdout
    assert found.stdout.count("| closed") == 5, found.stdout
