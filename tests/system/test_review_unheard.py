"""Failures that nobody asks for are told, wherever they hide; options that count."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import RunScript

_CLASSES = """
import asyncio
import logging

import mosaic_like as mosaic


@mosaic.tessera
class Bad:
    def __init__(self):
        raise OSError(5, "no disk")

    def use(self):
        pass


@mosaic.tessera
class Good:
    def fail(self):
        raise ValueError("kept to the end")

    def log(self):
        mosaic.logger().info("mine")
        logging.getLogger("library").info("theirs")

    def divide(self):
        return self.zero()

    def zero(self):
        return 1 / 0
"""


def test_a_construction_that_nothing_was_called_on_is_told_once(
    run_script: RunScript,
) -> None:
    found = run_script(
        _CLASSES
        + """
async def main(runtime):
    Bad.remote()  # dropped at once
    kept = Bad.remote()
    await mosaic.barrier(20)
    del kept
    awaited = Bad.remote()
    try:
        await awaited
    except OSError:
        pass
    called = Bad.remote()
    try:
        await called.use()
    except OSError:
        pass
    del awaited, called
    await mosaic.barrier(20)


mosaic.run(main, num_workers=1)
"""
    )
    assert found.code == 0, found.stderr
    told = [line for line in found.stderr.splitlines() if "nobody asked" in line]
    assert len(told) == 2, found.stderr
    assert all(".__init__, called at " in line for line in told)
    assert "Bad#1" in told[0] + told[1]
    assert "Bad#2" in told[0] + told[1]


def test_a_failure_that_is_kept_until_main_ends_is_told(
    run_script: RunScript,
) -> None:
    found = run_script(
        _CLASSES
        + """
async def main(runtime):
    kept = Good.remote().fail()
    await mosaic.wait([kept])


mosaic.run(main, num_workers=1)
"""
    )
    assert found.code == 0, found.stderr
    assert found.stderr.count("nobody asked for its result") == 1, found.stderr
    assert "kept to the end" in found.stderr


def test_the_logger_shows_what_the_level_says_and_libraries_only_warn(
    run_script: RunScript,
) -> None:
    found = run_script(
        _CLASSES
        + """
async def main(runtime):
    await Good.remote().log()


mosaic.run(main, num_workers=1)
"""
    )
    assert found.code == 0, found.stderr
    assert "INFO mosaic_like: mine" in found.stderr
    assert "theirs" not in found.stderr


def test_the_whole_traceback_is_shown_where_it_is_asked_for(
    run_script: RunScript,
) -> None:
    program = (
        _CLASSES
        + """
async def main(runtime):
    await Good.remote().divide().result()


mosaic.run(main, num_workers=1, full_traceback={})
"""
    )
    whole = run_script(program.format(True)).stderr
    short = run_script(program.format(False)).stderr
    for text in (whole, short):
        assert ", in zero" in text
        assert "ZeroDivisionError" in text
    assert "plain_calls.py" in whole
    assert "plain_calls.py" not in short


def test_what_is_silenced_is_not_told(run_script: RunScript) -> None:
    found = run_script(
        _CLASSES
        + """
async def main(runtime):
    Bad.options(silence=OSError).remote()
    Bad.remote(silence=True)
    silenced = Good.options(silence=(ValueError, OSError), len=1).remote()
    silenced.fail()
    for member in silenced:
        member.divide()
    await mosaic.barrier(20)


for wrong in (3, "ValueError", (ValueError, 1)):
    try:
        Good.options(silence=wrong)
    except TypeError as error:
        print(error)
mosaic.run(main, num_workers=1)
"""
    )
    assert found.code == 0, found.stderr
    assert found.stdout.count("expected exception classes or a bool") == 3
    assert found.stderr.count("nobody asked") == 1, found.stderr
    assert "ZeroDivisionError" in found.stderr


def test_a_failure_that_was_heard_through_a_call_that_took_it_is_not_told(
    run_script: RunScript,
) -> None:
    found = run_script(
        _CLASSES
        + """
class Taker:
    def take(self, value):
        return value

Taker = mosaic.tessera(Taker)

async def main(runtime):
    good = Good.remote()
    here, there = (Taker.options(runtime=w).remote() for w in runtime.workers)
    for taker in (here, there):
        for task in (taker.take(good.fail()), taker.take(taker.take(good.fail()))):
            try:
                await task.result()
            except mosaic.UpstreamError:
                pass
    kept = good.fail()
    heard = here.take(kept)
    await heard.exception()
    del kept, heard
    print("all were heard", flush=True)
    await mosaic.barrier(20)
    print("one is not", flush=True)
    unheard = there.take(good.divide())
    await mosaic.wait([unheard])
    del unheard
    await mosaic.barrier(20)


mosaic.run(main, num_workers=2)
"""
    )
    assert found.code == 0, found.stderr
    assert found.stderr.count("nobody asked for its result") == 1, found.stderr
    assert "ZeroDivisionError" in found.stderr
