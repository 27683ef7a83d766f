"""Programs for the original run over the shim, and what docs/porting.md says is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mosaic_like as mosaic

if TYPE_CHECKING:
    from conftest import RunScript

_CHECKOUT = Path(__file__).resolve().parent.parent
_SHIM = _CHECKOUT / "tests" / "shim"
_PORTING = (_CHECKOUT / "docs" / "porting.md").read_text()
_ENV = {"PYTHONPATH": f"{_SHIM}:{_CHECKOUT}", "PYTHONWARNINGS": "error"}

ODDITIES = """
import numpy as np
import mosaic

for brackets in (mosaic.tessera, lambda: mosaic.tessera(max_retries=1)):
    try:
        brackets()
    except ValueError as error:
        print(error)

@mosaic.tessera(max_retries=1)
class Sloppy:
    def __init__(self, *args, **kwargs):
        self.given = kwargs
        self.calls = []

    def log(self, what, **kwargs):
        self.calls.append(what)
        if what == "once" and self.calls.count("once") == 1:
            raise OSError("once")
        return what

    def ask(self, other, **kwargs):
        return other.log("asked", eager=True, runtime="mine", **kwargs).get()

    async def held(self, other):
        return await other.calls

class Child(Sloppy):
    def child(self):
        return "child"

async def main(runtime):
    first, second = runtime.workers
    one = Sloppy.remote(uid="s", runtime=second.uid, max_retries=2, own=1, len=None)
    assert await one is one
    print(await one.given)
    one.log("never awaited")
    b = one.log("eager", eager=True)
    a = one.log(b, silence=True)  # an eager task as an argument of a lazy call
    print(await a.result(), await one.log("once").result())
    print((await a) is a, a.state, await a.outputs[0].result())
    other = Sloppy.remote(runtime=one)
    print(await other.ask(one, timeout=3).result())
    print(await other.held(one).result() == await one.calls, one == one, len({one}))
    one.set_attr("given", {"set": 1})
    print(await one.given)
    array = Child.remote(len=3)
    print(len(array), [await p.child().result() for p in array])
    tasks = await array.log("all", max_retries=0)
    print([await task.result() for task in tasks])
    print(await array[0].log("one").result(), len(await array.calls))
    local = Sloppy.local(len=None)
    print(await local.log("here").result())
    print(await Sloppy.select_worker(second))
    print(mosaic.num_workers, mosaic.nodes == runtime.nodes, mosaic.logger().name)
    try:
        mosaic.nonsense
    except AttributeError as error:
        print("no", error.name)
    local_parameter = Sloppy.local_parameter(own=2, cached=True)
    local_parameter.given = {"own": 3}
    await local_parameter.push("given")
    print(await local_parameter.get("given"), local_parameter.is_tessera)

mosaic.run(main, num_workers=2, dump_init=True, asyncio_loop=None, pubsub_port=None)
"""


def test_a_program_for_the_original_runs_over_the_shim(
    run_script: RunScript, tmp_path: Path
) -> None:
    result = run_script(
        _SHIM / "tomography.py", str(tmp_path / "out.h5"), env=_ENV, cwd=tmp_path
    )
    assert result.stdout == (
        "kernels ['rays', 'rays']\n"
        "retried ['a']\n"
        "updates 12 (12, 6)\n"
        "spacing 0.5\n"
        "falls True\n"
        "close True\n"
        "pushed True\n"
        "workers 2 True\n"
        "gathered [<TaskState.DONE: 'done'>]\n"
    ), result.stderr
    assert result.code == 0
    assert "| stumbled" in result.stderr  # by a worker
    assert "the first misfit is 6" in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_the_odd_corners_of_the_original_are_served(run_script: RunScript) -> None:
    result = run_script(ODDITIES, env=_ENV)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "write @tessera, without brackets",
        "{'own': 1}",
        "eager once",
        "True done eager",
        "asked",
        "True True 1",
        "{'set': 1}",
        "3 ['child', 'child', 'child']",
        "['all', 'all', 'all']",
        "one 3",
        "here",
        "worker:0:1",
        "2 True mosaic_like",
        "no nonsense",
        "{'own': 3} True",
    ]
