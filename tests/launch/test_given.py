"""What the workers of a host are given of its cores and GPUs: one run of mrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mosaic_like.runtimes.portions import cores, portion

LIMIT_S = 60.0
PROGRAM = """
import json, os
import mosaic_like as mosaic

@mosaic.tessera
class Place:
    def given(self):
        names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
        return [sorted(os.sched_getaffinity(0)), *map(os.environ.get, names)]

async def main(runtime):
    places = [Place.options(runtime=w).remote() for w in runtime.workers]
    print(json.dumps(await mosaic.gather(p.given() for p in places)))

mosaic.run(main)
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux alone has it")
def test_workers_have_cores_gpus_and_threads_of_their_own() -> None:
    environ = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "CUDA_VISIBLE_DEVICES": "3,5",
    }
    for name in ("MOSAIC_CLUSTER", "OMP_NUM_THREADS"):
        environ.pop(name, None)
    mrun = [sys.executable, "-m", "mosaic_like", "--pin", "-nw", "2", "-nth", "3"]
    done = subprocess.run(
        [*mrun, sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env=environ,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        [sorted(portion(cores(), index, 2)), gpu, "3"] for index, gpu in enumerate("35")
    ]
