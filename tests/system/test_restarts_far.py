"""Tesserae that are built again, linked and supervised, when another host is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from far_host import FarHost, code_of
from linked_parts import Part, ended

import mosaic_like as mosaic
from mosaic_like import RuntimeDisconnectedError

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_S = 40.0


def where(proxy: Any) -> str:
    return mosaic.info(proxy).runtime_id


def test_what_was_on_a_host_that_is_lost_is_built_again_here_and_its_bonds_hold(
    host: FarHost, tmp_path: Path
) -> None:
    async def main(runtime: Any) -> None:
        process = host.join(runtime)
        joined.append(process)
        await runtime.wait_for_workers(2, 20)
        near, far = runtime.workers
        (node,) = [n for n in runtime.nodes if n.uid == "node:1"]

        def make(worker: Any, restarts: int = 0) -> Any:
            return Part.options(runtime=worker, max_restarts=restarts).remote()

        moves, goes_with_it = make(far, 2), make(near, 2)
        mosaic.supervise(moves, goes_with_it)
        lost, bound, maker = make(far), make(near), make(far)
        # Made there, of two that live on both sides.
        await maker.link(lost, bound)
        started = tmp_path / "started"
        running, queued = moves.block(str(started)), moves.pid()
        other = await goes_with_it.pid().result()
        while not started.exists():  # noqa: ASYNC110 -- made by a method
            await asyncio.sleep(0.005)
        assert (where(moves), where(goes_with_it)) == (far.uid, near.uid)
        os.kill(node.pid, signal.SIGKILL)
        with pytest.raises(RuntimeDisconnectedError, match="its node is lost"):
            await running.result()
        # That it was not started nobody can tell any more: its journal is there.
        with pytest.raises(RuntimeDisconnectedError, match="may have run"):
            await queued.result()
        assert await moves.pid().result() == other
        assert where(moves) == where(goes_with_it) == near.uid
        text = str(await ended(bound))
        assert "which has ended: w1:0" in text
        assert "its node is lost" in text

    async def bounded(runtime: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(runtime)

    joined: list[Any] = []
    try:
        mosaic.run(bounded, num_workers=1, address=host.near)
    finally:
        for process in joined:
            code_of(process)
    assert host.pids == []
    assert host.left == []
