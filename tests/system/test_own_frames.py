"""What a program says when it fails: the user's lines, and what went wrong, alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import RunScript

SCRIPT = """\
import asyncio
import copy
import pickle
import sys
import traceback

import mosaic_like as mosaic


class Odd:
    def __reduce__(self):
        return rebuild, ()


def rebuild():
    raise ValueError("odd")


@mosaic.tessera
class Solver:
    def __init__(self, other=None, bad=False):
        if bad:
            raise ValueError("bad")
        self.other = other

    def solve(self, x):
        return 1 / x

    def through(self):
        return self.other.solve(0).get()

    def odd(self):
        return Odd()

    def me(self):
        return mosaic.current_task()


async def below(solver):
    await solver.solve(0)


async def main(runtime):
    solver = Solver.remote()
    other = Solver.remote(solver)

    async def many():
        await mosaic.gather(solver.solve(1), solver.solve(0))

    async def cancelled():
        async with asyncio.timeout(0):
            await other.solve(1).result()

    cases = {
        "awaited": lambda: below(solver),
        "result": lambda: solver.solve(0).result(),
        "gathered": many,
        "through": lambda: other.through().result(),
        "signature": lambda: solver.solve(1, 2),
        "constructor": lambda: Solver.remote(1, 2, 3),
        "argument": lambda: solver.solve(sys._getframe()),
        "attribute": lambda: other.wrong,
        "came-odd": lambda: solver.odd().result(),
        "went-odd": lambda: solver.solve(Odd()).result(),
        "own-task": lambda: solver.me().result(),
        "proxy": lambda: pickle.dumps(solver),
        "task": lambda: pickle.dumps(solver.solve(1)),
        "late": cancelled,
    }
    for name, case in cases.items():
        try:
            found = case()
            await found
        except Exception:
            print(f"== {name}", flush=True)
            print(traceback.format_exc())
        else:
            print(f"== {name} did not raise")
    again = copy.deepcopy({"a": [solver]})["a"][0]
    print("== copies", again is solver, copy.copy(solver) is solver)
    bad = Solver.remote(bad=True)
    for _ in range(5):
        bad.solve(1)
    bad.solve(2)
    del bad
    mosaic.close(other)
    mosaic.kill(other)
    await mosaic.barrier()
    await asyncio.sleep(0)
    print("== end")
    await below(solver)


mosaic.run(main, num_workers=1)
"""


def test_tracebacks_are_the_users_lines_here_and_there(run_script: RunScript) -> None:
    result = run_script(SCRIPT)
    assert result.code == 1
    texts = dict(re.findall(r"^== (\S+)(.*?)(?=^== |\Z)", result.stdout, re.M | re.S))

    def names(text: str) -> list[str]:
        assert "/mosaic_like/" not in text, text
        found = re.findall(r"^  File .* in (\S+)$", text, re.M)
        # How the script asks for it.
        return [n for n in found if n not in ("main", "<lambda>")]

    assert names(texts["awaited"]) == ["below", "solve"]
    assert names(texts["result"]) == ["solve"]
    assert names(texts["gathered"]) == ["many", "solve"]
    assert names(texts["through"]) == ["through", "solve"]
    assert names(texts["signature"]) == []
    assert "TypeError: Solver.solve(x): too many positional" in texts["signature"]
    assert names(texts["constructor"]) == []
    assert names(texts["argument"]) == []
    assert "SerializationError: cannot send argument 'x'" in texts["argument"]
    assert names(texts["attribute"]) == []
    assert "AttributeError: 'Solver' object has no attribute" in texts["attribute"]
    assert names(texts["came-odd"]) == ["rebuild"]
    assert "the result of Solver#1.odd cannot be rebuilt here" in texts["came-odd"]
    assert "reason  ValueError: odd" in texts["came-odd"]
    assert re.search(r"where   rebuild \(.*:16\)", texts["came-odd"])
    assert names(texts["went-odd"]) == ["rebuild"]
    assert "an argument of Solver#1.solve cannot be rebuilt" in texts["went-odd"]
    assert "in Solver#1.solve on w0:0" in texts["went-odd"]
    assert "send mosaic.current_task().uid" in texts["own-task"]
    assert "cannot be pickled by itself" in texts["proxy"]
    assert "it travels as an argument of a call" in texts["task"]
    assert "/mosaic_like/" not in texts["late"]
    assert texts["copies"].split() == ["True", "True"]

    # What nobody asked for: each line that called it once, one traceback for all.
    told = result.stderr.partition('Traceback (most recent call last):\n  File "')[0]
    assert told.startswith("Solver#3.solve, called at ")
    lines = [line for line in result.stderr.splitlines() if "nobody asked" in line]
    assert len(lines) == 2
    assert lines[1].endswith("its result: ValueError: bad (see above)")
    assert "__close__" not in result.stderr

    # And what ends the program.
    last = result.stderr[result.stderr.rindex("Traceback") :]
    assert re.findall(r"^  File .* in (\S+)$", last, re.M) == [
        "<module>",
        "main",
        "below",
        "solve",
    ]
    assert "/mosaic_like/" not in last
    assert re.search(r"^  in Solver#1.solve on w0:0 \(.*, pid \d+\)", last, re.M)


def test_all_frames_are_shown_where_it_is_asked_for(run_script: RunScript) -> None:
    result = run_script(
        "import mosaic_like as mosaic\n"
        "async def main():\n"
        "    await mosaic.remote(dict)()['a'].result()\n"
        "mosaic.run(main, num_workers=1)\n",
        env={"MOSAIC_FULL_TRACEBACK": "1"},
    )
    assert result.stderr.count("/mosaic_like/") > 3
    assert "KeyError: 'a'" in result.stderr


def test_the_runtime_shows_what_users_are_given(run_script: RunScript) -> None:
    result = run_script(
        "import inspect, mosaic_like as mosaic\n"
        "async def main(runtime):\n"
        "    for name in dir(runtime):\n"
        "        getattr(runtime, name)\n"
        "        print(name, bool(getattr(type(runtime), name, '').__doc__))\n"
        "mosaic.run(main, num_workers=1)\n"
    )
    assert result.stderr == ""
    names = [line.split()[0] for line in result.stdout.splitlines()]
    wanted = "async_for barrier get_worker logger nodes num_workers uid workers"
    assert {*wanted.split(), "wait_for_workers"} <= set(names)
    assert not [name for name in names if name.startswith("_")]
    assert len(names) < 30
