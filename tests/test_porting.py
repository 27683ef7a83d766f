"""Programs for the original run over the shim, and what docs/porting.md says is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import mosaic_like as mosaic
from mosaic_like.config import PORTED, Config

if TYPE_CHECKING:
    from conftest import RunScript

_CHECKOUT = Path(__file__).resolve().parent.parent
_SHIM = _CHECKOUT / "tests" / "shim"
_PORTING = (_CHECKOUT / "docs" / "porting.md").read_text()
_ENV = {"PYTHONPATH": f"{_SHIM}:{_CHECKOUT}", "PYTHONWARNINGS": "error"}

ODDITIES = """
import mosaic
import numpy as np

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

    def biggest(self, values, **kwargs):
        return int(values.max()), kwargs

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
    ref = await runtime.put(np.arange(4), publish=False)
    print(await one.biggest(ref, max_retries=1).result(), await ref.size() > 32)
    print((await ref.value()).sum())

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
    assert "| WARNING mosaic_like: stumbled\n" in result.stderr  # by a worker
    assert "the first misfit is 1" in result.stderr
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
        "(3, {}) True",
        "6",
    ]


# -- the page --------------------------------------------------------------------------


def _rows(title: str = "") -> list[tuple[str, ...]]:
    """The cells of the tables of the page, or of the one under a title."""
    text = _PORTING
    if title:
        text = re.split(r"^## ", text.split(f"\n## {title}\n")[1], flags=re.M)[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in row.strip("|").split(" |")) for row in rows]


def _names(cell: str) -> list[str]:
    """What stands in backticks, up to its arguments."""
    return re.findall(r"`\.?([a-z_]+)(?:\([^`]*\))?`", cell)


def test_functions_of_ours_that_the_page_names_are_there() -> None:
    ours = " ".join(cell for row in _rows() for cell in row[1:])
    prose = re.sub(r"^\|.*", "", _PORTING, flags=re.M)
    names = re.findall(r"`(?:await )?mosaic\.([a-z_]+)", ours + prose)
    assert len(set(names)) > 8
    for name in set(names) - {"run"}:
        assert name in mosaic.__all__, name
    for path in re.findall(r"`(tests/[a-z]+)", _PORTING):
        assert (_CHECKOUT / path).exists()


def test_options_are_taken_or_refused_as_the_page_says() -> None:
    known = {option.name: option for option in Config.options()}
    checked = 0
    for theirs, here, *differs in _rows("The program"):
        if "not there" in here:
            for name in _names(theirs):
                refused = known[name].instead if name in known else "TypeError"
                assert refused, name
                kind = "NotImplementedError" if name in known else "TypeError"
                assert kind in differs[0]
                checked += 1
        elif here.startswith("accepted"):
            assert set(_names(theirs)) <= set(PORTED)
        elif theirs.startswith(("options", "`reuse_head")):
            assert set(_names(theirs)) <= set(known)
            checked += 1
    assert checked > 8


def test_the_runtime_has_and_lacks_what_the_page_says(run_script: RunScript) -> None:
    result = run_script(
        "import mosaic_like as mosaic\n"
        "async def main(runtime): print(*dir(runtime))\n"
        "mosaic.run(main, num_workers=1)\n",
        env=_ENV,
    )
    there = set(result.stdout.split())
    for theirs, here, *_ in _rows("The runtime object"):
        names = set(_names(theirs))
        if here.startswith("not there"):
            assert not names & there - {"proxy"}
        elif here.startswith(("the same", "lists")):
            assert names
            assert names <= there


def test_what_the_page_says_is_not_there_is_not() -> None:
    for title, owner in {
        "Tasks": mosaic.TaskProxy,
        "Parameters": mosaic.Parameter,
    }.items():
        for theirs, here, *_ in _rows(title):
            for name in re.findall(r"`(?:await )?p?\.([a-z_]+)", theirs):
                if name != "method":
                    is_there = hasattr(owner, name)
                    renamed = (
                        not here.startswith("the same") and "not there" not in here
                    )
                    assert renamed or is_there == (here != "not there"), name
